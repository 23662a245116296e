//! A number that two processes share, whichever of them ends.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::AtomicU64;

use nix::fcntl::{FcntlArg, SealFlag, fcntl};

const LENGTH: usize = size_of::<AtomicU64>();

/// A number in memory that is mapped here.
#[derive(Debug)]
pub(crate) struct SharedWord(NonNull<AtomicU64>);

impl SharedWord {
    /// A new one, which is 0, and what the other process is to map.
    pub(crate) fn create() -> io::Result<(Self, OwnedFd)> {
        let flags = libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING;
        // SAFETY: the name is a valid C string; the result is checked.
        let fd = unsafe { libc::memfd_create(c"prefork-logged".as_ptr(), flags) };
        let fd = nix::Error::result(fd)?;
        // SAFETY: the kernel has just made this descriptor; nobody else knows it.
        let memory = unsafe { OwnedFd::from_raw_fd(fd) };
        nix::unistd::ftruncate(&memory, LENGTH as libc::off_t)?;
        fcntl(&memory, FcntlArg::F_ADD_SEALS(SealFlag::F_SEAL_SHRINK))?;
        Ok((Self::map(&memory)?, memory))
    }

    /// The one in this memory, which has to be as [`SharedWord::create`] has made it: what
    /// is missing of a page that is mapped ends the process that touches it.
    pub(crate) fn map(memory: &OwnedFd) -> io::Result<Self> {
        let seals = SealFlag::from_bits_retain(fcntl(memory, FcntlArg::F_GET_SEALS)?);
        let length = nix::sys::stat::fstat(memory)?.st_size;
        if !seals.contains(SealFlag::F_SEAL_SHRINK) || length != LENGTH as libc::off_t {
            return Err(io::Error::other("it is no memory of a number"));
        }
        let rights = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: asks for a new mapping at no address in particular; the result is checked.
        let address = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                LENGTH,
                rights,
                libc::MAP_SHARED,
                memory.as_raw_fd(),
                0,
            )
        };
        if address == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let word = NonNull::new(address.cast());
        word.map(Self)
            .ok_or_else(|| io::Error::other("mapped at no address"))
    }
}

impl std::ops::Deref for SharedWord {
    type Target = AtomicU64;

    fn deref(&self) -> &AtomicU64 {
        // SAFETY: it is mapped as long as this lives, aligned to a page, of that length, and
        // both processes touch it by atomic operations only.
        unsafe { self.0.as_ref() }
    }
}

// SAFETY: an atomic number may be used from any thread, and what maps it is not tied to one.
unsafe impl Send for SharedWord {}

impl Drop for SharedWord {
    fn drop(&mut self) {
        // SAFETY: mapped by `map` with this length; no reference outlives the value.
        unsafe { libc::munmap(self.0.as_ptr().cast(), LENGTH) };
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use super::*;

    #[test]
    fn what_one_writes_the_other_reads() {
        let (ours, memory) = SharedWord::create().unwrap();
        let theirs = SharedWord::map(&memory).unwrap();
        drop(memory);
        ours.store(7, Ordering::Release);
        assert_eq!(theirs.load(Ordering::Acquire), 7);
    }

    #[test]
    fn memory_that_could_shrink_or_is_no_number_is_refused() {
        let flags = nix::sys::memfd::MFdFlags::MFD_ALLOW_SEALING;
        let memory = nix::sys::memfd::memfd_create(c"other", flags).unwrap();
        nix::unistd::ftruncate(&memory, 8).unwrap();
        SharedWord::map(&memory).unwrap_err();
        fcntl(&memory, FcntlArg::F_ADD_SEALS(SealFlag::F_SEAL_SHRINK)).unwrap();
        SharedWord::map(&memory).unwrap();
        nix::unistd::ftruncate(&memory, 9).unwrap();
        SharedWord::map(&memory).unwrap_err();
    }
}
