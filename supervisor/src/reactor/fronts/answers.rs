//! What the workers of a pool behind have answered, as its fronts count it: they
//! themselves speak nothing but HTTP.
//!
//! Each front counts by place, which the processes of a slot use one after the other.
//! What one of them has answered is what has come since it got its place.

use std::collections::BTreeMap;

use prefork_fleet::Worker;
use prefork_proto::upstream_counts::{self, Answers, Reader};
use tracing::warn;

use super::table;
use crate::reactor::worker_process::handle::Order;

/// The counts of all fronts of one pool behind.
#[derive(Debug, Default)]
pub(super) struct Counted {
    fronts: BTreeMap<Worker, Reader>,
    /// What fronts had counted that have ended.
    ended: BTreeMap<u32, Answers>,
    /// What had been counted at its place when a worker got it.
    before: BTreeMap<Worker, Answers>,
}

impl Counted {
    /// Takes in a front; where it is to count.
    pub(super) fn admit(&mut self, pool: &str, front: Worker) -> Option<Order> {
        match Reader::create() {
            Ok((reader, memory)) => {
                self.fronts.insert(front, reader);
                Some(Order::UpstreamCounts(upstream_counts::offer(pool), memory))
            }
            Err(error) => {
                warn!(%pool, "what is answered there by a front is not known: {error}");
                None
            }
        }
    }

    /// A worker is about to get requests.
    pub(super) fn begin(&mut self, worker: Worker) {
        if let Some(place) = table::place(worker)
            && !self.before.contains_key(&worker)
        {
            let before = self.at(place);
            self.before.insert(worker, before);
        }
    }

    /// What a worker has answered; `None` where nobody counts that.
    pub(super) fn of(&self, worker: Worker) -> Option<Answers> {
        let before = self.before.get(&worker)?;
        Some(self.at(table::place(worker)?).since(before))
    }

    /// A front has ended, or a worker of the pool itself.
    pub(super) fn ended(&mut self, worker: Worker) {
        self.before.remove(&worker);
        let Some(reader) = self.fronts.remove(&worker) else {
            return;
        };
        for place in self.before.keys().filter_map(|it| table::place(*it)) {
            let ended = self.ended.entry(place).or_default();
            ended.add(&reader.read(place));
        }
    }

    fn at(&self, place: u32) -> Answers {
        let mut sum = self.ended.get(&place).cloned().unwrap_or_default();
        for reader in self.fronts.values() {
            sum.add(&reader.read(place));
        }
        sum
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::OwnedFd;
    use std::time::Duration;

    use prefork_fleet::PoolId;
    use prefork_proto::message::UpstreamCountsOffer;
    use prefork_proto::upstream_counts::Counter;

    use super::*;

    fn worker(pool: u32, slot: u32, incarnation: u64) -> Worker {
        Worker {
            pool: PoolId(pool),
            slot,
            incarnation,
        }
    }

    fn front(counted: &mut Counted, slot: u32) -> Counter {
        let order = counted.admit("shop", worker(0, slot, 1));
        let Some(Order::UpstreamCounts(offer, memory)) = order else {
            panic!("it is to count: {order:?}");
        };
        let (offer, memory): (UpstreamCountsOffer, OwnedFd) = (offer, memory);
        Counter::map(&offer, memory).unwrap()
    }

    fn requests(counted: &Counted, worker: Worker) -> Option<[u64; 2]> {
        let answers = counted.of(worker)?;
        Some([answers.requests, answers.failed])
    }

    #[test]
    fn a_worker_has_answered_what_all_fronts_have_counted_since_it_came() {
        let mut counted = Counted::default();
        let [one, other] = [front(&mut counted, 0), front(&mut counted, 1)];
        let [first, second] = [worker(1, 3, 1), worker(1, 3, 2)];
        let place = table::place(first).unwrap();
        counted.begin(first);
        one.count(place, false, Duration::ZERO);
        other.count(place, true, Duration::ZERO);
        counted.begin(first);
        counted.begin(second);
        assert_eq!(requests(&counted, first), Some([2, 1]));
        assert_eq!(requests(&counted, second), Some([0, 0]));
        // The one after the next has the same place.
        let third = worker(1, 3, 3);
        counted.ended(first);
        counted.begin(third);
        one.count(place, false, Duration::ZERO);
        assert_eq!(requests(&counted, third), Some([1, 0]));
        assert_eq!(requests(&counted, first), None);
    }

    #[test]
    fn what_a_front_had_counted_outlives_it() {
        let mut counted = Counted::default();
        let member = worker(1, 0, 1);
        let one = front(&mut counted, 0);
        counted.begin(member);
        one.count(table::place(member).unwrap(), false, Duration::ZERO);
        counted.ended(worker(0, 0, 1));
        assert_eq!(requests(&counted, member), Some([1, 0]));
        let again = front(&mut counted, 0);
        again.count(table::place(member).unwrap(), true, Duration::ZERO);
        assert_eq!(requests(&counted, member), Some([2, 1]));
    }
}
