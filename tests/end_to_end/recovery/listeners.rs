//! The supervisor is killed, and somebody has its listeners who does not give
//! them back.

use std::net::TcpListener;

use nix::sys::signal::Signal;
use prefork_api::{ExitReason, SlotState};

use crate::harness::deadline::{PATIENCE, eventually, eventually_some};
use crate::harness::{Pool, Prefork, http, processes};

/// Returns when the supervisor takes orders: its socket's file was there before it.
#[track_caller]
fn answers(prefork: &Prefork) {
    eventually("the control socket answers", PATIENCE, || {
        http::get_unix(&prefork.control_socket(), "/v1/status").is_ok()
    });
}

#[test]
fn a_worker_that_comes_back_without_a_listener_that_it_holds_keeps_nobody_from_starting() {
    let mut prefork = Prefork::start(&[Pool::test_worker("web", 1), Pool::service("api", 1)]);
    prefork.order_boot("web", "withhold");
    prefork.done(&["restart", "web"]);
    let (old, other) = (prefork.ready_pid("web", 0), prefork.ready_pid("api", 0));
    let address = prefork.address("web");
    prefork.clear_boot("web");
    prefork.killed();
    prefork.start_again();
    answers(&prefork);
    prefork.replaced("web", 0, old);
    processes::gone(old);
    assert_eq!(prefork.address("web"), address);
    let answer = http::get(address, "/").expect("it is served");
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(prefork.ready_pid("api", 0), other);
    let exit = prefork.certificate("web", 0, old);
    assert_eq!(exit.reason, ExitReason::ProtocolError, "{exit:?}");
}

#[test]
fn a_pool_whose_address_was_taken_meanwhile_waits_and_the_others_are_taken_over() {
    let mut prefork = Prefork::start(&[Pool::service("api", 1), Pool::service("web", 1)]);
    let (lost, other) = (prefork.ready_pid("web", 0), prefork.ready_pid("api", 0));
    let address = prefork.address("web");
    prefork.killed();
    // Its only holder goes as well, and somebody else takes the port.
    processes::send(lost, Signal::SIGKILL);
    let taken = eventually_some("the port is free", PATIENCE, || {
        TcpListener::bind(address).ok()
    });
    prefork.start_again();
    answers(&prefork);
    assert_eq!(prefork.ready_pid("api", 0), other);
    eventually("the other pool waits", PATIENCE, || {
        prefork.worker("web", 0).state == SlotState::Backoff
    });
    let us = format!("(pid {})", std::process::id());
    prefork.logged(&["cannot listen on", &us]);
    drop(taken);
    prefork.ready_pid("web", 0);
    let answer = http::get(address, "/").expect("it is served");
    assert_eq!(answer.status, 200, "{answer:?}");
}
