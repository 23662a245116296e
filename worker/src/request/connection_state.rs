//! What one connection's requests have in common: how far its input was used,
//! how many are in flight, and what their client is held to.

use std::cell::{Cell, OnceCell, RefCell};
use std::os::fd::{AsRawFd, RawFd};
use std::rc::Rc;
use std::sync::Arc;

use hyper::header::HeaderMap;
use prefork_proto::passage::{Kept, MOST_READ};
use prefork_proto::request_table::{Client, Writer};
use tokio::task::AbortHandle;
use tokio::time::Instant;

use crate::access_log::X_REQUEST_ID;
use crate::connection::peer::Peer;
use crate::limits::Limits;
use crate::process::{Rules, Serving};
use crate::request::deadlines::Unanswered;
use crate::request::forwarded;
use crate::response::read_ahead::Deliveries;
use crate::sys;
use crate::transport::http2::bodies::Uploads;
use crate::transport::stream::Stream;
use crate::transport::traffic::Traffic;

/// One connection's requests.
#[derive(Debug)]
pub(crate) struct Requests {
    serving: &'static Serving,
    rules: &'static Rules,
    pub(crate) traffic: Arc<Traffic>,
    /// Who they come from.
    pub(crate) peer: Peer,
    /// The same as the request table has it.
    pub(crate) client: Client,
    /// Whether they may say for whom they come; `None` where nothing is said of proxies.
    is_trusted: Option<bool>,
    /// The bodies of the requests, where each has its stream.
    uploads: OnceCell<Arc<Uploads>>,
    pub(crate) in_flight: Cell<u32>,
    /// Responses of which a part was given and the next one not asked for yet.
    pub(crate) offering: Cell<u32>,
    /// Responses that are given in parts.
    pub(crate) deliveries: Deliveries,
    /// Bytes that they hold, and bytes of theirs that were taken.
    pub(crate) held: Cell<u64>,
    data: Cell<u64>,
    /// The task that is running, where each request has its own.
    running: RefCell<Option<Rc<OnceCell<AbortHandle>>>>,
    /// The connection's socket, open as long as its requests are served here.
    socket: RawFd,
    pub(crate) unanswered: Unanswered,
    /// Where in the connection's input the requests so far ended.
    pub(crate) consumed: Cell<u64>,
    /// Where in the connection's input the body of the last request ended: 0 where it had
    /// none, and beyond all that may come where that can't be told.
    pub(crate) body_end: Cell<u64>,
    /// When the last response ended; only noted once a drain has begun.
    pub(crate) last_ended: Cell<Option<Instant>>,
}

impl Requests {
    pub(crate) fn new(serving: &'static Serving, stream: &Stream, peer: Peer) -> Rc<Self> {
        Rc::new(Self {
            serving,
            rules: stream.rules(),
            traffic: stream.traffic(),
            client: match &serving.request_table {
                Some(_) => Client::of(peer.address()),
                None => Client::default(),
            },
            is_trusted: forwarded::is_trusted(&stream.rules().limits, peer.connected()),
            peer,
            uploads: OnceCell::new(),
            in_flight: Cell::new(0),
            offering: Cell::new(0),
            deliveries: Deliveries::default(),
            held: Cell::new(0),
            data: Cell::new(0),
            running: RefCell::new(None),
            socket: stream.as_raw_fd(),
            unanswered: Unanswered::default(),
            consumed: Cell::new(0),
            body_end: Cell::new(0),
            last_ended: Cell::new(None),
        })
    }

    pub(crate) fn serving(&self) -> &'static Serving {
        self.serving
    }

    /// Where they are noted for others to see, if they are.
    #[inline]
    pub(crate) fn table(&self) -> Option<&'static Writer> {
        self.serving.request_table.as_ref()
    }

    pub(crate) fn rules(&self) -> &'static Rules {
        self.rules
    }

    /// Who a request comes from, where that is another than whoever has made the
    /// connection. Removes what a client may not say where only proxies are believed: what
    /// its request goes by.
    #[inline]
    pub(crate) fn told(&self, headers: &mut HeaderMap) -> Option<Box<Peer>> {
        match self.is_trusted {
            None => None,
            Some(is_trusted) => self.told_by_proxy(is_trusted, headers),
        }
    }

    #[cold]
    #[inline(never)]
    fn told_by_proxy(&self, is_trusted: bool, headers: &mut HeaderMap) -> Option<Box<Peer>> {
        if !is_trusted {
            headers.remove(X_REQUEST_ID);
            return None;
        }
        let told = forwarded::client(self.limits(), headers)?;
        Some(Box::new(self.peer.speaking_for(told)))
    }

    /// What this connection's client is held to.
    pub(crate) fn limits(&self) -> &'static Limits {
        &self.rules.limits
    }

    /// The requests come on streams, and their bodies are measured there.
    pub(crate) fn come_on_streams(&self, uploads: Arc<Uploads>) {
        // A connection speaks one protocol from its beginning to its end.
        let _ = self.uploads.set(uploads);
    }

    /// The bodies of the requests, where each has its stream.
    pub(crate) fn uploads(&self) -> Option<&Uploads> {
        self.uploads.get().map(Arc::as_ref)
    }

    /// Whether more of a response is there than its client takes.
    pub(crate) fn offers_more_than_is_taken(&self) -> bool {
        self.offering.get() > 0 || self.traffic.write_blocked()
    }

    /// Whether the socket takes no more for now.
    pub(crate) fn write_blocked(&self) -> bool {
        self.traffic.write_blocked()
    }

    /// Bytes that have come to the client: those that the socket has taken, but for
    /// what still waits in it.
    pub(crate) fn arrived(&self) -> u64 {
        let waiting = sys::waits_to_be_sent(self.socket);
        self.traffic.sent().saturating_sub(waiting)
    }

    /// Whether more has come than was read.
    pub(crate) fn has_unread(&self) -> bool {
        sys::waits_to_be_read(self.socket) > 0
    }

    /// So many bytes more of the responses were taken.
    pub(crate) fn take(&self, bytes: usize) {
        self.data.set(self.data.get() + bytes as u64);
    }

    /// Bytes of the responses that were taken.
    pub(crate) fn taken(&self) -> u64 {
        self.data.get()
    }

    /// Bytes that the responses may send on their connection before its client
    /// asks for more.
    pub(crate) fn window(&self) -> u64 {
        let granted = self.uploads().map_or(u64::MAX, Uploads::granted);
        granted.saturating_sub(self.data.get())
    }

    /// This task runs from here on.
    pub(crate) fn run(&self, task: &Rc<OnceCell<AbortHandle>>) {
        *self.running.borrow_mut() = Some(Rc::clone(task));
    }

    /// What ends the task that is running, where it is one request's.
    pub(crate) fn task(&self) -> Option<AbortHandle> {
        self.running.borrow().as_ref()?.get().cloned()
    }

    /// Whether an empty line is the last that has come.
    pub(crate) fn input_ends_empty(&self) -> bool {
        self.traffic.ends_empty()
    }

    /// Has the connection end without regard to what its client has not read.
    pub(crate) fn reset(&self) {
        // Without it, the kernel would go on offering what nobody takes.
        sys::reset_when_closed(self.socket);
    }

    /// Whether a request is being answered or its answer is still being sent.
    pub(crate) fn busy(&self) -> bool {
        self.in_flight.get() > 0 || self.traffic.write_blocked()
    }

    /// Whether this connection is to go on to another worker.
    pub(crate) fn goes_on(&self) -> bool {
        let handoffs = &self.serving.handoffs;
        self.peer.tls().is_none() && handoffs.way_out(self.peer.listener()).is_some()
    }

    /// Whether what comes next on the connection, or waits to be looked at, is a head for
    /// sure. An application may have answered and go on reading the body: when that has
    /// come in full and more was asked for, nothing of it is left.
    pub(crate) fn is_before_a_head(&self) -> bool {
        let body_end = self.body_end.get();
        body_end == 0 || self.received() >= body_end && self.traffic.is_asked_for_more()
    }

    /// Whether nothing is known of the connection but what another worker could be told.
    pub(crate) fn can_be_handed_on(&self) -> bool {
        !self.busy()
            && self.is_before_a_head()
            && self.received() - self.consumed() <= MOST_READ as u64
    }

    /// Whether nothing of a request has come since the last one was answered, on a
    /// connection of which nobody has to keep anything.
    pub(crate) fn can_rest(&self) -> bool {
        self.can_be_handed_on() && !self.head_begun() && self.peer.tls().is_none()
    }

    /// Why this idle connection is not handed on in a drain, where its listener's are.
    pub(crate) fn kept(&self) -> Kept {
        match self.peer.tls() {
            Some(_) => Kept::Tls,
            None if self.uploads().is_some() => Kept::Http2,
            None if self.goes_on() => Kept::Body,
            None => Kept::NoReceiver,
        }
    }

    /// Bytes that the connection has received.
    pub(crate) fn received(&self) -> u64 {
        self.traffic.received()
    }

    /// Bytes that it had received when the last request was there.
    pub(crate) fn received_at_request(&self) -> u64 {
        self.traffic.received_at_request()
    }

    /// Where in the connection's input the requests so far ended, in bytes.
    pub(crate) fn consumed(&self) -> u64 {
        self.consumed.get()
    }

    /// Whether something has come after the last request.
    pub(crate) fn head_begun(&self) -> bool {
        self.traffic.received() > self.consumed.get() || self.traffic.is_within_record()
    }

    /// As many bytes were read and belong to no request yet.
    pub(crate) fn unread(&self, bytes: usize) {
        let consumed = self.traffic.received().saturating_sub(bytes as u64);
        self.consumed.set(consumed);
    }

    /// Has the connection end without waiting for its client.
    pub(crate) fn finish(&self) {
        self.traffic.finish();
    }

    /// When the last response ended, if that was after a drain began.
    pub(crate) fn last_ended(&self) -> Option<Instant> {
        self.last_ended.get()
    }
}
