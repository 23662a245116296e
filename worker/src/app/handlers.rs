//! What the application can be asked over the channel.

use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

use prefork_proto::capability;
use prefork_proto::message::{
    NEEDS_RESTART, PlacesOffer, Reply, ReplyError, UpstreamCountsOffer, Upstreams, Vacate,
};
use prefork_proto::places::PlacesError;
use prefork_proto::upstream_counts::UpstreamCountsError;
use serde_json::Value;
use tokio::sync::Mutex;

use crate::app::context::Context;
use crate::app::front::Forwards;
use crate::runtime::task;

/// A command for the application: `prefork tell web COMMAND ARGS`.
///
/// ```
/// use prefork_worker::{Refused, Tell, Worker};
/// use serde_json::{Value, json};
///
/// async fn obey(tell: Tell) -> Result<Value, Refused> {
///     match tell.command.as_str() {
///         "slot" => Ok(json!({ "slot": tell.context.slot(), "asked": tell.args })),
///         unknown => Err(Refused::unknown_command(unknown)),
///     }
/// }
///
/// let worker = Worker::new("shop", "1.0.0").on_tell(obey);
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub struct Tell {
    /// Who this worker is.
    pub context: Context,
    /// The command's name.
    pub command: String,
    /// Its arguments, `null` when there are none.
    pub args: Value,
}

/// New settings to take in place, without a new process.
///
/// ```
/// use prefork_worker::{Refused, Reload, Worker};
///
/// async fn take(reload: Reload) -> Result<(), Refused> {
///     match reload.app["greeting"].as_str() {
///         Some(greeting) => {
///             reload.context.set_status(format!("says {greeting}"));
///             Ok(())
///         }
///         None => Err(Refused::new("invalid", "`greeting` is no text")),
///     }
/// }
///
/// let worker = Worker::new("shop", "1.0.0").on_reload(take);
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub struct Reload {
    /// Who this worker is; its `app` still has the old settings.
    pub context: Context,
    /// The new settings, in force once the handler says `Ok`.
    pub app: Value,
}

/// The worker is on its way out.
///
/// ```
/// use prefork_worker::{Drain, Worker};
///
/// async fn say_goodbye(drain: Drain) {
///     println!("worker {} leaves within {:?}", drain.context.slot(), drain.within);
/// }
///
/// let worker = Worker::new("shop", "1.0.0").on_drain(say_goodbye);
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub struct Drain {
    /// Who this worker is.
    pub context: Context,
    /// How long the drain may take; what is left then is cut.
    pub within: Duration,
}

/// Why the application does not do what it is asked.
///
/// ```
/// use prefork_worker::Refused;
///
/// let refused = Refused::new("not_found", "there is no order 12");
/// assert_eq!(refused.to_string(), "there is no order 12");
/// assert_eq!(Refused::unknown_command("fly").code, "unknown_command");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refused {
    /// For programs: one short word.
    pub code: String,
    /// For people.
    pub message: String,
}

impl Refused {
    /// A refusal with a code for programs and a message for people.
    pub fn new(code: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            code: code.into(),
            message: message.into(),
        }
    }

    /// The refusal of settings that only a new process can take: the worker
    /// goes on as it is, until its successor has come up with them.
    pub fn needs_restart(message: impl Into<String>) -> Self {
        Self::new(NEEDS_RESTART, message)
    }

    /// The refusal of a command that the application does not know.
    pub fn unknown_command(command: &str) -> Self {
        Self::new("unknown_command", format!("no command {command:?}"))
    }
}

impl From<Refused> for ReplyError {
    fn from(refused: Refused) -> Self {
        Self {
            code: refused.code,
            message: refused.message,
        }
    }
}

pub(crate) type LocalFuture<T> = Pin<Box<dyn Future<Output = T>>>;
pub(crate) type Answer = Result<Value, Refused>;
type Farewell = Rc<dyn Fn(Drain) -> LocalFuture<()>>;
type Handler<Q, A> = Rc<dyn Fn(Q) -> LocalFuture<Result<A, Refused>>>;

/// The application's handlers.
#[derive(Default)]
pub(crate) struct Application {
    pub(crate) on_tell: Option<Handler<Tell, Value>>,
    pub(crate) on_reload: Option<Handler<Reload, ()>>,
    pub(crate) on_drain: Option<Farewell>,
    pub(crate) forwards: Option<Rc<dyn Forwards>>,
    /// Held by the reload that is under way; the next one waits for it, so that
    /// the settings that came last are those that stay.
    reloading: Rc<Mutex<()>>,
}

impl Application {
    /// What `hello` says the worker can do.
    pub(crate) fn capabilities(&self) -> Vec<String> {
        let handlers = [
            (capability::TELL, self.on_tell.is_some()),
            (capability::RELOAD, self.on_reload.is_some()),
            (capability::FORWARD, self.forwards.is_some()),
            (capability::UPSTREAM_COUNTS, self.forwards.is_some()),
        ];
        let handled = handlers
            .into_iter()
            .filter_map(|(name, there)| there.then_some(name));
        handled
            .chain([
                capability::PAUSE,
                capability::RESCUE,
                capability::HTTP_COUNTS,
                capability::SCOREBOARD,
                capability::REJOIN,
                capability::OUTPUT,
                capability::TLS,
                capability::CLIENT_CERTIFICATES,
                capability::ACCESS_LOG,
                capability::PROXY_PROTOCOL,
                capability::REQUESTS,
                capability::PASS_ON,
                capability::INHERIT,
            ])
            .map(str::to_owned)
            .collect()
    }

    /// Counts what it forwards in this memory from now on.
    pub(crate) fn count_in(
        &self,
        offer: &PlacesOffer,
        memory: Option<OwnedFd>,
    ) -> Result<(), PlacesError> {
        match (&self.forwards, memory) {
            (Some(forwards), Some(memory)) => forwards.count_in(offer, memory),
            // A worker that did not say that it forwards is not told.
            _ => Ok(()),
        }
    }

    /// Counts what is answered to what it forwards in this memory from now on.
    pub(crate) fn count_answers_in(
        &self,
        offer: &UpstreamCountsOffer,
        memory: Option<OwnedFd>,
    ) -> Result<(), UpstreamCountsError> {
        match (&self.forwards, memory) {
            (Some(forwards), Some(memory)) => forwards.count_answers_in(offer, memory),
            _ => Ok(()),
        }
    }

    /// Forwards to these from now on.
    pub(crate) fn learn(&self, table: Upstreams) {
        if let Some(forwards) = &self.forwards {
            forwards.learn(table);
        }
    }

    /// Answers when nothing is in flight any more at a worker behind.
    pub(crate) fn vacate(&self, whom: &Vacate) -> LocalFuture<Answer> {
        match &self.forwards {
            Some(forwards) => forwards.vacate(whom),
            None => Box::pin(std::future::ready(Ok(Value::Null))),
        }
    }

    pub(crate) fn tell(&self, tell: Tell) -> LocalFuture<Answer> {
        match self.on_tell.clone() {
            Some(handler) => Box::pin(async move { handler(tell).await }),
            None => refuse(Refused::new(
                "unknown_command",
                format!("no command {:?}: the application takes none", tell.command),
            )),
        }
    }

    pub(crate) fn reload(&self, reload: Reload) -> LocalFuture<Answer> {
        let Some(handler) = self.on_reload.clone() else {
            return refuse(Refused::new(
                "unsupported",
                "the application does not take new settings in place",
            ));
        };
        let reloading = Rc::clone(&self.reloading);
        Box::pin(async move {
            let _turn = reloading.lock().await;
            let context = reload.context.clone();
            let app = reload.app.clone();
            handler(reload).await?;
            context.set_app(app);
            Ok(Value::Null)
        })
    }
}

fn refuse(refused: Refused) -> LocalFuture<Answer> {
    Box::pin(std::future::ready(Err(refused)))
}

/// Runs what a request asked for and makes its reply; a handler that panics
/// is answered for, too.
pub(crate) async fn answer(id: u64, work: LocalFuture<Answer>) -> Reply {
    match task::spawn(work).await {
        Ok(Ok(data)) => Reply::done(id, data),
        Ok(Err(refused)) => Reply::failed(id, refused.code, refused.message),
        Err(_) => Reply::failed(id, "panicked", "the command's handler panicked"),
    }
}
