//! What a connection's stream, its requests and its driver know of its bytes.

use std::net::IpAddr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};

/// The length of `HTTP/1.1 100 Continue` and an empty line, which hyper sends
/// by itself, too, and which is no answer.
const CONTINUE: u64 = 25;

/// What a connection's stream, its requests and its driver tell each other.
///
/// All writers run on the serving thread while it matters; the atomics are
/// there because hyper wants an upgradeable stream to be `Send`.
#[derive(Debug)]
pub(crate) struct Traffic {
    /// Bytes that the client has said, under TLS those that have been decrypted.
    received: AtomicU64,
    /// The value of `received` when the last request was handed to the service.
    received_at_request: AtomicU64,
    /// Bytes that the socket has taken.
    sent: AtomicU64,
    /// The value of `received` when more was asked for and nothing was there.
    asked_in_vain_at: AtomicU64,
    /// The last four bytes read.
    tail: AtomicU32,
    /// Where the input has to end that a body in chunks is in.
    body_limit: AtomicU64,
    /// The last write did not fit into the socket: a response is on its way.
    write_blocked: AtomicBool,
    /// What is written are HTTP/1 messages.
    http1: AtomicBool,
    /// The application has given bytes that were not offered to the socket yet.
    spoken: AtomicBool,
    /// Bytes that the socket was offered and did not take.
    unsent: AtomicU64,
    /// Something has come over the wire of a client that speaks TLS.
    begun: AtomicBool,
    /// A TLS record has begun to come and has not ended.
    within_record: AtomicBool,
    /// The client has closed its sending side.
    client_closed: AtomicBool,
    /// The client may be sending although the connection is to be closed.
    may_send_more: AtomicBool,
    /// The application has taken the connection over.
    upgraded: AtomicBool,
    /// Nothing is read any more: the connection is to end.
    finishing: AtomicBool,
    /// Who the client is, where a proxy has said it.
    client: OnceLock<IpAddr>,
}

impl Traffic {
    pub(super) fn new() -> Self {
        Self {
            received: AtomicU64::new(0),
            received_at_request: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            asked_in_vain_at: AtomicU64::new(u64::MAX),
            tail: AtomicU32::new(0),
            body_limit: AtomicU64::new(u64::MAX),
            write_blocked: AtomicBool::new(false),
            http1: AtomicBool::new(false),
            spoken: AtomicBool::new(false),
            unsent: AtomicU64::new(0),
            begun: AtomicBool::new(false),
            within_record: AtomicBool::new(false),
            client_closed: AtomicBool::new(false),
            may_send_more: AtomicBool::new(false),
            upgraded: AtomicBool::new(false),
            finishing: AtomicBool::new(false),
            client: OnceLock::new(),
        }
    }

    /// A proxy has said who the client is.
    pub(crate) fn comes_from(&self, client: IpAddr) {
        // It is said once, before anything else.
        let _ = self.client.set(client);
    }

    /// Who a proxy has said that the client is.
    pub(crate) fn client(&self) -> Option<IpAddr> {
        self.client.get().copied()
    }

    /// Bytes that the client has said so far.
    pub(crate) fn received(&self) -> u64 {
        self.received.load(Relaxed)
    }

    /// A request was handed to the service; `has_body` if more of it is to come.
    pub(crate) fn request_began(&self, has_body: bool) {
        self.received_at_request.store(self.received(), Relaxed);
        self.may_send_more.store(has_body, Relaxed);
    }

    /// Bytes that had come when the last request was handed to the service.
    pub(crate) fn received_at_request(&self) -> u64 {
        self.received_at_request.load(Relaxed)
    }

    /// More was asked for, and nothing was there.
    pub(super) fn asks_in_vain(&self) {
        self.asked_in_vain_at.store(self.received(), Relaxed);
    }

    /// Whether more was asked for than has come: nothing of it waits to be looked at.
    pub(crate) fn is_asked_for_more(&self) -> bool {
        self.asked_in_vain_at.load(Relaxed) == self.received()
    }

    /// Bytes that the socket has taken.
    pub(crate) fn sent(&self) -> u64 {
        self.sent.load(Relaxed)
    }

    /// Whether the last that was read is an empty line.
    pub(crate) fn ends_empty(&self) -> bool {
        self.tail.load(Relaxed).to_be_bytes() == *b"\r\n\r\n"
    }

    /// The socket has taken so many more.
    pub(crate) fn sent_more(&self, bytes: u64) {
        self.sent.store(self.sent() + bytes, Relaxed);
    }

    pub(super) fn heard(&self, bytes: &[u8]) {
        self.received
            .store(self.received() + bytes.len() as u64, Relaxed);
        let tail = match bytes.last_chunk() {
            Some(last) => u32::from_be_bytes(*last),
            None => bytes.iter().fold(self.tail.load(Relaxed), |tail, byte| {
                tail << 8 | u32::from(*byte)
            }),
        };
        self.tail.store(tail, Relaxed);
    }

    /// A body in chunks begins, which may not lead the input beyond this; or it
    /// has ended, and anything may come.
    pub(crate) fn limit_body(&self, end: u64) {
        self.body_limit.store(end, Relaxed);
    }

    /// Whether a body in chunks has come to be too large.
    pub(crate) fn body_is_over(&self) -> bool {
        self.received() > self.body_limit.load(Relaxed)
    }

    /// The application has given bytes: a response's head, or more of its body.
    pub(crate) fn speak(&self) {
        self.spoken.store(true, Relaxed);
    }

    /// The server decided to close, the client may not know yet.
    pub(crate) fn expect_more(&self) {
        self.may_send_more.store(true, Relaxed);
    }

    /// The application takes the connection over.
    pub(crate) fn upgrade(&self) {
        self.upgraded.store(true, Relaxed);
    }

    /// The next read closes the sending side and then is the end of the input.
    pub(crate) fn finish(&self) {
        self.finishing.store(true, Relaxed);
        self.expect_more();
    }

    /// Whether a response waits in hyper's buffer for room in the socket.
    pub(crate) fn write_blocked(&self) -> bool {
        self.write_blocked.load(Relaxed)
    }

    pub(crate) fn set_write_blocked(&self, blocked: bool) {
        self.write_blocked.store(blocked, Relaxed);
    }

    /// Whether something has begun to come that can't be read yet.
    pub(crate) fn is_within_record(&self) -> bool {
        self.within_record.load(Relaxed)
    }

    /// Whether a client that speaks TLS has said anything at all.
    pub(crate) fn has_begun(&self) -> bool {
        self.begun.load(Relaxed)
    }

    pub(crate) fn set_within_record(&self, within: bool) {
        self.begun.store(true, Relaxed);
        self.within_record.store(within, Relaxed);
    }

    /// The client sends nothing any more.
    pub(crate) fn client_closes(&self) {
        self.client_closed.store(true, Relaxed);
    }

    pub(super) fn must_linger(&self) -> bool {
        !self.client_closed.load(Relaxed)
            && !self.upgraded.load(Relaxed)
            && (self.may_send_more.load(Relaxed)
                || self.received() != self.received_at_request.load(Relaxed))
    }

    /// What is written are HTTP/1 messages.
    pub(super) fn speaks_http1(&self) {
        self.http1.store(true, Relaxed);
    }

    /// Whether what is written are HTTP/1 messages.
    pub(super) fn has_spoken_http1(&self) -> bool {
        self.http1.load(Relaxed)
    }

    /// Whether nothing is read any more.
    pub(super) fn is_finishing(&self) -> bool {
        self.finishing.load(Relaxed)
    }

    /// The status of an answer that the application did not give, where there is one
    /// among the bytes that are offered to the socket, of which `first` are the first.
    pub(super) fn answer_to_none(&self, first: &[u8], offered: u64) -> Option<u16> {
        let unsent = self.unsent.load(Relaxed);
        if self.spoken.load(Relaxed) || offered <= unsent + CONTINUE {
            return None;
        }
        if !self.http1.load(Relaxed) || self.upgraded.load(Relaxed) {
            return None;
        }
        // After what was not sent yet, there is no telling where it begins.
        if unsent == 0 && !first.starts_with(b"HTTP/1.") {
            return None;
        }
        let status = first.get(9..12).filter(|_| unsent == 0);
        let status = status.and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok());
        Some(status.unwrap_or(400))
    }

    /// So many of the bytes that the socket was offered it did not take.
    pub(super) fn set_unsent(&self, bytes: u64) {
        self.unsent.store(bytes, Relaxed);
    }

    /// What the application has given was offered to the socket.
    pub(super) fn has_spoken(&self) {
        self.spoken.store(false, Relaxed);
    }
}
