//! The bundled web server: serves a directory, or a welcome page where it was
//! given none.

mod condition;
mod content;
mod files;
mod page;
mod root;
mod settings;
mod target;
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
use tower_http::services::fs::ServeFileSystemResponseBody;

use crate::{Context, Refused, Reload, Tell, Worker};
use files::Files;
use settings::Settings;
use welcome::Welcome;

type Body = Either<Full<Bytes>, ServeFileSystemResponseBody>;

/// What is served now; new settings replace it.
type Current = Rc<RefCell<Rc<Site>>>;

/// Runs the bundled web server as a worker. Its settings are `root`, the
/// directory to serve; without it there is a welcome page.
pub fn main() -> ExitCode {
    let current = Current::default();
    let (told, reloaded, begun) = (current.clone(), current.clone(), current);
    Worker::new("prefork-web", env!("CARGO_PKG_VERSION"))
        .on_tell(move |tell| std::future::ready(obey(tell, &told.borrow())))
        .on_reload(move |reload| std::future::ready(take(&reload, &reloaded)))
        .run(move |context| async move {
            *begun.borrow_mut() = Rc::new(Site::new(&context, context.app_value())?);
            context.set_status(begun.borrow().to_string());
            Ok(Web { current: begun })
        })
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

fn take(reload: &Reload, current: &Current) -> Result<(), Refused> {
    let site = Site::new(&reload.context, reload.app.clone())
        .map_err(|error| Refused::new("invalid_settings", error.to_string()))?;
    reload.context.set_status(site.to_string());
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
    fn new(context: &Context, app: Value) -> Result<Self, settings::SettingsError> {
        let mut settings = Settings::from_app(app)?;
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
