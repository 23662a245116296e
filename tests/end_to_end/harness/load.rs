//! Clients that ask without pause and count every outcome.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use super::deadline::{PATIENCE, eventually};
use super::http::Connection;

/// Running clients.
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    served: Arc<AtomicU64>,
    clients: Vec<JoinHandle<Outcomes>>,
}

/// What came of their requests.
#[derive(Debug, Default)]
pub(crate) struct Outcomes {
    /// Requests answered with 200.
    pub(crate) served: u64,
    /// How often each other outcome came.
    pub(crate) failures: BTreeMap<String, u64>,
}

impl Load {
    /// This many keep-alive clients on `GET /`. They never retry.
    pub(crate) fn start(address: SocketAddr, clients: usize) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let served = Arc::new(AtomicU64::new(0));
        let clients = (0..clients)
            .map(|_| {
                let (stop, served) = (Arc::clone(&stop), Arc::clone(&served));
                std::thread::spawn(move || client(address, &stop, &served))
            })
            .collect();
        Self {
            stop,
            served,
            clients,
        }
    }

    /// Returns when the clients have been served `more` times from now on.
    #[track_caller]
    pub(crate) fn serves(&self, more: u64) {
        let wanted = self.served.load(Ordering::Relaxed) + more;
        eventually("requests go on being served", PATIENCE, || {
            self.served.load(Ordering::Relaxed) >= wanted
        });
    }

    /// Ends the clients and says what came of their requests.
    pub(crate) fn stop(mut self) -> Outcomes {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Outcomes::default();
        for client in self.clients.drain(..) {
            let outcomes = client.join().expect("clients don't panic");
            all.served += outcomes.served;
            for (failure, count) in outcomes.failures {
                *all.failures.entry(failure).or_default() += count;
            }
        }
        all
    }

    /// Ends the clients; panics if any request was not served.
    #[track_caller]
    pub(crate) fn stop_flawless(self) -> u64 {
        let outcomes = self.stop();
        assert!(outcomes.failures.is_empty(), "{outcomes:?}");
        assert!(outcomes.served > 0, "the clients were never served");
        outcomes.served
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        // A test that panics must not leave clients that ask for ever.
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn client(address: SocketAddr, stop: &AtomicBool, served: &AtomicU64) -> Outcomes {
    let mut outcomes = Outcomes::default();
    let mut connection = None;
    while !stop.load(Ordering::Relaxed) {
        match ask(address, &mut connection) {
            Ok(()) => {
                outcomes.served += 1;
                served.fetch_add(1, Ordering::Relaxed);
            }
            Err(failure) => {
                *outcomes.failures.entry(failure).or_default() += 1;
                // A refusal comes at once: don't count the same one a million times.
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        // Enough to see every gap; the machine is needed by the processes under test.
        std::thread::sleep(Duration::from_millis(1));
    }
    outcomes
}

/// One request, on the open connection if there is one.
fn ask(address: SocketAddr, slot: &mut Option<Connection>) -> Result<(), String> {
    let mut connection = match slot.take() {
        Some(connection) => connection,
        None => Connection::open(address).map_err(|error| format!("connect: {error}"))?,
    };
    let answer = connection
        .get("/")
        .map_err(|error| format!("request: {error}"))?;
    if answer.status != 200 {
        return Err(format!("status {}", answer.status));
    }
    if !answer.closes() {
        *slot = Some(connection);
    }
    Ok(())
}
