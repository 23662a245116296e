//! An HTTP/2 client by hyper, for what a library may say.

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Method, Request, Response, Version};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tokio::runtime::{Builder, Runtime};

use crate::supervisor::Worker;

pub type Sender = hyper::client::conn::http2::SendRequest<Full<Bytes>>;
pub type Closed = tokio::task::JoinHandle<hyper::Result<()>>;

/// An HTTP/2 client that begins with the preface.
pub async fn http2(worker: &Worker) -> (Sender, Closed) {
    let stream = TcpStream::connect(worker.address).await.unwrap();
    let (sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .unwrap();
    (sender, tokio::spawn(connection))
}

/// A runtime whose tasks go on while the test waits for the worker.
pub fn runtime() -> Runtime {
    let mut builder = Builder::new_multi_thread();
    builder.worker_threads(1).enable_all().build().unwrap()
}

pub async fn get(sender: &mut Sender, path: &str) -> Result<(u16, Bytes), hyper::Error> {
    let request = Request::get(format!("http://test{path}"))
        .version(Version::HTTP_2)
        .body(Full::default())
        .unwrap();
    let response = sender.send_request(request).await?;
    let status = response.status().as_u16();
    Ok((status, response.collect().await?.to_bytes()))
}

/// Asks over HTTP/2; a breach of the protocol fails.
pub async fn ask(sender: &mut Sender, method: Method, target: &str) -> Response<Bytes> {
    let request = Request::builder()
        .method(method)
        .uri(format!("http://test{target}"))
        .body(Full::default())
        .unwrap();
    let response = sender.send_request(request).await.unwrap();
    let (head, body) = response.into_parts();
    Response::from_parts(head, body.collect().await.unwrap().to_bytes())
}
