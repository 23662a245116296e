//! The signals that concern a worker.

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::error::WorkerError;
use crate::sys;

/// The signals that ask a worker to leave.
#[derive(Debug)]
pub(crate) struct Signals {
    terminate: Signal,
    /// Only where it runs alone.
    interrupt: Option<Signal>,
}

impl Signals {
    /// Takes SIGTERM over. Under a supervisor, SIGINT and SIGHUP are taken over
    /// as well and do nothing: a terminal sends them to every process of its
    /// group, and it is the supervisor that decides. They are handled and not
    /// ignored because a program that the application executes would inherit
    /// an ignored signal.
    ///
    /// SIGXFSZ is taken over as well and does nothing: a write beyond RLIMIT_FSIZE is
    /// then an error (EFBIG) like that of a full disk.
    ///
    /// SIGPIPE is ignored, as Rust's runtime does for a program whose `main` has
    /// not undone that: a worker outlives the readers of its output.
    pub(crate) fn take(supervised: bool) -> Result<Self, WorkerError> {
        sys::ignore_broken_pipes().map_err(|errno| WorkerError::Signal {
            signal: "SIGPIPE",
            source: errno.into(),
        })?;
        let terminate = watch(SignalKind::terminate(), "SIGTERM")?;
        let interrupt = watch(SignalKind::interrupt(), "SIGINT")?;
        drop(watch(SignalKind::from_raw(libc::SIGXFSZ), "SIGXFSZ")?);
        if supervised {
            // The handler stays when the stream of signals is dropped.
            drop(watch(SignalKind::hangup(), "SIGHUP")?);
        }
        Ok(Self {
            terminate,
            interrupt: (!supervised).then_some(interrupt),
        })
    }

    /// Waits for a signal that asks the worker to leave. Safe to cancel.
    pub(crate) async fn terminate(&mut self) {
        let interrupt = async {
            match &mut self.interrupt {
                Some(interrupt) => interrupt.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = interrupt => {}
        }
    }
}

fn watch(kind: SignalKind, name: &'static str) -> Result<Signal, WorkerError> {
    signal(kind).map_err(|source| WorkerError::Signal {
        signal: name,
        source,
    })
}
