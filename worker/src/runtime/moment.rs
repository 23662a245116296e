//! When something happened, as cheaply as the system tells it.

use std::time::Duration;

use tokio::time::Instant;

use crate::sys;

/// A reading of the monotonic clock. Each request takes two; an `Instant` costs
/// some 35 instructions more each time, for seconds and nanoseconds apart and for
/// checks of what the kernel never says.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Moment {
    nanos: u64,
}

impl Moment {
    #[inline]
    pub(crate) fn now() -> Self {
        Self {
            nanos: sys::monotonic_nanos(),
        }
    }

    /// As the system's clock has it.
    #[inline]
    pub(crate) fn nanos(self) -> u64 {
        self.nanos
    }

    fn nanos_since(self) -> u64 {
        sys::monotonic_nanos().saturating_sub(self.nanos)
    }

    #[inline]
    pub(crate) fn micros_since(self) -> u64 {
        self.nanos_since() / 1000
    }

    pub(crate) fn elapsed(self) -> Duration {
        Duration::from_nanos(self.nanos_since())
    }

    /// The same moment for those who wait for a time.
    pub(crate) fn instant(self) -> Instant {
        Instant::now() - self.elapsed()
    }
}
