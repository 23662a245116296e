//! A client's connection: counts its bytes, tells what the drain has to know,
//! and closes without destroying what the client has not read yet.

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, RawFd};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, SystemTime};

use bytes::{Buf, Bytes, BytesMut};
use hyper::StatusCode;
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, SockaddrStorage, getpeername, recv};
use prefork_proto::passage::Passed;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::time::Sleep;
use tokio_rustls::server::TlsStream;

use crate::connection::peer::{Origin, PeerTls};
use crate::idle::Bare;
use crate::process::{Rules, Serving};
use crate::transport::http2::bodies::Uploads;
use crate::transport::http2::frames::Frames;
use crate::transport::http2::interim::Interim;
use crate::transport::socket::{Socket, Wire};
use crate::transport::traffic::Traffic;

/// How long a connection whose sending side is closed waits for the client to
/// close its own. Closing with unread input makes the kernel send a reset, and
/// a reset may take the response from the client before it was read.
const LINGER: Duration = Duration::from_secs(1);

/// What the connection's bytes go through.
#[derive(Debug)]
enum Transport {
    Plain(Wire),
    Tls(Box<TlsStream<Wire>>),
}

impl Transport {
    fn wire(&mut self) -> &mut Wire {
        match self {
            Self::Plain(wire) => wire,
            Self::Tls(stream) => stream.get_mut().0,
        }
    }
}

impl Transport {
    fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self {
            Self::Plain(wire) => Pin::new(wire).poll_write(cx, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    #[inline(always)]
    fn poll_write_vectored(
        &mut self,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self {
            Self::Plain(wire) => Pin::new(wire).poll_write_vectored(cx, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, bytes),
        }
    }
}

impl AsRawFd for Transport {
    fn as_raw_fd(&self) -> RawFd {
        match self {
            Self::Plain(wire) => wire.as_raw_fd(),
            Self::Tls(stream) => stream.get_ref().0.as_raw_fd(),
        }
    }
}

/// One client's connection.
#[derive(Debug)]
pub(crate) struct Stream {
    transport: Transport,
    /// Where it has come from, until somebody wants to know.
    origin: Option<Origin>,
    /// Whether a header of the PROXY protocol comes before anything else.
    is_proxied: bool,
    /// What its handshake is to be done with, if there is to be one.
    handshake: Option<Arc<ServerConfig>>,
    serving: &'static Serving,
    /// What its client is held to, from its beginning to its end.
    rules: &'static Rules,
    traffic: Arc<Traffic>,
    /// Read already, to be given out first.
    prefix: Bytes,
    /// What is read are HTTP/2 frames.
    frames: Option<Box<Frames>>,
    /// What is written are HTTP/2 frames, and interim responses between them.
    interim: Option<Box<Interim>>,
    sending_closed: bool,
    linger: Option<Pin<Box<Sleep>>>,
}

impl Stream {
    /// Takes an accepted socket in; `tls` is what its client has to do a
    /// handshake with before anything else.
    pub(crate) fn admit(
        socket: Socket,
        origin: Origin,
        serving: &'static Serving,
        tls: Option<Arc<ServerConfig>>,
    ) -> Self {
        let traffic = Arc::new(Traffic::new());
        let wire = Wire::new(socket, serving, Arc::clone(&traffic));
        Self {
            origin: Some(origin),
            handshake: tls,
            ..Self::over(Transport::Plain(wire), serving, serving.rules(), traffic)
        }
    }

    /// Takes a connection up that was idle, here or in another worker.
    ///
    /// # Errors
    /// The runtime can't watch its socket.
    pub(crate) fn taken_up(bare: Bare, serving: &'static Serving) -> io::Result<Self> {
        let Bare {
            entry,
            socket,
            passed,
            listener,
            rules,
            read,
        } = bare;
        let traffic = Arc::new(Traffic::new());
        traffic.heard(&read);
        if passed.has_spoken {
            traffic.speaks_http1();
        }
        if let Some(client) = passed.said_by_proxy() {
            traffic.comes_from(client);
        }
        let socket = Socket::watched(socket)?;
        let wire = Wire::of((socket, entry), serving, Arc::clone(&traffic));
        Ok(Self {
            origin: Some(Origin {
                address: passed.client,
                listener,
            }),
            prefix: read,
            ..Self::over(Transport::Plain(wire), serving, rules, traffic)
        })
    }

    /// A connection without what served it, that has come from there; none where it speaks
    /// TLS or has come to its end.
    pub(crate) fn strip(self, origin: Origin) -> Option<Bare> {
        let passed = Passed {
            client: origin.address,
            by_proxy: self.traffic.client().is_some(),
            has_spoken: self.traffic.has_spoken_http1(),
        };
        let Transport::Plain(wire) = self.transport else {
            return None;
        };
        let (socket, entry) = wire.into_parts();
        Some(Bare {
            entry,
            socket: socket.unwatched().ok()?,
            passed,
            listener: origin.listener,
            rules: self.rules,
            read: self.prefix,
        })
    }

    /// Whether its client has been told that nothing more comes.
    pub(crate) fn is_closing(&self) -> bool {
        self.sending_closed
    }

    /// What its client is held to.
    pub(crate) fn rules(&self) -> &'static Rules {
        self.rules
    }

    /// Whether HTTP/1 was spoken on it before it was taken up.
    pub(crate) fn has_spoken_http1(&self) -> bool {
        self.traffic.has_spoken_http1()
    }

    fn over(
        transport: Transport,
        serving: &'static Serving,
        rules: &'static Rules,
        traffic: Arc<Traffic>,
    ) -> Self {
        Self {
            transport,
            origin: None,
            is_proxied: false,
            handshake: None,
            serving,
            rules,
            traffic,
            prefix: Bytes::new(),
            frames: None,
            interim: None,
            sending_closed: false,
            linger: None,
        }
    }

    /// Where it has come from; known once.
    pub(crate) fn take_origin(&mut self) -> Origin {
        self.origin.take().unwrap_or_default()
    }

    /// A header of the PROXY protocol comes before anything else, or not.
    pub(crate) fn expect_proxy_header(&mut self, expected: bool) {
        self.is_proxied = expected;
    }

    /// Whether such a header is still to be read.
    pub(crate) fn is_proxied(&self) -> bool {
        self.is_proxied
    }

    /// The socket that it has come by.
    pub(crate) fn wire(&mut self) -> &mut Wire {
        self.transport.wire()
    }

    /// What its handshake has come to, if there was one.
    pub(crate) fn secrecy(&self) -> Option<PeerTls> {
        match &self.transport {
            Transport::Plain(_) => None,
            Transport::Tls(stream) => Some(PeerTls::of(stream.get_ref().1)),
        }
    }

    /// What its handshake is to be done with, if one is still to be done.
    pub(crate) fn take_handshake(&mut self) -> Option<Arc<ServerConfig>> {
        self.handshake.take()
    }

    /// Takes it apart for its handshake; `None` where that is done.
    pub(crate) fn into_wire(self) -> Option<(Wire, Arc<Traffic>)> {
        match self.transport {
            Transport::Plain(wire) => Some((wire, self.traffic)),
            Transport::Tls(_) => None,
        }
    }

    /// What a handshake has come to.
    pub(crate) fn secured(
        stream: TlsStream<Wire>,
        serving: &'static Serving,
        traffic: Arc<Traffic>,
    ) -> Self {
        Self::over(
            Transport::Tls(Box::new(stream)),
            serving,
            serving.rules(),
            traffic,
        )
    }

    /// A connection without the handshake that it should have had, to be closed.
    pub(crate) fn unsecured(wire: Wire, serving: &'static Serving, traffic: Arc<Traffic>) -> Self {
        Self::over(Transport::Plain(wire), serving, serving.rules(), traffic)
    }

    /// What the stream tells of itself.
    pub(crate) fn traffic(&self) -> Arc<Traffic> {
        Arc::clone(&self.traffic)
    }

    /// The client's address, if it has come over TCP or a proxy has said it.
    pub(crate) fn client(&self) -> Option<IpAddr> {
        if let Some(client) = self.traffic.client() {
            return Some(client);
        }
        let address = getpeername::<SockaddrStorage>(self.transport.as_raw_fd()).ok()?;
        let v4 = address.as_sockaddr_in().map(|it| IpAddr::V4(it.ip()));
        v4.or_else(|| address.as_sockaddr_in6().map(|it| IpAddr::V6(it.ip())))
    }

    /// From here on, what is written are HTTP/1 messages.
    pub(crate) fn speaks_http1(&self) {
        self.traffic.speaks_http1();
    }

    /// From here on, what is read and written are the frames of HTTP/2, from the
    /// preface on.
    pub(crate) fn speaks_http2(&mut self, uploads: &Arc<Uploads>) {
        let mut frames = Frames::new(Arc::clone(uploads));
        self.prefix = frames.rewrite(&self.prefix);
        self.frames = Some(Box::new(frames));
        self.interim = Some(Box::new(Interim::new(Arc::clone(uploads))));
    }

    /// Puts bytes back that were read but not used.
    pub(crate) fn unread(&mut self, bytes: Bytes) {
        debug_assert!(self.prefix.is_empty(), "bytes put back over others");
        self.prefix = bytes;
    }

    /// Reads more into `buffer`; 0 at the end. Safe to cancel.
    pub(crate) async fn fill(&mut self, buffer: &mut BytesMut) -> io::Result<usize> {
        self.read_buf(buffer).await
    }

    /// Whether the kernel holds input that was not read yet, or the end of it.
    pub(crate) fn has_input(&self) -> bool {
        has_input(self.transport.as_raw_fd())
    }

    /// Whether something has begun to come that can't be read yet.
    pub(crate) fn is_within_record(&self) -> bool {
        self.traffic.is_within_record()
    }

    /// Answers with no more than a status, and closes.
    pub(crate) async fn refuse(mut self, status: StatusCode) {
        let reason = status.canonical_reason().unwrap_or_default();
        let date = httpdate::fmt_http_date(SystemTime::now());
        let head = format!(
            "HTTP/1.1 {} {reason}\r\nconnection: close\r\ncontent-length: 0\r\ndate: {date}\r\n\r\n",
            status.as_u16()
        );
        self.count(status.as_u16());
        self.traffic.speak();
        // One that does not take it has the same to read: nothing.
        if self.write_all(head.as_bytes()).await.is_ok() {
            self.close().await;
        }
    }

    /// Closes a connection that the client believes to be open.
    pub(crate) async fn close(mut self) {
        self.traffic.expect_more();
        // The connection is over either way; an error has no one to go to.
        let _ = self.shutdown().await;
    }

    fn poll_transport(
        &mut self,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let result = match &mut self.transport {
            Transport::Plain(wire) => Pin::new(wire).poll_read(cx, buf),
            Transport::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        };
        match result {
            Poll::Ready(Ok(())) => {
                let read = (buf.filled().len() - before) as u64;
                if read == 0 && buf.remaining() > 0 {
                    self.traffic.client_closes();
                } else {
                    self.traffic.heard(&buf.filled()[before..]);
                }
            }
            Poll::Ready(Err(_)) => {}
            Poll::Pending => self.traffic.asks_in_vain(),
        }
        result
    }

    /// Follows the frames in what was read after so many bytes; whether there
    /// is anything to be given out, of which a part may have become the prefix.
    fn pass_frames(&mut self, buf: &mut ReadBuf<'_>, before: usize) -> bool {
        let read = &mut buf.filled_mut()[before..];
        let Some(frames) = self.frames.as_mut().filter(|_| !read.is_empty()) else {
            return true;
        };
        let passed = frames.pass(read);
        self.prefix = passed.then.freeze();
        buf.set_filled(before + passed.kept);
        passed.kept > 0
    }

    /// Closes the sending side and gives the client time to close its own.
    fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.sending_closed {
            // Under TLS its end is said first (RFC 8446, 6.1).
            ready!(match &mut self.transport {
                Transport::Plain(wire) => Pin::new(wire).poll_shutdown(cx),
                Transport::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
            })?;
            self.sending_closed = true;
        }
        if self.traffic.must_linger() {
            self.poll_linger(cx)
        } else {
            Poll::Ready(Ok(()))
        }
    }

    fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut discard = [0; 4096];
        loop {
            let mut buf = ReadBuf::new(&mut discard);
            match Pin::new(self.transport.wire()).poll_read(cx, &mut buf) {
                Poll::Ready(Ok(())) if !buf.filled().is_empty() => {}
                Poll::Ready(_) => return Poll::Ready(Ok(())),
                Poll::Pending => break,
            }
        }
        self.linger
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(LINGER)))
            .as_mut()
            .poll(cx)
            .map(Ok)
    }

    /// Writes the interim responses that can go where the output is.
    fn poll_interim(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(waiting) = self.interim.as_mut().and_then(|it| it.waiting()) {
            match ready!(self.transport.poll_write(cx, waiting))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => waiting.advance(written),
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Writes frames of hyper's, up to where an interim response is to go.
    fn poll_write_frames(
        &mut self,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_interim(cx))?;
        let Some(interim) = &mut self.interim else {
            return self.transport.poll_write_vectored(cx, bytes);
        };
        let result = match interim.rest_of_frame(bytes) {
            Some(rest) => self.transport.poll_write(cx, rest),
            None => self.transport.poll_write_vectored(cx, bytes),
        };
        if let Poll::Ready(Ok(written)) = result {
            interim.wrote(bytes, written);
        }
        result
    }

    /// To be called before `offered` bytes are written, which begin with
    /// `first`. Where no answer of the application's is among them, they are
    /// hyper's answer to what was no request, of which nothing else tells. It is
    /// counted before it leaves, as all that a client receives.
    fn offer(&self, first: &[u8], offered: u64) {
        if let Some(status) = self.traffic.answer_to_none(first, offered) {
            self.count(status);
        }
    }

    /// Counts and logs an answer that was given to no request.
    fn count(&self, status: u16) {
        self.serving.tally.answered(status, Duration::ZERO);
        self.serving.access_log.refused(status, || self.client());
    }

    /// What has become of the bytes that were offered.
    fn wrote(&self, offered: u64, result: &Poll<io::Result<usize>>) {
        match result {
            Poll::Ready(Ok(written)) => self.traffic.set_unsent(offered - *written as u64),
            Poll::Ready(Err(_)) => {}
            Poll::Pending => self.traffic.set_unsent(offered),
        }
        self.traffic.has_spoken();
    }
}

/// Whether the kernel holds input of a connection, or the end of it.
pub(crate) fn has_input(connection: RawFd) -> bool {
    let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
    !matches!(recv(connection, &mut [0], flags), Err(Errno::EAGAIN))
}

impl AsRawFd for Stream {
    fn as_raw_fd(&self) -> RawFd {
        self.transport.as_raw_fd()
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.traffic.is_finishing() {
            return this.poll_finish(cx);
        }
        let before = buf.filled().len();
        while this.prefix.is_empty() {
            ready!(this.poll_transport(cx, buf))?;
            if this.traffic.body_is_over() {
                // Its reader fails; what is answered then is for `request` to say.
                return Poll::Ready(Err(io::Error::other("the request's body is too large")));
            }
            if this.pass_frames(buf, before) {
                return Poll::Ready(Ok(()));
            }
        }
        let length = this.prefix.len().min(buf.remaining());
        buf.put_slice(&this.prefix[..length]);
        this.prefix.advance(length);
        if this.prefix.is_empty() {
            // Without it, the connection would keep the memory for nothing.
            this.prefix = Bytes::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.interim.is_some() {
            return this.poll_write_frames(cx, &[io::IoSlice::new(bytes)]);
        }
        let offered = bytes.len() as u64;
        this.offer(bytes, offered);
        let result = this.transport.poll_write(cx, bytes);
        this.wrote(offered, &result);
        result
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.interim.is_some() {
            return this.poll_write_frames(cx, bytes);
        }
        let offered = bytes.iter().map(|part| part.len() as u64).sum();
        this.offer(bytes.first().map_or(&[], |first| first), offered);
        let result = this.transport.poll_write_vectored(cx, bytes);
        this.wrote(offered, &result);
        result
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_interim(cx))?;
        match &mut this.transport {
            Transport::Plain(wire) => Pin::new(wire).poll_flush(cx),
            Transport::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().poll_finish(cx)
    }
}
