//! The client of the control socket: a connection per request.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::header::{CONTENT_TYPE, HOST};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use prefork_api::ApiError;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;
use tokio::time::{Instant, sleep, timeout_at};

use super::error::Error;

/// How long to wait before another try where the supervisor's queue is full.
const QUEUE_PAUSE: Duration = Duration::from_millis(10);

/// A moment by which something has to have happened.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Deadline {
    at: Instant,
    /// The time that was given.
    pub(crate) given: Duration,
}

impl Deadline {
    /// The moment `given` from now.
    pub(crate) fn after(given: Duration) -> Self {
        // A time beyond what the clock can say is as good as a century.
        let century = Duration::from_secs(100 * 365 * 86_400);
        Self {
            at: Instant::now() + given.min(century),
            given,
        }
    }

    /// What the work comes to, or `None` once the moment has passed.
    pub(crate) async fn bound<T>(self, work: impl Future<Output = T>) -> Option<T> {
        timeout_at(self.at, work).await.ok()
    }
}

/// Knows where a supervisor listens.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    socket: PathBuf,
}

impl Client {
    /// Where it asks.
    pub(crate) fn socket(&self) -> &Path {
        &self.socket
    }

    /// A client of the supervisor that runs in `runtime_dir`.
    pub(crate) fn new(runtime_dir: &Path) -> Self {
        Self {
            socket: runtime_dir.join("control.sock"),
        }
    }

    /// Connects, or says what is in the way.
    pub(crate) async fn connect(&self) -> Result<UnixStream, Error> {
        loop {
            let error = match UnixStream::connect(&self.socket).await {
                Ok(stream) => return Ok(stream),
                Err(error) => error,
            };
            let socket = self.socket.clone();
            return Err(match error.kind() {
                // A unix socket whose queue is full says so at once; one that is closed
                // while this waits in its queue resets it, and is not there next time.
                io::ErrorKind::WouldBlock | io::ErrorKind::ConnectionReset => {
                    sleep(QUEUE_PAUSE).await;
                    continue;
                }
                io::ErrorKind::NotFound => Error::Absent { socket },
                io::ErrorKind::ConnectionRefused => Error::Stale { socket },
                io::ErrorKind::PermissionDenied => Error::Denied { socket },
                _ => Error::Unreachable { socket, error },
            });
        }
    }

    /// Asks, and reads the whole answer.
    pub(crate) async fn get(&self, path: &str) -> Result<(StatusCode, Bytes), Error> {
        let response = self.request(Method::GET, path, Bytes::new()).await?;
        let status = response.status();
        let body = response.into_body().collect().await.map_err(lost)?;
        Ok((status, body.to_bytes()))
    }

    /// Asks for a document that this client need not understand.
    pub(crate) async fn document(&self, path: &str) -> Result<Bytes, Error> {
        let (status, body) = self.get(path).await?;
        if status == StatusCode::OK {
            Ok(body)
        } else {
            Err(rejected(status, &body))
        }
    }

    /// Asks for a stream of JSON lines.
    pub(crate) async fn follow(&self, path: &str) -> Result<Lines, Error> {
        Lines::of(self.request(Method::GET, path, Bytes::new()).await?).await
    }

    /// Gives an order; the answer is its job's lines.
    pub(crate) async fn order(&self, path: &str, body: &impl Serialize) -> Result<Lines, Error> {
        let body = serde_json::to_vec(body).expect("the API's bodies hold nothing JSON cannot say");
        Lines::of(self.request(Method::POST, path, body.into()).await?).await
    }

    async fn request(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<Response<Incoming>, Error> {
        let stream = TokioIo::new(self.connect().await?);
        let (mut sender, connection) = http1::handshake(stream).await.map_err(lost)?;
        // Ends with the response; what goes wrong is told by the response.
        tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, "prefork")
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(body))
            .map_err(|error| Error::Malformed(error.to_string()))?;
        sender.send_request(request).await.map_err(lost)
    }
}

/// Reads a document.
pub(crate) fn read<T: DeserializeOwned>(document: &[u8]) -> Result<T, Error> {
    serde_json::from_slice(document).map_err(|error| Error::Malformed(error.to_string()))
}

/// JSON lines as they come.
#[derive(Debug)]
pub(crate) struct Lines {
    body: Incoming,
    buffer: BytesMut,
    /// How much of the buffer is known to hold no newline.
    searched: usize,
}

impl Lines {
    async fn of(response: Response<Incoming>) -> Result<Self, Error> {
        let status = response.status();
        let body = response.into_body();
        if status != StatusCode::OK {
            let body = body.collect().await.map_err(lost)?;
            return Err(rejected(status, &body.to_bytes()));
        }
        Ok(Self {
            body,
            buffer: BytesMut::new(),
            searched: 0,
        })
    }

    /// The next line without its newline; `None` after the last. May be
    /// dropped while it waits without losing anything.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        loop {
            if let Some(line) = self.buffered() {
                return Ok(Some(line));
            }
            match self.body.frame().await {
                Some(Ok(frame)) => {
                    if let Some(data) = frame.data_ref() {
                        self.buffer.extend_from_slice(data);
                    }
                }
                Some(Err(error)) => return Err(lost(error)),
                None => return Ok(None),
            }
        }
    }

    /// The next line, if all of it has come already.
    pub(crate) fn buffered(&mut self) -> Option<Bytes> {
        let newline = self.buffer[self.searched..]
            .iter()
            .position(|byte| *byte == b'\n');
        let Some(offset) = newline else {
            self.searched = self.buffer.len();
            return None;
        };
        let line = self.buffer.split_to(self.searched + offset).freeze();
        self.buffer.advance(1);
        self.searched = 0;
        Some(line)
    }
}

/// The error that an error status stands for.
fn rejected(status: StatusCode, body: &[u8]) -> Error {
    serde_json::from_slice::<ApiError>(body).map_or_else(
        |_| {
            let text = String::from_utf8_lossy(body);
            Error::Malformed(format!("{status} {}", text.trim()))
        },
        Error::Rejected,
    )
}

fn lost(error: hyper::Error) -> Error {
    Error::Lost(error.to_string())
}
