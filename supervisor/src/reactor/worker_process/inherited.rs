//! Descriptors that a worker is born with, because none can be sent to it: its user has
//! as many on their way as the kernel allows ([`channel::has_room_in_flight`]).
//!
//! [`channel::has_room_in_flight`]: prefork_proto::channel::has_room_in_flight

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use prefork_proto::channel::{ChannelError, SupervisorEnd};
use prefork_proto::message::ToWorker;

use crate::kernel::sys::INHERITED_FD;

/// The numbers that a worker has for what is to be sent to it; none where it was born
/// with nothing.
#[derive(Debug, Default)]
pub(crate) struct Inherited {
    /// Ours, which stay open until it is told, and the worker's.
    numbers: Vec<(RawFd, RawFd)>,
    /// The worker's, of its access log.
    access_log: Option<RawFd>,
}

impl Inherited {
    /// These are handed down in their order, the access log as the last; gives that
    /// order, too.
    pub(crate) fn of<'a>(
        fds: impl Iterator<Item = &'a OwnedFd>,
        access_log: Option<&'a OwnedFd>,
    ) -> (Self, Vec<BorrowedFd<'a>>) {
        let mut order: Vec<BorrowedFd<'_>> = fds.map(AsFd::as_fd).collect();
        let ours = order.iter().map(AsRawFd::as_raw_fd);
        let numbers: Vec<_> = ours.zip(INHERITED_FD..).collect();
        let next = INHERITED_FD + numbers.len() as RawFd;
        order.extend(access_log.map(AsFd::as_fd));
        let access_log = access_log.map(|_| next);
        (
            Self {
                numbers,
                access_log,
            },
            order,
        )
    }

    /// Queues a message with the descriptor that it announces, or with the number that
    /// the worker was born with it under.
    pub(crate) fn queue(
        &self,
        channel: &mut SupervisorEnd,
        message: &ToWorker,
        fd: OwnedFd,
    ) -> Result<(), ChannelError> {
        let number = match message {
            ToWorker::AccessLog(_) => self.access_log,
            _ => {
                let ours = fd.as_raw_fd();
                let mut numbers = self.numbers.iter();
                numbers
                    .find(|(it, _)| *it == ours)
                    .map(|(_, number)| *number)
            }
        };
        match number {
            Some(number) => channel.queue_inherited(message, number),
            None => channel.queue_with_fd(message, fd),
        }
    }

    /// Its access log has been opened anew: what it was born with is another file.
    pub(crate) fn forget_access_log(&mut self) {
        self.access_log = None;
    }
}
