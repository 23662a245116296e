//! Descriptors that were left in this process at numbers which a document names.

use std::collections::BTreeSet;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Those that nobody owns yet.
static LEFT: Mutex<BTreeSet<RawFd>> = Mutex::new(BTreeSet::new());

/// Takes note of descriptors that the program before this one has left here, for
/// [`claim`].
///
/// # Safety
/// They are open, and nobody in this program owns any of them.
pub(crate) unsafe fn note_left(numbers: impl IntoIterator<Item = RawFd>) {
    left().extend(numbers);
}

/// Becomes the owner of a descriptor that was left.
///
/// # Panics
/// Where it was not, or has its owner: whoever checks the document has found each of its
/// numbers open and named once, and takes note of them all.
pub(crate) fn claim(number: RawFd) -> OwnedFd {
    assert!(left().remove(&number), "descriptor {number} was not left");
    // SAFETY: it was noted as open and without an owner, and is given out this once.
    unsafe { OwnedFd::from_raw_fd(number) }
}

fn left() -> MutexGuard<'static, BTreeSet<RawFd>> {
    // A set is whole between two calls.
    LEFT.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::{AsRawFd, IntoRawFd};

    use super::*;

    #[test]
    fn what_was_left_is_claimed_once() {
        let number = File::open("/dev/null").unwrap().into_raw_fd();
        assert!(std::panic::catch_unwind(|| claim(number)).is_err());
        // SAFETY: it is open, and its owner has let go of it.
        unsafe { note_left([number]) };
        let owned = claim(number);
        assert_eq!(owned.as_raw_fd(), number);
        assert!(std::panic::catch_unwind(|| claim(number)).is_err());
    }
}
