//! A pool's access log: opened here, where there may be the right to, and handed
//! to the workers, which write to it.

use std::cell::RefCell;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use prefork_proto::message::AccessLogOffer;
use tokio::sync::oneshot;
use tokio::time::timeout;
use tracing::warn;

use crate::config;
use crate::reactor::Reactor;
use crate::reactor::worker_process::handle::{Call, Order};
use crate::reactor::worker_process::protocol::CallError;

/// How long a worker may take to let go of the file before.
const SWITCH: Duration = Duration::from_secs(5);

/// The access log of one edition.
#[derive(Debug)]
pub(crate) struct AccessLog {
    settings: config::AccessLog,
    /// Who writes to it, where that is not the supervisor's user.
    writer: Option<u32>,
    file: RefCell<OwnedFd>,
}

impl AccessLog {
    /// Opens it.
    pub(crate) fn open(settings: config::AccessLog, writer: Option<u32>) -> io::Result<Self> {
        let file = RefCell::new(open(&settings, writer)?);
        Ok(Self {
            settings,
            writer,
            file,
        })
    }

    /// Opens it again, after a rotation has renamed it.
    pub(crate) fn reopen(&self) -> io::Result<()> {
        *self.file.borrow_mut() = open(&self.settings, self.writer)?;
        Ok(())
    }

    /// The line for a worker, and the descriptor that goes with it.
    pub(crate) fn offer(&self, id: u64) -> io::Result<(AccessLogOffer, OwnedFd)> {
        let offer = AccessLogOffer {
            id,
            format: self.settings.format,
            fds: 1,
        };
        Ok((offer, self.copy()?))
    }

    /// A descriptor of the file that is written to now.
    pub(crate) fn copy(&self) -> io::Result<OwnedFd> {
        self.file.borrow().try_clone()
    }
}

fn open(settings: &config::AccessLog, writer: Option<u32>) -> io::Result<OwnedFd> {
    let Some(path) = &settings.path else {
        return io::stdout().as_fd().try_clone_to_owned();
    };
    let named =
        |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
    config::open_access_log(path, writer)
        .map(Into::into)
        .map_err(named)
}

impl Reactor {
    /// Opens the log and the access logs again, after a rotation has renamed
    /// them. What comes back is done when no worker writes to a file before
    /// any more.
    ///
    /// # Errors
    /// What could not be opened; it is written to as before.
    pub(in crate::reactor) fn reopen_logs(
        &self,
    ) -> Result<impl Future<Output = ()> + use<>, String> {
        let mut problems = Vec::new();
        if let Err(error) = self.log.reopen() {
            problems.push(format!("log: {error}"));
        }
        for access_log in self.editions.access_logs() {
            if let Err(error) = access_log.reopen() {
                problems.push(format!("access log: {error}"));
            }
        }
        let mut asked = Vec::new();
        for (worker, grip) in &self.processes {
            let (answer, answered) = oneshot::channel();
            grip.order(Order::Call(Call::AccessLog, answer));
            asked.push((self.slot_name(*worker), grip.pid, answered));
        }
        if !problems.is_empty() {
            return Err(problems.join("; "));
        }
        Ok(async move {
            let all = async {
                for (slot, pid, answered) in asked {
                    // One that leaves flushes what it has by itself.
                    if let Ok(Err(CallError::Refused { why, .. })) = answered.await {
                        warn!(%slot, pid, "its access log was not opened again: {why}");
                    }
                }
            };
            if timeout(SWITCH, all).await.is_err() {
                warn!("not every worker has said that it writes to the new access log");
            }
        })
    }
}
