//! The words of readiness: one sentence for every probe, command and page, and one order
//! of workers.

use prefork_api::{PoolStatus, Readiness, SlotState, Status};

/// How the service is, in one word or two.
pub(crate) fn word(status: &Status) -> &'static str {
    match status.stopping {
        true => "stopping",
        false => status.readiness().as_str(),
    }
}

/// Whether clients are to be sent here.
pub(crate) fn serves(status: &Status) -> bool {
    !status.stopping && status.readiness().serves()
}

/// The same with what is missing: `degraded: pool web: 15 of 16 workers ready`.
pub(crate) fn sentence(status: &Status) -> String {
    let readiness = status.readiness();
    let word = word(status);
    if status.stopping || readiness == Readiness::Ready {
        return word.to_owned();
    }
    let short: Vec<String> = status.pools.iter().filter_map(shortage).collect();
    let fails = |pool: &PoolStatus| readiness_of(pool) == Readiness::NotReady;
    let starts = readiness == Readiness::NotReady && !status.pools.iter().any(fails);
    let starting = starts.then(|| "it starts".to_owned());
    let why: Vec<String> = starting.into_iter().chain(short).collect();
    format!("{word}: {}", why.join("; "))
}

/// How far a pool is ready; a supervisor that doesn't tell has it lack what it wants.
pub(crate) fn readiness_of(pool: &PoolStatus) -> Readiness {
    let whole = match pool.ready < pool.desired {
        true => Readiness::NotReady,
        false => Readiness::Ready,
    };
    pool.readiness.unwrap_or(whole)
}

/// Where a worker stands in a list that has those in trouble first.
pub(crate) fn rank(state: SlotState) -> u8 {
    match state {
        SlotState::Backoff => 0,
        SlotState::Starting => 1,
        SlotState::Stopping | SlotState::Draining => 2,
        SlotState::Paused => 3,
        SlotState::Ready => 4,
        SlotState::Empty => 5,
    }
}

/// What a pool lacks: nothing where it lacks nothing.
fn shortage(pool: &PoolStatus) -> Option<String> {
    let PoolStatus {
        name,
        ready,
        desired,
        paused,
        ..
    } = pool;
    let readiness = readiness_of(pool);
    if readiness == Readiness::Ready {
        return None;
    }
    let mut words = format!("pool {name}: {ready} of {desired} workers ready");
    if *paused > 0 {
        words.push_str(&format!(", {paused} paused"));
    }
    let needed = pool.needed.filter(|needed| *needed > 1);
    if let (Readiness::NotReady, Some(needed)) = (readiness, needed) {
        words.push_str(&format!(", {needed} needed"));
    }
    Some(words)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::fake::status;

    /// A status with `ready` of 16 workers, by what the fleet makes of it.
    fn of_16(ready: u32, readiness: Readiness) -> Status {
        let mut status = status(16, ready);
        status.readiness = Some(readiness);
        status.pools[0].readiness = Some(readiness);
        status
    }

    #[test]
    fn what_is_missing_is_said_with_the_word() {
        let mut status = of_16(15, Readiness::Degraded);
        let short = "degraded: pool web: 15 of 16 workers ready";
        assert_eq!(sentence(&status), short);
        assert!(serves(&status));
        status.pools[0].paused = 1;
        assert_eq!(sentence(&status), format!("{short}, 1 paused"));
        status.stopping = true;
        assert_eq!(
            (sentence(&status).as_str(), serves(&status)),
            ("stopping", false)
        );
    }

    #[test]
    fn a_quorum_that_is_missed_says_how_many_it_takes() {
        let mut status = of_16(11, Readiness::NotReady);
        status.pools[0].needed = Some(12);
        assert_eq!(
            sentence(&status),
            "not ready: pool web: 11 of 16 workers ready, 12 needed"
        );
        assert!(!serves(&status));
        status.pools[0].ready = 0;
        status.pools[0].needed = Some(1);
        assert_eq!(
            sentence(&status),
            "not ready: pool web: 0 of 16 workers ready"
        );
    }

    #[test]
    fn pools_that_serve_in_a_service_that_does_not_are_those_of_a_start() {
        let mut status = of_16(3, Readiness::NotReady);
        status.pools[0].readiness = Some(Readiness::Degraded);
        assert_eq!(
            sentence(&status),
            "not ready: it starts; pool web: 3 of 16 workers ready"
        );
    }

    #[test]
    fn a_supervisor_that_knows_only_ready_is_understood() {
        let mut status = status(2, 1);
        assert_eq!(
            sentence(&status),
            "not ready: pool web: 1 of 2 workers ready"
        );
        status.ready = true;
        assert_eq!(sentence(&status), "ready");
    }
}
