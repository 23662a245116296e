//! Handing connections on to other workers when this one leaves.

use std::collections::{HashMap, HashSet};
use std::io;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nix::errno::Errno;
use prefork_proto::message::Handoffs as Counts;
use prefork_proto::passage::{self, Kept};

use crate::idle::Bare;
use crate::idle::passage::Passage;

/// The ways on for connections, and what became of those that could have gone one.
#[derive(Debug, Default)]
pub(crate) struct Handoffs {
    ways: Mutex<Ways>,
    passed_on: AtomicU64,
    kept: [AtomicU64; Kept::ALL.len()],
}

#[derive(Debug, Default)]
struct Ways {
    /// By the listener's name.
    passages: HashMap<Arc<str>, Arc<Passage>>,
    /// The listeners whose connections are to go on.
    out: HashSet<Arc<str>>,
}

impl Handoffs {
    fn ways(&self) -> MutexGuard<'_, Ways> {
        // Every change is one call, so that a panic leaves it whole.
        self.ways.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Uses this passage from now on; what was one for the same listener before is none
    /// any more once what waits in it is taken.
    pub(crate) fn adopt(&self, passage: &Arc<Passage>) {
        let mut ways = self.ways();
        let name = Arc::clone(&passage.name);
        if let Some(before) = ways.passages.insert(name, Arc::clone(passage)) {
            before.end();
        }
    }

    /// Nothing comes through this passage any more.
    pub(super) fn forget(&self, passage: &Passage) {
        let is_it = |it: &Arc<Passage>| std::ptr::eq(&raw const **it, passage);
        self.ways().passages.retain(|_, it| !is_it(it));
        passage.end();
    }

    /// Has the connections of these listeners go on.
    pub(crate) fn leave_by(&self, listeners: Vec<String>) {
        self.ways().out.extend(listeners.into_iter().map(Arc::from));
    }

    /// Nobody sees to it any more that somebody takes them: they stay.
    pub(crate) fn stay(&self) {
        self.ways().out.clear();
    }

    /// The way on for the connections of a listener, if they are to go.
    pub(crate) fn way_out(&self, listener: &str) -> Option<Arc<Passage>> {
        let ways = self.ways();
        let passage = ways.passages.get(listener)?;
        ways.out.contains(listener).then(|| Arc::clone(passage))
    }

    /// An idle connection is closed by a drain.
    pub(crate) fn keeps(&self, why: Kept) {
        self.kept[why as usize].fetch_add(1, Relaxed);
    }

    /// What has become of those that were to go.
    pub(crate) fn counts(&self) -> Counts {
        Counts {
            passed_on: self.passed_on.load(Relaxed),
            not_passed_on: Kept::ALL.map(|why| self.kept[why as usize].load(Relaxed)),
        }
    }
}

/// What became of a connection that was to be handed on.
pub(crate) enum Handed {
    /// Another worker has it.
    On,
    /// There is no room for it now, and there may be in a moment.
    NotYet(Bare),
    /// It stays here for this reason.
    Kept(Bare, Kept),
}

impl Handoffs {
    /// Hands a connection on, if it is to go and can.
    pub(crate) fn hand_on(&self, bare: Bare) -> Handed {
        let Some(passage) = self.way_out(&bare.listener) else {
            return Handed::Kept(bare, Kept::NoReceiver);
        };
        match passage::send(passage.as_fd(), &bare.passed, bare.as_fd(), &bare.read) {
            Ok(()) => {
                self.passed_on.fetch_add(1, Relaxed);
                Handed::On
            }
            Err(error) if has_no_room(&error) => Handed::NotYet(bare),
            Err(_) => Handed::Kept(bare, Kept::Kernel),
        }
    }
}

/// Whether there may be room in a moment: a passage is full, or so much of this user is
/// on its way that the kernel takes no more.
fn has_no_room(error: &io::Error) -> bool {
    let errno = error.raw_os_error().map(Errno::from_raw);
    matches!(
        errno,
        Some(Errno::EAGAIN | Errno::ETOOMANYREFS | Errno::ENOBUFS | Errno::ENOMEM | Errno::EINTR)
    )
}
