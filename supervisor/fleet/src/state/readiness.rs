//! When a pool and the service count as ready: the one definition behind every
//! probe, exit code and word that says so.

use std::fmt;

use prefork_api::Readiness;
use serde::{Deserialize, Serialize};

use crate::state::pool::Tally;
use crate::{Fleet, Phase};

/// How many of its workers a pool needs in order to serve.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Quorum {
    /// One is enough.
    #[default]
    Any,
    /// Each of them.
    All,
    /// So many in a hundred, rounded up; from 1 to 100.
    Percent(u8),
}

impl Quorum {
    /// How many of so many it takes: at least one.
    fn of(self, expected: u32) -> u32 {
        let share = |percent| (u64::from(expected) * u64::from(percent)).div_ceil(100);
        let needed = match self {
            Self::Any => 1,
            Self::All => expected,
            // A share of a u32 is one.
            Self::Percent(percent) => u32::try_from(share(percent)).unwrap_or(expected),
        };
        needed.max(1)
    }
}

impl fmt::Display for Quorum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("any"),
            Self::All => f.write_str("all"),
            Self::Percent(percent) => write!(f, "{percent}%"),
        }
    }
}

/// A pool's workers as its readiness sees them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Strength {
    /// Those that accept connections.
    pub ready: u32,
    /// Those that should: an operator has not paused them, and no reload in
    /// progress has only just added them.
    pub expected: u32,
    /// Those that an operator has paused.
    pub paused: u32,
    /// How many it takes to serve. A pool that is still to come needs none; one of
    /// which each worker is paused needs one, which it hasn't.
    pub needed: u32,
}

impl Strength {
    pub(crate) fn new(quorum: Quorum, tally: &Tally) -> Self {
        let Tally {
            ready,
            missing,
            paused,
            ..
        } = *tally;
        let expected = ready + missing - paused;
        Self {
            ready,
            expected,
            paused,
            needed: match expected + paused {
                0 => 0,
                _ => quorum.of(expected),
            },
        }
    }

    /// What that comes to.
    pub fn readiness(self) -> Readiness {
        if self.ready < self.needed {
            Readiness::NotReady
        } else if self.ready < self.expected {
            Readiness::Degraded
        } else {
            Readiness::Ready
        }
    }
}

impl Fleet {
    /// Whether the service serves: as well as the weakest of its pools, and not
    /// before its first boot is over or once it is to stop.
    pub fn readiness(&self) -> Readiness {
        if self.phase != Phase::Running {
            return Readiness::NotReady;
        }
        let pools = self.pools().map(|pool| pool.strength().readiness());
        pools.min().unwrap_or(Readiness::Ready)
    }

    /// Whether every slot accepts connections that should.
    pub fn is_ready(&self) -> bool {
        self.readiness() == Readiness::Ready
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::driver::{Driver, code, policy, worker};
    use crate::{Ask, Command, Event};

    fn strength(quorum: Quorum, ready: u32, missing: u32, paused: u32) -> Strength {
        let tally = Tally {
            ready,
            missing,
            paused,
            ..Tally::default()
        };
        Strength::new(quorum, &tally)
    }

    #[test]
    fn degraded_lies_between_the_quorum_and_all() {
        use Readiness::{Degraded, NotReady, Ready};

        let most = Quorum::Percent(75);
        let cases = [
            (Quorum::Any, 16, Ready),
            (Quorum::Any, 15, Degraded),
            (Quorum::Any, 1, Degraded),
            (Quorum::Any, 0, NotReady),
            (Quorum::All, 16, Ready),
            (Quorum::All, 15, NotReady),
            (most, 16, Ready),
            (most, 12, Degraded),
            (most, 11, NotReady),
        ];
        for (quorum, ready, expected) in cases {
            let readiness = strength(quorum, ready, 16 - ready, 0).readiness();
            assert_eq!(readiness, expected, "{ready} of 16 by {quorum}");
        }
    }

    #[test]
    fn a_share_is_rounded_up_and_never_nothing() {
        let needed = |percent, of| strength(Quorum::Percent(percent), of, 0, 0).needed;
        assert_eq!((needed(50, 3), needed(1, 4), needed(100, 7)), (2, 1, 7));
        assert_eq!(needed(75, u32::MAX), 3_221_225_472);
    }

    #[test]
    fn who_is_paused_is_left_out() {
        for quorum in [Quorum::Any, Quorum::All, Quorum::Percent(75)] {
            assert_eq!(strength(quorum, 2, 2, 2).readiness(), Readiness::Ready);
        }
        let half = strength(Quorum::Percent(50), 1, 3, 2);
        assert_eq!((half.expected, half.needed), (2, 1));
        assert_eq!(half.readiness(), Readiness::Degraded);
    }

    #[test]
    fn a_pool_that_is_paused_as_a_whole_is_not_ready_and_one_to_come_is_not_missed() {
        for quorum in [Quorum::Any, Quorum::All, Quorum::Percent(1)] {
            assert_eq!(strength(quorum, 0, 4, 4).readiness(), Readiness::NotReady);
            assert_eq!(strength(quorum, 0, 0, 0).readiness(), Readiness::Ready);
        }
    }

    #[test]
    fn the_weakest_pool_speaks_for_the_service() {
        let mut driver = Driver::start_pools(1, vec![policy("web", 2), policy("api", 1)]);
        assert_eq!(driver.fleet.readiness(), Readiness::NotReady, "it starts");
        let api = crate::Worker {
            pool: crate::PoolId(1),
            ..worker(0, 1)
        };
        for worker in [worker(0, 1), worker(1, 1), api] {
            assert_eq!(driver.fleet.readiness(), Readiness::NotReady, "it starts");
            driver.say_ready(worker);
        }
        assert_eq!(driver.fleet.readiness(), Readiness::Ready);
        driver.exit(worker(1, 1), code(1));
        assert_eq!(driver.fleet.readiness(), Readiness::Degraded);
        driver.exit(api, code(1));
        assert_eq!(driver.fleet.readiness(), Readiness::NotReady);
    }

    #[test]
    fn a_worker_that_an_operator_paused_is_not_missed_beside_another() {
        let mut driver = Driver::ready(policy("web", 2));
        driver.command(Command::Pause {
            pool: "web".to_owned(),
            slot: 0,
        });
        driver.step(Event::Answered {
            worker: worker(0, 1),
            ask: Ask::Pause,
            result: Ok(()),
        });
        let pool = driver.fleet.pools().next().unwrap();
        assert_eq!((pool.ready(), pool.strength().paused), (1, 1));
        assert_eq!(driver.fleet.readiness(), Readiness::Ready);
        driver.exit(worker(1, 1), code(1));
        assert_eq!(driver.fleet.readiness(), Readiness::NotReady);
    }
}
