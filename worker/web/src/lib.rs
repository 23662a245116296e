#![doc = include_str!("../README.md")]

mod confinement;
mod files;
mod forward;
mod page;
mod settings;
mod sys;
mod welcome;

use std::cell::RefCell;
use std::convert::Infallible;
use std::pin::Pin;
use std::process::ExitCode;
use std::rc::Rc;
use std::task::{Poll, ready};

use bytes::Bytes;
use http_body_util::{Either, Full};
use hyper::body::Incoming;
use hyper::service::Service;
use hyper::{Method, Request, Response};
use prometheus::Registry;
use serde_json::{Value, json};

use confinement::{Bounds, Reach};
use files::{Files, Sending};
use forward::{Forwarded, Front, Metrics, Pools};
use prefork_worker::{Context, Refused, Reload, StartError, Tell, Worker, say};
use settings::{Confinement, Settings, SettingsError};
use welcome::Welcome;

type Body = Either<Full<Bytes>, Sending>;

/// The same, or what another pool answers.
type Answered = Either<Body, Forwarded>;

/// What is served now; new settings replace it.
type Current = Rc<RefCell<Rc<Site>>>;

/// Runs the bundled web server as a worker. Its settings are `root`, the
/// directory to serve, and `forward`, the pools that answer for what is no file there;
/// without either there is a welcome page. Under a supervisor it
/// confines itself to reading that directory, unless `confine` is false; where it is
/// `"required"` and the kernel lacks something for it, it does not serve.
pub fn main() -> ExitCode {
    // Before there is a thread that has an arena.
    sys::share_arenas();
    let registry = Registry::new();
    let pools = Pools::new(Metrics::new(&registry));
    let (behind, shown) = (Rc::clone(&pools), Rc::clone(&pools));
    let current = Current::default();
    let (told, reloaded, begun) = (current.clone(), current.clone(), current);
    let bounds = Rc::<RefCell<Bounds>>::default();
    let set = bounds.clone();
    Worker::new("prefork-web", env!("CARGO_PKG_VERSION"))
        .own_arguments()
        .on_tell(move |tell| std::future::ready(obey(tell, &told.borrow())))
        .on_reload(move |reload| {
            let taken = take(&reload, &reloaded, &bounds.borrow(), &shown);
            std::future::ready(taken)
        })
        .registry(registry)
        .forwards(pools)
        .run(move |context| async move {
            let site = start(&context, &set, &behind)?;
            *begun.borrow_mut() = Rc::new(site);
            Ok(Web { current: begun })
        })
}

/// Opens what is served, then gives up the right to open anything else.
fn start(
    context: &Context,
    bounds: &RefCell<Bounds>,
    pools: &Rc<Pools>,
) -> Result<Site, StartError> {
    let settings = Settings::from_app(context.app_value())?;
    let root = settings.root.clone();
    let wanted = settings.confinement();
    let reach = Reach::of(&settings);
    let site = Site::new(context, settings, pools)?;
    let reached = if !context.is_supervised() {
        Bounds::Off("it runs alone")
    } else if wanted == Confinement::Off {
        Bounds::Off("its settings say so")
    } else {
        confinement::confine(root.as_deref(), context.rejoin_directory(), reach)
    };
    if wanted == Confinement::Required
        && let Some(why) = reached.lacks()
    {
        return Err(format!("`confine = \"required\"`, and {why}").into());
    }
    let (pool, slot) = (context.pool(), context.slot());
    say(format_args!("{pool}/{slot}: {reached}"));
    context.set_status(format!("{site}, {reached}"));
    *bounds.borrow_mut() = reached;
    Ok(site)
}

fn obey(tell: Tell, site: &Site) -> Result<Value, Refused> {
    match tell.command.as_str() {
        "echo" => Ok(tell.args),
        "status" => {
            let context = &tell.context;
            let line = format!(
                "{site}; {} connections, {} requests in flight",
                context.connections(),
                context.in_flight()
            );
            Ok(json!(line))
        }
        unknown => Err(Refused::unknown_command(unknown)),
    }
}

fn take(
    reload: &Reload,
    current: &Current,
    bounds: &Bounds,
    pools: &Rc<Pools>,
) -> Result<(), Refused> {
    let invalid = |error: SettingsError| Refused::new("invalid_settings", error.to_string());
    let settings = Settings::from_app(reload.app.clone()).map_err(invalid)?;
    bounds
        .admit(
            settings.root.as_deref(),
            settings.confinement(),
            Reach::of(&settings),
        )
        .map_err(Refused::needs_restart)?;
    let site = Site::new(&reload.context, settings, pools).map_err(invalid)?;
    reload.context.set_status(format!("{site}, {bounds}"));
    *current.borrow_mut() = Rc::new(site);
    Ok(())
}

/// What is served.
#[derive(Debug, Default)]
enum Site {
    /// Before the start-up.
    #[default]
    Nothing,
    Welcome(Welcome),
    Files(Rc<Files>),
    /// Files first, if there are any, and other pools for the rest.
    Front(Option<Rc<Files>>, Rc<Front>),
}

impl Site {
    fn new(
        context: &Context,
        mut settings: Settings,
        pools: &Rc<Pools>,
    ) -> Result<Self, SettingsError> {
        let front = settings.forward.take().map(|routes| {
            let waits = settings.waits.clone();
            Rc::new(Front::new(context, routes, waits, Rc::clone(pools)))
        });
        let files = match settings.root.take() {
            Some(root) => Some(Rc::new(Files::new(&root, settings)?)),
            None => None,
        };
        Ok(match (files, front) {
            (files, Some(front)) => Self::Front(files, front),
            (Some(files), None) => Self::Files(files),
            (None, None) => Self::Welcome(Welcome::new(context)),
        })
    }
}

impl std::fmt::Display for Site {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Nothing => f.write_str("starting"),
            Self::Welcome(_) => f.write_str("serving the welcome page"),
            Self::Files(files) => write!(f, "serving {}", files.root().display()),
            Self::Front(None, front) => write!(f, "forwarding to {}", front.pools()),
            Self::Front(Some(files), front) => {
                let root = files.root().display();
                write!(f, "serving {root}, forwarding to {}", front.pools())
            }
        }
    }
}

/// The service: whatever is current when a request comes.
#[derive(Debug)]
struct Web {
    current: Current,
}

impl Service<Request<Incoming>> for Web {
    type Response = Response<Answered>;
    type Error = Infallible;
    type Future = Answer;

    fn call(&self, request: Request<Incoming>) -> Answer {
        match &**self.current.borrow() {
            Site::Nothing => Answer::now(page::not_found(request.headers())),
            Site::Welcome(welcome) => Answer::now(welcome.answer(&request)),
            Site::Files(files) => Answer::file(Rc::clone(files), request),
            Site::Front(files, front) => {
                Answer::forwarded(files.clone(), Rc::clone(front), request)
            }
        }
    }
}

/// An answer that is there, or that something has to be done for.
enum Answer {
    Now(Option<Response<Full<Bytes>>>),
    Later(Pin<Box<dyn Future<Output = Response<Answered>>>>),
}

impl Answer {
    fn now(response: Response<Full<Bytes>>) -> Self {
        Self::Now(Some(response))
    }

    fn file(files: Rc<Files>, request: Request<Incoming>) -> Self {
        if let Some(refused) = page::not_allowed(request.method()) {
            return Self::now(refused);
        }
        let (request, _) = request.into_parts();
        Self::Later(Box::pin(async move {
            files.answer(request).await.map(Either::Left)
        }))
    }

    /// What is a file, and what a pool answers for anything else.
    fn forwarded(files: Option<Rc<Files>>, front: Rc<Front>, request: Request<Incoming>) -> Self {
        let Some(pool) = front.pool(request.uri().path()) else {
            return match files {
                Some(files) => Self::file(files, request),
                None => Self::now(page::not_found(request.headers())),
            };
        };
        Self::Later(Box::pin(async move {
            let (head, body) = request.into_parts();
            let may_be_file = matches!(head.method, Method::GET | Method::HEAD);
            if let Some(files) = files.filter(|_| may_be_file)
                && let Some(response) = files.find(head.clone()).await
            {
                return response.map(Either::Left);
            }
            let response = front.forward(pool, Request::from_parts(head, body)).await;
            response.map(|body| match body {
                Either::Left(own) => Either::Left(Either::Left(own)),
                Either::Right(forwarded) => Either::Right(forwarded),
            })
        }))
    }
}

impl Future for Answer {
    type Output = Result<Response<Answered>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut std::task::Context<'_>) -> Poll<Self::Output> {
        const ONCE: &str = "a future is not polled after it is done";
        Poll::Ready(Ok(match &mut *self {
            Self::Now(response) => {
                let response = response.take().expect(ONCE);
                response.map(|body| Either::Left(Either::Left(body)))
            }
            Self::Later(answer) => ready!(answer.as_mut().poll(cx)),
        }))
    }
}
