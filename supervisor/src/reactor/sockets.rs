//! A configured listener as the reactor holds it: one socket that all workers
//! share, or one per slot that its processes hand on.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use prefork_proto::control::{CertificateStatus, ListenerStatus, TlsStatus};

use crate::config::{Address, Listen, Mode, Tls};
use crate::listener::{ListenError, Listener};
use crate::state::SavedListener;

/// The sockets of one configured listener.
#[derive(Debug)]
pub(crate) struct Sockets {
    listen: RefCell<Listen>,
    /// Every slot's for `per-slot`; slot 0's for all where it is shared.
    of_slots: RefCell<BTreeMap<u32, Rc<Listener>>>,
}

impl Sockets {
    /// Binds the first socket, so that an address which can't be had is known
    /// before anything is started.
    pub(crate) fn bind(listen: &Listen) -> Result<Self, ListenError> {
        let sockets = Self {
            listen: RefCell::new(listen.clone()),
            of_slots: RefCell::new(BTreeMap::new()),
        };
        sockets.of_slot(0)?;
        Ok(sockets)
    }

    /// Takes over sockets that are bound already, by slot.
    pub(crate) fn adopt(listen: &Listen, sockets: BTreeMap<u32, Listener>) -> Self {
        let of_slots = sockets.into_iter().map(|(slot, it)| (slot, Rc::new(it)));
        Self {
            listen: RefCell::new(listen.clone()),
            of_slots: RefCell::new(of_slots.collect()),
        }
    }

    /// What the next supervisor has to know of them.
    pub(crate) fn save(&self) -> Vec<SavedListener> {
        let listen = self.listen.borrow();
        let of_slots = self.of_slots.borrow();
        let saved = of_slots.iter().filter_map(|(slot, listener)| {
            Some(SavedListener {
                listen: listen.clone(),
                address: listener.address().to_owned(),
                slot: *slot,
                cookie: listener.cookie().ok()?,
            })
        });
        saved.collect()
    }

    /// The socket from which a slot's worker accepts.
    pub(crate) fn of_slot(&self, slot: u32) -> Result<Rc<Listener>, ListenError> {
        let mut listen = self.listen.borrow().clone();
        let key = match listen.mode {
            Mode::Shared => 0,
            Mode::PerSlot => slot,
        };
        let mut of_slots = self.of_slots.borrow_mut();
        if let Some(listener) = of_slots.get(&key) {
            return Ok(Rc::clone(listener));
        }
        // Port 0 is chosen once, for all slots.
        if let Some(bound) = of_slots.values().next().and_then(|first| first.bound()) {
            listen.address = Address::Tcp(bound);
        }
        let listener = Rc::new(Listener::bind(&listen)?);
        of_slots.insert(key, Rc::clone(&listener));
        Ok(listener)
    }

    /// What was asked for.
    pub(crate) fn listen(&self) -> Listen {
        self.listen.borrow().clone()
    }

    /// Whether these sockets are what `listen` asks for.
    pub(crate) fn are_for(&self, listen: &Listen) -> bool {
        let ours = self.listen.borrow();
        ours.address == listen.address && ours.mode == listen.mode
    }

    /// Takes over what may change on a bound socket.
    pub(crate) fn adjust(&self, listen: &Listen) {
        if self.listen.borrow().backlog != listen.backlog {
            for listener in self.all() {
                // The old limit then stays, as status shows.
                let _ = listener.set_backlog(listen.backlog);
            }
        }
        self.listen.borrow_mut().clone_from(listen);
    }

    /// Gives up the socket that only this slot's worker accepted from.
    pub(crate) fn take_from_slot(&self, slot: u32) -> Option<Rc<Listener>> {
        match self.listen.borrow().mode {
            Mode::Shared => None,
            Mode::PerSlot => self.of_slots.borrow_mut().remove(&slot),
        }
    }

    /// The slots that have a socket of their own.
    pub(crate) fn own_slots(&self) -> Vec<u32> {
        match self.listen.borrow().mode {
            Mode::Shared => Vec::new(),
            Mode::PerSlot => self.of_slots.borrow().keys().copied().collect(),
        }
    }

    /// Whether each slot has a socket of its own.
    pub(crate) fn are_own(&self) -> bool {
        self.listen.borrow().mode == Mode::PerSlot
    }

    /// The socket that only this slot's worker accepts from.
    pub(crate) fn own_of_slot(&self, slot: u32) -> Option<Rc<Listener>> {
        match self.listen.borrow().mode {
            Mode::Shared => None,
            Mode::PerSlot => self.of_slots.borrow().get(&slot).cloned(),
        }
    }

    /// Whether another mode is asked for on the same address, which would take
    /// the address from itself.
    pub(crate) fn conflict_with(&self, listen: &Listen) -> bool {
        let ours = self.listen.borrow();
        ours.address == listen.address && ours.mode != listen.mode
    }

    /// Closes the supervisor's own duplicates.
    pub(crate) fn close(&self) {
        self.of_slots.borrow_mut().clear();
    }

    /// Every socket.
    pub(crate) fn all(&self) -> Vec<Rc<Listener>> {
        self.of_slots.borrow().values().cloned().collect()
    }

    /// Until when its certificates are valid, in seconds since the epoch, each by
    /// the first name that it is for; of two for one name, the sooner.
    pub(crate) fn expiries(&self) -> BTreeMap<String, i64> {
        let listen = self.listen.borrow();
        let tls = listen.tls.iter();
        let mut expiries = BTreeMap::new();
        for certificate in tls.flat_map(|tls| &tls.certificates) {
            let until = expiries.entry(certificate.title()).or_insert(i64::MAX);
            *until = certificate.not_after.min(*until);
        }
        expiries
    }

    /// Its row in the status document, with the accept queues as they are now.
    pub(crate) fn status(&self) -> ListenerStatus {
        let listen = self.listen.borrow();
        let all = self.all();
        let queues: Vec<_> = all.iter().map(|listener| listener.backlog()).collect();
        let depths: Option<Vec<u64>> = queues.iter().map(|(depth, _)| *depth).collect();
        ListenerStatus {
            name: listen.name.clone(),
            address: all
                .first()
                .map_or_else(|| listen.name.clone(), |first| first.address().to_owned()),
            mode: listen.mode.as_str().to_owned(),
            backlog: depths.map(|depths| depths.iter().sum()),
            backlog_limit: Some(queues.iter().map(|(_, limit)| limit).sum()),
            tls: listen.tls.as_ref().map(tls_status),
        }
    }
}

fn tls_status(tls: &Tls) -> TlsStatus {
    let certificates = tls.certificates.iter().map(|it| CertificateStatus {
        names: it.names.clone(),
        fingerprint: it.fingerprint.clone(),
        not_after: it.not_after,
    });
    TlsStatus {
        min_version: tls.min_version.as_str().to_owned(),
        certificates: certificates.collect(),
    }
}
