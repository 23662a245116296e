//! The admin address: read-only HTTP/1.1 for Prometheus, probes and a browser.
//! The supervisor itself serves it, so that it answers while every worker is busy.

mod page;

use std::convert::Infallible;
use std::rc::Rc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::header::{CONTENT_SECURITY_POLICY, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use hyper::service::service_fn;
use hyper::{Method, Request, StatusCode};
use prefork_proto::control::ErrorCode;
use tokio::net::{TcpListener, TcpStream};

use crate::control::accept::{self, Bounds};
use crate::control::answer::{self, Answer, EXPOSITION, Rejection};
use crate::control::{ask, live, ready};
use crate::handle::Handle;
use crate::reserve::Reserve;

const BOUNDS: Bounds = Bounds {
    connections: 256,
    stall: Duration::from_secs(10),
};

/// Serves `/metrics`, `/livez`, `/readyz`, `/status.json` and `/` on
/// `listener` until dropped. Runs on a `LocalSet`.
pub async fn serve(listener: TcpListener, handle: Handle, reserve: Rc<Reserve>) -> Infallible {
    accept::serve(listener, reserve, BOUNDS, move |_: &TcpStream| {
        let handle = handle.clone();
        Some(service_fn(move |request: Request<Incoming>| {
            let handle = handle.clone();
            async move {
                let found = answer(&handle, request.method(), request.uri().path()).await;
                Ok::<_, Infallible>(found.unwrap_or_else(Answer::from))
            }
        }))
    })
    .await
}

async fn answer(handle: &Handle, method: &Method, path: &str) -> Result<Answer, Rejection> {
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
        "/metrics" => Ok(answer::whole(
            StatusCode::OK,
            EXPOSITION,
            ask::metrics(handle).await?,
        )),
        "/livez" => Ok(live()),
        "/readyz" => ready(handle).await,
        "/status.json" => Ok(answer::json(StatusCode::OK, &ask::status(handle).await?)),
        _ => Ok(html(page::render(&ask::status(handle).await?))),
    }
}

/// A page that may load nothing and run nothing.
fn html(page: String) -> Answer {
    let mut answer = answer::whole(StatusCode::OK, "text/html; charset=utf-8", page);
    let headers = answer.headers_mut();
    headers.insert(
        CONTENT_SECURITY_POLICY,
        HeaderValue::from_static("default-src 'none'; style-src 'unsafe-inline'"),
    );
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    answer
}
