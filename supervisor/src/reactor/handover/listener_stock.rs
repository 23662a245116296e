//! The sockets that an earlier supervisor bound, until a revision asks for each.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::rc::Rc;

use tracing::{error, info};

use crate::config::{Address, Listen, Mode};
use crate::listener::{ListenError, Listener};
use crate::reactor::listeners::sockets::Sockets;
use crate::recovery::state::SavedListener;

/// The sockets that were bound: what they were for, and those that are held.
pub(in crate::reactor) struct Stock {
    saved: Vec<SavedListener>,
    held: BTreeMap<u64, OwnedFd>,
    /// The passages of the listeners that are known by these cookies.
    passages: BTreeMap<u64, OwnedFd>,
    ready: Vec<Rc<Sockets>>,
}

impl Stock {
    pub(in crate::reactor) fn new(saved: Vec<SavedListener>, held: BTreeMap<u64, OwnedFd>) -> Self {
        Self {
            saved,
            held,
            passages: BTreeMap::new(),
            ready: Vec::new(),
        }
    }

    /// Goes on with these passages, each by the cookie of one of its listeners.
    pub(in crate::reactor) fn keep_passages(&mut self, passages: BTreeMap<u64, OwnedFd>) {
        self.passages = passages;
    }

    /// The sockets of a listener: the very ones, or bound anew where nobody
    /// holds any.
    pub(in crate::reactor) fn sockets(&mut self, pool: &str, listen: &Listen) -> Rc<Sockets> {
        if let Some(known) = self.ready.iter().find(|known| known.are_for(listen)) {
            return Rc::clone(known);
        }
        let mut of_slots = BTreeMap::new();
        let (mut bound, mut passage) = (None, None);
        for saved in self.saved.iter().filter(|saved| is_for(saved, listen)) {
            bound = bound.or_else(|| saved.address.parse().ok());
            if let Some(fd) = self.held.remove(&saved.cookie) {
                let listener = Listener::adopt(listen, &saved.address, fd, saved.file.clone());
                of_slots.insert(saved.slot, listener);
                passage = passage.or_else(|| self.passages.remove(&saved.cookie));
            }
        }
        let sockets = if of_slots.is_empty() {
            match self.bind_again(listen, bound) {
                Ok(again) => Sockets::adopt(listen, again),
                // The others are taken over all the same.
                Err(error) => {
                    error!(pool, "{error}. Until then its workers wait");
                    Sockets::lost(listen, bound)
                }
            }
        } else {
            Sockets::adopt(listen, of_slots)
        };
        sockets.keep_passage(passage);
        let sockets = Rc::new(sockets);
        self.ready.push(Rc::clone(&sockets));
        sockets
    }

    /// Binds what nobody held. `bound` is where it was.
    fn bind_again(
        &self,
        listen: &Listen,
        bound: Option<SocketAddr>,
    ) -> Result<BTreeMap<u32, Listener>, ListenError> {
        if matches!(listen.address, Address::Systemd(_)) {
            return Ok(Sockets::bind(listen, &[])?.into_slots());
        }
        let again = Listen {
            // The port that was chosen, where 0 was asked for.
            address: bound.map_or_else(|| listen.address.clone(), Address::Tcp),
            ..listen.clone()
        };
        let ours: Vec<_> = self.ready.iter().flat_map(|it| it.all()).collect();
        // Those of other slots may be held by who did not come back.
        let siblings = again.mode == Mode::PerSlot;
        let listener = Listener::bind(&again, siblings, &ours)?;
        info!("nobody held {}: bound again", listener.address());
        Ok(BTreeMap::from([(0, listener)]))
    }
}

/// Whether a socket was bound for what `listen` asks for: two generations may ask
/// for the same port, one of them by 0.
fn is_for(saved: &SavedListener, listen: &Listen) -> bool {
    let bound = saved.address.parse().map(Address::Tcp);
    saved.listen.mode == listen.mode
        && saved.listen.ipv6_only == listen.ipv6_only
        && (saved.listen.address == listen.address || bound.is_ok_and(|it| it == listen.address))
}
