//! A line for every request, to a descriptor that the supervisor hands over.
//!
//! The serving thread makes the line and puts it into a queue (`writer`), which a
//! thread of its own writes. What a client may choose is escaped (`line`), and
//! every request has an id (`request_id`). While there is no log, a request
//! costs one relaxed load for it.

mod line;
mod request_id;
mod time;
mod traceparent;
mod writer;

use std::fs::File;
use std::io;
use std::net::IpAddr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};
use std::time::{Duration, SystemTime};

use hyper::header::{HeaderMap, HeaderValue, REFERER, USER_AGENT};
use hyper::{Method, Request, Uri, Version};
use prefork_proto::message::AccessLogFormat;
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::runtime::moment::Moment;

use request_id::Ids;
pub(crate) use request_id::X_REQUEST_ID;
use writer::Writer;

/// The status of a request whose client left before it had an answer, as nginx
/// has it.
const CLIENT_CLOSED: u16 = 499;

/// How long a file that is let go of, or a worker that leaves, waits for the
/// lines that are on their way.
const PATIENCE: Duration = Duration::from_secs(2);

/// The process's access log.
#[derive(Debug, Default)]
pub(crate) struct AccessLog {
    /// 0: off; else a format.
    format: AtomicU8,
    writer: Writer,
    worker: OnceLock<line::Worker>,
    ids: Ids,
}

const OFF: u8 = 0;
const COMBINED: u8 = 1;
const JSON: u8 = 2;

impl AccessLog {
    /// Whether requests are logged.
    pub(crate) fn is_on(&self) -> bool {
        self.format.load(Relaxed) != OFF
    }

    /// Says whose log it is.
    pub(crate) fn introduce(&self, pool: &str, slot: u32) {
        let _ = self.worker.set(line::Worker::new(pool, slot));
    }

    /// Writes to this file from now on; what is told when nothing more goes to
    /// the one before.
    ///
    /// # Errors
    /// What fstat(2) says of it.
    pub(crate) fn install(
        &self,
        format: AccessLogFormat,
        file: File,
    ) -> io::Result<oneshot::Receiver<()>> {
        let switched = self.writer.switch(file)?;
        let format = match format {
            AccessLogFormat::Combined => COMBINED,
            AccessLogFormat::Json => JSON,
        };
        self.format.store(format, Relaxed);
        Ok(switched)
    }

    /// What to know a request with these headers by, which has an entry or none.
    pub(crate) fn request_id(&self, headers: &HeaderMap) -> HeaderValue {
        self.ids.of(headers)
    }

    /// Begins a request's entry; none where requests are not logged.
    pub(crate) fn begin<B>(&self, request: &Request<B>, began: Moment) -> Option<Box<Entry>> {
        if !self.is_on() {
            return None;
        }
        let headers = request.headers();
        Some(Box::new(Entry {
            began,
            asked: Some(Asked {
                method: request.method().clone(),
                uri: request.uri().clone(),
                version: request.version(),
                referer: headers.get(REFERER).cloned(),
                user_agent: headers.get(USER_AGENT).cloned(),
                traceparent: traceparent::of(headers),
            }),
            id: self.ids.of(headers),
            status: CLIENT_CLOSED,
            bytes: 0,
        }))
    }

    /// Writes the line of an answer to what was no request, or none that came in
    /// time: nothing is known of it but whose it was.
    pub(crate) fn refused(&self, status: u16, client: impl FnOnce() -> Option<IpAddr>) {
        if !self.is_on() {
            return;
        }
        let entry = Entry {
            began: Moment::now(),
            asked: None,
            id: self.ids.of(&HeaderMap::new()),
            status,
            bytes: 0,
        };
        self.end(&entry, client());
    }

    /// Writes a request's line.
    pub(crate) fn end(&self, entry: &Entry, client: Option<IpAddr>) {
        let Some(worker) = self.worker.get() else {
            return;
        };
        let now = SystemTime::now();
        let mut text = String::with_capacity(256);
        if self.format.load(Relaxed) == JSON {
            line::json(&mut text, entry, client, now, worker);
        } else {
            line::combined(&mut text, entry, client, now);
        }
        self.writer.push(text.as_bytes());
    }

    /// Waits until what was logged is written, for a while at most.
    pub(crate) async fn flush(&self) {
        // Whoever does not read has had time enough.
        let _ = timeout(PATIENCE, self.writer.written()).await;
    }

    /// Lines that were not written: nobody read, or the disk was full.
    pub(crate) fn dropped(&self) -> u64 {
        self.writer.dropped()
    }
}

/// Waits until nothing more goes to the file before, for a while at most.
pub(crate) async fn switched(told: oneshot::Receiver<()>) {
    let _ = timeout(PATIENCE, told).await;
}

/// What is logged of a request.
#[derive(Debug)]
pub(crate) struct Entry {
    began: Moment,
    /// None where what came was no request.
    asked: Option<Asked>,
    id: HeaderValue,
    status: u16,
    bytes: u64,
}

/// What is logged of what a client asked for.
#[derive(Debug)]
struct Asked {
    method: Method,
    uri: Uri,
    version: Version,
    referer: Option<HeaderValue>,
    user_agent: Option<HeaderValue>,
    traceparent: Option<HeaderValue>,
}

impl Entry {
    /// What the request is known by.
    pub(crate) fn id(&self) -> &HeaderValue {
        &self.id
    }

    /// Has the application find the id, too.
    pub(crate) fn mark(&self, headers: &mut HeaderMap) {
        headers.insert(X_REQUEST_ID, self.id.clone());
    }

    /// It is answered with this status; the answer carries the id.
    pub(crate) fn answered(&mut self, status: u16, headers: &mut HeaderMap) {
        self.status = status;
        headers
            .entry(X_REQUEST_ID)
            .or_insert_with(|| self.id.clone());
    }

    /// So many bytes of a body were given out.
    pub(crate) fn sent(&mut self, bytes: usize) {
        self.bytes += bytes as u64;
    }
}
