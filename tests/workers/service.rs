//! A well-behaved service on the worker library, for tests under load, and the
//! ways in which a new version of it can be bad.
//!
//! `/` names the worker, `POST /digest` answers with the SHA-256 of the body,
//! `/print/WORD` prints the word to both outputs, `/print-lines/NUMBER` that many numbered
//! lines to stdout before anything else is done, `/slow/MILLISECONDS` takes that long, `/events` is a stream of server-sent
//! events without an end. `service --crash-after MILLISECONDS` exits with code
//! 7 that long after it was made; `service --fail-in-slot N` comes up in every
//! slot but that one; `service --slow-successor MILLISECONDS` takes that long
//! to come up in a slot that has had a process before; `service --print-for-ever 0` prints
//! and never comes up; `service --fail-percent N` answers so many of a hundred requests for
//! `/` by 500. Its `version` in the settings is shown on the page and
//! taken in place.

use std::convert::Infallible;
use std::pin::Pin;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context as TaskContext, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Either, Full};
use hyper::body::{Body, Frame, Incoming};
use hyper::header::CONTENT_TYPE;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use prefork_worker::{Context, Worker};
use sha2::{Digest, Sha256};
use tokio::time::Interval;

type Answer = Response<Either<Full<Bytes>, Events>>;

/// Server-sent events without an end.
struct Events {
    every: Interval,
    number: u64,
}

impl Body for Events {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut TaskContext<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        ready!(self.every.poll_tick(cx));
        self.number += 1;
        let event = format!("data: {}\n\n", self.number);
        Poll::Ready(Some(Ok(Frame::data(event.into()))))
    }
}

fn text(text: impl Into<Bytes>) -> Answer {
    Response::new(Either::Left(Full::new(text.into())))
}

fn page(context: &Context) -> String {
    format!(
        "pool {} slot {} generation {} pid {} version {}\n",
        context.pool(),
        context.slot(),
        context.generation(),
        context.pid(),
        context.app_value()["version"]
    )
}

async fn digest(request: Request<Incoming>) -> Result<Answer, hyper::Error> {
    let body = request.into_body().collect().await?.to_bytes();
    let digest = Sha256::digest(&body);
    let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(text(hex))
}

async fn answer(context: Context, request: Request<Incoming>) -> Result<Answer, hyper::Error> {
    let path = request.uri().path();
    if let Some(time) = path.strip_prefix("/slow/") {
        let time = time.parse().unwrap_or(0);
        tokio::time::sleep(Duration::from_millis(time)).await;
        return Ok(text(page(&context)));
    }
    if let Some(time) = path.strip_prefix("/block/") {
        block_the_thread(Duration::from_millis(time.parse().unwrap_or(0)));
        return Ok(text(page(&context)));
    }
    if let Some(time) = path.strip_prefix("/spin/") {
        spin_in_a_loop(Duration::from_millis(time.parse().unwrap_or(0)));
        return Ok(text(page(&context)));
    }
    if let Some(word) = path.strip_prefix("/print/") {
        println!("out: {word}");
        eprintln!("err: {word}");
        return Ok(text(page(&context)));
    }
    if let Some(number) = path.strip_prefix("/print-lines/") {
        for line in 0..number.parse().unwrap_or(0) {
            println!("line: {line} {}", "x".repeat(80));
        }
        return Ok(text(page(&context)));
    }
    match (request.method(), path) {
        (&Method::GET, "/") if fails() => {
            let mut failure = text("");
            *failure.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
            Ok(failure)
        }
        (&Method::GET, "/") => Ok(text(page(&context))),
        (&Method::POST, "/digest") => digest(request).await,
        (&Method::GET, "/events") => {
            let events = Events {
                every: tokio::time::interval(Duration::from_millis(50)),
                number: 0,
            };
            let mut response = Response::new(Either::Right(events));
            let kind = "text/event-stream".parse().expect("it is a header's value");
            response.headers_mut().insert(CONTENT_TYPE, kind);
            Ok(response)
        }
        _ => {
            let mut missing = text("");
            *missing.status_mut() = StatusCode::NOT_FOUND;
            Ok(missing)
        }
    }
}

/// Sleeps where nothing else is served meanwhile.
#[inline(never)]
fn block_the_thread(time: Duration) {
    std::thread::sleep(time);
}

/// Does nothing useful, and nothing else.
#[inline(never)]
fn spin_in_a_loop(time: Duration) {
    let began = std::time::Instant::now();
    while began.elapsed() < time {
        std::hint::spin_loop();
    }
}

/// How many of a hundred requests fail.
static FAIL_PERCENT: AtomicU64 = AtomicU64::new(0);

/// Whether the next request fails: so many of a hundred, evenly spread.
fn fails() -> bool {
    static ASKED: AtomicU64 = AtomicU64::new(0);
    let (asked, percent) = (
        ASKED.fetch_add(1, Ordering::Relaxed),
        FAIL_PERCENT.load(Ordering::Relaxed),
    );
    (asked + 1) * percent / 100 > asked * percent / 100
}

/// What is wrong with this version.
#[derive(Debug, Clone, Copy)]
enum Fault {
    None,
    /// It exits this long after it was made.
    CrashAfter(Duration),
    /// It does not come up in this slot.
    FailInSlot(u32),
    /// It comes up only after this time where it follows another.
    SlowSuccessor(Duration),
    /// It prints instead of coming up.
    PrintForEver,
}

impl Fault {
    fn ordered() -> Self {
        let mut args = std::env::args().skip(1);
        let word = args.next();
        let number: Option<u32> = args.next().and_then(|number| number.parse().ok());
        match (word.as_deref(), number) {
            (None, _) => Self::None,
            (Some("--fail-percent"), Some(percent)) => {
                FAIL_PERCENT.store(percent.into(), Ordering::Relaxed);
                Self::None
            }
            (Some("--crash-after"), Some(time)) => {
                Self::CrashAfter(Duration::from_millis(u64::from(time)))
            }
            (Some("--fail-in-slot"), Some(slot)) => Self::FailInSlot(slot),
            (Some("--slow-successor"), Some(time)) => {
                Self::SlowSuccessor(Duration::from_millis(u64::from(time)))
            }
            (Some("--print-for-ever"), Some(_)) => Self::PrintForEver,
            (other, _) => panic!("no such fault: {other:?}"),
        }
    }
}

fn main() -> ExitCode {
    let fault = Fault::ordered();
    Worker::new("service", env!("CARGO_PKG_VERSION"))
        .on_reload(|_| async { Ok(()) })
        .run(move |context| async move {
            match fault {
                Fault::None => {}
                Fault::FailInSlot(slot) if slot == context.slot() => {
                    return Err(format!("there is no place for slot {slot}").into());
                }
                Fault::SlowSuccessor(time) if context.incarnation() > 1 => {
                    tokio::time::sleep(time).await;
                }
                Fault::FailInSlot(_) | Fault::SlowSuccessor(_) => {}
                Fault::PrintForEver => loop {
                    println!("still starting");
                },
                Fault::CrashAfter(time) => {
                    tokio::task::spawn_local(async move {
                        tokio::time::sleep(time).await;
                        eprintln!("the new version has a bug");
                        std::process::exit(7);
                    });
                }
            }
            Ok(service_fn(move |request| answer(context.clone(), request)))
        })
}
