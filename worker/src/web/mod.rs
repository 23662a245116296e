//! The bundled web server: serves a directory, or a welcome page where it was
//! given none.

mod condition;
mod confine;
mod content;
mod files;
mod filter;
mod page;
mod root;
mod sending;
mod settings;
mod target;
mod version;
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
use hyper::{Request, Response};
use serde_json::{Value, json};

use crate::output::say;
use crate::{Context, Refused, Reload, StartError, Tell, Worker};
use confine::Bounds;
use files::Files;
use sending::Sending;
use settings::{Settings, SettingsError};
use welcome::Welcome;

type Body = Either<Full<Bytes>, Sending>;

/// What is served now; new settings replace it.
type Current = Rc<RefCell<Rc<Site>>>;

/// Runs the bundled web server as a worker. Its settings are `root`, the
/// directory to serve; without it there is a welcome page. Under a supervisor it
/// confines itself to reading that directory, unless `confine` is false.
pub fn main() -> ExitCode {
    let current = Current::default();
    let (told, reloaded, begun) = (current.clone(), current.clone(), current);
    let bounds = Rc::<RefCell<Bounds>>::default();
    let set = bounds.clone();
    Worker::new("prefork-web", env!("CARGO_PKG_VERSION"))
        .on_tell(move |tell| std::future::ready(obey(tell, &told.borrow())))
        .on_reload(move |reload| std::future::ready(take(&reload, &reloaded, &bounds.borrow())))
        .run(move |context| async move {
            let site = start(&context, &set)?;
            *begun.borrow_mut() = Rc::new(site);
            Ok(Web { current: begun })
        })
}

/// Opens what is served, then gives up the right to open anything else.
fn start(context: &Context, bounds: &RefCell<Bounds>) -> Result<Site, StartError> {
    let settings = Settings::from_app(context.app_value())?;
    let root = settings.root.clone();
    let wanted = settings.is_confined();
    let site = Site::new(context, settings)?;
    let reached = if !context.is_supervised() {
        Bounds::Off("it runs alone")
    } else if !wanted {
        Bounds::Off("its settings say so")
    } else {
        confine::confine(root.as_deref(), context.rejoin_directory())
    };
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

fn take(reload: &Reload, current: &Current, bounds: &Bounds) -> Result<(), Refused> {
    let invalid = |error: SettingsError| Refused::new("invalid_settings", error.to_string());
    let settings = Settings::from_app(reload.app.clone()).map_err(invalid)?;
    bounds
        .admit(settings.root.as_deref(), settings.is_confined())
        .map_err(Refused::needs_restart)?;
    let site = Site::new(&reload.context, settings).map_err(invalid)?;
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
}

impl Site {
    fn new(context: &Context, mut settings: Settings) -> Result<Self, SettingsError> {
        Ok(match settings.root.take() {
            Some(root) => Self::Files(Rc::new(Files::new(&root, settings)?)),
            None => Self::Welcome(Welcome::new(context)),
        })
    }
}

impl std::fmt::Display for Site {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Nothing => f.write_str("starting"),
            Self::Welcome(_) => f.write_str("serving the welcome page"),
            Self::Files(files) => write!(f, "serving {}", files.root().display()),
        }
    }
}

/// The service: whatever is current when a request comes.
#[derive(Debug)]
struct Web {
    current: Current,
}

impl Service<Request<Incoming>> for Web {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Answer;

    fn call(&self, request: Request<Incoming>) -> Answer {
        match &**self.current.borrow() {
            Site::Nothing => Answer::now(page::not_found(request.headers())),
            Site::Welcome(welcome) => Answer::now(welcome.answer(&request)),
            Site::Files(files) => Answer::file(Rc::clone(files), request),
        }
    }
}

/// An answer that is there, or that a file has to be opened for.
enum Answer {
    Now(Option<Response<Full<Bytes>>>),
    File(Pin<Box<dyn Future<Output = Response<Body>>>>),
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
        Self::File(Box::pin(async move { files.answer(request).await }))
    }
}

impl Future for Answer {
    type Output = Result<Response<Body>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut std::task::Context<'_>) -> Poll<Self::Output> {
        const ONCE: &str = "a future is not polled after it is done";
        Poll::Ready(Ok(match &mut *self {
            Self::Now(response) => response.take().expect(ONCE).map(Either::Left),
            Self::File(answer) => ready!(answer.as_mut().poll(cx)),
        }))
    }
}
