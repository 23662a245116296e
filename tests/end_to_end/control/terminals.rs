//! A supervisor that runs on a terminal: what job control sends is no order.

use std::fs::{self, File, OpenOptions};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;

use nix::fcntl::OFlag;
use nix::pty::{PtyMaster, grantpt, posix_openpt, ptsname_r, unlockpt};
use nix::sys::signal::Signal;

use crate::harness::deadline::{PATIENCE, eventually, eventually_some};
use crate::harness::{Pool, Prefork, processes};

/// Leaves the supervisor's process id in a file.
const NOTE: &str = "echo $! > pid.new; mv pid.new pid";

/// The two ends of a terminal, neither of which any process inherits: it is closed
/// when the test closes its end.
pub(crate) fn terminal() -> (PtyMaster, OwnedFd) {
    let flags = OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    let ours = posix_openpt(flags).expect("there are pseudo-terminals");
    grantpt(&ours).expect("it is ours");
    unlockpt(&ours).expect("it is ours");
    let path = ptsname_r(&ours).expect("it has a name");
    let theirs = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NOCTTY)
        .open(path);
    (ours, theirs.expect("it is unlocked").into())
}

#[track_caller]
fn supervisor(prefork: &Prefork) -> i32 {
    let file = prefork.dir().join("pid");
    eventually_some("it was started", PATIENCE, || {
        fs::read_to_string(&file).ok()?.trim().parse().ok()
    })
}

/// Clock ticks that a process has run.
fn ticks(pid: i32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("it lives");
    let (_, rest) = stat.rsplit_once(')').expect("its name is in parentheses");
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let time = |at: usize| fields[at].parse::<u64>().expect("a number");
    time(11) + time(12)
}

#[test]
fn in_the_background_of_a_terminal_that_takes_nothing_from_there_it_writes_and_serves() {
    let script = format!("stty tostop; set -m; \"$@\" & {NOTE}; wait");
    let pool = Pool::bundled("web", 3);
    let (shown, terminal) = terminal();
    let prefork = Prefork::launch_in_terminal(&script, &terminal, shown, "", &[pool]);
    let supervisor = supervisor(&prefork);
    prefork.wait_until_ready();
    prefork.logged(&["web/2", "ready"]);
    assert_eq!(prefork.pool("web").desired, 3, "nobody asked for fewer");
    let before = ticks(supervisor);
    for _ in 0..20 {
        prefork.done(&["scale", "web", "3"]);
    }
    // A loop that spins has all of a processor, and ten seconds are 1,000 ticks.
    let spent = ticks(supervisor) - before;
    assert!(spent < 200, "it took {spent} clock ticks");
    // What a process asks for is an order still.
    processes::send(supervisor, Signal::SIGTTOU);
    eventually("it has one fewer", PATIENCE, || {
        prefork.pool("web").desired == 2
    });
}

/// Closes the terminal, and sees what comes of it.
#[track_caller]
fn hangs_up(script: &str) {
    let (ours, terminal) = terminal();
    let nothing = File::open("/dev/null").expect("it is there");
    let log = "log = \"supervisor.log\"";
    let pool = Pool::bundled("web", 1);
    let prefork = Prefork::launch_in_terminal(script, &terminal, nothing, log, &[pool]);
    let supervisor = supervisor(&prefork);
    prefork.wait_until_ready();
    let worker = prefork.ready_pid("web", 0);
    drop(ours);
    let log = prefork.dir().join("supervisor.log");
    eventually("it has noticed", PATIENCE, || {
        let log = fs::read_to_string(&log).unwrap_or_default();
        log.contains("the terminal is gone")
    });
    prefork.done(&["scale", "web", "1"]);
    assert_eq!(prefork.ready_pid("web", 0), worker);
    assert_eq!(prefork.status().generation, 1);
    // An operator's is a reload still.
    processes::send(supervisor, Signal::SIGHUP);
    eventually("it has reloaded", PATIENCE, || {
        prefork.status().generation == 2
    });
}

#[test]
fn a_terminal_that_is_closed_is_no_order_to_reload() {
    hangs_up(&format!("\"$@\" & {NOTE}; wait"));
}

#[test]
fn a_shell_that_passes_the_hangup_on_gives_no_order_to_reload() {
    let script = "set -m; \"$@\" & p=$!; echo $p > pid.new; mv pid.new pid; \
                  trap 'kill -HUP $p; exit' HUP; while :; do wait; done";
    hangs_up(script);
}
