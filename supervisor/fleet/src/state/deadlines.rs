//! When to look at which slot again.
//!
//! A slot has at most one entry that counts, the one it remembers as
//! `Slot::armed`. A deadline that moves back (a health report does that each
//! second) leaves the entry where it is: the slot is looked at when it pops,
//! and armed again. Entries that count no more are dropped when they pop, or
//! all at once when they become the majority.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::interface::Time;
use crate::state::slot::SlotId;

/// Slots by the time at which they want to be looked at.
#[derive(Debug, Default)]
pub(crate) struct Deadlines {
    heap: BinaryHeap<Reverse<(Time, SlotId)>>,
}

impl Deadlines {
    /// Asks for a look at `slot` when `time` has come.
    pub(crate) fn add(&mut self, time: Time, slot: SlotId) {
        self.heap.push(Reverse((time, slot)));
    }

    /// The earliest time at which some slot may want a look.
    pub(crate) fn next(&self) -> Option<Time> {
        self.heap.peek().map(|Reverse((time, _))| *time)
    }

    /// Takes the earliest entry that has come by `now`.
    pub(crate) fn pop_due(&mut self, now: Time) -> Option<(Time, SlotId)> {
        if self.next()? > now {
            return None;
        }
        self.heap.pop().map(|Reverse(entry)| entry)
    }

    /// How many entries there are, with those that count no more.
    pub(crate) fn len(&self) -> usize {
        self.heap.len()
    }

    /// Drops the entries that do not count any more.
    pub(crate) fn retain(&mut self, mut counts: impl FnMut(Time, SlotId) -> bool) {
        self.heap
            .retain(|Reverse((time, slot))| counts(*time, *slot));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::interface::PoolId;

    fn slot(index: u32) -> SlotId {
        SlotId {
            pool: PoolId(0),
            index,
        }
    }

    fn at(ms: u64) -> Time {
        Time(Duration::from_millis(ms))
    }

    #[test]
    fn entries_pop_in_the_order_of_time_and_not_before_it() {
        let mut deadlines = Deadlines::default();
        deadlines.add(at(30), slot(3));
        deadlines.add(at(10), slot(1));
        deadlines.add(at(20), slot(2));
        assert_eq!(deadlines.next(), Some(at(10)));
        assert_eq!(deadlines.pop_due(at(9)), None);
        assert_eq!(deadlines.pop_due(at(20)), Some((at(10), slot(1))));
        assert_eq!(deadlines.pop_due(at(20)), Some((at(20), slot(2))));
        assert_eq!(deadlines.pop_due(at(20)), None);
    }

    #[test]
    fn dropping_what_counts_no_more_keeps_the_order_of_the_rest() {
        let mut deadlines = Deadlines::default();
        for index in 0..10 {
            deadlines.add(at(u64::from(10 - index)), slot(index));
        }
        deadlines.retain(|_, slot| slot.index % 2 == 0);
        assert_eq!(deadlines.len(), 5);
        assert_eq!(deadlines.pop_due(at(100)), Some((at(2), slot(8))));
    }
}
