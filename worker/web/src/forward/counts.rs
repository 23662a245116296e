//! How many requests this process has at each worker behind it, shown to the others
//! that forward there; and what was answered there, shown to the supervisor.

use std::cell::RefCell;
use std::time::Duration;

use prefork_worker::front::{Counter, Row};

/// What this process has in flight, by place.
#[derive(Debug, Default)]
pub(super) struct Counts {
    own: RefCell<Vec<u32>>,
    /// Where the others see it; none as long as nobody has said where.
    row: RefCell<Option<Row>>,
    /// Where answers are counted; none as long as nobody wants to know.
    answers: RefCell<Option<Counter>>,
}

impl Counts {
    /// Shows it there from now on, what is in flight already included.
    pub(super) fn share(&self, row: Row) {
        for (place, requests) in (0..).zip(self.own.borrow().iter()) {
            if *requests > 0 {
                row.set(place, *requests);
            }
        }
        *self.row.borrow_mut() = Some(row);
    }

    /// Counts answers there from now on.
    pub(super) fn show_answers(&self, counter: Counter) {
        *self.answers.borrow_mut() = Some(counter);
    }

    /// A request was answered at that place, or its answer lost, after so long.
    pub(super) fn answered(&self, place: u32, failed: bool, took: Duration) {
        if let Some(counter) = &*self.answers.borrow() {
            counter.count(place, failed, took);
        }
    }

    /// One more at that place; how many all have there now.
    pub(super) fn add(&self, place: u32) -> u32 {
        self.change(place, |requests| requests.saturating_add(1));
        self.load(place)
    }

    /// One fewer.
    pub(super) fn remove(&self, place: u32) {
        self.change(place, |requests| requests.saturating_sub(1));
    }

    /// How many all have at a place.
    pub(super) fn load(&self, place: u32) -> u32 {
        match &*self.row.borrow() {
            Some(row) => row.load(place),
            None => self.own.borrow().get(place as usize).copied().unwrap_or(0),
        }
    }

    fn change(&self, place: u32, by: impl FnOnce(u32) -> u32) {
        let mut own = self.own.borrow_mut();
        let index = place as usize;
        if own.len() <= index {
            own.resize(index + 1, 0);
        }
        own[index] = by(own[index]);
        if let Some(row) = &*self.row.borrow() {
            row.set(place, own[index]);
        }
    }
}
