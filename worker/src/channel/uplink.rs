//! Whom a ready worker obeys: a supervisor, or nobody until the next one comes.

use nix::errno::Errno;
use prefork_proto::error::ChannelError;
use prefork_proto::message::ToSupervisor;
use tokio::time::Instant;

use crate::app::handlers::LocalFuture;
use crate::channel::link::{Heard, Link};
use crate::channel::rejoin::{Answer, Papers};
use crate::error::WorkerError;
use crate::runtime::timer::Timer;

/// Where a ready worker's orders come from.
pub(crate) enum Uplink {
    /// Nowhere, now and later.
    None,
    /// A supervisor.
    Link(Box<Link>),
    /// Nowhere, until a supervisor is found.
    Orphan(Orphan),
}

/// A worker between two supervisors.
pub(crate) struct Orphan {
    /// When it has waited long enough, by the timer's clock.
    until: Instant,
    search: LocalFuture<(Box<Papers>, Answer)>,
}

/// What comes from above.
pub(crate) enum Above {
    Heard(Result<Heard, WorkerError>),
    /// The next supervisor answers; the papers are back.
    Found(Box<Papers>, Answer),
    /// An orphan has waited long enough.
    NobodyCame,
}

impl Uplink {
    /// Begins to look for the next supervisor, which may take until then.
    pub(crate) fn orphan(papers: Box<Papers>, until: Instant) -> Self {
        Self::Orphan(Orphan {
            until,
            search: Box::pin(papers.find_supervisor()),
        })
    }

    pub(crate) fn is_linked(&self) -> bool {
        matches!(self, Self::Link(_))
    }

    /// Whether there is a supervisor that has taken all that was said.
    pub(crate) fn is_clear(&self) -> bool {
        matches!(self, Self::Link(link) if link.is_clear())
    }

    /// What comes next. Safe to cancel.
    pub(crate) async fn next(&mut self, timer: &Timer) -> Above {
        match self {
            Self::None => std::future::pending().await,
            Self::Link(link) => Above::Heard(link.hear().await),
            Self::Orphan(orphan) => tokio::select! {
                (papers, answer) = &mut orphan.search => Above::Found(papers, answer),
                () = timer.sleep_until(orphan.until) => Above::NobodyCame,
            },
        }
    }

    /// Says something to the supervisor, if there is one. That it has closed
    /// its end is no error yet: [`Self::next`] tells of that, after the last of
    /// what it said.
    ///
    /// # Errors
    /// The link is broken.
    pub(crate) fn say(&mut self, message: &ToSupervisor) -> Result<(), ChannelError> {
        let Self::Link(link) = self else {
            return Ok(());
        };
        match link.say(message) {
            Err(ChannelError::Send(error))
                if matches!(
                    Errno::from_raw(error.raw_os_error()),
                    Errno::EPIPE | Errno::ECONNRESET
                ) =>
            {
                Ok(())
            }
            said => said,
        }
    }

    /// Gives the supervisor a moment to take what was said last.
    pub(crate) async fn finish(&mut self) {
        if let Self::Link(link) = self {
            link.finish().await;
        }
    }
}
