//! What a front is told of a pool behind it.

use std::rc::Rc;

use prefork_fleet::Worker;
use prefork_proto::message::{ToWorker, Upstream, Upstreams};
use prefork_proto::places::CELLS;

/// Workers in one line, so that no line gets too long.
const WORKERS_PER_LINE: usize = 200;

/// The workers of a pool behind, as every front is to know them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Table {
    pub(super) pool: Rc<str>,
    pub(super) concurrency: u32,
    pub(super) workers: Vec<Upstream>,
}

impl Table {
    /// Whose table it is.
    pub(crate) fn pool(&self) -> &str {
        &self.pool
    }

    /// The lines that say it, each with an id of its own.
    pub(crate) fn lines(&self, mut id: impl FnMut() -> u64) -> Vec<ToWorker> {
        let mut parts: Vec<&[Upstream]> = self.workers.chunks(WORKERS_PER_LINE).collect();
        if parts.is_empty() {
            parts.push(&[]);
        }
        let last = parts.len() - 1;
        let line = |(number, part): (usize, &[Upstream])| {
            ToWorker::Upstreams(Upstreams {
                id: id(),
                pool: self.pool.to_string(),
                concurrency: self.concurrency,
                workers: part.to_vec(),
                more: number < last,
            })
        };
        parts.into_iter().enumerate().map(line).collect()
    }
}

/// Where a worker's requests are counted; `None` where there is no place left. A slot has
/// two places, so that a predecessor and its successor are counted apart.
pub(super) fn place(worker: Worker) -> Option<u32> {
    let place = u64::from(worker.slot) * 2 + worker.incarnation % 2;
    let place = u32::try_from(place).ok();
    place.filter(|place| *place < CELLS)
}

/// A worker as it stands in a table.
pub(super) fn entry(worker: Worker, address: String, leaving: bool) -> Upstream {
    Upstream {
        slot: worker.slot,
        incarnation: worker.incarnation,
        address,
        leaving,
        place: place(worker),
    }
}

#[cfg(test)]
mod tests {
    use prefork_fleet::PoolId;

    use super::*;

    fn worker(slot: u32, incarnation: u64) -> Worker {
        Worker {
            pool: PoolId(1),
            slot,
            incarnation,
        }
    }

    fn place(slot: u32, incarnation: u64) -> Option<u32> {
        entry(worker(slot, incarnation), String::new(), false).place
    }

    #[test]
    fn a_predecessor_and_its_successor_have_places_of_their_own() {
        assert_eq!([place(3, 7), place(3, 8)], [Some(7), Some(6)]);
        assert_eq!(place(CELLS / 2 - 1, 1), Some(CELLS - 1));
        assert_eq!(place(CELLS / 2, 2), None);
    }

    #[test]
    fn a_long_table_is_said_in_lines_that_fit() {
        let path = format!("unix:/{}", "x".repeat(106));
        let workers = |number| {
            let entries = 0..number;
            entries.map(|slot| entry(worker(slot, u64::MAX), path.clone(), true))
        };
        for number in [0, 1, 200, 201, 1000] {
            let table = Table {
                pool: "shop".into(),
                concurrency: u32::MAX,
                workers: workers(number).collect(),
            };
            let mut id = 0;
            let lines = table.lines(|| {
                id += 1;
                id
            });
            let mut said = Vec::new();
            for (number, line) in lines.iter().enumerate() {
                let text = serde_json::to_string(line).unwrap();
                assert!(
                    text.len() < prefork_proto::channel::LINE_LIMIT,
                    "{}",
                    text.len()
                );
                let ToWorker::Upstreams(part) = line else {
                    panic!("{line:?}");
                };
                assert_eq!(part.more, number + 1 < lines.len());
                said.extend(part.workers.clone());
            }
            assert_eq!(said, table.workers);
        }
    }
}
