//! Clients that ask without pause, never retry and count every outcome.

mod http1;
mod http2;
pub(crate) mod mixed;
mod outcomes;
pub(crate) mod wrk;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::deadline::{PATIENCE, eventually};
use super::tls::Trust;
pub(crate) use outcomes::{Failed, Failure, Outcomes};

/// What kind of clients a load is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// `GET /` again and again on one HTTP/1.1 connection. A new connection
    /// follows only on an answer that announces the end of the old one.
    KeepAlive,
    /// `GET /` with `Connection: close`, each on a connection of its own.
    Close,
    /// `POST /digest` of 16 KiB on a connection that is kept; the answer has
    /// to be their SHA-256, so that no byte may go astray.
    Digest,
    /// `GET /` in several streams of one HTTP/2 connection. A new connection
    /// follows on GOAWAY.
    Http2,
}

impl Kind {
    /// Every kind.
    pub(crate) const ALL: [Self; 4] = [Self::KeepAlive, Self::Close, Self::Digest, Self::Http2];
}

/// Running clients.
pub(crate) struct Load {
    progress: Arc<Progress>,
    clients: Vec<JoinHandle<Outcomes>>,
}

/// What the clients of a load share.
struct Progress {
    address: SocketAddr,
    /// What the clients speak TLS with, if they do.
    tls: Option<Trust>,
    /// How long a request may go unanswered.
    patience: Duration,
    stop: AtomicBool,
    served: AtomicU64,
    failed: AtomicU64,
}

impl Progress {
    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Counts what came of a request that began then.
    fn count(&self, outcomes: &mut Outcomes, outcome: Result<(), Failed>, began: Instant) {
        let counter = match outcome {
            Ok(()) => &self.served,
            Err(_) => &self.failed,
        };
        counter.fetch_add(1, Ordering::Relaxed);
        outcomes.count(outcome, began.elapsed());
    }
}

impl Load {
    /// This many keep-alive clients on `GET /`.
    pub(crate) fn start(address: SocketAddr, clients: usize) -> Self {
        Self::of(Kind::KeepAlive, address, clients)
    }

    /// This many clients of a kind.
    pub(crate) fn of(kind: Kind, address: SocketAddr, clients: usize) -> Self {
        Self::with_patience(kind, address, clients, Duration::from_secs(20))
    }

    /// Clients that count a request as lost when no answer has come in so long.
    pub(crate) fn with_patience(
        kind: Kind,
        address: SocketAddr,
        clients: usize,
        patience: Duration,
    ) -> Self {
        Self::begin(kind, address, None, clients, patience)
    }

    /// Clients of a kind that speak TLS.
    pub(crate) fn secured(kind: Kind, address: SocketAddr, trust: &Trust, clients: usize) -> Self {
        let protocol = match kind {
            Kind::Http2 => "h2",
            Kind::KeepAlive | Kind::Close | Kind::Digest => "http/1.1",
        };
        let tls = Some(trust.protocol(protocol));
        Self::begin(kind, address, tls, clients, Duration::from_secs(20))
    }

    fn begin(
        kind: Kind,
        address: SocketAddr,
        tls: Option<Trust>,
        clients: usize,
        patience: Duration,
    ) -> Self {
        let progress = Arc::new(Progress {
            address,
            tls,
            patience,
            stop: AtomicBool::new(false),
            served: AtomicU64::new(0),
            failed: AtomicU64::new(0),
        });
        let client = |seed: usize| {
            let progress = Arc::clone(&progress);
            std::thread::spawn(move || match kind {
                Kind::KeepAlive => http1::keep_alive(&progress),
                Kind::Close => http1::close(&progress),
                Kind::Digest => http1::digest(&progress, seed as u64),
                Kind::Http2 => http2::client(&progress),
            })
        };
        let clients = (0..clients).map(client).collect();
        Self { progress, clients }
    }

    /// How many requests have been served so far.
    pub(crate) fn served(&self) -> u64 {
        self.progress.served.load(Ordering::Relaxed)
    }

    /// Returns when the clients have been served `more` times from now on.
    #[track_caller]
    pub(crate) fn serves(&self, more: u64) {
        let wanted = self.served() + more;
        eventually("requests go on being served", PATIENCE, || {
            self.served() >= wanted
        });
    }

    /// How many requests have been lost so far.
    pub(crate) fn failed(&self) -> u64 {
        self.progress.failed.load(Ordering::Relaxed)
    }

    /// Ends the clients and says what came of their requests.
    pub(crate) fn stop(mut self) -> Outcomes {
        self.progress.stop.store(true, Ordering::Relaxed);
        let mut all = Outcomes::default();
        for client in self.clients.drain(..) {
            all.add(client.join().expect("clients don't panic"));
        }
        all
    }

    /// Ends the clients; panics if any request was not served.
    #[track_caller]
    pub(crate) fn stop_flawless(self) -> u64 {
        let outcomes = self.stop();
        assert!(outcomes.failures.is_empty(), "{outcomes:#?}");
        assert!(outcomes.served > 0, "the clients were never served");
        outcomes.served
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        // A test that panics must not leave clients that ask for ever.
        self.progress.stop.store(true, Ordering::Relaxed);
    }
}
