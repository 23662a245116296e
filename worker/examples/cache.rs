//! A service with a cache: metrics of its own, a `cache.flush` command, settings
//! that are taken in place, work that blocks, work in the background, and a last word.
//!
//! ```sh
//! cargo build -p prefork-worker --example cache
//! prefork run --workers 2 -- target/debug/examples/cache
//! ```
//!
//! `curl http://127.0.0.1:8080/factors/100000000000031` takes a moment the first time in
//! each worker, and none after that. `prefork metrics | grep cache_` shows
//! `cache_hits_total` and `cache_misses_total`, which go on through reloads and crashes, and
//! `cache_entries`, which is the sum over the workers that live. `prefork tell web
//! cache.flush '{"prefix":"/factors/1"}'` answers for each worker with what it has
//! dropped, and without arguments it drops everything. `prefork status` shows how full
//! each cache is. With `app = { capacity = 100 }` in the pool's configuration, a
//! changed `capacity` is taken by `prefork reload` without a new process.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::convert::Infallible;
use std::process::ExitCode;
use std::rc::Rc;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use prefork_worker::{Context, Drain, Refused, Reload, Tell, Worker};
use prometheus::{IntCounter, IntGauge, register_int_counter, register_int_gauge};
use serde::Deserialize;
use serde_json::{Value, json};

const ONCE: &str = "it is registered once, under a valid name";

static HITS: LazyLock<IntCounter> = LazyLock::new(|| {
    register_int_counter!("cache_hits_total", "Answers that were remembered.").expect(ONCE)
});

static MISSES: LazyLock<IntCounter> = LazyLock::new(|| {
    register_int_counter!("cache_misses_total", "Answers that had to be found.").expect(ONCE)
});

static ENTRIES: LazyLock<IntGauge> = LazyLock::new(|| {
    register_int_gauge!("cache_entries", "Answers that are remembered now.").expect(ONCE)
});

/// How long an answer is remembered.
const FRESH: Duration = Duration::from_secs(60);

/// `[pool.NAME.app]`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Settings {
    /// How many answers are remembered.
    capacity: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self { capacity: 1000 }
    }
}

/// What one worker remembers. Everything of a worker runs on one thread, so
/// that neither a lock nor an `Arc` is needed.
#[derive(Default)]
struct Cache {
    capacity: Cell<usize>,
    answers: RefCell<HashMap<String, (Instant, String)>>,
}

impl Cache {
    fn get(&self, path: &str) -> Option<String> {
        let answers = self.answers.borrow();
        let (since, answer) = answers.get(path)?;
        (since.elapsed() < FRESH).then(|| answer.clone())
    }

    fn put(&self, path: String, answer: String) {
        let mut answers = self.answers.borrow_mut();
        if answers.len() < self.capacity.get() {
            answers.insert(path, (Instant::now(), answer));
        }
        ENTRIES.set(answers.len().try_into().unwrap_or(i64::MAX));
    }

    /// Keeps what fits; gives how many went.
    fn keep(&self, fits: impl Fn(&str, Instant) -> bool) -> usize {
        let mut answers = self.answers.borrow_mut();
        let before = answers.len();
        answers.retain(|path, (since, _)| fits(path, *since));
        ENTRIES.set(answers.len().try_into().unwrap_or(i64::MAX));
        before - answers.len()
    }

    fn configure(&self, settings: &Settings) {
        self.capacity.set(settings.capacity);
        if self.answers.borrow().len() > settings.capacity {
            self.keep(|_, _| false);
        }
    }

    fn tell_status(&self, context: &Context) {
        let (held, capacity) = (self.answers.borrow().len(), self.capacity.get());
        context.set_status(format!("{held} of {capacity} answers"));
    }

    /// Forgets what is old, until the worker leaves.
    async fn tidy(&self, context: &Context) {
        loop {
            tokio::select! {
                () = tokio::time::sleep(Duration::from_secs(1)) => {}
                () = context.draining() => return,
            }
            self.keep(|_, since| since.elapsed() < FRESH);
            self.tell_status(context);
        }
    }

    async fn obey(&self, tell: Tell) -> Result<Value, Refused> {
        if tell.command != "cache.flush" {
            return Err(Refused::unknown_command(&tell.command));
        }
        let prefix = match &tell.args {
            Value::Null => "",
            args => args["prefix"].as_str().ok_or_else(|| {
                Refused::new(
                    "invalid_arguments",
                    r#"expected {"prefix":"/PATH"} or nothing"#,
                )
            })?,
        };
        let flushed = self.keep(|path, _| !path.starts_with(prefix));
        self.tell_status(&tell.context);
        Ok(json!({ "flushed": flushed }))
    }

    fn take(&self, reload: &Reload) -> Result<(), Refused> {
        let settings = Settings::deserialize(&reload.app)
            .map_err(|error| Refused::new("invalid_settings", error.to_string()))?;
        self.configure(&settings);
        self.tell_status(&reload.context);
        Ok(())
    }

    async fn answer(&self, context: &Context, path: String) -> (StatusCode, String) {
        if let Some(answer) = self.get(&path) {
            HITS.inc();
            return (StatusCode::OK, answer);
        }
        let number = path.strip_prefix("/factors/").map(str::parse::<u64>);
        let Some(Ok(number @ 2..)) = number else {
            return (
                StatusCode::NOT_FOUND,
                "ask for /factors/NUMBER\n".to_owned(),
            );
        };
        MISSES.inc();
        // The worker answers others meanwhile.
        match context.blocking(move || factors(number)).await {
            Ok(factors) => {
                let answer = format!("{number} = {}\n", factors.join(" x "));
                self.put(path, answer.clone());
                (StatusCode::OK, answer)
            }
            Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
        }
    }
}

/// By trial, which takes its time.
fn factors(mut number: u64) -> Vec<String> {
    let mut factors = Vec::new();
    let mut factor = 2;
    while number > 1 {
        // Nothing but the number itself is left beyond its root.
        if u128::from(factor) * u128::from(factor) > u128::from(number) {
            factor = number;
        }
        if number.is_multiple_of(factor) {
            factors.push(factor.to_string());
            number /= factor;
        } else {
            factor += 1;
        }
    }
    factors
}

fn main() -> ExitCode {
    let cache = Rc::<Cache>::default();
    let (told, reloaded, left) = (cache.clone(), cache.clone(), cache.clone());
    Worker::new("cache-example", env!("CARGO_PKG_VERSION"))
        .on_tell(move |tell| {
            let cache = told.clone();
            async move { cache.obey(tell).await }
        })
        .on_reload(move |reload| std::future::ready(reloaded.take(&reload)))
        .on_drain(move |drain: Drain| {
            let held = left.answers.borrow().len();
            async move { println!("leaving within {:?}, {held} answers are lost", drain.within) }
        })
        .run(|context| async move {
            // Exported with 0 before the first request.
            LazyLock::force(&HITS);
            LazyLock::force(&MISSES);
            LazyLock::force(&ENTRIES);
            cache.configure(&context.app()?);
            cache.tell_status(&context);
            let (tidied, watched) = (cache.clone(), context.clone());
            context.spawn(async move { tidied.tidy(&watched).await });
            Ok(service_fn(move |request: Request<Incoming>| {
                let (cache, context) = (cache.clone(), context.clone());
                async move {
                    let path = request.uri().path().to_owned();
                    let (status, answer) = cache.answer(&context, path).await;
                    let mut response = Response::new(answer);
                    *response.status_mut() = status;
                    Ok::<_, Infallible>(response)
                }
            }))
        })
}
