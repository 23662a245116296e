//! The policy on one page: what each state of a slot makes of each event, written down
//! by driving the fleet (`docs/states.md`), so that a change of policy shows there.

use std::fmt::Write;
use std::path::Path;

use crate::driver::{Driver, code, plan, policy, signal, worker};
use crate::{Action, Ask, Command, Event, Policy, PoolId, Report, Worker};

/// Regenerates the page instead of comparing it.
const UPDATE: &str = "PREFORK_UPDATE_STATES";

/// The slot that is looked at, and the worker in it.
const SLOT: u32 = 1;
const SUBJECT: Worker = Worker {
    slot: SLOT,
    ..SIBLING
};
const SIBLING: Worker = Worker {
    pool: PoolId(0),
    slot: 0,
    incarnation: 1,
};

/// A state, and how a fleet with two slots comes to have one of them in it.
type State = (&'static str, fn() -> Driver);

/// An event, and how it comes to be.
type Cause = (&'static str, fn(&mut Driver));

const STATES: [State; 7] = [
    ("starting", || {
        let mut driver = Driver::ready(policy("web", 1));
        scale(&mut driver, 2);
        driver
    }),
    ("ready", ready),
    ("paused", || {
        let mut driver = ready();
        driver.command(Command::Pause {
            pool: "web".to_owned(),
            slot: SLOT,
        });
        driver.step(Event::Answered {
            worker: SUBJECT,
            ask: Ask::Pause,
            result: Ok(()),
        });
        driver
    }),
    ("ready, its successor starting", || {
        let mut driver = ready();
        restart(&mut driver);
        driver
    }),
    ("draining", draining),
    ("stopping", || {
        let mut driver = draining();
        driver.pass_but(30.0, &[SUBJECT]);
        driver
    }),
    ("backoff", || {
        let mut driver = ready();
        driver.exit(SUBJECT, code(1));
        driver.exit(worker(SLOT, 2), code(1));
        driver
    }),
];

const CAUSES: [Cause; 19] = [
    ("it says `ready`", |driver| {
        driver.say_ready(SUBJECT);
    }),
    ("it says `drained`", |driver| {
        driver.step(Event::Drained { worker: SUBJECT });
    }),
    ("it breaks the protocol", |driver| {
        let rule = "a rule".to_owned();
        driver.step(Event::Misbehaved {
            worker: SUBJECT,
            rule,
        });
    }),
    ("it exits with 0", |driver| {
        driver.exit(SUBJECT, code(0));
    }),
    ("it exits with 1", |driver| {
        driver.exit(SUBJECT, code(1));
    }),
    ("a signal ends it", |driver| {
        driver.exit(SUBJECT, signal(11));
    }),
    ("its successor says `ready`", |driver| {
        driver.say_ready(worker(SLOT, 2));
    }),
    ("its successor exits with 1", |driver| {
        driver.exit(worker(SLOT, 2), code(1));
    }),
    ("5 s pass", |driver| driver.pass(5.5)),
    ("10 s pass without a word of it", |driver| {
        driver.pass_but(10.5, &[SUBJECT, worker(SLOT, 2)]);
    }),
    ("30 s pass", |driver| driver.pass(30.5)),
    ("`prefork restart`", restart),
    ("`prefork pause`", |driver| {
        let (pool, slot) = ("web".to_owned(), SLOT);
        driver.command(Command::Pause { pool, slot });
    }),
    ("`prefork resume`", |driver| {
        let (pool, slot) = ("web".to_owned(), SLOT);
        driver.command(Command::Resume { pool, slot });
    }),
    ("`prefork drain`", |driver| {
        let (pool, slot) = ("web".to_owned(), SLOT);
        driver.command(Command::Drain { pool, slot });
    }),
    ("`prefork kill`", |driver| {
        let (pool, slot) = ("web".to_owned(), SLOT);
        driver.command(Command::Kill { pool, slot });
    }),
    ("`prefork scale` takes the slot away", |driver| {
        scale(driver, 1);
    }),
    ("`prefork reload`", |driver| {
        let all_at_once = Policy {
            max_surge: 2,
            ..policy("web", 2)
        };
        driver.reload(plan(2, vec![all_at_once]));
    }),
    ("`prefork stop`", |driver| {
        driver.command(Command::Stop { now: false });
    }),
];

fn ready() -> Driver {
    Driver::ready(policy("web", 2))
}

fn restart(driver: &mut Driver) {
    driver.command(Command::Restart {
        pool: "web".to_owned(),
        slot: Some(SLOT),
    });
}

fn draining() -> Driver {
    let mut driver = ready();
    scale(&mut driver, 1);
    driver
}

fn scale(driver: &mut Driver, workers: u32) {
    let pool = "web".to_owned();
    driver.command(Command::Scale { pool, workers });
}

/// What the slot is after a cause, and what the fleet has had done to it.
fn effect(state: &State, cause: &Cause) -> Option<(String, String)> {
    let mut driver = state.1();
    let (before, seen) = (snapshot(&driver), driver.log.len());
    cause.1(&mut driver);
    let done: Vec<String> = driver.log[seen..].iter().filter_map(words).collect();
    let after = snapshot(&driver);
    (!done.is_empty() || after != before).then(|| (after, done.join(", ")))
}

fn snapshot(driver: &Driver) -> String {
    let pool = driver.fleet.pool(PoolId(0));
    let slot = pool.and_then(|pool| pool.slot(SLOT));
    let Some(slot) = slot else {
        return "gone".to_owned();
    };
    match slot.successor() {
        Some(_) => format!("{}, its successor starting", slot.state().as_str()),
        None => slot.state().as_str().to_owned(),
    }
}

/// An action in words, if it is about the slot.
fn words(action: &Action) -> Option<String> {
    let who = |worker: &Worker| match worker.incarnation {
        _ if worker.slot != SLOT => None,
        1 => Some("it"),
        _ => Some("its successor"),
    };
    let said = |verb: &str, worker| who(worker).map(|who| format!("{verb} {who}"));
    match action {
        Action::Spawn { worker, paused, .. } if worker.slot == SLOT => Some(match paused {
            true => "start a successor on probation".to_owned(),
            false => "start a successor".to_owned(),
        }),
        Action::Drain { worker, .. } => said("drain", worker),
        Action::Ask { worker, ask, .. } => match ask {
            Ask::Pause => said("pause", worker),
            Ask::Resume => said("resume", worker),
            Ask::Reload { .. } => said("reload", worker),
        },
        Action::Stop { worker } => said("stop", worker),
        Action::Abort { worker } => said("abort", worker),
        Action::Kill { worker } => said("kill", worker),
        Action::Finish { result: Err(_), .. } => Some("an order fails".to_owned()),
        Action::Report(Report::BackingOff { worker, .. }) if worker.slot == SLOT => {
            Some("wait".to_owned())
        }
        _ => None,
    }
}

fn page() -> String {
    let mut page = String::from(
        "# What becomes of a slot\n\n\
         Written by the fleet itself (`supervisor/fleet/src/state_table.rs`): two slots, of which one is looked at. \
         *Its successor* is the slot's next process. Events of which nothing comes are left out. \
         `kill_timeout` is 5 s, `heartbeat_timeout` 10 s, `boot_timeout` and `drain_timeout` are 30 s, and the first wait \
         after a crash is a tenth of a second; where time passes, everybody reports who is not said to be silent.\n",
    );
    for state in &STATES {
        let _ = write!(
            page,
            "\n## {}\n\n| when | it is then | and what is done |\n|---|---|---|\n",
            state.0
        );
        for cause in &CAUSES {
            if let Some((after, done)) = effect(state, cause) {
                let _ = writeln!(page, "| {} | {after} | {done} |", cause.0);
            }
        }
    }
    page
}

#[test]
#[allow(clippy::disallowed_methods)] // The page is a file, written anew with the policy.
fn the_page_of_states_is_what_the_fleet_does() {
    for (name, build) in &STATES {
        assert_eq!(snapshot(&build()), *name, "how it is made");
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/states.md");
    if std::env::var_os(UPDATE).is_some() {
        std::fs::write(&path, page()).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        written == page(),
        "docs/states.md is not what the fleet does: {UPDATE}=1 cargo test -p prefork-fleet states writes it anew"
    );
}
