//! A configured listener as the reactor holds it: one socket that all workers
//! share, or one per slot that its processes hand on.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::rc::Rc;

use prefork_api::{CertificateStatus, ListenerStatus, TlsStatus};

use crate::config::{Address, Listen, Mode, Tls, overlap, show_permissions};
use crate::listener::{Access, ListenError, Listener};
use crate::recovery::state::SavedListener;

/// A unix socket whose file's permissions or group were changed, and what they were.
pub(crate) type Granted = (Rc<Listener>, Access);

/// The sockets of one configured listener.
#[derive(Debug)]
pub(crate) struct Sockets {
    listen: RefCell<Listen>,
    /// Every slot's for `per-slot`. Where they are shared, all are every slot's:
    /// one, but for a name under which the service manager passes several.
    of_slots: RefCell<BTreeMap<u32, Rc<Listener>>>,
    /// Where they were bound before, if that could not be had again: clients know
    /// the port that was chosen, and no other.
    before: Option<SocketAddr>,
    /// The way of open connections from worker to worker, once there is one.
    pub(super) passage: RefCell<Option<OwnedFd>>,
}

impl Sockets {
    /// Binds the first socket, so that an address which can't be had is known
    /// before anything is started. `bound` is all that is bound already.
    pub(crate) fn bind(listen: &Listen, bound: &[Rc<Self>]) -> Result<Self, ListenError> {
        let in_the_way = bound.iter().filter(|it| it.is_in_the_way(listen));
        let ours: Vec<_> = in_the_way.flat_map(|it| it.all()).collect();
        let first = match &listen.address {
            Address::Systemd(name) => Listener::inherit(listen, name)?,
            Address::Tcp(_) | Address::Unix(_) => vec![Listener::bind(listen, false, &ours)?],
        };
        Ok(Self::adopt(listen, (0..).zip(first).collect()))
    }

    /// Takes over sockets that are bound already, by slot.
    pub(crate) fn adopt(listen: &Listen, sockets: BTreeMap<u32, Listener>) -> Self {
        let of_slots = sockets.into_iter().map(|(slot, it)| (slot, Rc::new(it)));
        Self {
            listen: RefCell::new(listen.clone()),
            of_slots: RefCell::new(of_slots.collect()),
            before: None,
            passage: RefCell::default(),
        }
    }

    /// Sockets that could not be bound yet, and where they were before.
    pub(crate) fn lost(listen: &Listen, before: Option<SocketAddr>) -> Self {
        Self {
            before,
            ..Self::adopt(listen, BTreeMap::new())
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
                file: listener.file(),
            })
        });
        saved.collect()
    }

    /// The sockets from which a slot's worker accepts.
    pub(crate) fn of_slot(&self, slot: u32) -> Result<Vec<Rc<Listener>>, ListenError> {
        let mode = self.listen.borrow().mode;
        match mode {
            // It could not be bound when its last supervisor was followed.
            Mode::Shared if self.of_slots.borrow().is_empty() => Ok(vec![self.own(0)?]),
            Mode::Shared => Ok(self.all()),
            Mode::PerSlot => Ok(vec![self.own(slot)?]),
        }
    }

    fn own(&self, slot: u32) -> Result<Rc<Listener>, ListenError> {
        let mut of_slots = self.of_slots.borrow_mut();
        if let Some(listener) = of_slots.get(&slot) {
            return Ok(Rc::clone(listener));
        }
        let mut listen = self.listen.borrow().clone();
        // Port 0 is chosen once, for all slots.
        let first = of_slots.values().next();
        if let Some(bound) = first.map_or(self.before, |first| first.bound()) {
            listen.address = Address::Tcp(bound);
        }
        let listener = Rc::new(Listener::bind(&listen, !of_slots.is_empty(), &[])?);
        of_slots.insert(slot, Rc::clone(&listener));
        Ok(listener)
    }

    /// What was asked for.
    pub(crate) fn listen(&self) -> Listen {
        self.listen.borrow().clone()
    }

    /// Whether these sockets are what `listen` asks for, by what was asked for
    /// or by the port that the kernel chose.
    pub(crate) fn are_for(&self, listen: &Listen) -> bool {
        let ours = self.listen.borrow();
        let bound = self.bound().map(Address::Tcp);
        ours.mode == listen.mode
            && ours.ipv6_only == listen.ipv6_only
            && (ours.address == listen.address || bound.as_ref() == Some(&listen.address))
    }

    /// Where they are bound, for TCP.
    fn bound(&self) -> Option<SocketAddr> {
        let of_slots = self.of_slots.borrow();
        of_slots.values().next().and_then(|first| first.bound())
    }

    /// Whether an address can't be had because of these sockets.
    fn is_in_the_way(&self, listen: &Listen) -> bool {
        match (&listen.address, self.bound()) {
            (Address::Tcp(wanted), Some(bound)) => {
                let both =
                    listen.is_of_both_families() || self.listen.borrow().is_of_both_families();
                overlap(wanted, &bound) || both && wanted.port() == bound.port()
            }
            _ => false,
        }
    }

    /// Whether who comes to these sockets would come to those others if these
    /// were not there.
    pub(crate) fn overlap(&self, others: &Self) -> bool {
        let both = self.bound().zip(others.bound());
        let of_both_families = |it: &Self| it.listen.borrow().is_of_both_families();
        let crosses = of_both_families(self) || of_both_families(others);
        both.is_some_and(|(ours, theirs)| {
            overlap(&ours, &theirs) || crosses && ours.port() == theirs.port()
        })
    }

    /// Why no client can come to one of them, if that is so.
    pub(crate) fn problem(&self) -> Option<String> {
        if self.of_slots.borrow().is_empty() {
            return Some("it could not be bound, and its workers wait for it".to_owned());
        }
        self.of_slots.borrow().values().find_map(|it| it.problem())
    }

    /// Takes back what processes that hold them have done to them; says what.
    pub(crate) fn mend(&self) -> Option<String> {
        let of_slots = self.of_slots.borrow();
        let mended: Vec<String> = of_slots.values().filter_map(|it| it.mend()).collect();
        mended.into_iter().next()
    }

    /// Has nobody come to a socket of no use any more, where a new one is bound.
    pub(crate) fn give_way(&self) {
        for listener in self.all() {
            let _ = listener.give_way();
        }
    }

    /// Gives the file of a unix socket the permissions and the group that are asked
    /// for, where others are in force. What there was before.
    pub(crate) fn grant(&self, listen: &Listen) -> Result<Vec<Granted>, ListenError> {
        let access = Access::changed(&self.listen.borrow(), listen);
        let mut before = Vec::new();
        for listener in self.all() {
            let was = listener.grant_for(access)?;
            before.extend(was.map(|was| (listener, was)));
        }
        Ok(before)
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

    /// Every socket with its slot; 0 where it is shared.
    pub(crate) fn by_slot(&self) -> Vec<(u32, Rc<Listener>)> {
        let of_slots = self.of_slots.borrow();
        let sockets = of_slots.iter();
        sockets.map(|(slot, it)| (*slot, Rc::clone(it))).collect()
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
        self.passage.take();
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

    /// What it is bound to, in words.
    fn address(&self) -> String {
        let mut addresses: Vec<String> = Vec::new();
        for listener in self.all() {
            let address = listener.address().to_owned();
            if !addresses.contains(&address) {
                addresses.push(address);
            }
        }
        match addresses.is_empty() {
            true => self.listen.borrow().name.clone(),
            false => addresses.join(", "),
        }
    }

    /// Every socket, for good, with its slot.
    pub(crate) fn into_slots(self) -> BTreeMap<u32, Listener> {
        let of_slots = self.of_slots.into_inner().into_iter();
        of_slots
            .filter_map(|(slot, it)| Some((slot, Rc::into_inner(it)?)))
            .collect()
    }

    /// Its row in the status document, with the accept queues as they are now.
    pub(crate) fn status(&self) -> ListenerStatus {
        let listen = self.listen.borrow();
        let all = self.all();
        let queues: Vec<_> = all.iter().map(|listener| listener.backlog()).collect();
        let file = all.first().and_then(|listener| listener.file());
        let depths: Option<Vec<u64>> = queues.iter().map(|(depth, _)| *depth).collect();
        ListenerStatus {
            name: listen.name.clone(),
            address: self.address(),
            mode: listen.mode.as_str().to_owned(),
            backlog: depths.map(|depths| depths.iter().sum()),
            backlog_limit: Some(queues.iter().map(|(_, limit)| limit).sum()),
            proxy_protocol: listen.proxy_protocol,
            tls: listen.tls.as_ref().map(tls_status),
            permissions: file
                .as_ref()
                .and_then(|file| file.permissions())
                .map(show_permissions),
            group: file
                .and_then(|file| file.group())
                .map(|gid| group_name(&listen, gid)),
            problem: self.problem(),
        }
    }
}

/// The name that the configuration has for a group, or its number: a name that has to
/// be looked up is not worth the wait.
fn group_name(listen: &Listen, gid: u32) -> String {
    let named = listen.group.as_ref().filter(|group| group.gid == gid);
    named.map_or_else(|| gid.to_string(), |group| group.name.clone())
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
        clients: tls.clients.as_ref().map(|it| it.asked().to_owned()),
    }
}
