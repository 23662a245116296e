//! The system calls that need unsafe code.
#![allow(unsafe_code)]

use std::io::IoSliceMut;
use std::mem;
use std::num::NonZeroUsize;
use std::ops::Deref;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU32, AtomicU64};

use nix::errno::Errno;
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};

use crate::request_table::{Header, Record};
use crate::scoreboard::{Cells, Seen};

/// Descriptors that one `recvmsg` can take. More than any line of protocol 1
/// announces, so that surplus ones are seen and closed by us; few, so that a
/// hostile peer cannot fill the table of descriptors with one message.
pub(crate) const FDS_PER_READ: usize = 4;

// SAFETY: CMSG_SPACE only computes a size.
const CONTROL_SIZE: usize =
    unsafe { libc::CMSG_SPACE(mem::size_of::<[RawFd; FDS_PER_READ]>() as u32) } as usize;

/// Control messages start with a `cmsghdr`, so the buffer has its alignment.
#[repr(C)]
union Control {
    _aligned: libc::cmsghdr,
    bytes: [u8; CONTROL_SIZE],
}

/// What one `recvmsg` brought.
pub(crate) struct Read {
    /// Bytes written to the buffer; 0 at the end of the stream.
    pub(crate) bytes: usize,
    /// Descriptors that came with them, close-on-exec.
    pub(crate) fds: Vec<OwnedFd>,
    /// Descriptors were lost: more came than fit, or the table was full.
    pub(crate) fds_lost: bool,
}

/// One non-blocking `recvmsg(2)`.
///
/// `nix`'s own wrapper answers `MSG_CTRUNC` with an error and forgets the
/// descriptors that did arrive; here each one is owned before anything else.
pub(crate) fn receive(fd: BorrowedFd<'_>, buffer: &mut [u8]) -> Result<Read, Errno> {
    let mut parts = [IoSliceMut::new(buffer)];
    let mut control = Control {
        bytes: [0; CONTROL_SIZE],
    };
    // SAFETY: msghdr is plain data for which all zeroes is a valid value.
    let mut header: libc::msghdr = unsafe { mem::zeroed() };
    // IoSliceMut is guaranteed to have the layout of iovec.
    header.msg_iov = parts.as_mut_ptr().cast::<libc::iovec>();
    // The types of these lengths differ between C libraries.
    header.msg_iovlen = parts.len() as _;
    header.msg_control = ptr::from_mut(&mut control).cast();
    header.msg_controllen = CONTROL_SIZE as _;
    let flags = libc::MSG_DONTWAIT | libc::MSG_CMSG_CLOEXEC;
    // SAFETY: the header points at one buffer and one control buffer, both alive
    // and exclusively borrowed for the call, with their true sizes.
    let bytes = Errno::result(unsafe { libc::recvmsg(fd.as_raw_fd(), &raw mut header, flags) })?;
    Ok(Read {
        bytes: bytes as usize,
        fds: take_fds(&header),
        fds_lost: header.msg_flags & libc::MSG_CTRUNC != 0,
    })
}

/// Owns every descriptor that the kernel put into this process with `header`.
fn take_fds(header: &libc::msghdr) -> Vec<OwnedFd> {
    let mut fds = Vec::new();
    // SAFETY: the header was filled by a successful recvmsg and its control
    // buffer is still alive; the macros stay within `msg_controllen`. Each
    // descriptor in an SCM_RIGHTS message is new, open and owned by nobody else.
    unsafe {
        let mut message = libc::CMSG_FIRSTHDR(header);
        while let Some(found) = message.as_ref() {
            if found.cmsg_level == libc::SOL_SOCKET && found.cmsg_type == libc::SCM_RIGHTS {
                let data = libc::CMSG_DATA(message).cast::<RawFd>();
                let length: usize = found.cmsg_len as _;
                let count = (length - libc::CMSG_LEN(0) as usize) / mem::size_of::<RawFd>();
                for index in 0..count {
                    fds.push(OwnedFd::from_raw_fd(data.add(index).read_unaligned()));
                }
            }
            message = libc::CMSG_NXTHDR(header, message);
        }
    }
    fds
}

/// Looks at a descriptor that this process was born with, or that nobody has opened.
///
/// # Safety
/// The number is not -1, and nobody closes it before `look` returns.
pub(crate) unsafe fn with_inherited<T>(fd: RawFd, look: impl FnOnce(BorrowedFd<'_>) -> T) -> T {
    // SAFETY: the borrow ends with this function, until when it stays what it is by this
    // function's contract. A number that is not open gives EBADF from whatever looks at it.
    look(unsafe { BorrowedFd::borrow_raw(fd) })
}

/// Becomes the owner of a descriptor that this process was born with.
///
/// # Safety
/// It is open, and has no other owner.
pub(crate) unsafe fn adopt(fd: RawFd) -> OwnedFd {
    // SAFETY: open and without another owner, by this function's contract.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// The size of a scoreboard's mapping.
const SCOREBOARD: NonZeroUsize =
    NonZeroUsize::new(mem::size_of::<Cells<Seen>>()).expect("a scoreboard has cells");

/// Maps the start of `memory`, shared with whoever else has it.
fn map_shared<T>(memory: BorrowedFd<'_>, access: ProtFlags) -> Result<NonNull<T>, Errno> {
    // SAFETY: a new mapping at an address of the kernel's choice touches no
    // memory that exists. It is page-aligned, which is enough for any cells.
    let at = unsafe { mmap(None, SCOREBOARD, access, MapFlags::MAP_SHARED, memory, 0) }?;
    Ok(at.cast())
}

/// A scoreboard mapped for reading, until it is dropped.
#[derive(Debug)]
pub(crate) struct ReadOnly(NonNull<Cells<Seen>>);

impl ReadOnly {
    /// Maps memory of a scoreboard.
    ///
    /// # Safety
    /// The memory is as large as the cells, can't shrink, and has its page.
    pub(crate) unsafe fn map(memory: BorrowedFd<'_>) -> Result<Self, Errno> {
        map_shared(memory, ProtFlags::PROT_READ).map(Self)
    }
}

impl Deref for ReadOnly {
    type Target = Cells<Seen>;

    fn deref(&self) -> &Cells<Seen> {
        // SAFETY: mapped until drop, aligned, and large enough by the contract
        // of `map`. Every bit pattern is a cell. Others write to it at any time,
        // and a `Seen` is only ever loaded atomically.
        unsafe { self.0.as_ref() }
    }
}

impl Drop for ReadOnly {
    fn drop(&mut self) {
        // SAFETY: mapped by `map` with this size; borrows of it have ended.
        let unmapped = unsafe { munmap(self.0.cast(), SCOREBOARD.get()) };
        debug_assert_eq!(unmapped, Ok(()));
    }
}

/// Maps a scoreboard for counting, until the process ends.
///
/// # Safety
/// The memory is as large as the cells and can't shrink.
pub(crate) unsafe fn map_for_good(
    memory: BorrowedFd<'_>,
) -> Result<&'static Cells<AtomicU64>, Errno> {
    let access = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
    let at = map_shared::<Cells<AtomicU64>>(memory, access)?;
    // SAFETY: never unmapped, aligned, and large enough by this function's
    // contract. Every bit pattern is a cell, and all access is atomic.
    Ok(unsafe { at.as_ref() })
}

/// Maps a table of this many requests for writing, until the process ends.
///
/// # Safety
/// The memory is as large as that and can't shrink.
pub(crate) unsafe fn map_requests_for_good(
    memory: BorrowedFd<'_>,
    entries: usize,
) -> Result<(&'static Header, &'static [Record]), Errno> {
    let bytes = mem::size_of::<Header>() + entries * mem::size_of::<Record>();
    let bytes = NonZeroUsize::new(bytes).expect("a header is there always");
    let access = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
    // SAFETY: a new mapping at an address of the kernel's choice touches no memory that
    // exists. It is page-aligned, which is enough for the header and, as its size is their
    // alignment, for the entries behind it.
    let at = unsafe { mmap(None, bytes, access, MapFlags::MAP_SHARED, memory, 0) }?;
    // SAFETY: never unmapped, aligned, and large enough by this function's contract. Every
    // bit pattern is a header and an entry, and all access to them is atomic.
    unsafe {
        let records = at.byte_add(mem::size_of::<Header>()).cast::<Record>();
        let records = std::slice::from_raw_parts(records.as_ptr(), entries);
        Ok((at.cast::<Header>().as_ref(), records))
    }
}

/// What shared memory can be seen as by several processes at once.
///
/// # Safety
/// Every bit pattern is one, it can be read while others write it, and nothing writes it
/// without the access that it asks for.
pub(crate) unsafe trait Cell {
    /// How the memory is to be mapped.
    const ACCESS: ProtFlags = ProtFlags::PROT_READ.union(ProtFlags::PROT_WRITE);
}

// SAFETY: an atomic integer is of any pattern, and may be written.
unsafe impl Cell for AtomicU32 {}
// SAFETY: as above.
unsafe impl Cell for AtomicU64 {}
// SAFETY: an atomic integer that is only ever loaded.
unsafe impl Cell for Seen {
    const ACCESS: ProtFlags = ProtFlags::PROT_READ;
}

/// Counters shared with other processes, mapped until they are dropped.
#[derive(Debug)]
pub(crate) struct SharedCells<C: Cell> {
    at: NonNull<C>,
    bytes: NonZeroUsize,
}

impl<C: Cell> SharedCells<C> {
    /// Maps as many bytes of memory.
    ///
    /// # Safety
    /// The memory is as large and can't shrink.
    pub(crate) unsafe fn map(memory: BorrowedFd<'_>, bytes: NonZeroUsize) -> Result<Self, Errno> {
        // SAFETY: a new mapping at an address of the kernel's choice touches no
        // memory that exists. It is page-aligned, which is enough for any cells.
        let at = unsafe { mmap(None, bytes, C::ACCESS, MapFlags::MAP_SHARED, memory, 0) }?;
        Ok(Self {
            at: at.cast(),
            bytes,
        })
    }
}

impl<C: Cell> Deref for SharedCells<C> {
    type Target = [C];

    fn deref(&self) -> &[C] {
        let cells = self.bytes.get() / mem::size_of::<C>();
        // SAFETY: mapped until drop, aligned, and large enough by the contract of
        // `map`. The rest is the contract of `Cell`.
        unsafe { std::slice::from_raw_parts(self.at.as_ptr(), cells) }
    }
}

impl<C: Cell> Drop for SharedCells<C> {
    fn drop(&mut self) {
        // SAFETY: mapped by `map` with this size; borrows of it have ended.
        let unmapped = unsafe { munmap(self.at.cast(), self.bytes.get()) };
        debug_assert_eq!(unmapped, Ok(()));
    }
}

/// Makes a socket filter of these classic BPF instructions.
pub(crate) fn attach_filter(
    socket: BorrowedFd<'_>,
    filter: &[libc::sock_filter],
) -> std::io::Result<()> {
    let program = libc::sock_fprog {
        len: filter.len() as libc::c_ushort,
        filter: filter.as_ptr().cast_mut(),
    };
    // SAFETY: the kernel only reads, during the call, `len` instructions from
    // `filter`; both are live.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER,
            (&raw const program).cast(),
            mem::size_of::<libc::sock_fprog>() as libc::socklen_t,
        )
    };
    Errno::result(result)
        .map(drop)
        .map_err(std::io::Error::from)
}

/// Binds a socket to an interface by its index, whether there is one or not
/// (socket(7), `SO_BINDTOIFINDEX`).
pub(crate) fn bind_to_interface(socket: BorrowedFd<'_>, index: i32) -> std::io::Result<()> {
    // SAFETY: the kernel only reads, during the call, an int that is live.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_BINDTOIFINDEX,
            (&raw const index).cast(),
            mem::size_of::<i32>() as libc::socklen_t,
        )
    };
    Errno::result(result)
        .map(drop)
        .map_err(std::io::Error::from)
}

/// The number of instructions of a socket's filter; 0 where it has none, and
/// EACCES where it is an eBPF program.
pub(crate) fn filter_length(socket: BorrowedFd<'_>) -> std::io::Result<usize> {
    let mut length: libc::socklen_t = 0;
    // SAFETY: with a length of 0 the kernel writes nothing but the length, which
    // is live.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_GET_FILTER,
            std::ptr::null_mut(),
            &raw mut length,
        )
    };
    Errno::result(result).map_err(std::io::Error::from)?;
    Ok(length as usize)
}
