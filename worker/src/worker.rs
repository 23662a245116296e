//! The builder that an application's `main` uses, and what it runs.

use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;

use hyper::body::{Body, Incoming};
use hyper::service::Service;
use hyper::{Request, Response};
use hyper_util::service::TowerToHyperService;
use prefork_proto::metrics::Rule;
use serde_json::{Value, json};

use crate::accept::Serve;
use crate::app::context::Context;
use crate::app::front::Forwards;
use crate::app::handlers::{Application, Drain, Refused, Reload, Tell};
use crate::app::standalone::{self};
use crate::channel::metrics_reporter::Sources;
use crate::connection;
use crate::error::{StartError, WorkerError};
use crate::limits::Limits;
use crate::output::say;
use crate::run::Start;
use crate::runtime::task;

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
    pub(crate) program: String,
    pub(crate) version: String,
    pub(crate) application: Application,
    pub(crate) metrics: Sources,
    pub(crate) limits: Limits,
    pub(crate) tells_peer: bool,
    pub(crate) alone: Alone,
}

/// How it runs where no supervisor started it.
pub(crate) struct Alone {
    pub(crate) listen: Vec<String>,
    /// Whether the program reads more of its command line itself.
    pub(crate) has_arguments: bool,
    pub(crate) app: Value,
    pub(crate) idle_grace: Duration,
}

/// What a command line that can't be understood ends with.
const WRONG_USAGE: u8 = 2;

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
    ///
    /// ```
    /// use prefork_worker::{Rule, Worker};
    ///
    /// let worker = Worker::new("shop", "1.0.0").gauge_rule("largest_order_euros", Rule::Max);
    /// ```
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
                    task::spawn(connection::serve(stream, serving, service));
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
}
