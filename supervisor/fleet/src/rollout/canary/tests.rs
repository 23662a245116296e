use super::*;
use crate::driver::{Driver, code, plan, policy, signal, worker};
use crate::{Ask, Canary, Command, Event, Fate, Policy, Snapshot};

/// A pool of four, and a reload that judges one of them for 60 s by 100 requests.
fn judged(terms: Canary) -> (Driver, JobId) {
    let mut driver = Driver::ready(policy("web", 4));
    let job = reload(&mut driver, policy("web", 4), terms);
    driver.say_ready(worker(0, 2));
    (driver, job)
}

fn terms() -> Canary {
    Canary {
        duration: Duration::from_secs(60),
        min_requests: 100,
        ..Canary::default()
    }
}

fn reload(driver: &mut Driver, policy: Policy, terms: Canary) -> JobId {
    let mut plan = plan(2, vec![policy]);
    plan.pools[0].canary = Some(terms);
    driver.reload(plan)
}

/// So many seconds in each of which the canary and each of three others serve ten
/// requests, of which it fails `failed`.
fn serve(driver: &mut Driver, seconds: u32, failed: u64) {
    for _ in 0..seconds {
        driver.serve(worker(0, 2), 10, failed);
        for slot in 1..4 {
            driver.serve(worker(slot, 1), 10, 0);
        }
        driver.pass(1.0);
    }
}

fn verdicts(driver: &Driver) -> Vec<Verdict> {
    let reports = driver.log.iter().filter_map(|action| match action {
        Action::Report(Report::CanaryEnded { verdict, .. }) => Some(*verdict),
        _ => None,
    });
    reports.collect()
}

#[test]
fn nothing_else_is_replaced_before_a_canary_has_passed() {
    let (mut driver, job) = judged(terms());
    assert!(driver.drains(worker(0, 1)) && driver.fleet.is_ready());
    serve(&mut driver, 59, 0);
    assert_eq!(driver.booting(), [0; 0]);
    assert_eq!(driver.result(job), None);
    serve(&mut driver, 2, 0);
    assert_eq!(verdicts(&driver), [Verdict::Passed]);
    for slot in 1..4 {
        assert_eq!(driver.booting(), [slot]);
        driver.say_ready(worker(slot, 2));
    }
    assert!(driver.is_done(job));
    assert_eq!(driver.reloaded(), [(2, true, "")]);
}

#[test]
fn one_that_fails_more_is_undone_with_both_rates() {
    let (mut driver, job) = judged(terms());
    serve(&mut driver, 12, 3);
    assert_eq!(verdicts(&driver), [Verdict::Failed]);
    let restored = worker(0, 3);
    driver.say_ready(restored);
    let why = driver.failure(job).0;
    assert!(
        why.starts_with("web: canary: failed, 30.0 % 5xx against 0.0 %, "),
        "{why}"
    );
    assert!(why.ends_with("; generation 1 stays in force"), "{why}");
    assert!(driver.drains(worker(0, 2)) && !driver.drains(worker(1, 1)));
    assert_eq!((driver.current(0), driver.generation(0)), (restored, 1));
    driver.exit(worker(0, 2), code(0));
    assert_eq!(driver.reloaded().len(), 1);
}

#[test]
fn an_old_generation_that_fails_as_much_lets_it_pass() {
    let (mut driver, job) = judged(terms());
    for _ in 0..61 {
        for incumbent in [worker(0, 2), worker(1, 1), worker(2, 1), worker(3, 1)] {
            driver.serve(incumbent, 10, 3);
        }
        driver.pass(1.0);
    }
    assert_eq!(verdicts(&driver), [Verdict::Passed]);
    assert_eq!(driver.result(job), None);
}

#[test]
fn one_that_is_slower_than_allowed_is_undone() {
    let (mut driver, _) = judged(terms());
    for _ in 0..61 {
        driver.serve(worker(0, 2), 9, 0);
        let slow = driver.served.get_mut(&worker(0, 2)).unwrap();
        slow.requests += 1;
        slow.durations[2] += 1;
        for slot in 1..4 {
            driver.serve(worker(slot, 1), 10, 0);
        }
        driver.pass(1.0);
    }
    assert_eq!(verdicts(&driver), [Verdict::Failed]);
    let words = driver.log.iter().find_map(|action| match action {
        Action::Report(Report::CanaryEnded { message, .. }) => Some(message.as_str()),
        _ => None,
    });
    assert!(
        words.unwrap().contains("slow ones against 0.0 %"),
        "{words:?}"
    );
}

#[test]
fn where_too_little_was_served_it_is_as_configured() {
    for (otherwise, passes) in [(NoVerdict::Proceed, true), (NoVerdict::Undo, false)] {
        let (mut driver, job) = judged(Canary {
            on_no_verdict: otherwise,
            ..terms()
        });
        serve(&mut driver, 5, 0);
        driver.pass(60.0);
        assert_eq!(verdicts(&driver), [Verdict::None]);
        assert_eq!(driver.booting() == [1], passes);
        if !passes {
            driver.say_ready(worker(0, 3));
            let why = driver.failure(job).0;
            assert!(why.contains("no verdict, it takes 100 requests"), "{why}");
        }
    }
}

#[test]
fn an_operator_who_promotes_has_the_reload_go_on_and_waits_for_it() {
    let (mut driver, job) = judged(terms());
    serve(&mut driver, 1, 0);
    let promotion = driver.command(Command::Promote);
    assert_eq!(verdicts(&driver), [Verdict::Promoted]);
    for slot in 1..4 {
        assert_eq!(driver.result(promotion), None);
        driver.say_ready(worker(slot, 2));
    }
    assert!(driver.is_done(promotion) && driver.is_done(job));
    let late = driver.command(Command::Promote);
    assert!(driver.failure(late).0.contains("no canary is being judged"));
}

#[test]
fn an_operator_who_aborts_is_told_that_it_is_undone() {
    let (mut driver, job) = judged(terms());
    let abortion = driver.command(Command::Abort);
    assert_eq!(driver.result(abortion), None);
    driver.say_ready(worker(0, 3));
    let told = driver.result(abortion).unwrap().as_ref().unwrap();
    assert!(told.ends_with("generation 1 stays in force"), "{told}");
    assert!(driver.failure(job).0.contains("aborted by hand"));
    assert_eq!(verdicts(&driver), [Verdict::Aborted]);
    let late = driver.command(Command::Abort);
    let why = driver.failure(late).0;
    assert!(why.contains("being rolled back"), "{why}");
}

#[test]
fn before_it_is_up_it_can_be_promoted_and_aborted_as_well() {
    for promoted in [true, false] {
        let mut driver = Driver::ready(policy("web", 2));
        reload(&mut driver, policy("web", 2), terms());
        let command = if promoted {
            Command::Promote
        } else {
            Command::Abort
        };
        let job = driver.command(command);
        if promoted {
            driver.say_ready(worker(0, 2));
            driver.say_ready(worker(1, 2));
            assert_eq!(driver.reloaded(), [(2, true, "")]);
        }
        assert!(driver.is_done(job), "{promoted}");
    }
}

#[test]
fn other_commands_are_refused_with_the_way_out() {
    let (mut driver, _) = judged(terms());
    let pool = "web".to_owned();
    let scale = driver.command(Command::Scale { pool, workers: 7 });
    let why = driver.failure(scale).0;
    assert!(why.contains("`promote` or `abort`"), "{why}");
}

#[test]
fn a_canary_that_crashes_is_undone_at_once() {
    let (mut driver, job) = judged(terms());
    serve(&mut driver, 3, 0);
    driver.exit(worker(0, 2), signal(11));
    assert_eq!(verdicts(&driver), [Verdict::Failed]);
    driver.say_ready(worker(0, 3));
    let why = driver.failure(job).0;
    assert!(
        why.starts_with("web/0: pid 1002 was ended by signal 11"),
        "{why}"
    );
    assert!(
        why.contains("canary: 0.0 % 5xx against 0.0 %, 30 requests"),
        "{why}"
    );
    assert_eq!(driver.generation(0), 1);
}

#[test]
fn one_that_is_killed_by_hand_is_judged_on_by_its_successor() {
    let (mut driver, _) = judged(terms());
    serve(&mut driver, 3, 0);
    let (pool, slot) = ("web".to_owned(), 0);
    driver.command(Command::Kill { pool, slot });
    driver.exit(worker(0, 2), signal(9));
    assert_eq!((driver.current(0), driver.generation(0)), (worker(0, 3), 2));
    driver.say_ready(worker(0, 3));
    driver.serve(worker(0, 3), 70, 0);
    serve(&mut driver, 58, 0);
    assert_eq!(verdicts(&driver), [Verdict::Passed]);
}

#[test]
fn one_that_outgrows_max_rss_is_undone() {
    let mut limited = policy("web", 2);
    limited.max_rss = Some(1 << 20);
    let mut driver = Driver::ready(limited.clone());
    reload(&mut driver, limited, terms());
    driver.say_ready(worker(0, 2));
    driver.step(Event::Memory {
        worker: worker(1, 1),
        resident: 2 << 20,
    });
    assert_eq!(verdicts(&driver), []);
    driver.step(Event::Memory {
        worker: worker(0, 2),
        resident: 3 << 20,
    });
    assert_eq!(verdicts(&driver), [Verdict::Failed]);
}

#[test]
fn a_worker_without_others_is_judged_by_itself_and_comes_to_no_verdict() {
    let mut driver = Driver::ready(policy("web", 1));
    reload(&mut driver, policy("web", 1), terms());
    driver.say_ready(worker(0, 2));
    for _ in 0..61 {
        driver.serve(worker(0, 2), 10, 0);
        driver.pass(1.0);
    }
    assert_eq!(verdicts(&driver), [Verdict::None]);
}

#[test]
fn as_many_begin_as_are_asked_for_whatever_max_surge_is() {
    let mut driver = Driver::ready(policy("web", 4));
    let three = Canary {
        workers: 3,
        ..terms()
    };
    reload(&mut driver, policy("web", 4), three);
    assert_eq!(driver.booting(), [0, 1, 2]);
    let mut wide = policy("web", 4);
    wide.max_surge = 4;
    let mut driver = Driver::ready(policy("web", 4));
    reload(&mut driver, wide, terms());
    assert_eq!(driver.booting(), [0]);
}

#[test]
fn a_pool_without_a_canary_waits_for_the_others() {
    let mut driver = Driver::start_pools(1, vec![policy("web", 2), policy("api", 1)]);
    let api = |incarnation| Worker {
        pool: PoolId(1),
        ..worker(0, incarnation)
    };
    for up in [worker(0, 1), worker(1, 1), api(1)] {
        driver.say_ready(up);
    }
    driver.pass(2.0);
    let mut plan = plan(2, vec![policy("web", 2), policy("api", 1)]);
    plan.pools[0].canary = Some(terms());
    let job = driver.reload(plan);
    driver.say_ready(worker(0, 2));
    let coming = |driver: &Driver| {
        let slot = driver.fleet.pool(PoolId(1)).unwrap().slot(0).unwrap();
        slot.successor().is_some()
    };
    assert!(!coming(&driver));
    driver.command(Command::Promote);
    assert!(coming(&driver));
    driver.say_ready(api(2));
    driver.say_ready(worker(1, 2));
    assert!(driver.is_done(job));
}

#[test]
fn a_pool_that_stays_as_it_is_has_no_canary() {
    let mut driver = Driver::ready(policy("web", 2));
    let mut plan = plan(2, vec![policy("web", 2)]);
    plan.pools[0].canary = Some(terms());
    plan.pools[0].fate = Fate::Kept;
    let job = driver.reload(plan);
    assert!(driver.is_done(job));
    assert_eq!(driver.booting(), [0; 0]);
}

#[test]
fn settings_that_are_taken_in_place_are_judged_and_taken_back() {
    let mut driver = Driver::ready(policy("web", 3));
    let mut plan = plan(2, vec![policy("web", 3)]);
    plan.pools[0].canary = Some(terms());
    plan.pools[0].fate = Fate::InPlace;
    driver.reload(plan);
    let answer = |driver: &mut Driver, generation| {
        driver.step(Event::Answered {
            worker: worker(0, 1),
            ask: Ask::Reload { generation },
            result: Ok(()),
        });
    };
    driver.serve(worker(0, 1), 1000, 0);
    answer(&mut driver, 2);
    for _ in 0..8 {
        driver.serve(worker(0, 1), 10, 4);
        driver.serve(worker(1, 1), 10, 0);
        driver.serve(worker(2, 1), 10, 0);
        driver.pass(1.0);
    }
    assert_eq!(verdicts(&driver), [Verdict::Failed]);
    answer(&mut driver, 1);
    assert_eq!((driver.current(0), driver.generation(0)), (worker(0, 1), 1));
    assert_eq!(driver.reloaded().len(), 1);
}

#[test]
fn a_stop_in_the_middle_ends_it() {
    let (mut driver, job) = judged(terms());
    driver.command(Command::Stop { now: false });
    assert_eq!(driver.failure(job).0, "the supervisor is stopping");
    driver.pass(120.0);
    assert_eq!(verdicts(&driver), []);
}

#[test]
fn a_supervisor_that_goes_on_in_the_middle_undoes_it() {
    let (mut driver, _) = judged(terms());
    let text = serde_json::to_string(&driver.fleet.snapshot()).unwrap();
    assert!(!text.contains("canary"), "older supervisors read that");
    let snapshot: Snapshot = serde_json::from_str(&text).unwrap();
    let policies = [("web".to_owned(), policy("web", 4))].into();
    driver.fleet = Fleet::restore(driver.now, 7, snapshot, &policies);
    let actions = driver.fleet.resume(driver.now);
    driver.take(actions);
    assert!(!driver.fleet.has_canaries());
    driver.say_ready(worker(0, 3));
    assert!(driver.drains(worker(0, 2)) && driver.fleet.is_uniform());
}

#[test]
fn how_it_stands_is_seen_and_said_all_the_while() {
    let (mut driver, job) = judged(terms());
    serve(&mut driver, 1, 3);
    serve(&mut driver, 12, 0);
    let view = driver.fleet.pool(PoolId(0)).unwrap().canary().unwrap();
    let [old, new] = view.traffic();
    assert_eq!(view.workers(), 1);
    assert_eq!((old.requests, old.failed), (390, 0));
    assert_eq!((new.requests, new.failed), (130, 3));
    let said = driver.log.iter().filter(|action| {
        matches!(action, Action::Progress { job: it, message, .. }
            if *it == job && message.contains("% 5xx against"))
    });
    assert!(said.count() >= 2);
}
