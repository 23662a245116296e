//! Instructions of the two hottest paths, counted by callgrind: a request, and
//! a `health` report. Unlike times, they are the same in every run, so that a
//! regression shows on any machine; and as they are compared with those of a
//! bare hyper loop that the same compiler has built, with any compiler.

mod callgrind;

use std::process::Command;

use anyhow::Result;

use crate::bench::Bench;
use crate::figures::Spread;
use crate::report::{Bound, Cell, Report, Table, Target};
use crate::role::Role;

/// What is counted, and what it is in words.
const COUNTED: [(Role, &str); 8] = [
    (Role::Bare, "a request to a bare hyper loop"),
    (
        Role::Worker,
        "a request to a worker of the SDK, everything counted",
    ),
    (
        Role::Peerless,
        "a request to one that does not tell who asks",
    ),
    (Role::Tally, "of that, counting in the scoreboard"),
    (
        Role::Report,
        "a health report, from the worker to the fleet",
    ),
    (Role::CodecChannel, "a large health report, over a channel"),
    (
        Role::CodecBare,
        "a large health report, with derived code alone",
    ),
    (
        Role::Noted,
        "noting a request in a table, as a worker with a supervisor does",
    ),
];

/// The bounds of the two hottest paths, in parts of a request to the bare loop.
/// They are some hundredths above what was measured when they were last set.
const REQUEST_AT_MOST: f64 = 1.26;
const PEERLESS_AT_MOST: f64 = 1.16;
const REPORT_AT_MOST: f64 = 1.12;

pub(super) fn run(bench: &Bench) -> Result<Report> {
    let mut report = Report::default();
    if Command::new("valgrind").arg("--version").output().is_err() {
        report.note("valgrind: not installed");
        report.targets = targets(&[]);
        return Ok(report);
    }
    let (few, many) = bench.pick((500, 5500), (100, 600));
    let mut table = Table::new(
        format!("Instructions in user space, from {few} to {many} repetitions"),
        &["what", "instructions each", "against a bare request"],
    );
    let mut counted: Vec<f64> = Vec::new();
    for (role, what) in COUNTED {
        bench.doing(what);
        let more = callgrind::count(role, many)?.saturating_sub(callgrind::count(role, few)?);
        let each = more as f64 / (many - few) as f64;
        counted.push(each);
        let ratio = Cell::Number(each / counted[0], 3);
        table.row([what.into(), Cell::Number(each, 0), ratio]);
    }
    report.tables.push(table);
    report.note(
        "The kernel's part is not in it: a worker makes the same system calls as the bare loop.",
    );
    report.targets = targets(&counted);
    Ok(report)
}

/// By what was counted, in the order of [`COUNTED`].
fn targets(counted: &[f64]) -> Vec<Target> {
    let ratio = |index: usize| Spread::of([counted.get(index)? / counted[0]]);
    vec![
        Target {
            what: "user instructions per request against a bare hyper loop",
            bound: Bound::AtMost(REQUEST_AT_MOST),
            measured: ratio(1),
        },
        Target {
            what: "the same where requests don't tell who asks",
            bound: Bound::AtMost(PEERLESS_AT_MOST),
            measured: ratio(2),
        },
        Target {
            what: "user instructions per health report against a bare request",
            bound: Bound::AtMost(REPORT_AT_MOST),
            measured: ratio(4),
        },
    ]
}
