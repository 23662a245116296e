//! Spare descriptors, so that operators and Prometheus get answers even when
//! the process has reached RLIMIT_NOFILE.
//!
//! Where `accept` finds no descriptor left, the servers take a [`Loan`]: some of
//! the reserve is closed for the length of a connection and opened again after
//! it. Whoever starts workers asks [`Reserve::is_full`] first, so that a crash
//! loop at the limit doesn't eat what an operator needs to look at it.

use std::cell::{Cell, RefCell};
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;

/// How many descriptors are kept by default.
pub const DEFAULT_SIZE: usize = 8;

/// What one connection needs at the limit: its own descriptor, and one for the
/// file that its answer may read.
const PER_LOAN: usize = 2;

/// A number of descriptors that are open for nothing but to be closed in need.
/// For one thread; share it by `Rc`.
#[derive(Debug)]
pub struct Reserve {
    size: usize,
    spares: RefCell<Vec<OwnedFd>>,
    loans: Cell<usize>,
}

/// Descriptors given up for somebody; dropping it takes them back.
#[derive(Debug)]
pub struct Loan(Rc<Reserve>);

impl Reserve {
    /// Opens `size` descriptors on `/dev/null`, close-on-exec.
    pub fn new(size: usize) -> io::Result<Self> {
        let reserve = Self {
            size,
            spares: RefCell::new(Vec::with_capacity(size)),
            loans: Cell::new(0),
        };
        reserve.fill()?;
        Ok(reserve)
    }

    /// Whether all of the reserve is there. Takes back what is missing first,
    /// if nobody needs it and the process has descriptors again.
    pub fn is_full(&self) -> bool {
        // What cannot be had now is asked for again the next time.
        let _ = self.fill();
        self.spares.borrow().len() == self.size
    }

    /// Whether some of the reserve is lent: descriptors are short.
    pub fn is_lending(&self) -> bool {
        self.loans.get() > 0
    }

    /// Closes as many spares as one connection needs; `None` where there are none.
    pub fn lend(self: &Rc<Self>) -> Option<Loan> {
        let mut spares = self.spares.borrow_mut();
        if spares.is_empty() {
            return None;
        }
        let kept = spares.len().saturating_sub(PER_LOAN);
        spares.truncate(kept);
        self.loans.set(self.loans.get() + 1);
        Some(Loan(Rc::clone(self)))
    }

    /// Opens what is missing and not lent.
    fn fill(&self) -> io::Result<()> {
        let lent = self.loans.get() * PER_LOAN;
        let mut spares = self.spares.borrow_mut();
        while spares.len() < self.size.saturating_sub(lent) {
            let spare = match spares.first() {
                Some(first) => first.try_clone()?,
                None => File::open("/dev/null")?.into(),
            };
            spares.push(spare);
        }
        Ok(())
    }
}

impl Drop for Loan {
    fn drop(&mut self) {
        self.0.loans.set(self.0.loans.get() - 1);
        // What somebody else took meanwhile is asked for again by `is_full`
        // and by the next loan's end.
        let _ = self.0.fill();
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
        let reserve = Rc::new(Reserve::new(3).unwrap());
        let spares = || reserve.spares.borrow().len();
        let first = reserve.lend().unwrap();
        assert_eq!(spares(), 1);
        let second = reserve.lend().expect("the last spare is better than none");
        assert!(reserve.lend().is_none(), "an empty reserve lends nothing");
        assert!(!reserve.is_full(), "what is lent stays lent");
        drop(first);
        assert!(reserve.is_lending());
        assert_eq!(spares(), 1);
        drop(second);
        assert!(!reserve.is_lending());
        assert_eq!(spares(), 3);
        assert!(reserve.is_full());
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
