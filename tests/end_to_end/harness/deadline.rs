//! Waiting for what has to happen, never longer than it may take.

use std::time::{Duration, Instant};

/// How long anything may take that should happen at once: the machine may be busy.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// The pause between two looks.
const PAUSE: Duration = Duration::from_millis(10);

/// Returns as soon as `holds`; panics with `what` if it never does.
#[track_caller]
pub(crate) fn eventually(what: &str, within: Duration, mut holds: impl FnMut() -> bool) {
    eventually_some(what, within, || holds().then_some(()));
}

/// Returns what `look` finds; panics with `what` if it never finds anything.
#[track_caller]
pub(crate) fn eventually_some<T>(
    what: &str,
    within: Duration,
    mut look: impl FnMut() -> Option<T>,
) -> T {
    let deadline = Instant::now() + within;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "not within {within:?}: {what}");
        std::thread::sleep(PAUSE);
    }
}
