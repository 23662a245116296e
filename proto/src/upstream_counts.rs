//! Shared memory in which a process that forwards counts what each worker of a pool behind
//! has answered. A program that does not speak the protocol counts nothing itself, and what
//! its generations have served is compared all the same.
//!
//! The memory has one process that writes it and the supervisor that reads it: there is one
//! for each process that forwards, and for each pool behind it. It has seventeen `u64` for
//! each *place* of [`places`](crate::places): the requests that got an answer or lost it,
//! those of them that failed, and how many took how long, by
//! [`DURATION_BOUNDS`]. Every one of them only grows. A place is used by
//! several processes of its slot one after the other, so whoever wants to know what one of
//! them has served subtracts what was there when it began.
//!
//! What a hostile front writes there is believed as far as its own requests go, of which it
//! could lie anyway: neither side takes an address, an index or a length from the memory.

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crate::error::SystemError;
use crate::message::{DURATION_BOUNDS, UpstreamCountsOffer, duration_bucket};
use crate::places::CELLS;
use crate::scoreboard::Seen;
use crate::sealed::{self, Flaw, Sealed};
use crate::sys::SharedCells;

/// The layout's version, the `abi` of `upstream_counts`.
pub const ABI: u32 = 1;

/// Words of a place.
const WORDS: usize = 2 + DURATION_BOUNDS.len() + 1;

/// The layout's size in bytes.
pub const BYTES: u64 = (CELLS as usize * WORDS * size_of::<u64>()) as u64;

/// Why there is no such memory.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UpstreamCountsError {
    /// The kernel refused a step.
    #[error("no counts of upstream answers: {0}")]
    System(#[from] SystemError),

    /// It may become smaller under whoever reads it.
    #[error("no counts of upstream answers: the seals are {found:#x}; no supervisor made it")]
    Seals {
        /// The seals it has, as `F_GET_SEALS` gives them.
        found: i32,
    },

    /// It is not of its size, or of another version.
    #[error(
        "no counts of upstream answers: it has {bytes} bytes by layout {abi}, \
         and {BYTES} by layout {ABI} are known here"
    )]
    Layout {
        /// The version that `upstream_counts` says.
        abi: u32,
        /// The memory's size in bytes.
        bytes: i64,
    },
}

impl From<Flaw> for UpstreamCountsError {
    fn from(flaw: Flaw) -> Self {
        match flaw {
            Flaw::System(error) => error.into(),
            Flaw::Seals(found) => Self::Seals { found },
        }
    }
}

/// What has been counted of one place.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Answers {
    /// Requests that were answered, or whose answer broke off.
    pub requests: u64,
    /// Those of them that were answered with 5xx or lost their answer.
    pub failed: u64,
    /// Requests by how long they took: one count for each of [`DURATION_BOUNDS`], then one
    /// for what took longer.
    pub durations: [u64; DURATION_BOUNDS.len() + 1],
}

impl Answers {
    /// Adds what another process has counted.
    pub fn add(&mut self, other: &Self) {
        self.change(other, u64::saturating_add);
    }

    /// What has come since `before`.
    #[must_use]
    pub fn since(mut self, before: &Self) -> Self {
        self.change(before, u64::saturating_sub);
        self
    }

    fn change(&mut self, other: &Self, by: impl Fn(u64, u64) -> u64) {
        self.requests = by(self.requests, other.requests);
        self.failed = by(self.failed, other.failed);
        for (own, other) in self.durations.iter_mut().zip(&other.durations) {
            *own = by(*own, *other);
        }
    }
}

/// What a process that forwards to this pool is told with the memory.
pub fn offer(pool: &str) -> UpstreamCountsOffer {
    UpstreamCountsOffer {
        pool: pool.to_owned(),
        abi: ABI,
        bytes: BYTES,
        fds: 1,
    }
}

/// The supervisor's side: reads.
#[derive(Debug)]
pub struct Reader(SharedCells<Seen>);

impl Reader {
    /// Makes the memory, of a fixed size, with every count at 0; and the descriptor of it
    /// for the process that is to count there, close-on-exec.
    ///
    /// # Errors
    /// [`UpstreamCountsError::System`] with what the kernel lacks.
    pub fn create() -> Result<(Self, OwnedFd), UpstreamCountsError> {
        let memory = sealed::create(c"prefork-upstream-counts", BYTES)?;
        let cells = Sealed::look(&memory)?.map()?;
        Ok((Self(cells), memory))
    }

    /// What its process has counted of a place; nothing where there is no such place.
    pub fn read(&self, place: u32) -> Answers {
        let mut answers = Answers::default();
        if let Some([requests, failed, durations @ ..]) = self.0.get(words(place)) {
            for (count, seen) in answers.durations.iter_mut().zip(durations) {
                *count = seen.get();
            }
            answers.failed = failed.get();
            answers.requests = requests.get();
        }
        answers
    }
}

/// The side of the process that forwards: counts.
#[derive(Debug)]
pub struct Counter(SharedCells<AtomicU64>);

impl Counter {
    /// Maps what `upstream_counts` brought.
    ///
    /// # Errors
    /// It is not what [`Reader::create`] made, or the kernel refuses something.
    pub fn map(offer: &UpstreamCountsOffer, memory: OwnedFd) -> Result<Self, UpstreamCountsError> {
        let sealed = Sealed::look(&memory)?;
        let bytes = sealed.bytes;
        if offer.abi != ABI || u64::try_from(bytes) != Ok(BYTES) {
            let abi = offer.abi;
            return Err(UpstreamCountsError::Layout { abi, bytes });
        }
        Ok(Self(sealed.map()?))
    }

    /// Counts a request that the worker of that place had for so long. To be called by one
    /// thread.
    pub fn count(&self, place: u32, failed: bool, took: Duration) {
        let Some([requests, failures, durations @ ..]) = self.0.get(words(place)) else {
            return;
        };
        increment(requests);
        if failed {
            increment(failures);
        }
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        increment(&durations[duration_bucket(micros)]);
    }
}

/// Adds one, as the only one that writes there.
fn increment(cell: &AtomicU64) {
    cell.store(cell.load(Relaxed).wrapping_add(1), Relaxed);
}

/// Where a place's words are. A place that is none leads out of the memory.
fn words(place: u32) -> std::ops::Range<usize> {
    let begin = place as usize * WORDS;
    begin..begin + WORDS
}

#[cfg(test)]
mod tests {
    use nix::errno::Errno;
    use nix::sys::memfd::{MFdFlags, memfd_create};
    use nix::unistd::ftruncate;

    use super::*;

    fn pair() -> (Reader, Counter) {
        let (reader, memory) = Reader::create().unwrap();
        (reader, Counter::map(&offer("shop"), memory).unwrap())
    }

    #[test]
    fn what_a_process_counts_of_a_place_is_read_there() {
        let (reader, counter) = pair();
        counter.count(7, false, Duration::from_micros(600));
        counter.count(7, true, Duration::from_secs(60));
        let answers = reader.read(7);
        assert_eq!([answers.requests, answers.failed], [2, 1]);
        let durations = answers.durations;
        assert_eq!([durations[0], durations[1], durations[14]], [0, 1, 1]);
        for place in [6, 8, CELLS - 1] {
            assert_eq!(reader.read(place), Answers::default());
        }
    }

    #[test]
    fn a_place_that_is_none_is_neither_counted_nor_read() {
        let (reader, counter) = pair();
        for place in [CELLS, u32::MAX] {
            counter.count(place, true, Duration::ZERO);
            assert_eq!(reader.read(place), Answers::default());
        }
        counter.count(CELLS - 1, false, Duration::ZERO);
        assert_eq!(reader.read(CELLS - 1).requests, 1);
    }

    #[test]
    fn what_came_since_is_what_was_not_there_before() {
        let (reader, counter) = pair();
        counter.count(0, true, Duration::ZERO);
        let before = reader.read(0);
        counter.count(0, false, Duration::ZERO);
        let mut since = reader.read(0).since(&before);
        assert_eq!(
            [since.requests, since.failed, since.durations[0]],
            [1, 0, 1]
        );
        since.add(&before);
        assert_eq!(since, reader.read(0));
        assert_eq!(before.since(&reader.read(0)), Answers::default());
    }

    #[test]
    fn memory_that_no_supervisor_made_is_refused() {
        let (_, memory) = Reader::create().unwrap();
        let newer = UpstreamCountsOffer {
            abi: ABI + 1,
            ..offer("shop")
        };
        let refused = Counter::map(&newer, memory).unwrap_err();
        assert!(matches!(
            refused,
            UpstreamCountsError::Layout { abi: 2, .. }
        ));
        let loose = memfd_create(c"loose", MFdFlags::MFD_ALLOW_SEALING).unwrap();
        ftruncate(&loose, BYTES as i64).unwrap();
        let refused = Counter::map(&offer("shop"), loose).unwrap_err();
        assert!(matches!(refused, UpstreamCountsError::Seals { .. }));
    }

    #[test]
    fn it_can_be_made_neither_smaller_nor_larger() {
        let (_, memory) = Reader::create().unwrap();
        for length in [0, BYTES as i64 + 1] {
            assert_eq!(ftruncate(&memory, length), Err(Errno::EPERM));
        }
    }
}
