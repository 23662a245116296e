//! A load of every kind of client at once.

use std::net::SocketAddr;

use super::super::tls::Trust;
use super::{Kind, Load, Outcomes};

/// Running clients of every kind.
pub(crate) struct Mixed {
    loads: Vec<(Kind, Load)>,
}

impl Mixed {
    /// This many clients of each kind.
    pub(crate) fn start(address: SocketAddr, clients_of_each: usize) -> Self {
        let start = |kind| (kind, Load::of(kind, address, clients_of_each));
        Self {
            loads: Kind::ALL.map(start).into(),
        }
    }

    /// The same with clients that speak TLS.
    pub(crate) fn secured(address: SocketAddr, trust: &Trust, clients_of_each: usize) -> Self {
        let start = |kind| (kind, Load::secured(kind, address, trust, clients_of_each));
        Self {
            loads: Kind::ALL.map(start).into(),
        }
    }

    /// Returns when clients of every kind have been served `more` times from
    /// now on.
    #[track_caller]
    pub(crate) fn serves(&self, more: u64) {
        for (_, load) in &self.loads {
            load.serves(more);
        }
    }

    /// Whether clients of every kind have lost a request.
    pub(crate) fn all_fail(&self) -> bool {
        self.loads.iter().all(|(_, load)| load.failed() > 0)
    }

    /// Ends the clients and says what came of the requests of each kind.
    pub(crate) fn stop(self) -> Vec<(Kind, Outcomes)> {
        let stop = |(kind, load): (Kind, Load)| (kind, load.stop());
        self.loads.into_iter().map(stop).collect()
    }

    /// Ends the clients; panics if any request was not served, or if clients
    /// of one kind were never served.
    #[track_caller]
    pub(crate) fn stop_flawless(self) {
        let all = self.stop();
        let flawless =
            |(_, outcomes): &(Kind, Outcomes)| outcomes.failures.is_empty() && outcomes.served > 0;
        assert!(all.iter().all(flawless), "{all:#?}");
    }
}
