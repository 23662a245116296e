//! Why a worker could not begin or go on.

use std::io;

use prefork_proto::error::ChannelError;
use prefork_proto::message::{Message, ToWorker};
use prefork_proto::places::PlacesError;
use prefork_proto::request_table::RequestTableError;
use prefork_proto::scoreboard::ScoreboardError;
use prefork_proto::upstream_counts::UpstreamCountsError;

use crate::transport::tls::TlsError;

/// Why an application could not start: any error, or a text.
///
/// ```
/// use prefork_worker::StartError;
///
/// fn port(text: &str) -> Result<u16, StartError> {
///     match text.parse()? {
///         0 => Err("0 is no port".into()),
///         port => Ok(port),
///     }
/// }
/// assert_eq!(port("0").unwrap_err().to_string(), "0 is no port");
/// assert!(port("http").is_err());
/// ```
pub type StartError = Box<dyn std::error::Error + Send + Sync>;

/// What ends a worker with exit code 1.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WorkerError {
    #[error("cannot make the runtime: {0}")]
    Runtime(#[source] io::Error),

    #[error("cannot watch {signal}: {source}")]
    Signal {
        signal: &'static str,
        source: io::Error,
    },

    #[error("the channel to the supervisor failed: {0}")]
    Channel(#[from] ChannelError),

    #[error("cannot watch the channel to the supervisor: {0}")]
    Watch(#[source] io::Error),

    #[error("cannot rejoin: {0}")]
    Rejoin(#[source] io::Error),

    #[error("cannot look after what it prints: {0}")]
    Output(#[source] io::Error),

    #[error("the supervisor closed the channel before the worker was ready")]
    ClosedEarly,

    #[error(transparent)]
    Scoreboard(#[from] ScoreboardError),

    #[error(transparent)]
    RequestTable(#[from] RequestTableError),

    #[error(transparent)]
    Places(#[from] PlacesError),

    #[error(transparent)]
    UpstreamCounts(#[from] UpstreamCountsError),

    #[error(transparent)]
    Tls(#[from] TlsError),

    #[error("expected {expected} from the supervisor, received `{received}`")]
    OutOfOrder {
        expected: &'static str,
        received: String,
    },

    #[error("the supervisor speaks protocol {theirs}, this worker speaks {ours}")]
    Protocol { theirs: u32, ours: u32 },

    #[error("cannot accept from listener {name}: {problem}")]
    Listener { name: String, problem: String },

    #[error("cannot listen on {address}: {problem}")]
    Listen { address: String, problem: String },

    #[error("unknown argument `{0}`")]
    Argument(String),

    #[error(
        "a worker has a runtime of its own and cannot run inside another one: make `main` a \
         plain function, without #[tokio::main], and do what has to be awaited in the closure \
         that `run` is given"
    )]
    InsideRuntime,

    #[error("the application did not start: {0}")]
    Start(#[source] StartError),
}

impl WorkerError {
    /// The supervisor said `message` where only `expected` has its place.
    pub(crate) fn out_of_order(expected: &'static str, message: &ToWorker) -> Self {
        Self::OutOfOrder {
            expected,
            received: message.kind().to_owned(),
        }
    }
}
