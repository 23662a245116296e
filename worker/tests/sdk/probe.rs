//! A worker with a path for every way in which a request can behave.

mod busy;

use std::convert::Infallible;
use std::pin::Pin;
use std::process::ExitCode;
use std::task::{Context as TaskContext, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Either, Full};
use hyper::body::{Body, Frame, Incoming};
use hyper::header::{CONNECTION, UPGRADE};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use prefork_worker::{Peer, Refused, Reload, Tell, Worker};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::Sleep;

type Problem = Box<dyn std::error::Error + Send + Sync>;
type Answer = Response<Either<Either<Full<Bytes>, Incoming>, Slow>>;

const LARGE: &str = match std::str::from_utf8(&[b'x'; 64 << 10]) {
    Ok(text) => text,
    Err(_) => "",
};

/// A body of two parts, the second some time after the first.
struct Slow {
    parts: Vec<&'static str>,
    pause: Pin<Box<Sleep>>,
}

impl Body for Slow {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut TaskContext<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.parts.len() == 1 && self.pause.as_mut().poll(cx).is_pending() {
            return Poll::Pending;
        }
        let part = self.parts.pop();
        assert_ne!(part, Some("panic"), "as asked for");
        Poll::Ready(part.map(|part| Ok(Frame::data(Bytes::from_static(part.as_bytes())))))
    }
}

fn text(text: impl Into<Bytes>) -> Answer {
    Response::new(Either::Left(Either::Left(Full::new(text.into()))))
}

async fn answer(mut request: Request<Incoming>) -> Result<Answer, Problem> {
    let millis = request.uri().query().and_then(|query| query.parse().ok());
    let pause = Duration::from_millis(millis.unwrap_or(0));
    match request.uri().path() {
        "/" => Ok(text("ok\n")),
        "/slow" => {
            tokio::time::sleep(pause).await;
            Ok(text("slow\n"))
        }
        "/stream" => Ok(Response::new(Either::Right(Slow {
            parts: vec!["last\n", "first\n"],
            pause: Box::pin(tokio::time::sleep(pause)),
        }))),
        "/print" => {
            println!("to stdout");
            eprintln!("to stderr");
            Ok(text("printed\n"))
        }
        "/print-much" => {
            // Far more than any pipe holds.
            for _ in 0..64 {
                println!("{LARGE}");
                eprintln!("{LARGE}");
            }
            Ok(text("printed\n"))
        }
        "/large" => Ok(text(vec![b'x'; 32 << 20])),
        // Larger than any socket's buffers, and only made as it is asked for.
        "/endless" => Ok(Response::new(Either::Right(Slow {
            parts: vec![LARGE; 4096],
            pause: Box::pin(tokio::time::sleep(Duration::ZERO)),
        }))),
        "/never" => std::future::pending().await,
        "/refuse" => {
            let mut refusal = text("too much\n");
            *refusal.status_mut() = StatusCode::PAYLOAD_TOO_LARGE;
            Ok(refusal)
        }
        "/echo" => {
            let body = request.body_mut().collect().await;
            Ok(text(body?.to_bytes()))
        }
        // Answers while it reads.
        "/mirror" => Ok(Response::new(Either::Left(Either::Right(
            request.into_body(),
        )))),
        // Answers before it reads.
        "/early" => {
            tokio::task::spawn_local(async move {
                tokio::time::sleep(pause).await;
                let body = request.into_body().collect().await;
                println!("read {:?}", body.map(|it| it.to_bytes().len()));
            });
            Ok(text("early\n"))
        }
        // Leaves work behind that nobody waits for.
        "/spawn" => {
            tokio::spawn(std::future::pending::<()>());
            Ok(text("spawned\n"))
        }
        // Reads on whatever becomes of the request.
        "/detached" => {
            println!("reads");
            tokio::task::spawn_local(async move {
                let mut read = 0;
                let end = loop {
                    match request.body_mut().frame().await {
                        Some(Ok(frame)) => read += frame.data_ref().map_or(0, Bytes::len),
                        Some(Err(_)) => break "an error",
                        None => break "an end",
                    }
                };
                println!("read {read} bytes to {end}");
            });
            std::future::pending().await
        }
        "/upgrade" => {
            tokio::task::spawn_local(echo(request));
            let mut response = text("");
            *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
            let headers = response.headers_mut();
            headers.insert(CONNECTION, "upgrade".parse().expect("a header"));
            headers.insert(UPGRADE, "echo".parse().expect("a header"));
            Ok(response)
        }
        "/panic-later" => Ok(Response::new(Either::Right(Slow {
            parts: vec!["panic", "first\n"],
            pause: Box::pin(tokio::time::sleep(Duration::from_millis(50))),
        }))),
        // What an application should not send: content with every status.
        "/status" => {
            let mut response = text("mistaken\n");
            let status = request.uri().query().and_then(|query| query.parse().ok());
            *response.status_mut() = status.expect("a status");
            let headers = response.headers_mut();
            headers.insert("content-length", "9".parse().expect("a header"));
            Ok(response)
        }
        "/panic" => panic!("as asked for"),
        "/error" => Err("as asked for".into()),
        "/peer" => {
            let peer = request.extensions().get::<Peer>().expect("every request");
            Ok(text(format!(
                "{:?} {} {:?}",
                peer.address(),
                peer.listener(),
                peer.tls()
            )))
        }
        "/host" => Ok(text(format!("{:?}", request.headers().get("host")))),
        _ => {
            let mut missing = text("");
            *missing.status_mut() = StatusCode::NOT_FOUND;
            Ok(missing)
        }
    }
}

async fn echo(request: Request<Incoming>) {
    let Ok(upgraded) = hyper::upgrade::on(request).await else {
        return;
    };
    let mut stream = TokioIo::new(upgraded);
    let mut buffer = [0; 1024];
    while let Ok(read @ 1..) = stream.read(&mut buffer).await {
        if stream.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
}

async fn obey(tell: Tell) -> Result<Value, Refused> {
    match tell.command.as_str() {
        "echo" => Ok(tell.args),
        "status" => {
            tell.context.set_status(tell.args.as_str().unwrap_or(""));
            Ok(Value::Null)
        }
        "settings" => Ok(tell.context.app_value()),
        "who" => Ok(json!([
            tell.context.pool(),
            tell.context.slot(),
            tell.context.generation(),
            tell.context.incarnation(),
        ])),
        "large" => Ok("x".repeat(100_000).into()),
        "never" => std::future::pending().await,
        "panic" => panic!("as asked for"),
        "block" => {
            std::thread::sleep(Duration::from_millis(300));
            Ok(Value::Null)
        }
        unknown => Err(Refused::unknown_command(unknown)),
    }
}

async fn take(reload: Reload) -> Result<(), Refused> {
    let millis = reload.app["takes_ms"].as_u64().unwrap_or(0);
    tokio::time::sleep(Duration::from_millis(millis)).await;
    if reload.app["good"] == json!(true) {
        Ok(())
    } else {
        Err(Refused::new("invalid", "not good"))
    }
}

fn main() -> ExitCode {
    let worker = Worker::new("probe", "1.2.3");
    let worker = match std::env::var("PROBE").as_deref() {
        Ok("plain") => worker,
        Ok("impatient") => worker
            .header_timeout(Duration::from_millis(400))
            .idle_timeout(Duration::from_millis(800)),
        Ok("busy") => return busy::main(),
        _ => worker.on_tell(obey).on_reload(take),
    };
    worker.run(|context| async move {
        if let Some(problem) = context.app_value()["fail"].as_str() {
            return Err(problem.into());
        }
        Ok(service_fn(answer))
    })
}
