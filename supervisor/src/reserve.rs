//! Spare descriptors, so that operators and Prometheus get answers even when
//! the process has reached RLIMIT_NOFILE.
//!
//! The servers give some of the reserve back to the kernel when `accept` finds
//! no descriptor left; the reserve takes them back when the connection ends.
//! Whoever starts workers asks [`Reserve::is_full`] first, so that a crash loop
//! at the limit doesn't eat what an operator needs to look at it.

use std::cell::RefCell;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;

/// How many descriptors are kept by default.
pub const DEFAULT_SIZE: usize = 8;

/// What one connection needs at the limit: its own descriptor, and one for the
/// file that its answer may read.
const PER_CONNECTION: usize = 2;

/// A number of descriptors that are open for nothing but to be closed in need.
/// For one thread; share it by `Rc`.
#[derive(Debug)]
pub struct Reserve {
    size: usize,
    spares: RefCell<Vec<OwnedFd>>,
}

impl Reserve {
    /// Opens `size` descriptors on `/dev/null`, close-on-exec.
    pub fn new(size: usize) -> io::Result<Self> {
        let reserve = Self {
            size,
            spares: RefCell::new(Vec::with_capacity(size)),
        };
        reserve.fill()?;
        Ok(reserve)
    }

    /// Whether all of the reserve is there. Takes back what is missing first,
    /// if the process has descriptors again.
    pub fn is_full(&self) -> bool {
        self.refill();
        self.spares.borrow().len() == self.size
    }

    /// Takes back what is missing, as far as the process has descriptors.
    pub fn refill(&self) {
        // What cannot be had now is asked for again at the next opportunity.
        let _ = self.fill();
    }

    /// Closes as many spares as one connection needs. Whether there were any.
    pub fn lend(&self) -> bool {
        let mut spares = self.spares.borrow_mut();
        let kept = spares.len().saturating_sub(PER_CONNECTION);
        let lent = spares.len() > kept;
        spares.truncate(kept);
        lent
    }

    fn fill(&self) -> io::Result<()> {
        let mut spares = self.spares.borrow_mut();
        while spares.len() < self.size {
            let spare = match spares.first() {
                Some(first) => first.try_clone()?,
                None => File::open("/dev/null")?.into(),
            };
            spares.push(spare);
        }
        Ok(())
    }
}

/// Whether an error says that the process or the system has no descriptor left.
pub fn is_exhausted(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lends_what_a_connection_needs_and_takes_it_back() {
        let reserve = Reserve::new(3).unwrap();
        assert!(reserve.lend());
        assert_eq!(reserve.spares.borrow().len(), 1);
        assert!(reserve.lend(), "the last spare is better than none");
        assert!(!reserve.lend(), "an empty reserve lends nothing");
        assert!(reserve.is_full(), "descriptors are there to be taken back");
        assert_eq!(reserve.spares.borrow().len(), 3);
    }

    #[test]
    fn tells_exhaustion_from_other_errors() {
        assert!(is_exhausted(&io::Error::from_raw_os_error(libc::EMFILE)));
        assert!(is_exhausted(&io::Error::from_raw_os_error(libc::ENFILE)));
        assert!(!is_exhausted(&io::Error::from_raw_os_error(
            libc::ECONNABORTED
        )));
    }
}
