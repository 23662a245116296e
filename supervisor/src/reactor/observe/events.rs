//! What happened: kept for `prefork events`, sent to those who follow, and
//! written to the log.

use std::collections::VecDeque;

use prefork_api::{Event, Exit};
use tokio::sync::broadcast;

/// Events kept for those who ask later.
const KEPT: usize = 4096;

/// Events that a slow follower may lag behind before it loses some.
const LAG: usize = 1024;

/// The last events, and those who follow.
#[derive(Debug)]
pub(crate) struct Journal {
    next_seq: u64,
    kept: VecDeque<Event>,
    followers: broadcast::Sender<Event>,
}

/// What an event is about, besides its kind and message.
#[derive(Debug, Clone, Default)]
pub(crate) struct About {
    pub(crate) pool: Option<String>,
    pub(crate) slot: Option<u32>,
    pub(crate) pid: Option<i32>,
    pub(crate) exit: Option<Exit>,
}

impl Journal {
    pub(crate) fn new() -> Self {
        Self {
            next_seq: 1,
            kept: VecDeque::new(),
            followers: broadcast::Sender::new(LAG),
        }
    }

    /// Numbers events on from where another supervisor was.
    pub(crate) fn go_on_from(&mut self, next_seq: u64) {
        self.next_seq = self.next_seq.max(next_seq);
    }

    /// The events that are kept.
    pub(crate) fn kept(&self) -> Vec<Event> {
        self.kept.iter().cloned().collect()
    }

    /// The last events, the newest first.
    pub(crate) fn last(&self, most: usize) -> Vec<Event> {
        self.kept.iter().rev().take(most).cloned().collect()
    }

    /// Goes on with the events that another program kept.
    pub(crate) fn restore(&mut self, kept: Vec<Event>) {
        self.kept = kept.into();
        let last = self.kept.back().map_or(0, |event| event.seq);
        self.go_on_from(last + 1);
    }

    /// The number of the next event.
    pub(crate) fn next_seq(&self) -> u64 {
        self.next_seq
    }

    /// Notes that something happened.
    pub(crate) fn note(&mut self, kind: &str, about: About, message: String) {
        let event = Event {
            seq: self.next_seq,
            at: crate::reactor::unix_seconds(),
            kind: kind.to_owned(),
            pool: about.pool,
            slot: about.slot,
            pid: about.pid,
            message,
            exit: about.exit,
        };
        self.next_seq += 1;
        if self.kept.len() == KEPT {
            self.kept.pop_front();
        }
        self.kept.push_back(event.clone());
        // Nobody follows: fine.
        let _ = self.followers.send(event);
    }

    /// The events kept from `since` on, and a subscription to what follows them.
    pub(crate) fn read(&self, since: u64) -> (Vec<Event>, broadcast::Receiver<Event>) {
        let kept = self.kept.iter().filter(|event| event.seq >= since);
        (kept.cloned().collect(), self.followers.subscribe())
    }
}
