//! The last of the log, kept in memory for `prefork logs`.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use prefork_api::LogEntry;
use tokio::sync::watch;

/// How much is kept, in bytes.
const MOST: usize = 1024 * 1024;

/// What an entry takes besides its text.
const OVERHEAD: usize = size_of::<Kept>() + size_of::<LogEntry>();

/// The last entries, as the log and those who read them share them.
#[derive(Debug, Clone)]
pub struct Memory(Arc<Mutex<Ring>>);

#[derive(Debug)]
struct Ring {
    /// Of the next entry.
    next: u64,
    kept: VecDeque<Kept>,
    bytes: usize,
    /// The number of the next entry, for those who follow.
    news: watch::Sender<u64>,
}

#[derive(Debug)]
struct Kept {
    entry: Arc<LogEntry>,
    at: SystemTime,
    bytes: usize,
}

/// Some entries in their order.
#[derive(Debug, Default)]
pub(crate) struct Part {
    /// How many were wanted and are not kept any more.
    pub(crate) lost: u64,
    pub(crate) entries: Vec<Arc<LogEntry>>,
}

impl Memory {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Mutex::new(Ring {
            next: 1,
            kept: VecDeque::new(),
            bytes: 0,
            news: watch::Sender::new(1),
        })))
    }

    /// Numbers an entry and keeps it, in the place of the oldest ones.
    pub(super) fn keep(&self, entry: &mut Arc<LogEntry>, at: SystemTime) {
        let mut ring = self.lock();
        // Nobody else has it yet, so this copies nothing.
        Arc::make_mut(entry).seq = ring.next;
        ring.next += 1;
        let bytes = size(entry);
        ring.bytes += bytes;
        ring.kept.push_back(Kept {
            entry: Arc::clone(entry),
            at,
            bytes,
        });
        while ring.bytes > MOST {
            let Some(oldest) = ring.kept.pop_front() else {
                break;
            };
            ring.bytes -= oldest.bytes;
        }
        ring.news.send_replace(ring.next);
    }

    /// The number of the first entry that is not older than this.
    pub(crate) fn first_since(&self, at: SystemTime) -> u64 {
        let ring = self.lock();
        // Not by halves: the clock may have been set back meanwhile.
        let first = ring.kept.iter().find(|kept| kept.at >= at);
        first.map_or(ring.next, |kept| kept.entry.seq)
    }

    /// At most so many entries from this number on.
    pub(crate) fn from(&self, number: u64, most: usize) -> Part {
        let ring = self.lock();
        let first = ring.next - ring.kept.len() as u64;
        let skipped = usize::try_from(number.saturating_sub(first)).unwrap_or(usize::MAX);
        let entries = ring.kept.iter().skip(skipped).take(most);
        Part {
            // Who asks from 0 or 1 on wants what there is.
            lost: if number > 1 {
                first.saturating_sub(number)
            } else {
                0
            },
            entries: entries.map(|kept| Arc::clone(&kept.entry)).collect(),
        }
    }

    /// Whether an entry is about this pool, or this slot of it.
    pub(crate) fn knows(&self, pool: &str, slot: Option<u32>) -> bool {
        let ring = self.lock();
        let mut entries = ring.kept.iter().map(|kept| &kept.entry);
        entries.any(|entry| is_about(entry, pool, slot))
    }

    /// Tells of each entry that comes, by the number of the one after it.
    pub(crate) fn news(&self) -> watch::Receiver<u64> {
        self.lock().news.subscribe()
    }

    fn lock(&self) -> MutexGuard<'_, Ring> {
        // One thread only; a panic inside leaves nothing half done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether an entry is about a pool, or about one slot of it.
pub(crate) fn is_about(entry: &LogEntry, pool: &str, slot: Option<u32>) -> bool {
    entry.pool.as_deref() == Some(pool) && (slot.is_none() || entry.slot == slot)
}

fn size(entry: &LogEntry) -> usize {
    let optional = |text: &Option<String>| text.as_ref().map_or(0, String::len);
    let fields = entry.fields.iter();
    OVERHEAD
        + entry.time.len()
        + entry.level.len()
        + entry.message.len()
        + optional(&entry.pool)
        + optional(&entry.stream)
        + fields
            .map(|(key, value)| key.len() + value.len())
            .sum::<usize>()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn entry(slot: u32, length: usize) -> Arc<LogEntry> {
        Arc::new(LogEntry {
            time: "2026-11-27T10:00:00.250000Z".to_owned(),
            level: "info".to_owned(),
            pool: Some("web".to_owned()),
            slot: Some(slot),
            pid: None,
            stream: None,
            message: "x".repeat(length),
            fields: Default::default(),
            seq: 0,
            lost: 0,
        })
    }

    fn numbers(part: &Part) -> Vec<u64> {
        part.entries.iter().map(|entry| entry.seq).collect()
    }

    #[test]
    fn what_is_kept_is_bounded_and_who_is_slow_is_told_what_it_lost() {
        let memory = Memory::new();
        for _ in 0..1000 {
            memory.keep(&mut entry(0, 16 * 1024), SystemTime::now());
        }
        let kept = memory.lock().kept.len() as u64;
        assert!(memory.lock().bytes <= MOST && kept >= 60, "{kept}");
        let part = memory.from(10, 2);
        assert_eq!(part.lost, 1000 - kept + 1 - 10);
        assert_eq!(numbers(&part), [1001 - kept, 1002 - kept]);
        assert_eq!(memory.from(0, 1).lost, 0);
        assert_eq!(numbers(&memory.from(1000, 5)), [1000]);
        assert!(memory.from(1001, 5).entries.is_empty());
    }

    #[test]
    fn an_entry_is_found_by_its_time_and_its_slot() {
        let memory = Memory::new();
        let begin = SystemTime::now();
        for second in 0..3 {
            memory.keep(
                &mut entry(second, 1),
                begin + Duration::from_secs(second.into()),
            );
        }
        assert_eq!(memory.first_since(begin + Duration::from_millis(500)), 2);
        assert_eq!(memory.first_since(begin + Duration::from_secs(9)), 4);
        assert!(memory.knows("web", None) && memory.knows("web", Some(2)));
        assert!(!memory.knows("web", Some(3)) && !memory.knows("api", None));
    }
}
