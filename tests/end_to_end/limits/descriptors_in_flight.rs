//! A worker leaves as many descriptors unread in sockets as the kernel allows its user,
//! which is the supervisor's: none can be sent to anybody any more.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use prefork_api::ExitReason;

use crate::harness::deadline::{PATIENCE, eventually_some};
use crate::harness::http::get;
use crate::harness::{Pool, Prefork};

/// A user of its own for each test: the kernel counts what is on its way by user.
fn as_user(uid: u32) -> String {
    format!(
        "chown -R {uid} . && ulimit -n 512 && \
         exec setpriv --reuid={uid} --regid={uid} --clear-groups \"$@\""
    )
}

/// A supervisor of these and of a pool whose worker holds all that its user may have on
/// their way; none where this is not root, who alone can become that user.
fn crowded(uid: u32, pool: Pool) -> Option<(Prefork, i32)> {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("SKIPPED: only root can start it as another user");
        return None;
    }
    let hostile = Pool::test_worker("odd", 1);
    let prefork = Prefork::launch_by_script(&as_user(uid), "", &[hostile, pool]);
    prefork.wait_until_ready();
    let holder = prefork.ready_pid("odd", 0);
    prefork.order("odd", 0, b"park");
    prefork.logged(&["nothing more can be parked"]);
    Some((prefork, holder))
}

fn kill_worker(pid: i32) {
    kill(Pid::from_raw(pid), Signal::SIGKILL).expect("it lives");
}

#[test]
fn workers_are_born_and_serve_while_none_can_be_sent() {
    let Some((prefork, _)) = crowded(54_322, Pool::bundled("web", 2)) else {
        return;
    };
    let old = prefork.ready_pid("web", 0);
    kill_worker(old);
    prefork.replaced("web", 0, old);
    // It has all that it counts and prints with, and goes on counting.
    prefork.done(&["restart", "web"]);
    let served = get(prefork.address("web"), "/").expect("it is served");
    assert_eq!(served.status, 200);
}

#[test]
fn one_that_cannot_inherit_waits_and_who_keeps_it_waiting_is_named() {
    let pool = Pool::test_worker("plain", 1).text("boot_timeout", "500ms");
    let Some((prefork, holder)) = crowded(54_323, pool) else {
        return;
    };
    let old = prefork.ready_pid("plain", 0);
    kill_worker(old);
    let named = format!("process {holder}");
    prefork.logged(&["too many descriptors", "ETOOMANYREFS", &named, " plain/0 "]);
    let exit = eventually_some("the certificate says why", PATIENCE, || {
        let exits = prefork.describe("plain", 0).exits;
        exits
            .into_iter()
            .find(|exit| exit.reason == ExitReason::BootTimeout)
    });
    assert!(exit.detail.contains(&named), "{exit:?}");
    let labels = [("pool", "plain"), ("reason", "etoomanyrefs")];
    assert!(prefork.metric("prefork_channel_send_errors_total", &labels) > 0.0);

    // It comes once they are read or closed.
    kill_worker(holder);
    prefork.wait_until_ready();
}
