//! A small blocking HTTP/1.1 server: a thread per listener and per connection.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use prefork_proto::message::Welcome;

/// Between two looks whether to accept. Fifty of these workers must not keep
/// the machine busy by looking.
const PAUSE: Duration = Duration::from_millis(50);

/// What the threads share.
pub(crate) struct Server {
    page: String,
    accepting: AtomicBool,
    accepted: AtomicU64,
    connections: AtomicU64,
    in_flight: AtomicU64,
    served: AtomicU64,
    /// A duplicate of one that it serves.
    listener: std::sync::Mutex<Option<OwnedFd>>,
}

impl Server {
    pub(crate) fn new(welcome: &Welcome) -> Arc<Self> {
        Arc::new(Self {
            page: format!(
                "pool {} slot {} generation {} incarnation {} pid {}\n",
                welcome.pool,
                welcome.slot,
                welcome.generation,
                welcome.incarnation,
                std::process::id()
            ),
            accepting: AtomicBool::new(false),
            accepted: AtomicU64::new(0),
            connections: AtomicU64::new(0),
            in_flight: AtomicU64::new(0),
            served: AtomicU64::new(0),
            listener: std::sync::Mutex::default(),
        })
    }

    pub(crate) fn accept(&self, accepting: bool) {
        self.accepting.store(accepting, Ordering::SeqCst);
    }

    pub(crate) fn accepted(&self) -> u64 {
        self.accepted.load(Ordering::SeqCst)
    }

    pub(crate) fn connections(&self) -> u64 {
        self.connections.load(Ordering::SeqCst)
    }

    pub(crate) fn in_flight(&self) -> u64 {
        self.in_flight.load(Ordering::SeqCst)
    }

    pub(crate) fn served(&self) -> u64 {
        self.served.load(Ordering::SeqCst)
    }

    /// A duplicate of one of its listeners.
    pub(crate) fn a_listener(&self) -> Option<OwnedFd> {
        let listener = self.listener.lock().expect("nobody panics with it");
        listener.as_ref().and_then(|fd| fd.try_clone().ok())
    }

    /// Serves a listener in a thread of its own.
    pub(crate) fn serve(self: &Arc<Self>, listener: OwnedFd) {
        *self.listener.lock().expect("nobody panics with it") = listener.try_clone().ok();
        let listener = TcpListener::from(listener);
        listener
            .set_nonblocking(true)
            .expect("a listener can be non-blocking");
        let server = Arc::clone(self);
        std::thread::spawn(move || {
            loop {
                if !server.accepting.load(Ordering::SeqCst) {
                    std::thread::sleep(PAUSE);
                } else if readable(&listener)
                    // It may have been told to stop while it waited, and
                    // another worker may be faster.
                    && server.accepting.load(Ordering::SeqCst)
                    && let Ok((stream, _)) = listener.accept()
                {
                    server.accepted.fetch_add(1, Ordering::SeqCst);
                    let server = Arc::clone(&server);
                    std::thread::spawn(move || server.connection(stream));
                }
            }
        });
    }

    fn connection(&self, stream: TcpStream) {
        self.connections.fetch_add(1, Ordering::SeqCst);
        // A client that leaves ends its connection and nothing else.
        let _ = self.requests(stream);
        self.connections.fetch_sub(1, Ordering::SeqCst);
    }

    fn requests(&self, stream: TcpStream) -> io::Result<()> {
        stream.set_nonblocking(false)?;
        stream.set_nodelay(true)?;
        let mut reader = BufReader::new(stream);
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line)? == 0 {
                return Ok(());
            }
            let delay = delay(&line);
            while line != "\r\n" {
                line.clear();
                if reader.read_line(&mut line)? == 0 {
                    return Ok(());
                }
            }
            self.in_flight.fetch_add(1, Ordering::SeqCst);
            std::thread::sleep(delay);
            self.served.fetch_add(1, Ordering::SeqCst);
            let answer = format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{}",
                self.page.len(),
                self.page
            );
            let sent = reader.get_mut().write_all(answer.as_bytes());
            self.in_flight.fetch_sub(1, Ordering::SeqCst);
            sent?;
        }
    }
}

/// Waits a moment for a connection.
fn readable(listener: &TcpListener) -> bool {
    let mut listeners = [PollFd::new(listener.as_fd(), PollFlags::POLLIN)];
    let timeout = PollTimeout::try_from(PAUSE).expect("a pause is short");
    matches!(poll(&mut listeners, timeout), Ok(1..))
}

/// `GET /slow/MILLISECONDS` takes that long.
fn delay(request_line: &str) -> Duration {
    let milliseconds = request_line
        .strip_prefix("GET /slow/")
        .and_then(|rest| rest.split(' ').next())
        .and_then(|number| number.parse().ok());
    Duration::from_millis(milliseconds.unwrap_or(0))
}
