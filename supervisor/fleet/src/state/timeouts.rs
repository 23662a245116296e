//! How long a process may stay silent. A machine that is short of processors keeps
//! its workers waiting, and to kill them for that makes it shorter still: the time
//! in which a process waited for a processor counts as silence only beyond
//! [`STRETCH`] times the timeout.
//!
//! The kernel tells how long a process has waited only as a sum, so that it has to
//! be looked at more than once: first at half of the timeout, then at every eighth.
//! A process that speaks in time is never looked at.

use std::time::Duration;

use crate::interface::Time;

/// A process is never waited for longer than this many times the timeout.
pub(crate) const STRETCH: u32 = 5;

/// What is less than this part of the timeout from one look to the next is no
/// excuse: every process waits a little.
const NEGLIGIBLE: u32 = 64;

/// How a process that is silent was looked at since its last word.
#[derive(Debug, Default)]
pub(crate) struct Patience {
    /// The last look; none before the first.
    looked: Option<Time>,
    /// Whether a look has been asked for and not been answered.
    looking: bool,
    /// Time that does not count as silence.
    excused: Duration,
    /// Of it, what the process spent waiting for a processor.
    starved: Duration,
    /// Whether that has been reported.
    told: bool,
}

/// What a silence is measured by.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Silence {
    /// When it began.
    pub(crate) since: Time,
    /// How long it may last.
    pub(crate) timeout: Duration,
}

impl Patience {
    /// When the process fails if nothing is heard of it and it waits no more.
    pub(crate) fn ends_at(&self, silence: Silence) -> Time {
        let most = silence.timeout.saturating_mul(STRETCH - 1);
        let excused = self.excused.min(most);
        silence.since.after(silence.timeout).after(excused)
    }

    /// When to look at it next; none while a look is not answered.
    pub(crate) fn look_at(&self, silence: Silence) -> Option<Time> {
        if self.looking {
            return None;
        }
        Some(match self.looked {
            None => silence.since.after(silence.timeout / 2),
            Some(last) => {
                let soonest = last.after(silence.timeout / 32);
                let regular = last.after(silence.timeout / 8);
                regular.min(self.ends_at(silence)).max(soonest)
            }
        })
    }

    /// Asks for a look; tells whether it is the first of this silence.
    pub(crate) fn ask(&mut self) -> bool {
        self.looking = true;
        self.looked.is_none()
    }

    /// What a look has found: how long the process has waited for a processor since
    /// the last one. A look that comes late was kept from it by the same machine, or
    /// by a supervisor that did not run: that time is nobody's silence.
    pub(crate) fn answer(&mut self, now: Time, silence: Silence, waited: Duration) {
        if !std::mem::take(&mut self.looking) {
            return;
        }
        let due = self.look_at(silence).unwrap_or(now);
        self.looked = Some(now);
        let excuse = waited.max(now.since(due));
        if excuse >= silence.timeout / NEGLIGIBLE {
            self.excused = self.excused.saturating_add(excuse);
            self.starved = self.starved.saturating_add(waited);
        }
    }

    /// Whether a look is on its way.
    pub(crate) fn is_looking(&self) -> bool {
        self.looking
    }

    /// How long the process has waited for a processor during its silence.
    pub(crate) fn starved(&self) -> Duration {
        self.starved
    }

    /// Whether that has become worth a word, and none has been said.
    pub(crate) fn is_news(&mut self, silence: Silence) -> bool {
        let news = !self.told && self.starved >= silence.timeout / 4;
        self.told |= news;
        news
    }
}

#[cfg(test)]
mod tests {
    use prefork_api::ExitReason;

    use super::*;
    use crate::driver::{Driver, policy, signal, worker};
    use crate::{Action, Event, Report};

    /// Lets a silent worker of a fleet of one wait for a processor by this share of
    /// the time; gives how long it lived.
    fn lived_starved(share: f64) -> (Duration, Driver) {
        let mut driver = Driver::ready(policy("web", 1));
        driver.starved = share;
        let begun = driver.now;
        let silent = worker(0, 1);
        while driver.current(0) == silent {
            driver.pass_but(0.01, &[silent]);
            assert!(driver.now.since(begun) < Duration::from_secs(60));
        }
        (driver.now.since(begun), driver)
    }

    #[test]
    fn one_that_waits_for_a_processor_is_given_that_time() {
        let (lived, driver) = lived_starved(0.5);
        // Ten seconds, of which the first five are not known.
        assert!((14.9..15.5).contains(&lived.as_secs_f64()), "{lived:?}");
        assert!(driver.has_reported(|report| matches!(report, Report::Starved { .. })));
    }

    #[test]
    fn the_patience_with_a_machine_that_has_no_time_ends() {
        let (lived, mut driver) = lived_starved(1.0);
        assert!((49.9..50.4).contains(&lived.as_secs_f64()), "{lived:?}");
        driver.exit(worker(0, 1), signal(9));
        assert_eq!(driver.last_reason(0), ExitReason::HeartbeatTimeout);
        let detail = &driver.last_exit(0).detail;
        assert!(detail.contains("waited 45s for a processor"), "{detail}");
    }

    #[test]
    fn one_that_does_not_wait_for_a_processor_is_found_as_ever() {
        let (lived, driver) = lived_starved(0.0);
        assert!((9.9..10.1).contains(&lived.as_secs_f64()), "{lived:?}");
        assert!(!driver.has_reported(|report| matches!(report, Report::Starved { .. })));
    }

    #[test]
    fn a_word_ends_the_silence_and_what_was_known_of_it() {
        let mut driver = Driver::ready(policy("web", 1));
        driver.starved = 1.0;
        let slow = worker(0, 1);
        for _ in 0..10 {
            driver.pass_but(20.0, &[slow]);
            driver.pass(0.1);
        }
        driver.starved = 0.0;
        driver.pass_but(9.9, &[slow]);
        assert_eq!(driver.current(0), slow);
        driver.pass_but(0.3, &[slow]);
        assert_eq!(driver.current(0), worker(0, 2));
    }

    #[test]
    fn it_is_said_once_in_a_silence() {
        let (_, driver) = lived_starved(0.7);
        let said = driver.log.iter().filter(|action| {
            matches!(action, Action::Report(Report::Starved { starved, .. })
                if *starved >= Duration::from_millis(2500))
        });
        assert_eq!(said.count(), 1);
    }

    #[test]
    fn a_boot_that_waits_for_a_processor_is_given_that_time_as_well() {
        let mut driver = Driver::ready(policy("web", 1));
        driver.exit(worker(0, 1), signal(11));
        driver.starved = 0.9;
        driver.pass(100.0);
        assert_eq!(driver.current(0), worker(0, 2));
        driver.pass(51.0);
        assert!(driver.has_done(&Action::Kill {
            worker: worker(0, 2)
        }));
    }

    #[test]
    fn a_supervisor_that_looks_late_kills_nobody_for_that() {
        let mut driver = Driver::ready(policy("web", 1));
        let silent = worker(0, 1);
        driver.now = driver.now.after(Duration::from_secs(14));
        driver.step(Event::Tick);
        assert_eq!(driver.current(0), silent, "it had no chance to be heard");
        driver.pass_but(4.9, &[silent]);
        assert_eq!(driver.current(0), silent);
        driver.pass_but(0.2, &[silent]);
        assert_eq!(
            driver.current(0),
            worker(0, 2),
            "as long as it was looked at"
        );
    }

    #[test]
    fn who_reports_in_time_is_never_looked_at() {
        let mut driver = Driver::ready(policy("web", 4));
        driver.pass(100.0);
        let looks = |action: &Action| matches!(action, Action::Look { .. });
        assert!(!driver.log.iter().any(looks));
    }
}
