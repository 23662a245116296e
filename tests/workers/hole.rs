//! Memory that does not come when the kernel asks for it (userfaultfd(2)): whoever
//! copies out of it waits, and holds what it holds meanwhile.

#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// A page, which every machine that this runs on has multiples of.
const PAGE: usize = 64 * 1024;

/// `UFFDIO_API`, `UFFDIO_REGISTER` and `UFFDIO_COPY` of linux/userfaultfd.h.
const API: libc::Ioctl = 0xc018_aa3f_u32 as libc::Ioctl;
const REGISTER: libc::Ioctl = 0xc020_aa00_u32 as libc::Ioctl;
const COPY: libc::Ioctl = 0xc028_aa03_u32 as libc::Ioctl;

/// Some memory without content.
pub(crate) struct Hole {
    faults: OwnedFd,
    address: usize,
    text: Vec<u8>,
}

impl Hole {
    /// One for this text.
    pub(crate) fn new(text: &str) -> io::Result<Self> {
        // SAFETY: takes numbers, returns a new descriptor or -1.
        let fd = unsafe { libc::syscall(libc::SYS_userfaultfd, libc::O_CLOEXEC) };
        let fd = i32::try_from(fd).ok().filter(|fd| *fd >= 0);
        let fd = fd.ok_or_else(io::Error::last_os_error)?;
        // SAFETY: the kernel has just made this descriptor; nobody else knows it.
        let faults = unsafe { OwnedFd::from_raw_fd(fd) };
        request(&faults, API, &mut [0xaa, 0, 0])?;
        let rights = libc::PROT_READ | libc::PROT_WRITE;
        let kind = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // SAFETY: a new mapping at no address in particular, which is never unmapped.
        let address = unsafe { libc::mmap(std::ptr::null_mut(), PAGE, rights, kind, -1, 0) };
        if address == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let address = address as usize;
        request(&faults, REGISTER, &mut [address as u64, PAGE as u64, 1, 0])?;
        Ok(Self {
            faults,
            address,
            text: text.as_bytes().to_vec(),
        })
    }

    /// Has a thread write it to stderr.
    pub(crate) fn write_out_of_it(&self) {
        let (address, length) = (self.address, self.text.len());
        std::thread::spawn(move || {
            // SAFETY: the kernel alone reads from there, and it is mapped for ever.
            unsafe { libc::write(2, address as *const libc::c_void, length) }
        });
    }

    /// Has the content come.
    pub(crate) fn fill(self) {
        let mut page = vec![b'\n'; PAGE];
        page[..self.text.len()].copy_from_slice(&self.text);
        let (to, from) = (self.address as u64, page.as_ptr() as u64);
        request(&self.faults, COPY, &mut [to, from, PAGE as u64, 0, 0])
            .expect("nobody else has filled it");
    }
}

fn request(faults: &OwnedFd, what: libc::Ioctl, words: &mut [u64]) -> io::Result<()> {
    // SAFETY: each request's structure is of as many words as it is given, and they live
    // through the call.
    match unsafe { libc::ioctl(faults.as_raw_fd(), what, words.as_mut_ptr()) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}
