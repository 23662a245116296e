//! HTTP/2 clients that honour GOAWAY: what was never sent on a connection that
//! ends goes to the next one, what was sent has to be answered.

use std::cell::RefCell;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::Request;
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::super::tls::NAME;
use super::{Failed, Failure, Outcomes, Progress};

/// Streams that a client has open at once.
const STREAMS: usize = 4;

/// Between two requests of a stream's.
const THINK: Duration = Duration::from_millis(1);

/// After a failure.
const PAUSE: Duration = Duration::from_millis(5);

type Sender = SendRequest<Empty<Bytes>>;

/// One client with one connection at a time.
pub(super) fn client(progress: &Progress) -> Outcomes {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime can be made");
    let outcomes = RefCell::new(Outcomes::default());
    runtime.block_on(async {
        while !progress.stopped() {
            let began = Instant::now();
            match connect(progress).await {
                Ok(sender) => {
                    let stream = || stream(progress, sender.clone(), &outcomes);
                    tokio::join!(stream(), stream(), stream(), stream());
                    const { assert!(STREAMS == 4, "as many as are joined") };
                }
                Err(failed) => {
                    progress.count(&mut outcomes.borrow_mut(), Err(failed), began);
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    });
    outcomes.into_inner()
}

async fn connect(progress: &Progress) -> Result<Sender, Failed> {
    let stream = timeout(progress.patience, TcpStream::connect(progress.address))
        .await
        .map_err(|_| Failed::new(Failure::TimedOut, "connecting"))?
        .map_err(|error| Failed::connecting(&error))?;
    let Some(trust) = &progress.tls else {
        return prefaced(progress, stream).await;
    };
    let name = ServerName::try_from(NAME).expect("it is a name");
    let connector = TlsConnector::from(trust.config());
    let secured = timeout(progress.patience, connector.connect(name, stream))
        .await
        .map_err(|_| Failed::new(Failure::TimedOut, "a handshake"))?
        .map_err(|error| Failed::connecting(&error))?;
    prefaced(progress, secured).await
}

async fn prefaced<S>(progress: &Progress, stream: S) -> Result<Sender, Failed>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) = timeout(
        progress.patience,
        Builder::new(TokioExecutor::new()).handshake(TokioIo::new(stream)),
    )
    .await
    .map_err(|_| Failed::new(Failure::TimedOut, "the preface"))?
    .map_err(|error| lost(&error))?;
    // How the connection ends shows in the requests that it carries.
    tokio::spawn(connection);
    Ok(sender)
}

/// Requests one after the other until the connection takes no more.
async fn stream(progress: &Progress, mut sender: Sender, outcomes: &RefCell<Outcomes>) {
    while !progress.stopped() && sender.ready().await.is_ok() {
        let began = Instant::now();
        let answered = timeout(progress.patience, ask(&mut sender)).await;
        let outcome = match answered {
            Ok(Asked::NotSent) => return,
            Ok(Asked::Answered(outcome)) => outcome,
            Err(_) => Err(Failed::new(Failure::TimedOut, "a stream")),
        };
        let failed = outcome.is_err();
        progress.count(&mut outcomes.borrow_mut(), outcome, began);
        tokio::time::sleep(if failed { PAUSE } else { THINK }).await;
        if failed {
            return;
        }
    }
}

enum Asked {
    /// The connection was over before a byte of the request was sent.
    NotSent,
    Answered(Result<(), Failed>),
}

async fn ask(sender: &mut Sender) -> Asked {
    let request = Request::get("http://localhost/")
        .body(Empty::new())
        .expect("the request is well-formed");
    let response = match sender.try_send_request(request).await {
        Ok(response) => response,
        Err(error) if error.message().is_some() => return Asked::NotSent,
        Err(error) => return Asked::Answered(Err(lost(error.error()))),
    };
    let status = response.status();
    let body = response.into_body().collect().await;
    Asked::Answered(match body {
        Err(error) => Err(Failed::new(Failure::Short, chain(&error))),
        Ok(_) if !status.is_success() => Err(Failed::new(Failure::Status, status.to_string())),
        Ok(_) => Ok(()),
    })
}

fn lost(error: &hyper::Error) -> Failed {
    Failed::new(Failure::Stream, chain(error))
}

/// An error with its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
