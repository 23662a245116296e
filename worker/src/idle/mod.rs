//! Connections that ask for nothing: they rest in the parking lot, where a descriptor and
//! an entry are all that they cost, and go on to another worker when this one leaves.

pub(crate) mod handoff;
pub(crate) mod lot;
pub(crate) mod passage;

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use prefork_proto::passage::Passed;
use tokio::time::Instant;

use crate::process::{Entry, Rules};
use crate::request::connection_state::Requests;
use crate::transport::stream::Stream;

/// How long a connection has machinery that it does not use. Longer than between the
/// requests of a busy client, which never pays for taking it down.
pub(crate) const RESTLESS: Duration = Duration::from_secs(2);

/// A connection without any machinery. Its entry goes before its descriptor.
#[derive(Debug)]
pub(crate) struct Bare {
    pub(crate) entry: Entry,
    pub(crate) socket: OwnedFd,
    pub(crate) passed: Passed,
    /// The listener that it has come to.
    pub(crate) listener: Arc<str>,
    /// What its client is held to.
    pub(crate) rules: &'static Rules,
    /// What was read of it and not used.
    pub(crate) read: Bytes,
}

/// Has a connection rest until a byte comes, its time is over or the worker leaves.
pub(crate) fn rest(stream: Stream, until: Instant, requests: &Requests) {
    let serving = requests.serving();
    if let Some(bare) = stream.strip(requests.peer.origin()) {
        serving.lot.park(bare, until, serving);
    }
}

/// Hands a connection on to another worker. One that can't go, or not yet, rests here.
pub(crate) fn leave(stream: Stream, requests: &Requests) {
    let serving = requests.serving();
    if let Some(bare) = stream.strip(requests.peer.origin()) {
        let until = serving.timer.now() + requests.limits().idle_timeout;
        serving.lot.let_go(bare, until, serving);
    }
}

impl Bare {
    /// Whether there is something to be read, or the end of it.
    pub(crate) fn has_input(&self) -> bool {
        crate::transport::stream::has_input(self.socket.as_raw_fd())
    }
}

impl AsFd for Bare {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
