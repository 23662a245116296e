//! The keys of session tickets: made, known everywhere before they are used,
//! replaced, and still good for a while after that.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use data_encoding::HEXLOWER;
use prefork_proto::tls::TicketKey;
use ring::hmac;
use ring::rand::{SecureRandom, SystemRandom};
use serde::{Deserialize, Serialize};

/// How long a key makes tickets. It is told as long before, and read with as
/// long after.
pub(crate) const PERIOD: Duration = Duration::from_secs(12 * 60 * 60);

/// The keys, from which those of each pool are made: a worker can take up no
/// session of another pool's clients.
#[derive(Debug)]
pub(crate) struct Tickets {
    saved: SavedTickets,
    /// Whether they are others than were written down.
    pub(crate) changed: bool,
}

/// The keys as they are kept.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SavedTickets {
    /// When the current key began to make tickets, in seconds since the Unix epoch.
    since: u64,
    /// The one that makes tickets, the one that comes next, and the one before.
    keys: Vec<Key>,
}

/// Leaves the secrets out, so that no log has them by accident.
impl std::fmt::Debug for SavedTickets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SavedTickets")
            .field("since", &self.since)
            .finish_non_exhaustive()
    }
}

#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Key {
    name: [u8; 16],
    secret: [u8; 32],
}

impl Key {
    fn draw() -> Result<Self, DrawError> {
        let random = SystemRandom::new();
        let (mut name, mut secret) = ([0; 16], [0; 32]);
        random.fill(&mut name).map_err(|_| DrawError)?;
        random.fill(&mut secret).map_err(|_| DrawError)?;
        Ok(Self { name, secret })
    }

    fn of_pool(&self, pool: &str) -> TicketKey {
        let secret = hmac::Key::new(hmac::HMAC_SHA256, &self.secret);
        let secret = hmac::sign(&secret, format!("tickets of pool {pool}").as_bytes());
        TicketKey {
            name: HEXLOWER.encode(&self.name),
            secret: HEXLOWER.encode(secret.as_ref()),
        }
    }
}

/// The system has no random bytes.
#[derive(Debug, thiserror::Error)]
#[error("the system has no random bytes for the keys of session tickets")]
pub(crate) struct DrawError;

impl Tickets {
    /// New keys.
    pub(crate) fn new(now: SystemTime) -> Result<Self, DrawError> {
        Ok(Self {
            saved: SavedTickets {
                since: seconds(now),
                keys: vec![Key::draw()?, Key::draw()?],
            },
            changed: true,
        })
    }

    /// Keys that were kept, as far as they are still good: none after two
    /// periods in which nobody replaced them.
    pub(crate) fn go_on(saved: SavedTickets, now: SystemTime) -> Result<Self, DrawError> {
        let age = seconds(now).saturating_sub(saved.since);
        if saved.keys.len() < 2 || age >= 2 * PERIOD.as_secs() || saved.since > seconds(now) {
            return Self::new(now);
        }
        let mut tickets = Self {
            saved,
            changed: false,
        };
        tickets.replace(now)?;
        Ok(tickets)
    }

    /// Replaces the key that makes tickets, if its time is over; whether it was.
    pub(crate) fn replace(&mut self, now: SystemTime) -> Result<bool, DrawError> {
        let now = seconds(now);
        // A clock that was set back begins a period anew.
        let age = now.checked_sub(self.saved.since);
        if age.is_some_and(|age| age < PERIOD.as_secs()) {
            return Ok(false);
        }
        let next = Key::draw()?;
        let keys = &mut self.saved.keys;
        keys.truncate(2);
        keys.swap(0, 1);
        keys.insert(1, next);
        self.saved.since = now;
        self.changed = true;
        Ok(true)
    }

    /// A pool's keys, the one that makes tickets first.
    pub(crate) fn of_pool(&self, pool: &str) -> Vec<TicketKey> {
        self.saved
            .keys
            .iter()
            .map(|key| key.of_pool(pool))
            .collect()
    }

    /// What is to be kept.
    pub(crate) fn save(&self) -> SavedTickets {
        self.saved.clone()
    }
}

fn seconds(at: SystemTime) -> u64 {
    at.duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(periods: f64) -> SystemTime {
        UNIX_EPOCH + PERIOD.mul_f64(1000.0 + periods)
    }

    #[test]
    fn a_key_is_known_a_period_before_and_a_period_after_it_makes_tickets() {
        let mut tickets = Tickets::new(at(0.0)).unwrap();
        let first = tickets.of_pool("web");
        assert!(!tickets.replace(at(0.9)).unwrap());
        assert!(tickets.replace(at(1.0)).unwrap());
        let second = tickets.of_pool("web");
        // What was next makes tickets now, and what did is still read with.
        assert_eq!((&second[0], &second[2]), (&first[1], &first[0]));
        assert!(tickets.replace(at(2.0)).unwrap());
        let third = tickets.of_pool("web");
        assert_eq!((&third[0], &third[2]), (&second[1], &second[0]));
        assert_eq!(third.len(), 3);
        assert!(!third.contains(&first[0]));
    }

    #[test]
    fn each_pool_has_keys_of_its_own() {
        let tickets = Tickets::new(at(0.0)).unwrap();
        let (web, api) = (tickets.of_pool("web"), tickets.of_pool("api"));
        assert_ne!(web[0].secret, api[0].secret);
        assert_eq!(web, tickets.of_pool("web"));
        assert_eq!(web[0].secret.len(), 64);
    }

    #[test]
    fn kept_keys_are_good_as_long_as_somebody_would_have_kept_them() {
        let before = Tickets::new(at(0.0)).unwrap();
        let kept = before.of_pool("web");
        let same = Tickets::go_on(before.save(), at(0.5)).unwrap();
        assert_eq!(same.of_pool("web"), kept);
        let replaced = Tickets::go_on(before.save(), at(1.5)).unwrap();
        assert_eq!(replaced.of_pool("web")[0], kept[1]);
        for long in [at(2.0), at(-1.0)] {
            let new = Tickets::go_on(before.save(), long).unwrap();
            assert!(new.of_pool("web").iter().all(|key| !kept.contains(key)));
        }
    }

    #[test]
    fn no_secret_is_in_what_a_log_would_show() {
        let tickets = Tickets::new(at(0.0)).unwrap();
        let shown = format!("{tickets:?}");
        assert!(!shown.contains("secret"), "{shown}");
    }
}
