//! How long a slot waits after a failure before it starts another process.
//!
//! The first failure costs no wait: one crash of a healthy service is mended
//! in milliseconds. Those that follow wait `backoff_initial`, doubling to
//! `backoff_max`, each drawn between the half and the whole so that slots
//! that fail together do not start together. With 100 ms and 30 s, a program
//! that ends at once is started nine times in its first ten seconds at most.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::interface::Time;
use crate::policy::Policy;

/// The failures in a row of one slot.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Backoff {
    failures: u32,
    /// Until when a successor that nobody waits for has to wait.
    not_before: Time,
}

impl Backoff {
    /// A process of the slot has done well, or an operator wants a fresh start.
    pub(crate) fn reset(&mut self) {
        *self = Self::default();
    }

    /// Whether the slot's last process failed.
    pub(crate) fn failing(&self) -> bool {
        self.failures > 0
    }

    /// The time before which nothing is to be started for a recycle.
    pub(crate) fn not_before(&self) -> Time {
        self.not_before
    }

    /// Counts the end of the slot's current process, which had been ready for
    /// `ready_for`. Returns the wait before the next start, `None` for none.
    pub(crate) fn crashed(
        &mut self,
        now: Time,
        ready_for: Option<Duration>,
        policy: &Policy,
        rng: &mut fastrand::Rng,
    ) -> Option<Duration> {
        if ready_for.is_some_and(|ready| ready >= policy.backoff_reset) {
            self.reset();
        }
        if self.failures == 0 {
            self.failures = 1;
            return None;
        }
        Some(self.failed(now, policy, rng))
    }

    /// Counts a failure that is never worth another try at once: no process
    /// could be made, or a successor failed while its predecessor serves.
    pub(crate) fn failed(
        &mut self,
        now: Time,
        policy: &Policy,
        rng: &mut fastrand::Rng,
    ) -> Duration {
        self.failures = self.failures.saturating_add(1).max(2);
        let longest = 1_u32
            .checked_shl(self.failures - 2)
            .and_then(|factor| policy.backoff_initial.checked_mul(factor))
            .unwrap_or(policy.backoff_max)
            .min(policy.backoff_max);
        let delay = longest.mul_f64(0.5 + rng.f64() / 2.0);
        self.not_before = now.after(delay);
        delay
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::driver::policy;

    const T0: Time = Time(Duration::ZERO);

    #[test]
    fn the_first_crash_costs_no_wait_and_the_next_ones_double() {
        let policy = policy("web", 1);
        for seed in 0..200 {
            let mut rng = fastrand::Rng::with_seed(seed);
            let mut backoff = Backoff::default();
            assert_eq!(backoff.crashed(T0, None, &policy, &mut rng), None);
            for k in 0..20 {
                let delay = backoff.crashed(T0, None, &policy, &mut rng).unwrap();
                let longest = (policy.backoff_initial * (1 << k)).min(policy.backoff_max);
                assert!(delay <= longest, "attempt {k}: {delay:?} over {longest:?}");
                assert!(delay >= longest / 2, "attempt {k}: {delay:?} under half");
            }
        }
    }

    #[test]
    fn a_worker_that_was_ready_long_enough_ends_the_crash_loop() {
        let policy = policy("web", 1);
        let mut rng = fastrand::Rng::with_seed(1);
        let mut backoff = Backoff::default();
        for _ in 0..6 {
            backoff.crashed(T0, None, &policy, &mut rng);
        }
        let nearly = policy.backoff_reset - Duration::from_millis(1);
        assert!(
            backoff
                .crashed(T0, Some(nearly), &policy, &mut rng)
                .is_some()
        );
        let enough = Some(policy.backoff_reset);
        assert_eq!(backoff.crashed(T0, enough, &policy, &mut rng), None);
        let again = backoff.crashed(T0, None, &policy, &mut rng).unwrap();
        assert!(again <= policy.backoff_initial);
    }

    #[test]
    fn a_failed_spawn_waits_from_the_first_time_on() {
        let policy = policy("web", 1);
        let mut rng = fastrand::Rng::with_seed(1);
        let mut backoff = Backoff::default();
        let delay = backoff.failed(T0, &policy, &mut rng);
        assert!(delay >= policy.backoff_initial / 2);
        assert!(delay <= policy.backoff_initial);
        assert_eq!(backoff.not_before(), T0.after(delay));
    }

    #[test]
    fn a_crash_loop_of_days_still_waits_no_longer_than_the_maximum() {
        let policy = policy("web", 1);
        let mut rng = fastrand::Rng::with_seed(1);
        let mut backoff = Backoff::default();
        for _ in 0..10_000 {
            backoff.crashed(T0, None, &policy, &mut rng);
        }
        let delay = backoff.crashed(T0, None, &policy, &mut rng).unwrap();
        assert!(delay <= policy.backoff_max && delay >= policy.backoff_max / 2);
    }
}
