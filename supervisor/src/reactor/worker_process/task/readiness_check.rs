//! What a new worker is asked before it counts as ready: one HTTP request on a
//! connection that nobody else has.
//!
//! A program behind an adapter has a socket of its own. Any other worker is handed a
//! listener with that one connection in its queue, which it serves as it serves the queue
//! of a worker that has gone (`rescue`).

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as BlockingStream;
use std::pin::Pin;
use std::rc::Rc;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::header::{CONNECTION, HOST, USER_AGENT};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use prefork_fleet::Event;
use prefork_proto::adapter::UpstreamAddress;
use prefork_proto::capability;
use prefork_proto::message::ListenerOffer;
use socket2::{Domain, SockAddr, Socket, Type};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::oneshot;

use crate::config;
use crate::reactor::worker_process::protocol::{Answer, CallError};
use crate::reactor::worker_process::task::Process;
use crate::recovery::state;

/// The most of an answer's body that is looked at, in bytes.
const MOST_BYTES: usize = 64 * 1024;

/// What is to be asked, and of whom.
#[derive(Debug, Clone)]
pub(crate) struct Check {
    pub(crate) settings: Rc<config::Check>,
    /// Where a program takes requests that an adapter has started.
    pub(crate) address: Option<UpstreamAddress>,
}

impl Check {
    /// That of a pool's workers, if there is one, for the worker with this address.
    pub(crate) fn of(pool: &config::Pool, address: Option<UpstreamAddress>) -> Option<Self> {
        let settings = Rc::new(pool.check.clone()?);
        Some(Self { settings, address })
    }
}

/// A check, as far as it has come.
#[derive(Default)]
pub(super) enum Checking {
    /// Nothing is asked, or no more.
    #[default]
    Over,
    /// It is asked once it is ready.
    Due(Check),
    /// It is asked.
    Asked(Verdict),
}

/// What comes of a check; if it is no good, why.
pub(super) type Verdict = Pin<Box<dyn Future<Output = Result<(), String>>>>;

impl Checking {
    /// Waits until a check that has begun is over.
    pub(super) async fn verdict(&mut self) -> Result<(), String> {
        match self {
            Self::Asked(verdict) => {
                let verdict = verdict.await;
                *self = Self::Over;
                verdict
            }
            Self::Over | Self::Due(_) => std::future::pending().await,
        }
    }

    /// One that was handed over, to be asked again where it had been.
    pub(super) fn go_on(handed: Option<bool>, check: Option<Check>) -> Self {
        match (handed, check) {
            (None, _) | (Some(false), None) => Self::Over,
            (Some(_), Some(check)) => Self::Due(check),
            // Nobody knows any more what it was.
            (Some(true), None) => Self::Asked(Box::pin(std::future::ready(Ok(())))),
        }
    }

    /// Whether it is being asked, where it is or is to be.
    pub(super) fn hand_over(&self) -> Option<bool> {
        match self {
            Self::Over => None,
            Self::Due(_) => Some(false),
            Self::Asked(..) => Some(true),
        }
    }
}

impl Process {
    /// Asks it what it is to be asked, if there is something. It is ready once it has
    /// answered.
    pub(super) fn begin_check(&mut self) -> bool {
        let Checking::Due(check) = std::mem::take(&mut self.checking) else {
            return false;
        };
        let verdict = self.ask(&check);
        self.checking = Checking::Asked(verdict);
        true
    }

    fn ask(&mut self, check: &Check) -> Verdict {
        let settings = Rc::clone(&check.settings);
        let timeout = settings.timeout;
        let asked: Verdict = match &check.address {
            Some(address) => {
                let address = address.clone();
                Box::pin(async move { ask_at(&address, &settings).await })
            }
            None => match self.private_connection() {
                Ok((stream, answered)) => Box::pin(async move {
                    let stream = UnixStream::from_std(stream).map_err(unasked)?;
                    tokio::select! {
                        Err(why) = refusal(answered) => Err(why),
                        verdict = ask_by(stream, &settings) => verdict,
                    }
                }),
                Err(why) => Box::pin(std::future::ready(Err(unasked(why)))),
            },
        };
        let path = check.settings.path.clone();
        Box::pin(async move {
            let silence = || Err(format!("GET {path} was not answered within {timeout:?}"));
            let verdict = tokio::time::timeout(timeout, asked).await;
            verdict.unwrap_or_else(|_| silence())
        })
    }

    /// A connection to this worker alone, and what it says to being handed it.
    fn private_connection(&mut self) -> io::Result<(BlockingStream, oneshot::Receiver<Answer>)> {
        if !self.can(capability::RESCUE) {
            let lacks = format!("its hello lacks the capability `{}`", capability::RESCUE);
            return Err(io::Error::other(lacks));
        }
        let (listener, stream) = queue_of_one()?;
        let (answer, answered) = oneshot::channel();
        let id = self.conversation.call(answer);
        let offer = ListenerOffer {
            name: "check".to_owned(),
            address: "unix:check".to_owned(),
            tls: false,
            proxy_protocol: false,
            fds: 1,
        };
        let sent = self.send_with(
            &crate::reactor::worker_process::task::rescue(id, offer),
            Some(listener),
        );
        sent.map_err(io::Error::other)?;
        Ok((stream, answered))
    }

    /// The check is over.
    pub(super) async fn checked(&mut self, verdict: Result<(), String>) {
        let worker = self.worker;
        self.tell(match verdict {
            Ok(()) => Event::Ready { worker },
            Err(why) => Event::Unfit { worker, why },
        })
        .await;
    }
}

/// A listener that nobody can come to any more, and the only connection that has.
fn queue_of_one() -> io::Result<(OwnedFd, BlockingStream)> {
    let name = SockAddr::unix(format!("\0prefork-check-{}", state::new_secret()?))?;
    let listener = Socket::new(Domain::UNIX, Type::STREAM.nonblocking().cloexec(), None)?;
    listener.bind(&name)?;
    // There is room for one, and it is taken before anybody can know the name.
    listener.listen(0)?;
    let client = Socket::new(Domain::UNIX, Type::STREAM.nonblocking().cloexec(), None)?;
    client.connect(&name)?;
    Ok((listener.into(), BlockingStream::from(OwnedFd::from(client))))
}

fn unasked(why: impl std::fmt::Display) -> String {
    format!("it cannot be asked: {why}")
}

/// Waits until the worker has refused to serve the connection; what it says after having
/// served it is of no interest.
async fn refusal(answered: oneshot::Receiver<Answer>) -> Result<(), String> {
    match answered.await {
        Ok(Err(CallError::Refused { why, .. })) => Err(unasked(why)),
        Ok(Err(CallError::Unreachable(why))) => Err(unasked(why)),
        _ => Ok(()),
    }
}

async fn ask_at(address: &UpstreamAddress, check: &config::Check) -> Result<(), String> {
    match address {
        UpstreamAddress::Unix(path) => {
            let stream = UnixStream::connect(path).await.map_err(unasked)?;
            ask_by(stream, check).await
        }
        UpstreamAddress::Tcp(address) => {
            let stream = TcpStream::connect(address).await.map_err(unasked)?;
            ask_by(stream, check).await
        }
    }
}

/// Asks on a connection, and judges the answer.
async fn ask_by<S>(stream: S, check: &config::Check) -> Result<(), String>
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let mut request = Request::get(&check.path)
        .header(
            USER_AGENT,
            concat!("prefork/", env!("CARGO_PKG_VERSION"), " check"),
        )
        .header(CONNECTION, "close");
    for (name, value) in &check.headers {
        request = request.header(name, value);
    }
    if !check
        .headers
        .keys()
        .any(|name| name.eq_ignore_ascii_case(HOST.as_str()))
    {
        request = request.header(HOST, "localhost");
    }
    let request = request.body(Empty::<Bytes>::new()).map_err(unasked)?;
    let no_answer = |error: hyper::Error| format!("GET {} was not answered: {error}", check.path);
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(no_answer)?;
    let answered = async {
        let answer = sender.send_request(request).await.map_err(no_answer)?;
        let (head, body) = answer.into_parts();
        judge(check, head.status)?;
        match &check.body {
            Some(wanted) if !wanted.is_empty() => search(check, wanted, body).await,
            _ => Ok(()),
        }
    };
    let mut connection = std::pin::pin!(connection);
    let mut answered = std::pin::pin!(answered);
    tokio::select! {
        biased;
        verdict = &mut answered => verdict,
        // The answer may have come with the connection's end.
        _ = &mut connection => answered.await,
    }
}

fn judge(check: &config::Check, status: StatusCode) -> Result<(), String> {
    let path = &check.path;
    if check
        .status
        .map_or(status.is_success(), |wanted| status == wanted)
    {
        return Ok(());
    }
    let wanted = check
        .status
        .map_or_else(|| "2xx".to_owned(), |it| it.to_string());
    Err(format!(
        "GET {path} was answered with {status}, not {wanted}"
    ))
}

/// Looks for text in the beginning of an answer's body.
async fn search(check: &config::Check, wanted: &str, mut body: Incoming) -> Result<(), String> {
    let path = &check.path;
    let mut beginning = Vec::new();
    while beginning.len() < MOST_BYTES
        && let Some(frame) = body.frame().await
    {
        let frame =
            frame.map_err(|error| format!("the answer to GET {path} broke off: {error}"))?;
        // What was looked through before may hold the beginning of it.
        let from = beginning.len().saturating_sub(wanted.len());
        beginning.extend(frame.into_data().unwrap_or_default());
        beginning.truncate(MOST_BYTES);
        if contains(&beginning[from..], wanted.as_bytes()) {
            return Ok(());
        }
    }
    let length = beginning.len();
    Err(format!(
        "{wanted:?} is not in the {length} bytes that GET {path} was answered with"
    ))
}

fn contains(text: &[u8], wanted: &[u8]) -> bool {
    text.windows(wanted.len()).any(|part| part == wanted)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    fn check(status: Option<u16>, body: Option<&str>) -> config::Check {
        config::Check {
            path: "/healthz".to_owned(),
            headers: BTreeMap::new(),
            status,
            body: body.map(str::to_owned),
            timeout: Duration::from_secs(1),
        }
    }

    /// What a check comes to that is answered with this.
    async fn verdict(check: &config::Check, answer: &[u8]) -> Result<(), String> {
        let (ours, mut theirs) = tokio::io::duplex(1 << 20);
        let asked = ask_by(ours, check);
        let heard = async {
            let mut question = [0; 1024];
            let length = theirs.read(&mut question).await.unwrap();
            assert!(question[..length].starts_with(b"GET /healthz HTTP/1.1\r\n"));
            theirs.write_all(answer).await.unwrap();
            theirs.shutdown().await.unwrap();
        };
        tokio::join!(asked, heard).0
    }

    #[tokio::test]
    async fn an_answer_is_right_by_its_status_and_what_its_body_contains() {
        let answer = |status: &str, body: &str| {
            let length = body.len();
            format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\n\r\n{body}").into_bytes()
        };
        let any = check(None, None);
        assert_eq!(verdict(&any, &answer("204 No Content", "")).await, Ok(()));
        let large = "x".repeat(200_000);
        assert_eq!(verdict(&any, &answer("200 OK", &large)).await, Ok(()));
        let missing = check(Some(404), None);
        assert_eq!(verdict(&missing, &answer("404 -", "")).await, Ok(()));
        let with_ok = check(None, Some("ok"));
        assert_eq!(verdict(&with_ok, &answer("200 OK", "all ok")).await, Ok(()));
        let early = format!("ok{large}");
        assert_eq!(verdict(&with_ok, &answer("200 OK", &early)).await, Ok(()));
        // More of it may never come.
        let endless = b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nok";
        assert_eq!(verdict(&with_ok, endless).await, Ok(()));
        for (check, answer, why) in [
            (
                &any,
                answer("302 Found", ""),
                "GET /healthz was answered with 302 Found, not 2xx",
            ),
            (
                &missing,
                answer("204 No Content", ""),
                "GET /healthz was answered with 204 No Content, not 404",
            ),
            (
                &with_ok,
                answer("200 OK", "KO"),
                "\"ok\" is not in the 2 bytes that GET /healthz was answered with",
            ),
            (
                &with_ok,
                answer("200 OK", &format!("{large}ok")),
                "\"ok\" is not in the 65536 bytes that GET /healthz was answered with",
            ),
            (
                &with_ok,
                b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nall".to_vec(),
                "the answer to GET /healthz broke off",
            ),
            (
                &any,
                b"220 smtp.example ready\r\n".to_vec(),
                "GET /healthz was not answered",
            ),
        ] {
            let told = verdict(check, &answer).await.unwrap_err();
            assert!(told.starts_with(why), "{told}");
        }
    }

    #[test]
    fn a_queue_of_one_has_one_connection_and_takes_no_other() {
        let (listener, _stream) = queue_of_one().unwrap();
        let listener = std::os::unix::net::UnixListener::from(listener);
        let address = listener.local_addr().unwrap();
        let other = Socket::new(Domain::UNIX, Type::STREAM.nonblocking(), None).unwrap();
        use std::os::linux::net::SocketAddrExt;

        let name = address.as_abstract_name().unwrap();
        let name = format!("\0{}", std::str::from_utf8(name).unwrap());
        let refused = other.connect(&SockAddr::unix(name).unwrap()).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::WouldBlock);
        assert!(listener.accept().is_ok());
    }
}
