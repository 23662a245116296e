//! The messages of channel protocol 1, one JSON object per line, both directions.
//!
//! Unknown fields are ignored so that either side may be newer than the other.
//! `README.md` of this crate is the specification; the JSON Schema beside it is
//! generated from the types here and a test keeps the two equal.

mod health;
mod hello;
mod offers;
mod reply;
mod to_supervisor;
mod to_worker;
mod upstreams;
mod welcome;

pub(crate) use health::duration_bucket;
pub use health::{DURATION_BOUNDS, Handoffs, Health, HttpCounts};
pub use hello::{Hello, Rejoin, RejoinState};
pub use offers::{
    AccessLogFormat, AccessLogOffer, ListenerOffer, OutputOffer, OutputStream, PassageOffer,
    PlacesOffer, RequestsOffer, Rescue, ScoreboardOffer, TlsOffer, UpstreamCountsOffer,
};
pub use reply::{Reply, ReplyError};
pub use to_supervisor::ToSupervisor;
pub use to_worker::ToWorker;
pub use upstreams::{Upstream, Upstreams, Vacate};
pub use welcome::{ClientHeader, HttpLimits, RejoinOffer, Welcome};

use serde::Serialize;
use serde::de::DeserializeOwned;

/// The protocol version that `hello` and `welcome` carry.
pub const PROTOCOL: u32 = 1;

/// The environment variable that holds the number of the worker's channel descriptor.
pub const CHANNEL_FD_ENV: &str = "PREFORK_CHANNEL_FD";

/// The environment variable that says which descriptors a worker was born with beside
/// its channel, for lines that say `inherited`: `FIRST-LAST`.
pub const INHERITED_ENV: &str = "PREFORK_INHERITED";

/// The code of a worker's answer to `reload` that it can take these settings
/// only as a new process; the supervisor replaces it then.
pub const NEEDS_RESTART: &str = "needs_restart";

fn are_zero(them: &[u64]) -> bool {
    them.iter().all(is_zero)
}

fn is_zero(it: &u64) -> bool {
    *it == 0
}

fn is_false(it: &bool) -> bool {
    !it
}

/// The `type`s of a direction's messages. Each message knows its own without a search, since
/// every one is looked up on both sides.
macro_rules! kinds {
    ($($message:pat => $kind:literal,)+) => {
        const KINDS: &'static [&'static str] = &[$($kind),+];

        fn index(&self) -> usize {
            match self {
                $($message => const { place_of(Self::KINDS, $kind) },)+
            }
        }

        fn index_of(kind: &str) -> Option<usize> {
            match kind {
                $($kind => Some(const { place_of(Self::KINDS, $kind) }),)+
                _ => None,
            }
        }
    };
}

use kinds;

/// Where a `type` is among others; only for the compiler, to which it is one of them.
const fn place_of(kinds: &[&str], kind: &str) -> usize {
    let mut place = 0;
    while !is_same(kinds[place].as_bytes(), kind.as_bytes()) {
        place += 1;
    }
    place
}

const fn is_same(one: &[u8], other: &[u8]) -> bool {
    let mut same = 0;
    while same < one.len() && same < other.len() && one[same] == other[same] {
        same += 1;
    }
    same == one.len() && same == other.len()
}

/// A message type of one direction of the channel.
pub trait Message: Serialize + DeserializeOwned {
    /// The values of `type` that this direction knows, as on the wire.
    const KINDS: &'static [&'static str];

    /// Those of [`Self::KINDS`] whose lines carry one descriptor; all others carry none.
    const KINDS_WITH_FD: &'static [&'static str];

    /// The place of this message's `type` in [`Self::KINDS`].
    fn index(&self) -> usize;

    /// The place of a `type` in [`Self::KINDS`], if it is one of them.
    fn index_of(kind: &str) -> Option<usize>;

    /// This message's `type`, one of [`Self::KINDS`].
    fn kind(&self) -> &'static str {
        Self::KINDS[self.index()]
    }

    /// How many descriptors the line announces (its `fds`).
    fn fds(&self) -> u32;

    /// Reads a line that is a JSON object whose `type` is `kind`, one of
    /// [`Self::KINDS`].
    ///
    /// Derived code has to set everything aside until it comes across the
    /// `type`. Where that is known, what comes often is read at once.
    ///
    /// # Errors
    /// A field is missing or of the wrong kind.
    fn read(kind: &str, line: &str) -> serde_json::Result<Self> {
        let _ = kind;
        serde_json::from_str(line)
    }
}
