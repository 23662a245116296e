//! The configuration, read beside the loop. Reading it looks users up and opens
//! files wherever they lie: a directory service or a network file system that does
//! not answer would stop everything for as long. So a process of our own reads it,
//! which may take its time, up to a bound.

use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde::{Deserialize, Serialize};
use tokio::io::AsyncReadExt;

use crate::config::{self, Config, Options};
use crate::helper::process;
use crate::kernel::sys;
use crate::tls::Secret;

/// The argument that makes the `prefork` binary read a configuration for the
/// supervisor that has started it.
pub const READ_ARGUMENT: &str = "read-configuration";

/// How long reading may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// No answer is longer.
const MOST_BYTES: u64 = 256 << 20;

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    /// What is written is wrong.
    #[error("{0}")]
    Invalid(String),
    /// Something that it names does not answer.
    #[error(
        "reading the configuration took longer than {PATIENCE:?}: the directory service that knows \
         its users, or a file system that it or its files lie on, does not answer; nothing was touched"
    )]
    TimedOut,
    /// No process could be made, or it came to nothing.
    #[error("cannot read the configuration in a process of its own: {0}")]
    NotRead(io::Error),
}

/// What the process says.
#[derive(Serialize, Deserialize)]
enum Answer {
    Read {
        config: Box<Config>,
        /// In the order of the configuration's certificates, of which it has no keys.
        secrets: Vec<Option<Secret>>,
    },
    Invalid(String),
}

/// The main function of the process that reads: the options come from stdin, the
/// answer goes to stdout.
pub fn read_for_supervisor() -> ExitCode {
    let answer = serde_json::from_reader(io::stdin().lock())
        .map(|options: Options| match config::load(&options) {
            Ok(config) => Answer::Read {
                secrets: config
                    .certificates()
                    .map(|it| it.pem.as_deref().map(Secret::of))
                    .collect(),
                config: Box::new(config),
            },
            Err(error) => Answer::Invalid(error.to_string()),
        })
        .and_then(|answer| serde_json::to_vec(&answer));
    let said = answer
        .map_err(io::Error::from)
        .and_then(|answer| io::stdout().write_all(&answer));
    match said {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

/// Reads the configuration in a process of its own. Whoever reaps strangers reaps it.
pub(crate) async fn read(options: &Options) -> Result<Config, ReadError> {
    let started = process::start(READ_ARGUMENT, options, None);
    let (child, answer) = started.map_err(ReadError::NotRead)?;
    let mut text = Vec::new();
    let mut answer = answer.take(MOST_BYTES);
    let heard = tokio::time::timeout(PATIENCE, answer.read_to_end(&mut text)).await;
    match heard {
        Err(_) => {
            // It goes as soon as whatever it waits for lets go of it.
            let _ = sys::pidfd_kill(&child, Signal::SIGKILL);
            Err(ReadError::TimedOut)
        }
        Ok(Err(error)) => Err(ReadError::NotRead(error)),
        Ok(Ok(_)) => understand(&text),
    }
}

fn understand(text: &[u8]) -> Result<Config, ReadError> {
    let answer = serde_json::from_slice(text);
    match answer.map_err(|error| ReadError::NotRead(io::Error::other(error)))? {
        Answer::Invalid(why) => Err(ReadError::Invalid(why)),
        Answer::Read {
            mut config,
            secrets,
        } => {
            let listeners = config.pools.iter_mut().flat_map(|pool| &mut pool.listen);
            let tls = listeners.filter_map(|listen| listen.tls.as_mut());
            let certificates = tls.flat_map(|tls| &mut tls.certificates);
            for (certificate, secret) in certificates.zip(secrets) {
                certificate.pem = secret.map(Secret::into_pem).map(Arc::new);
            }
            Ok(*config)
        }
    }
}
