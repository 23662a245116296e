//! The admin address: read-only HTTP/1.1 for Prometheus, probes and a browser.
//! The supervisor itself serves it, so that it answers while every worker is busy.

mod hosts;
mod page;

pub use hosts::Hosts;

use std::convert::Infallible;
use std::rc::Rc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hyper::body::Incoming;
use hyper::header::CONTENT_SECURITY_POLICY;
use hyper::service::service_fn;
use hyper::{Method, Request, StatusCode};
use prefork_api::ErrorCode;
use tokio::net::{TcpListener, TcpStream};

use crate::control::accept::{self, Bounds};
use crate::control::answer::{self, Answer, Rejection};
use crate::control::{Gate, ask, compressed, live, ready};
use crate::handle::Handle;
use crate::kernel::fd_reserve::Reserve;

const BOUNDS: Bounds = Bounds {
    connections: 256,
    stall: Duration::from_secs(10),
    slow: Some(Duration::from_secs(1)),
};

/// Serves `/metrics`, `/livez`, `/readyz`, `/status.json` and `/` on
/// `listener` until dropped. Runs on a `LocalSet`.
pub async fn serve(
    listener: TcpListener,
    handle: Handle,
    reserve: Rc<Reserve>,
    gate: Gate,
    hosts: Hosts,
) -> Infallible {
    let hosts = Rc::new(hosts);
    accept::serve(listener, reserve, BOUNDS, gate, move |_: &TcpStream| {
        let (handle, hosts) = (handle.clone(), Rc::clone(&hosts));
        Some(service_fn(move |request: Request<Incoming>| {
            let (handle, hosts) = (handle.clone(), Rc::clone(&hosts));
            async move {
                let found = match hosts.check(&request) {
                    Ok(()) => answer(&handle, &request).await,
                    Err(rejection) => Err(rejection),
                };
                Ok::<_, Infallible>(found.unwrap_or_else(Answer::from))
            }
        }))
    })
    .await
}

async fn answer<B>(handle: &Handle, request: &Request<B>) -> Result<Answer, Rejection> {
    let (method, path) = (request.method(), request.uri().path());
    let known = ["/", "/metrics", "/livez", "/readyz", "/status.json"];
    if !known.contains(&path) {
        return Err(Rejection::new(
            ErrorCode::NotFound,
            format!("there is no {path}; there are {}", known.join(", ")),
        ));
    }
    if method != Method::GET && method != Method::HEAD {
        return Err(Rejection::method("GET, HEAD"));
    }
    match path {
        "/metrics" => {
            let text = ask::metrics(handle).await?;
            Ok(compressed::exposition(text, request.headers()))
        }
        "/livez" => Ok(live()),
        "/readyz" => ready(handle).await,
        "/status.json" => Ok(answer::json(StatusCode::OK, &ask::status(handle).await?)),
        _ => Ok(html(page::render(&ask::overview(handle).await?, now()))),
    }
}

/// Seconds since the Unix epoch.
fn now() -> f64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0.0, |since| since.as_secs_f64())
}

/// A page that may load nothing and run nothing but its own script.
fn html(page: String) -> Answer {
    let mut answer = answer::whole(StatusCode::OK, "text/html; charset=utf-8", page);
    let headers = answer.headers_mut();
    headers.insert(CONTENT_SECURITY_POLICY, page::POLICY.clone());
    answer
}

#[cfg(test)]
mod tests {
    use prefork_api::Status;
    use tokio::sync::mpsc;
    use tokio::task::{LocalSet, spawn_local};

    use super::*;
    use crate::control::answer::Payload;
    use crate::control::fake::{overview, status};
    use crate::handle;

    /// A reactor that knows nothing but its status.
    fn reactor(status: Status) -> Handle {
        let (requests, mut inbox) = mpsc::channel(4);
        spawn_local(async move {
            while let Some(request) = inbox.recv().await {
                match request {
                    handle::Request::Status(reply) => drop(reply.send(status.clone())),
                    handle::Request::Overview(reply) => {
                        drop(reply.send(overview(status.clone())));
                    }
                    handle::Request::Metrics(reply) => drop(reply.send("x 1\n".to_owned())),
                    other => panic!("the admin address asked for {other:?}"),
                }
            }
        });
        Handle(requests)
    }

    async fn get(handle: &Handle, method: Method, path: &str) -> (u16, String) {
        let request = Request::builder().method(method).uri(path);
        let answer = answer(handle, &request.body(()).unwrap())
            .await
            .unwrap_or_else(Answer::from);
        let status = answer.status().as_u16();
        let Payload::Whole(body) = answer.into_body() else {
            panic!("{path} streams");
        };
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn every_path_answers_and_nothing_else_does() {
        let check = async {
            let handle = reactor(status(2, 1));
            let get = |path| get(&handle, Method::GET, path);
            assert_eq!(get("/metrics").await, (200, "x 1\n".to_owned()));
            assert_eq!(get("/livez").await.0, 200);
            let not_ready = "not ready: pool web: 1 of 2 workers ready\n".to_owned();
            assert_eq!(get("/readyz").await, (503, not_ready));
            let (code, document) = get("/status.json").await;
            assert_eq!(code, 200);
            let document: Status = serde_json::from_str(&document).unwrap();
            assert_eq!(document, status(2, 1));
            assert!(get("/").await.1.contains("<h2>web</h2>"));
            assert!(get("/v1/stop").await.1.contains("/status.json"));
            assert_eq!(get("/v1/stop").await.0, 404);
            assert_eq!(super::tests::get(&handle, Method::POST, "/").await.0, 405);
            assert_eq!(super::tests::get(&handle, Method::HEAD, "/").await.0, 200);
        };
        LocalSet::new().run_until(check).await;
    }
}
