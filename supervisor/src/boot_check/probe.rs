//! One HTTP request to a worker: any answer will do.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Empty;
use hyper::Request;
use hyper::client::conn::http1;
use hyper::header::{CONNECTION, HOST};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::trust;
use crate::cli::units::seconds;

/// How long the head of the answer may take.
const WITHIN: Duration = Duration::from_secs(10);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum ProbeError {
    /// Nobody could be asked.
    #[error("cannot connect: {0}")]
    Connect(#[from] io::Error),
    /// The connection ended, or what came is not HTTP.
    #[error("{0}")]
    Http(#[from] hyper::Error),
    /// The handshake of TLS failed.
    #[error("no TLS: {0}")]
    Tls(io::Error),
    /// Nothing came.
    #[error("nothing came within {}", seconds(WITHIN.as_secs_f64()))]
    Silence,
}

/// What is spoken on a listener's connections before HTTP.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Spoken {
    pub(super) tls: bool,
    pub(super) proxy_protocol: bool,
}

/// Sends `GET /` to a listener's address, as the status document has it: the status
/// of the answer.
pub(super) async fn probe(address: &str, spoken: Spoken) -> Result<u16, ProbeError> {
    let asked = async {
        match address.strip_prefix("unix:") {
            Some(path) => ask_under(spoken, UnixStream::connect(path).await?, "localhost").await,
            None => ask_under(spoken, TcpStream::connect(address).await?, address).await,
        }
    };
    timeout(WITHIN, asked)
        .await
        .unwrap_or(Err(ProbeError::Silence))
}

async fn ask_under<S>(spoken: Spoken, mut stream: S, host: &str) -> Result<u16, ProbeError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    if spoken.proxy_protocol {
        // A proxy that speaks for itself.
        stream.write_all(b"PROXY UNKNOWN\r\n").await?;
    }
    if !spoken.tls {
        return ask(stream, host).await;
    }
    let client = trust::client().map_err(io::Error::other)?;
    let name = ServerName::try_from("localhost").expect("a host's name");
    let secured = TlsConnector::from(client).connect(name, stream).await;
    ask(secured.map_err(ProbeError::Tls)?, host).await
}

async fn ask<S>(stream: S, host: &str) -> Result<u16, ProbeError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let request = Request::get("/")
        .header(HOST, host)
        .header(CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .expect("a listener's address is a valid header value");
    let mut connection = std::pin::pin!(connection);
    let mut answer = std::pin::pin!(sender.send_request(request));
    tokio::select! {
        biased;
        answer = &mut answer => Ok(answer?.status().as_u16()),
        // The answer may have come with the connection's end.
        ended = &mut connection => {
            ended?;
            Ok(answer.await?.status().as_u16())
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    /// A server that answers one connection with these bytes, then closes.
    async fn answering(bytes: &'static [u8]) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 1024];
            let length = stream.read(&mut request).await.unwrap();
            assert!(request[..length].starts_with(b"GET / HTTP/1.1\r\n"));
            stream.write_all(bytes).await.unwrap();
        });
        address
    }

    #[tokio::test]
    async fn any_status_is_an_answer() {
        let address = answering(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n").await;
        assert_eq!(probe(&address, Spoken::default()).await.unwrap(), 404);
        let endless = answering(b"HTTP/1.1 200 OK\r\ncontent-length: 999\r\n\r\n").await;
        assert_eq!(probe(&endless, Spoken::default()).await.unwrap(), 200);
    }

    #[tokio::test]
    async fn what_is_not_http_is_no_answer() {
        let address = answering(b"220 smtp.example ready\r\n").await;
        assert!(matches!(
            probe(&address, Spoken::default()).await,
            Err(ProbeError::Http(_))
        ));
        let address = answering(b"").await;
        assert!(matches!(
            probe(&address, Spoken::default()).await,
            Err(ProbeError::Http(_))
        ));
        let nobody = probe("127.0.0.1:1", Spoken::default()).await;
        assert!(matches!(nobody, Err(ProbeError::Connect(_))), "{nobody:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn silence_is_no_answer() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let silent = probe(&address, Spoken::default()).await.unwrap_err();
        assert_eq!(silent.to_string(), "nothing came within 10s");
    }
}
