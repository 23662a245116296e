//! What the application is told about itself, and tells of itself.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use hyper::header::{HeaderMap, HeaderValue};
use prefork_proto::message::Welcome;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::process::Serving;
use crate::process::background::BlockingError;
use crate::runtime::timer::Timer;

/// Who this worker is and what it was given: its pool, slot and settings.
/// A clone is cheap and the same; it may go to other threads.
///
/// ```no_run
/// # use std::convert::Infallible;
/// # use hyper::{Request, Response, body::Incoming, service::service_fn};
/// #[derive(serde::Deserialize)]
/// struct Settings {
///     greeting: String,
/// }
///
/// prefork_worker::Worker::new("shop", "1.0.0").run(|context| async move {
///     let settings: Settings = context.app()?;
///     context.set_status("warm");
///     let greeting = format!("{} from {}/{}\n", settings.greeting, context.pool(), context.slot());
///     Ok(service_fn(move |_: Request<Incoming>| {
///         let answer = Response::new(greeting.clone());
///         async { Ok::<_, Infallible>(answer) }
///     }))
/// });
/// ```
#[derive(Debug, Clone)]
pub struct Context(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    pool: String,
    slot: u32,
    generation: u64,
    incarnation: u64,
    supervised: bool,
    /// The directory with the socket of the next supervisor.
    rejoin: Option<PathBuf>,
    app: Mutex<Value>,
    status: Mutex<String>,
    serving: &'static Serving,
}

impl Context {
    pub(crate) fn supervised(welcome: &Welcome, serving: &'static Serving) -> Self {
        Self(Arc::new(Inner {
            pool: welcome.pool.clone(),
            slot: welcome.slot,
            generation: welcome.generation,
            incarnation: welcome.incarnation,
            supervised: true,
            rejoin: welcome.rejoin.as_ref().and_then(|offer| {
                let directory = Path::new(&offer.path).parent()?;
                Some(directory.to_owned())
            }),
            app: Mutex::new(welcome.app.clone()),
            status: Mutex::default(),
            serving,
        }))
    }

    pub(crate) fn alone(program: &str, app: Value, serving: &'static Serving) -> Self {
        Self(Arc::new(Inner {
            pool: program.to_owned(),
            slot: 0,
            generation: 1,
            incarnation: 1,
            supervised: false,
            rejoin: None,
            app: Mutex::new(app),
            status: Mutex::default(),
            serving,
        }))
    }

    /// The pool's name; the program's own where no supervisor started it.
    pub fn pool(&self) -> &str {
        &self.0.pool
    }

    /// The directory with the socket of the next supervisor, which the worker connects
    /// to when its own has gone. A worker that gives up rights keeps the one to connect
    /// there. `None` where it was told of no next supervisor.
    pub fn rejoin_directory(&self) -> Option<&Path> {
        self.0.rejoin.as_deref()
    }

    /// The slot's index in its pool, from 0.
    pub fn slot(&self) -> u32 {
        self.0.slot
    }

    /// The generation this worker belongs to; grows by one with each reload.
    pub fn generation(&self) -> u64 {
        self.0.generation
    }

    /// Counts the processes that the slot has had, from 1.
    pub fn incarnation(&self) -> u64 {
        self.0.incarnation
    }

    /// This process's id.
    pub fn pid(&self) -> u32 {
        std::process::id()
    }

    /// Whether a supervisor started this worker.
    pub fn is_supervised(&self) -> bool {
        self.0.supervised
    }

    /// The application's settings, `[pool.NAME.app]` of the configuration;
    /// the newest ones that `on_reload` took.
    pub fn app_value(&self) -> Value {
        lock(&self.0.app).clone()
    }

    /// The application's settings as a type of its own.
    ///
    /// # Errors
    /// What does not fit, in the words of the type's `Deserialize`.
    pub fn app<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        serde_json::from_value(self.app_value())
    }

    pub(crate) fn set_app(&self, app: Value) {
        *lock(&self.0.app) = app;
    }

    /// Sets the text that `prefork status` shows beside this worker. What does
    /// not fit into 1 KiB is cut off.
    pub fn set_status(&self, status: impl Into<String>) {
        const LIMIT: usize = 1024;
        let mut status = status.into();
        if status.len() > LIMIT {
            let end = (0..=LIMIT).rev().find(|at| status.is_char_boundary(*at));
            status.truncate(end.unwrap_or(0));
        }
        *lock(&self.0.status) = status;
    }

    pub(crate) fn status(&self) -> String {
        lock(&self.0.status).clone()
    }

    /// Requests whose response is not finished.
    pub fn in_flight(&self) -> u64 {
        self.0.serving.tally.in_flight()
    }

    /// Open connections, upgraded ones included.
    pub fn connections(&self) -> u64 {
        self.0.serving.open()
    }

    /// The worker's timer, for deadlines that stand still while the process does.
    pub fn timer(&self) -> &'static Timer {
        self.0.serving.timer
    }

    /// What a request with these headers goes by: the id that the access log has for it,
    /// or its client's `x-request-id` where that makes sense, or else a new one.
    pub fn request_id(&self, headers: &HeaderMap) -> HeaderValue {
        self.0.serving.access_log.request_id(headers)
    }

    /// Whether the worker is on its way out.
    pub fn is_draining(&self) -> bool {
        self.0.serving.drain.is_on()
    }

    /// Waits until the worker is on its way out: for streams and background
    /// work that would otherwise last until the drain's deadline.
    pub async fn draining(&self) {
        self.0.serving.drain.begun().await;
    }

    /// Does something beside answering requests. The drain waits for it up to its
    /// deadline, so a task that would last for ever watches [`Self::draining`].
    /// A panic in it is counted (`background_panics_total`) and ends it alone.
    ///
    /// `tokio::spawn` works as well, and nobody waits for its tasks: those that have not
    /// ended when the worker leaves are lost. Since a library's connections are such tasks, too,
    /// the worker does not wait for what it can't tell from work; it says once how many there
    /// were more than when it began to serve.
    ///
    /// ```no_run
    /// # async fn write_the_receipt() {}
    /// # fn answer(context: &prefork_worker::Context) {
    /// // A worker that leaves finishes it first.
    /// context.spawn(async { write_the_receipt().await });
    /// # }
    /// ```
    ///
    /// # Panics
    /// On another thread than the worker's own.
    pub fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        self.0.serving.background.spawn(task);
    }

    /// Runs what blocks on a thread for such calls, of which there are up to
    /// 64; a call beyond that waits for its turn. The worker goes on serving
    /// meanwhile. What has begun runs to its end, also where its result is not
    /// waited for any more, and the drain waits for it up to its deadline.
    ///
    /// What needs the processor for long goes here, too; see the
    /// [crate's page](crate#work-that-needs-the-processor).
    ///
    /// ```no_run
    /// # fn expensive(bytes: &[u8]) -> u64 { 0 }
    /// # async fn answer(context: &prefork_worker::Context, bytes: Vec<u8>)
    /// # -> Result<u64, prefork_worker::BlockingError> {
    /// context.blocking(move || expensive(&bytes)).await
    /// # }
    /// ```
    ///
    /// # Errors
    /// The call panicked, or the worker ended before its turn came.
    pub async fn blocking<T, F>(&self, call: F) -> Result<T, BlockingError>
    where
        T: Send + 'static,
        F: FnOnce() -> T + Send + 'static,
    {
        self.0.serving.background.blocking(call).await
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // Both values are replaced whole, so a panic elsewhere can't have left one half made.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
