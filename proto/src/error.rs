//! What can go wrong on a channel.

pub use crate::system_error::{Call, SystemError};

use crate::line::LINE_LIMIT;
use crate::message::CHANNEL_FD_ENV;
use crate::system_error::OTHER_ERRNO;

/// Why a channel could not be made, or a message not be sent or received.
///
/// [`Self::reason`] is a short stable name for metrics; `Display` is for people.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ChannelError {
    /// No channel could be made.
    #[error("cannot make a channel: {0}")]
    Pair(SystemError),

    /// The environment names a channel that cannot be one.
    #[error("{CHANNEL_FD_ENV}={value:?} does not name a channel: {problem}")]
    Environment {
        /// The variable's value.
        value: String,
        /// What is wrong with it.
        problem: EnvironmentProblem,
    },

    /// Waiting for the channel failed.
    #[error("cannot wait for the channel: {0}")]
    Wait(SystemError),

    /// The queue has no room for the message, which was not queued. The other side does not read.
    #[error(
        "no room for `{kind}` ({bytes} bytes): {queued} bytes wait already, because the other side does not read"
    )]
    QueueFull {
        /// The message's `type`.
        kind: &'static str,
        /// The length of its line.
        bytes: usize,
        /// Bytes that wait already.
        queued: usize,
    },

    /// The message makes a longer line than the protocol allows; it was not queued.
    #[error(
        "`{kind}` makes a line of {bytes} bytes, over the limit of {LINE_LIMIT}: send less in it"
    )]
    TooLong {
        /// The message's `type`.
        kind: &'static str,
        /// The length of its line.
        bytes: usize,
    },

    /// The message has no JSON form; it was not queued.
    #[error("`{kind}` cannot be written as JSON: {detail}")]
    NotEncodable {
        /// The message's `type`.
        kind: &'static str,
        /// What the serializer says.
        detail: String,
    },

    /// The message announces another number of descriptors than it was given; it was not queued.
    #[error("`{kind}` announces {announced} descriptors and was given {given}")]
    FdCount {
        /// The message's `type`.
        kind: &'static str,
        /// What its `fds` says.
        announced: u32,
        /// How many came with it.
        given: u32,
    },

    /// The kernel did not take what was queued.
    #[error("cannot send: {0}")]
    Send(SystemError),

    /// The kernel did not give what was received.
    #[error("cannot receive: {0}")]
    Receive(SystemError),

    /// A line without end.
    #[error("received a line longer than {LINE_LIMIT} bytes")]
    LineTooLong,

    /// A line that is not text.
    #[error("received a line that is not UTF-8 from byte {at} on")]
    NotUtf8 {
        /// The first wrong byte's offset in the line.
        at: usize,
    },

    /// A line that is not JSON.
    #[error("received a line that is not JSON: {detail}")]
    NotJson {
        /// What the parser says.
        detail: String,
    },

    /// A line that is JSON and no object.
    #[error("received a line that is not a JSON object")]
    NotObject,

    /// An object without a `type`.
    #[error("received an object without `type`")]
    NoType,

    /// An object whose fields do not fit its `type`.
    #[error("received an object whose fields do not fit its `type`: {detail}")]
    BadField {
        /// What is wrong.
        detail: String,
    },

    /// The stream ended inside a line.
    #[error("the other side closed the channel {bytes} bytes into a line")]
    Truncated {
        /// How much of the line had come.
        bytes: usize,
    },

    /// Descriptors that no line announced; they are closed.
    #[error("received {fds} descriptors that no line announced")]
    FdsUnclaimed {
        /// How many.
        fds: usize,
    },

    /// A line announced descriptors that did not come with it.
    #[error("received `{kind}` without the descriptors that it announces")]
    FdsMissing {
        /// The line's `type`.
        kind: String,
    },

    /// The kernel dropped descriptors on the way; those that did arrive are closed.
    #[error(
        "descriptors were lost on receipt, {arrived} arrived: this process is at its RLIMIT_NOFILE, or the other side sent too many at once"
    )]
    FdsTruncated {
        /// How many did arrive.
        arrived: usize,
    },

    /// The channel was taken from the environment before.
    #[error(
        "{CHANNEL_FD_ENV} was taken before: one part of a program speaks on the channel, and the others through it"
    )]
    AlreadyTaken,
}

/// Why `PREFORK_CHANNEL_FD` does not name a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EnvironmentProblem {
    /// Not a number, or the number of a standard stream.
    #[error("it has to be a descriptor's number, 3 or higher")]
    NotANumber,
    /// The descriptor is not open.
    #[error(
        "the descriptor is not open: whatever started this program closed it, or the variable is left over from another process"
    )]
    NotOpen,
    /// The descriptor is something else.
    #[error(
        "the descriptor is not a unix stream socket: the variable is left over from another process"
    )]
    NotAUnixStream,
    /// `PREFORK_INHERITED` names descriptors that are not open.
    #[error("not all descriptors are open that PREFORK_INHERITED names")]
    NotInherited,
    /// The kernel would not make it close-on-exec.
    #[error("the descriptor cannot be made close-on-exec")]
    NotCloseOnExec,
}

impl ChannelError {
    /// Every [`Self::reason`] of [`Channel::receive`](crate::channel::Channel::receive).
    pub const DECODE_REASONS: &'static [&'static str] = &[
        "too_long",
        "not_utf8",
        "not_json",
        "not_object",
        "no_type",
        "bad_field",
        "truncated",
        "fds_unclaimed",
        "fds_missing",
        "fds_truncated",
        "eacces",
        "ebadf",
        "efault",
        "einval",
        "enobufs",
        "enomem",
        "enotconn",
        "enotsock",
        "eopnotsupp",
        "eperm",
        OTHER_ERRNO,
    ];

    /// Every [`Self::reason`] of [`Channel::queue`](crate::channel::Channel::queue),
    /// `queue_with_fd` and `flush`.
    pub const SEND_REASONS: &'static [&'static str] = &[
        "queue_full",
        "too_long",
        "not_encodable",
        "fd_count",
        "eacces",
        "ebadf",
        "econnrefused",
        "econnreset",
        "efault",
        "einval",
        "emfile",
        "emsgsize",
        "enfile",
        "enobufs",
        "enomem",
        "enotconn",
        "enotsock",
        "eopnotsupp",
        "eperm",
        "epipe",
        "etoomanyrefs",
        OTHER_ERRNO,
    ];

    /// A short name that never changes, for a metric's `reason` label.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Pair(error) | Self::Wait(error) => error.reason(),
            Self::Send(error) => known(error.reason(), Self::SEND_REASONS),
            Self::Receive(error) => known(error.reason(), Self::DECODE_REASONS),
            Self::Environment { .. } => "environment",
            Self::AlreadyTaken => "already_taken",
            Self::QueueFull { .. } => "queue_full",
            Self::TooLong { .. } | Self::LineTooLong => "too_long",
            Self::NotEncodable { .. } => "not_encodable",
            Self::FdCount { .. } => "fd_count",
            Self::NotUtf8 { .. } => "not_utf8",
            Self::NotJson { .. } => "not_json",
            Self::NotObject => "not_object",
            Self::NoType => "no_type",
            Self::BadField { .. } => "bad_field",
            Self::Truncated { .. } => "truncated",
            Self::FdsUnclaimed { .. } => "fds_unclaimed",
            Self::FdsMissing { .. } => "fds_missing",
            Self::FdsTruncated { .. } => "fds_truncated",
        }
    }

    /// Whether the link is broken for good. If not, the one message was not
    /// queued (`queue`, `queue_with_fd`), or what is queued stays queued and
    /// `flush` may be called again after a short wait (`ETOOMANYREFS`,
    /// `ENOBUFS`, `ENOMEM`). The socket counts as writable meanwhile, so that
    /// wait has to be one of time.
    pub fn breaks_link(&self) -> bool {
        match self {
            Self::QueueFull { .. }
            | Self::TooLong { .. }
            | Self::NotEncodable { .. }
            | Self::FdCount { .. } => false,
            Self::Send(error) => !error.is_transient(),
            _ => true,
        }
    }
}

/// Keeps a metric's label values to those that are registered.
fn known(reason: &'static str, reasons: &[&'static str]) -> &'static str {
    if reasons.contains(&reason) {
        reason
    } else {
        OTHER_ERRNO
    }
}

#[cfg(test)]
mod tests {
    use nix::errno::Errno;

    use super::*;

    #[test]
    fn whatever_the_kernel_says_the_reason_is_a_registered_one() {
        for number in 1..=133 {
            let errno = Errno::from_raw(number);
            let sent = ChannelError::Send(SystemError::new(Call::Sendmsg, errno));
            assert!(
                ChannelError::SEND_REASONS.contains(&sent.reason()),
                "{sent}"
            );
            let received = ChannelError::Receive(SystemError::new(Call::Recvmsg, errno));
            assert!(
                ChannelError::DECODE_REASONS.contains(&received.reason()),
                "{received}"
            );
        }
    }

    #[test]
    fn only_what_passes_by_itself_leaves_the_link_up() {
        for (errno, breaks) in [
            (Errno::ETOOMANYREFS, false),
            (Errno::ENOBUFS, false),
            (Errno::ENOMEM, false),
            (Errno::EPIPE, true),
            (Errno::ECONNRESET, true),
            (Errno::EBADF, true),
        ] {
            let error = ChannelError::Send(SystemError::new(Call::Sendmsg, errno));
            assert_eq!(error.breaks_link(), breaks, "{error}");
        }
    }
}
