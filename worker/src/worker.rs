//! The builder that an application's `main` uses, and what it runs.

use std::process::ExitCode;
use std::rc::{Rc, Weak};
use std::time::Duration;

use hyper::body::{Body, Incoming};
use hyper::service::Service;
use hyper::{Request, Response};
use hyper_util::service::TowerToHyperService;
use prefork_proto::channel::WorkerEnd;
use prefork_proto::message::{Hello, PROTOCOL, ToSupervisor};
use prefork_proto::metrics::Rule;
use prefork_proto::scoreboard::Tally;
use serde_json::{Value, json};
use tokio::runtime::{Builder, Handle, LocalOptions};

use crate::accept::accept_state::Gate;
use crate::accept::listener::Listener;
use crate::accept::{Serve, accept};
use crate::access_log::AccessLog;
use crate::app::context::Context;
use crate::app::front::Forwards;
use crate::app::handlers::{Application, Drain, LocalFuture, Refused, Reload, Tell};
use crate::app::standalone::{self, Wish};
use crate::channel::handshake::{Boot, Orders, handshake, start_up};
use crate::channel::link::Link;
use crate::channel::metrics_reporter::{Reporter, Sources};
use crate::channel::rejoin::Papers;
use crate::channel::session::{Leave, Pace, Session};
use crate::channel::signals::Signals;
use crate::channel::uplink::Uplink;
use crate::connection;
use crate::error::{StartError, WorkerError};
use crate::limits::Limits;
use crate::output::{Keeper, say};
use crate::process::Serving;
use crate::sys;
use crate::transport::tls::Tls;

/// A worker to be: the application's name and handlers.
///
/// ```no_run
/// # use std::convert::Infallible;
/// # use hyper::{Request, Response, body::Incoming, service::service_fn};
/// async fn hello(_: Request<Incoming>) -> Result<Response<String>, Infallible> {
///     Ok(Response::new("hello\n".to_owned()))
/// }
///
/// fn main() -> std::process::ExitCode {
///     prefork_worker::Worker::new(env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION"))
///         .run(|_context| async { Ok(service_fn(hello)) })
/// }
/// ```
#[must_use = "a worker does nothing until it is run"]
pub struct Worker {
    program: String,
    version: String,
    application: Application,
    metrics: Sources,
    limits: Limits,
    tells_peer: bool,
    alone: Alone,
}

/// How it runs where no supervisor started it.
struct Alone {
    listen: Vec<String>,
    /// Whether the program reads more of its command line itself.
    has_arguments: bool,
    app: Value,
    idle_grace: Duration,
}

/// What a command line that can't be understood ends with.
const WRONG_USAGE: u8 = 2;

type Start = Box<dyn FnOnce(Context, &'static Serving) -> LocalFuture<Result<Serve, StartError>>>;

impl Worker {
    /// A worker of this program name and version; both are for people to read.
    pub fn new(program: impl Into<String>, version: impl Into<String>) -> Self {
        Self {
            program: program.into(),
            version: version.into(),
            application: Application::default(),
            metrics: Sources::default(),
            limits: Limits::default(),
            tells_peer: true,
            alone: Alone {
                listen: vec!["127.0.0.1:8080".to_owned()],
                has_arguments: false,
                app: json!({}),
                idle_grace: Duration::from_secs(3),
            },
        }
    }

    /// Answers commands of the application's own, `prefork tell POOL COMMAND`.
    /// A command runs beside the serving loop; blocking work belongs into
    /// [`Context::blocking`].
    pub fn on_tell<F, Fut>(mut self, handler: F) -> Self
    where
        F: Fn(Tell) -> Fut + 'static,
        Fut: Future<Output = Result<Value, Refused>> + 'static,
    {
        self.application.on_tell = Some(Rc::new(move |tell| Box::pin(handler(tell))));
        self
    }

    /// Takes new settings in place. Without it, new settings mean a new process;
    /// so they do where the handler answers [`Refused::needs_restart`].
    pub fn on_reload<F, Fut>(mut self, handler: F) -> Self
    where
        F: Fn(Reload) -> Fut + 'static,
        Fut: Future<Output = Result<(), Refused>> + 'static,
    {
        self.application.on_reload = Some(Rc::new(move |reload| Box::pin(handler(reload))));
        self
    }

    /// Is called once, when the worker begins to leave: when it drains, for
    /// whatever reason, and no connection is accepted any more. The drain
    /// waits for it, up to its deadline.
    pub fn on_drain<F, Fut>(mut self, handler: F) -> Self
    where
        F: Fn(Drain) -> Fut + 'static,
        Fut: Future<Output = ()> + 'static,
    {
        self.application.on_drain = Some(Rc::new(move |drain| Box::pin(handler(drain))));
        self
    }

    /// Makes it a [front](crate::app::front): tells this one of the pools of the same
    /// supervisor that requests may be forwarded to.
    pub fn forwards(mut self, forwards: Rc<dyn Forwards>) -> Self {
        self.application.forwards = Some(forwards);
        self
    }

    /// Reports the metrics of this registry, too; those of the `prometheus`
    /// crate's default registry are reported without being asked for. The
    /// supervisor exports them for the whole pool: see this crate's README.
    pub fn registry(mut self, registry: prometheus::Registry) -> Self {
        self.metrics.registries.push(registry);
        self
    }

    /// What becomes of the values that this gauge has in several workers. The
    /// rule of a gauge for which this is not called is [`Rule::Sum`].
    pub fn gauge_rule(mut self, name: impl Into<String>, rule: Rule) -> Self {
        self.metrics.rules.insert(name.into(), rule);
        self
    }

    /// Changes limits and deadlines of HTTP, as far as the operator says nothing
    /// else in `[pool.NAME.http]`.
    ///
    /// ```
    /// # let worker = prefork_worker::Worker::new("shop", "1.0.0");
    /// worker.limits(|limits| {
    ///     limits.max_body_size = Some(64 << 10);
    ///     limits.max_concurrency = Some(100);
    /// });
    /// ```
    pub fn limits(mut self, change: impl FnOnce(&mut Limits)) -> Self {
        change(&mut self.limits);
        self
    }

    /// Leaves [`Peer`](crate::Peer) out of the requests, for a service that never
    /// asks who its clients are: what holds a request's extensions is allocated for
    /// each.
    pub fn without_peer(mut self) -> Self {
        self.tells_peer = false;
        self
    }

    /// How long a client may take to finish the head of an HTTP/1 request that
    /// it has begun; see [`Limits::header_timeout`].
    pub fn header_timeout(self, timeout: Duration) -> Self {
        self.limits(|limits| limits.header_timeout = timeout)
    }

    /// How long a connection may stay open without a request; see
    /// [`Limits::idle_timeout`].
    pub fn idle_timeout(self, timeout: Duration) -> Self {
        self.limits(|limits| limits.idle_timeout = timeout)
    }

    /// Where to listen when no supervisor started the program and neither
    /// `--listen ADDRESS` nor `PREFORK_LISTEN` says otherwise:
    /// `127.0.0.1:8080`, `[::1]:8080` or `unix:/PATH`.
    pub fn default_listen(mut self, address: impl Into<String>) -> Self {
        self.alone.listen = vec![address.into()];
        self
    }

    /// Leaves the command line to the program when no supervisor started it. `--listen
    /// ADDRESS` is taken from it as ever; without this, everything else is refused.
    pub fn own_arguments(mut self) -> Self {
        self.alone.has_arguments = true;
        self
    }

    /// The application's settings when no supervisor started the program;
    /// `{}` if this is not called.
    pub fn default_app(mut self, app: Value) -> Self {
        self.alone.app = app;
        self
    }

    /// Runs a hyper service until the worker has left, and says how that went.
    ///
    /// `start` makes the service; the worker is `ready` once it has. It runs
    /// inside the worker's runtime, so it can connect to databases and spawn
    /// tasks ([`Context::spawn`]). `main` is a plain function: inside another runtime
    /// (`#[tokio::main]`) this says so and fails.
    pub fn run<F, Fut, S, B>(self, start: F) -> ExitCode
    where
        F: FnOnce(Context) -> Fut + 'static,
        Fut: Future<Output = Result<S, StartError>> + 'static,
        S: Service<Request<Incoming>, Response = Response<B>> + 'static,
        S::Future: 'static,
        S::Error: Into<StartError>,
        B: Body + 'static,
        B::Error: Into<StartError>,
    {
        let start: Start = Box::new(move |context, serving| {
            Box::pin(async move {
                let service = Rc::new(start(context).await?);
                let serve: Serve = Rc::new(move |stream| {
                    let service = Rc::clone(&service);
                    tokio::task::spawn_local(connection::serve(stream, serving, service));
                });
                Ok(serve)
            })
        });
        let program = self.program.clone();
        let default = self.alone.listen.clone();
        match self.run_to_end(start) {
            Ok(code) => code,
            Err(error @ WorkerError::Argument(_)) => {
                let usage = standalone::usage(&program, &default);
                say(format_args!("{program}: {error}\n{usage}"));
                ExitCode::from(WRONG_USAGE)
            }
            Err(error) => {
                say(format_args!("{program}: {error}"));
                ExitCode::FAILURE
            }
        }
    }

    /// Runs a tower service, an axum `Router` for instance; see [`Self::run`].
    pub fn run_tower<F, Fut, S, B>(self, start: F) -> ExitCode
    where
        F: FnOnce(Context) -> Fut + 'static,
        Fut: Future<Output = Result<S, StartError>> + 'static,
        S: tower_service::Service<Request<Incoming>, Response = Response<B>> + Clone + 'static,
        S::Future: 'static,
        S::Error: Into<StartError>,
        B: Body + 'static,
        B::Error: Into<StartError>,
    {
        self.run(|context| async { Ok(TowerToHyperService::new(start(context).await?)) })
    }

    fn run_to_end(self, start: Start) -> Result<ExitCode, WorkerError> {
        // The runtime would panic, and name neither `main` nor its attribute.
        if Handle::try_current().is_ok() {
            return Err(WorkerError::InsideRuntime);
        }
        let runtime = Builder::new_current_thread()
            .enable_all()
            .build_local(LocalOptions::default())
            .map_err(WorkerError::Runtime)?;
        let code = runtime.block_on(async {
            match WorkerEnd::from_env()? {
                Some(channel) => self.supervised(Link::new(channel)?, start).await,
                None => self.by_itself(start).await,
            }
        });
        // Not waiting for blocking work that was left: the process ends.
        runtime.shutdown_background();
        code
    }

    async fn supervised(self, mut link: Link, start: Start) -> Result<ExitCode, WorkerError> {
        let mut signals = Signals::take(true)?;
        let hello = self.hello();
        let access_log: &AccessLog = Box::leak(Box::default());
        let boot = async {
            let Boot::Done(orders) =
                handshake(&mut link, hello.clone(), access_log, &self.application).await?
            else {
                return Ok(None);
            };
            let Orders {
                welcome,
                tally,
                request_table,
                listeners,
                tls,
                outputs,
            } = orders;
            access_log.introduce(&welcome.pool, welcome.slot);
            let limits = self.limits.under(&welcome.http);
            let serving = Serving::new(tally, request_table, limits, access_log, self.tells_peer)
                .map_err(WorkerError::Runtime)?;
            let context = Context::supervised(&welcome, serving);
            let starting = start(context.clone(), serving);
            match start_up(&mut link, access_log, &self.application, starting).await? {
                Boot::Done(Ok(serve)) => {
                    let booted = (welcome, listeners, tls, outputs, context, serving, serve);
                    Ok(Some(booted))
                }
                Boot::Done(Err(error)) => Err(WorkerError::Start(error)),
                Boot::Dismissed => Ok(None),
            }
        };
        let booted = tokio::select! {
            booted = boot => booted,
            () = signals.terminate() => Ok(None),
        };
        let (welcome, listeners, tls, outputs, context, serving, serve) = match booted {
            Ok(Some(booted)) => booted,
            Ok(None) => {
                link.farewell("asked to leave before it was ready".to_owned())
                    .await;
                return Ok(ExitCode::SUCCESS);
            }
            Err(error) => {
                link.farewell(error.to_string()).await;
                return Err(error);
            }
        };
        let gate = Rc::<Gate>::default();
        if welcome.paused {
            gate.shut();
        }
        // Its thread begins when the process has given up the rights that it does not
        // need: one that was there before would have kept them.
        let keeper = match Keeper::start(outputs, link.channel()) {
            Ok(keeper) => keeper,
            Err(error) => {
                let error = WorkerError::Output(error);
                link.farewell(error.to_string()).await;
                return Err(error);
            }
        };
        sys::end_with_parent(false).map_err(WorkerError::Output)?;
        link.say(&ToSupervisor::Ready)?;
        let listeners = accept_from(listeners, &gate, serving, &serve);
        let session = Session {
            uplink: Uplink::Link(Box::new(link)),
            pace: Pace::of(&welcome),
            papers: welcome.rejoin.map(|offer| {
                Box::new(Papers {
                    offer,
                    hello,
                    context: context.clone(),
                    gate: Rc::clone(&gate),
                    serving,
                    listeners,
                    keeper,
                })
            }),
            keeper,
            context,
            application: self.application,
            metrics: Reporter::new(self.metrics),
            serving,
            limits: self.limits,
            gate,
            serve,
            signals,
            tls,
        };
        Ok(run(session).await)
    }

    async fn by_itself(self, start: Start) -> Result<ExitCode, WorkerError> {
        let arguments = std::env::args().skip(1);
        let named = match standalone::read(arguments, self.alone.has_arguments)? {
            Wish::Serve(named) => named,
            Wish::Help => {
                println!("{}", standalone::usage(&self.program, &self.alone.listen));
                return Ok(ExitCode::SUCCESS);
            }
        };
        let signals = Signals::take(false)?;
        let mut listeners = Vec::new();
        for address in standalone::addresses(named, self.alone.listen) {
            listeners.push(Listener::bind(&address)?);
        }
        let access_log = Box::leak(Box::default());
        let tally = Tally::private();
        let serving = Serving::new(tally, None, self.limits, access_log, self.tells_peer)
            .map_err(WorkerError::Runtime)?;
        let context = Context::alone(&self.program, self.alone.app, serving);
        let serve = start(context.clone(), serving)
            .await
            .map_err(WorkerError::Start)?;
        for listener in &listeners {
            say(format_args!(
                "{}: listening on {}",
                self.program, listener.name
            ));
        }
        let gate = Rc::<Gate>::default();
        accept_from(listeners, &gate, serving, &serve);
        let session = Session {
            uplink: Uplink::None,
            papers: None,
            keeper: None,
            context,
            application: self.application,
            metrics: Reporter::new(self.metrics),
            serving,
            limits: Limits::default(),
            gate,
            serve,
            signals,
            tls: Tls::default(),
            pace: Pace {
                heartbeat: Duration::from_secs(1),
                idle_grace: self.alone.idle_grace,
            },
        };
        Ok(run(session).await)
    }

    fn hello(&self) -> Hello {
        Hello {
            protocol: PROTOCOL,
            pid: i32::try_from(std::process::id()).expect("process ids fit pid_t"),
            program: self.program.clone(),
            version: self.version.clone(),
            capabilities: self.application.capabilities(),
        }
    }
}

/// Begins to take connections; the listeners last until the gate closes them.
fn accept_from(
    listeners: Vec<Listener>,
    gate: &Rc<Gate>,
    serving: &'static Serving,
    serve: &Serve,
) -> Vec<Weak<Listener>> {
    let begin = |listener| {
        let listener = Rc::new(listener);
        let held = Rc::downgrade(&listener);
        let accepting = accept(listener, Rc::clone(gate), serving, Rc::clone(serve));
        tokio::task::spawn_local(accepting);
        held
    };
    listeners.into_iter().map(begin).collect()
}

async fn run(session: Session) -> ExitCode {
    match session.run().await {
        Leave::Drained | Leave::Cut(_) => ExitCode::SUCCESS,
        Leave::Broken(_) => ExitCode::FAILURE,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inside_another_runtime_it_says_what_to_do() {
        let runtime = Builder::new_current_thread().build().unwrap();
        let start: Start = Box::new(|_, _| Box::pin(async { Err("it began".into()) }));
        let ended = runtime.block_on(async { Worker::new("shop", "1").run_to_end(start) });
        let said = ended.unwrap_err().to_string();
        assert!(said.contains("without #[tokio::main]"), "{said}");
    }
}
