//! `GET /v1/logs`: the last of the log, as JSON lines, and what is logged next.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use prefork_api::{ErrorCode, LogEntry};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::spawn_local;

use super::answer::{Answer, Rejection, json_line, lines};
use super::ask;
use super::events::place;
use crate::handle::Handle;
use crate::log::{Memory, is_about};

/// Lines that wait for a slow reader; what comes meanwhile waits in the memory of the log,
/// and is lost to that reader once it is not kept any more.
const AHEAD: usize = 64;

/// What the query string asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Wanted {
    /// Only what is about this pool.
    pool: Option<String>,
    /// Only what is about this slot of it.
    slot: Option<u32>,
    /// The first sequence number.
    since: u64,
    /// Only what was logged so long ago at most.
    newer_than: Option<Duration>,
    /// Whether to go on with what is logged next.
    follow: bool,
}

impl Wanted {
    /// Reads a query string such as `pool=web&slot=0&newer_than_ms=60000&follow=1`.
    pub(super) fn parse(query: &str) -> Result<Self, Rejection> {
        let mut wanted = Self::default();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let usage = || usage(pair);
            match pair.split_once('=').ok_or_else(usage)? {
                ("pool", name) => wanted.pool = Some(name.to_owned()),
                ("slot", slot) => wanted.slot = Some(slot.parse().map_err(|_| usage())?),
                ("since", number) => wanted.since = number.parse().map_err(|_| usage())?,
                ("newer_than_ms", age) => {
                    let age = age.parse().map_err(|_| usage())?;
                    wanted.newer_than = Some(Duration::from_millis(age));
                }
                ("follow", "1" | "true") => wanted.follow = true,
                ("follow", "0" | "false") => wanted.follow = false,
                _ => return Err(usage()),
            }
        }
        if wanted.slot.is_some() && wanted.pool.is_none() {
            let message = "`slot` says which one of a pool: say `pool`, too";
            return Err(Rejection::new(ErrorCode::Usage, message));
        }
        Ok(wanted)
    }

    fn is_met_by(&self, entry: &LogEntry) -> bool {
        let pool = self.pool.as_deref();
        pool.is_none_or(|pool| is_about(entry, pool, self.slot))
    }
}

fn usage(pair: &str) -> Rejection {
    let known = "pool=NAME, slot=NUMBER, since=NUMBER, newer_than_ms=NUMBER and follow=1";
    let message = format!("`{pair}` is none of the parameters {known}");
    Rejection::new(ErrorCode::Usage, message)
}

/// Answers with what is kept, and with `follow` for as long as the client reads.
pub(super) async fn answer(
    handle: &Handle,
    wanted: Wanted,
    followers: &Arc<Semaphore>,
) -> Result<Answer, Rejection> {
    let place = wanted.follow.then(|| place(followers)).transpose()?;
    let memory = ask::log(handle, wanted.pool.clone(), wanted.slot).await?;
    let oldest = wanted
        .newer_than
        .map(|age| SystemTime::now().checked_sub(age));
    let first = oldest
        .flatten()
        .map_or(0, |oldest| memory.first_since(oldest));
    let (out, body) = mpsc::channel(AHEAD);
    let pump = Pump {
        next: wanted.since.max(first),
        wanted,
        memory,
        out,
        lost: 0,
        _place: place,
    };
    spawn_local(pump.run());
    Ok(lines(body))
}

/// Moves entries from the memory of the log to one client.
struct Pump {
    wanted: Wanted,
    memory: Memory,
    out: mpsc::Sender<Bytes>,
    /// The first sequence number that was not looked at.
    next: u64,
    /// How many were gone before they could be looked at, and are not told of.
    lost: u64,
    _place: Option<OwnedSemaphorePermit>,
}

impl Pump {
    /// Runs until the client leaves, the supervisor ends, or there is no more to say.
    async fn run(mut self) {
        let mut news = self.memory.news();
        // Who does not follow wants what there is now.
        let end = *news.borrow();
        loop {
            news.borrow_and_update();
            while self.wanted.follow || self.next < end {
                let part = self.memory.from(self.next, AHEAD);
                let Some(last) = part.entries.last() else {
                    break;
                };
                self.next = last.seq + 1;
                self.lost += part.lost;
                if !self.send(part.entries).await {
                    return;
                }
            }
            if !self.wanted.follow {
                return;
            }
            tokio::select! {
                () = self.out.closed() => return,
                more = news.changed() => if more.is_err() { return },
            }
        }
    }

    /// Sends those that are wanted. Whether the client is still there.
    async fn send(&mut self, entries: Vec<Arc<LogEntry>>) -> bool {
        for entry in entries {
            if !self.wanted.is_met_by(&entry) {
                continue;
            }
            let lost = std::mem::take(&mut self.lost);
            let line = match lost {
                0 => json_line(&*entry),
                lost => json_line(&LogEntry {
                    lost,
                    ..LogEntry::clone(&entry)
                }),
            };
            if self.out.send(line).await.is_err() {
                return false;
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_query_string_is_read_strictly() {
        assert_eq!(Wanted::parse(""), Ok(Wanted::default()));
        let wanted = Wanted::parse("pool=web&slot=1&since=7&newer_than_ms=500&follow=1");
        assert_eq!(
            wanted,
            Ok(Wanted {
                pool: Some("web".to_owned()),
                slot: Some(1),
                since: 7,
                newer_than: Some(Duration::from_millis(500)),
                follow: true,
            })
        );
        for wrong in ["since=x", "follow", "slot=1", "pool=web&slot=x", "tail=1"] {
            let rejection = Wanted::parse(wrong).unwrap_err();
            assert_eq!(rejection.error.code, ErrorCode::Usage, "{wrong}");
        }
    }
}
