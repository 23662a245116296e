//! What can come of a request, each thing with a counter of its own.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::time::Duration;

/// The ways in which a request is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Failure {
    /// Nobody listened.
    Refused,
    /// A connection could not be made for another reason.
    NotConnected,
    /// The connection was reset.
    Reset,
    /// The connection was closed before a byte of the answer.
    Unanswered,
    /// The connection was closed within the answer.
    Short,
    /// The answer is no HTTP, or says more than it should.
    Garbage,
    /// The answer has another status than 2xx.
    Status,
    /// The answer is whole and has the wrong body.
    WrongBody,
    /// No answer came in time.
    TimedOut,
    /// An HTTP/2 stream or connection ended without an answer, and not by a
    /// GOAWAY that spares the stream.
    Stream,
}

/// A request that was lost, and how it was noticed.
#[derive(Debug)]
pub(crate) struct Failed {
    pub(crate) failure: Failure,
    pub(crate) detail: String,
}

impl Failed {
    pub(super) fn new(failure: Failure, detail: impl Into<String>) -> Self {
        Self {
            failure,
            detail: detail.into(),
        }
    }

    /// What an error means while a connection is made.
    pub(super) fn connecting(error: &io::Error) -> Self {
        let failure = match error.kind() {
            ErrorKind::ConnectionRefused => Failure::Refused,
            ErrorKind::ConnectionReset => Failure::Reset,
            ErrorKind::TimedOut | ErrorKind::WouldBlock => Failure::TimedOut,
            _ => Failure::NotConnected,
        };
        Self::new(failure, format!("connecting: {error}"))
    }

    /// What an error means on a connection that is there.
    pub(super) fn talking(error: &io::Error) -> Self {
        let failure = match error.kind() {
            // The kernel says so where the server has closed, and then reset
            // what still came.
            ErrorKind::BrokenPipe | ErrorKind::ConnectionReset | ErrorKind::ConnectionAborted => {
                Failure::Reset
            }
            ErrorKind::TimedOut | ErrorKind::WouldBlock => Failure::TimedOut,
            _ => Failure::Garbage,
        };
        Self::new(failure, error.to_string())
    }
}

/// What came of the requests of a load.
#[derive(Debug, Default)]
pub(crate) struct Outcomes {
    /// Requests answered in full with 2xx.
    pub(crate) served: u64,
    /// How often each failure came.
    pub(crate) failures: BTreeMap<Failure, u64>,
    /// The longest time that an answer took, its connection included.
    pub(crate) slowest: Duration,
    /// Requests that a client was served after it had been refused.
    pub(crate) served_after_refusal: u64,
    /// The details of the first few.
    pub(crate) details: Vec<String>,
}

impl Outcomes {
    /// How often this failure came.
    pub(crate) fn of(&self, failure: Failure) -> u64 {
        self.failures.get(&failure).copied().unwrap_or(0)
    }

    pub(super) fn count(&mut self, outcome: Result<(), Failed>, took: Duration) {
        match outcome {
            Ok(()) => {
                self.served += 1;
                self.slowest = self.slowest.max(took);
                if self.of(Failure::Refused) > 0 {
                    self.served_after_refusal += 1;
                }
            }
            Err(failed) => {
                *self.failures.entry(failed.failure).or_default() += 1;
                self.note(format!("{:?}: {}", failed.failure, failed.detail));
            }
        }
    }

    pub(super) fn add(&mut self, other: Self) {
        self.served += other.served;
        self.slowest = self.slowest.max(other.slowest);
        self.served_after_refusal += other.served_after_refusal;
        for (failure, count) in other.failures {
            *self.failures.entry(failure).or_default() += count;
        }
        for detail in other.details {
            self.note(detail);
        }
    }

    fn note(&mut self, detail: String) {
        if self.details.len() < 10 {
            self.details.push(detail);
        }
    }
}
