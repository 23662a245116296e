//! Who takes the open connections of a worker that leaves.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::rc::Rc;

use prefork_fleet::Worker;
use prefork_proto::message::PassageOffer;
use prefork_proto::{capability, channel, passage};
use tracing::{debug, warn};

use crate::reactor::Reactor;
use crate::reactor::listeners::sockets::Sockets;
use crate::reactor::worker_process::handle::Order;

impl Reactor {
    /// Hands a worker the passages of its listeners, in place of those that it may have
    /// from an earlier supervisor. Connections under TLS go nowhere: their keys are a
    /// process's own.
    pub(in crate::reactor) fn offer_passages(&self, worker: Worker) {
        let process = self.fleet.process(worker);
        let is_up = process.is_some_and(|process| process.ready_since().is_some());
        let Some(grip) = self.processes.get(&worker).filter(|_| is_up) else {
            return;
        };
        if !grip.vitals.borrow().can(capability::PASS_ON) {
            return;
        }
        let offers = self.passages_of(worker);
        // Nothing may wait in the channel of a worker for what can't be sent for now.
        if offers.is_empty() || !channel::has_room_in_flight() {
            return;
        }
        for (sockets, names) in offers {
            for name in names {
                match sockets.passage() {
                    Ok(fd) => grip.order(Order::Passage(offer(name), fd)),
                    Err(error) => {
                        return warn!("connections to {name} end with their worker: {error}");
                    }
                }
            }
        }
        grip.vitals.borrow_mut().takes_over = true;
        debug!(slot = %self.slot_name(worker), "it takes connections of workers that leave");
    }

    /// The listeners of a worker that leaves whose connections another one takes.
    pub(in crate::reactor) fn listeners_to_pass_on(&self, worker: Worker) -> Vec<String> {
        if self.fleet.stopping() {
            return Vec::new();
        }
        let passages = self.passages_of(worker).into_iter();
        let taken = passages.filter(|(sockets, _)| self.is_taken_over(sockets, worker));
        taken.flat_map(|(_, names)| names).collect()
    }

    /// Whether a worker other than this one takes what goes through these sockets' passage.
    fn is_taken_over(&self, sockets: &Rc<Sockets>, but: Worker) -> bool {
        if !sockets.has_open_passage() {
            return false;
        }
        self.attendants(sockets).any(|worker| {
            let grip = self.processes.get(&worker).filter(|_| worker != but);
            grip.is_some_and(|grip| grip.vitals.borrow().takes_over)
                && self
                    .passages_of(worker)
                    .iter()
                    .any(|(its, _)| Rc::ptr_eq(its, sockets))
        })
    }

    /// The sockets of a worker's listeners without TLS, each with its names there.
    fn passages_of(&self, worker: Worker) -> Vec<(Rc<Sockets>, BTreeSet<String>)> {
        let Some(edition) = self.started_from(worker) else {
            return Vec::new();
        };
        let listens = edition.config.listen.iter().zip(&edition.sockets);
        let plain = listens.filter(|(listen, _)| listen.tls.is_none());
        let with_names = plain.map(|(_, sockets)| {
            let names = sockets
                .all()
                .iter()
                .map(|it| it.name().to_owned())
                .collect();
            (Rc::clone(sockets), names)
        });
        with_names.collect()
    }
}

impl Sockets {
    /// Goes on with a passage that an earlier program has made.
    pub(in crate::reactor) fn keep_passage(&self, passage: Option<OwnedFd>) {
        *self.passage.borrow_mut() = passage;
    }

    /// The number of the passage, for a program that takes this one's place.
    pub(in crate::reactor) fn passage_number(&self) -> Option<RawFd> {
        self.passage.borrow().as_ref().map(AsRawFd::as_raw_fd)
    }

    /// A duplicate of the passage of their connections, which is made when it is first
    /// asked for.
    fn passage(&self) -> io::Result<OwnedFd> {
        let mut passage = self.passage.borrow_mut();
        match &*passage {
            Some(passage) if passage::is_open(passage.as_fd()) => passage.try_clone(),
            // One that a worker has closed stays with those that have it.
            _ => passage.insert(passage::create()?).try_clone(),
        }
    }

    /// Whether something goes through the passage.
    fn has_open_passage(&self) -> bool {
        let passage = self.passage.borrow();
        let passage = passage.as_ref();
        passage.is_some_and(|passage| passage::is_open(passage.as_fd()))
    }
}

fn offer(name: String) -> PassageOffer {
    PassageOffer {
        name,
        version: passage::VERSION,
        fds: 1,
    }
}
