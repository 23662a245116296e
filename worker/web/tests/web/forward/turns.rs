//! Who gets a request, and who waits for how long.

use std::os::fd::OwnedFd;

use prefork_proto::message::ToWorker;
use prefork_proto::places::{Ledger, Row, offer};
use serde_json::json;

use super::program::{HELLO, Program, before, front, get, learn, replied, replies_so_far, vacate};

#[test]
fn a_worker_that_has_enough_gets_the_next_when_it_is_done() {
    let (front, programs) = before(json!({}), 1, 1);
    let [mut one, mut other] = [get(&front), get(&front)];
    let mut program = programs[0].accept();
    assert!(program.until("\r\n\r\n").contains("connection: close\r\n"));
    assert!(programs[0].accepts().is_none());
    program.send(HELLO);
    one.response();
    let mut program = programs[0].accept();
    program.until("\r\n\r\n");
    program.send(HELLO);
    other.response();
}

#[test]
fn what_other_fronts_have_is_seen_and_left_when_they_have_it_no_more() {
    let mut ledger = Ledger::create().unwrap();
    let [ours, theirs] = [(); 2].map(|()| ledger.take().unwrap().unwrap());
    let other = Row::map(&offer("shop", theirs), ledger.duplicate().unwrap()).unwrap();
    let program = Program::listen();
    let mut front = front(json!({}));
    hand_over(&mut front, ours, ledger.duplicate().unwrap());
    other.set(1, 1);
    learn(&mut front, 1, &[program.address()]);
    let mut client = get(&front);
    front.in_flight(1);
    assert!(program.accepts().is_none());
    other.set(1, 0);
    let mut taken = program.accept();
    taken.until("\r\n\r\n");
    assert_eq!(other.load(1), 1, "it is seen by others");
    taken.send(HELLO);
    client.response();
    // Its place is free as soon as the program has said everything.
    assert_eq!(other.load(1), 0);
}

fn hand_over(front: &mut prefork_testkit::supervisor::Worker, row: u32, memory: OwnedFd) {
    let places = ToWorker::Places(offer("shop", row));
    front.end.queue_with_fd(&places, memory).unwrap();
    front.end.flush().unwrap();
}

#[test]
fn a_request_for_which_there_is_nobody_waits_for_a_while() {
    let mut front = front(json!({ "queue_timeout": "10s" }));
    let mut client = get(&front);
    front.in_flight(1);
    let program = Program::listen();
    learn(&mut front, 0, &[program.address()]);
    let mut taken = program.accept();
    taken.until("\r\n\r\n");
    taken.send(HELLO);
    assert_eq!(client.response().status, 200);
}

#[test]
fn one_that_waits_for_too_long_or_among_too_many_is_told_to_come_again() {
    let front = front(json!({ "queue_timeout": "50ms" }));
    let late = get(&front).response();
    assert_eq!((late.status, late.header("retry-after")), (503, Some("1")));
    let (mut busy, programs) = before(json!({ "max_queue": 1, "queue_timeout": "10s" }), 1, 1);
    let mut served = get(&busy);
    let mut program = programs[0].accept();
    let mut waits = get(&busy);
    busy.in_flight(2);
    let full = get(&busy).response();
    assert_eq!((full.status, full.header("retry-after")), (503, Some("1")));
    program.until("\r\n\r\n");
    program.send(HELLO);
    served.response();
    let mut next = programs[0].accept();
    next.until("\r\n\r\n");
    next.send(HELLO);
    assert_eq!(waits.response().status, 200);
}

#[test]
fn a_worker_is_left_alone_once_what_it_has_is_done() {
    let (mut front, programs) = before(json!({ "queue_timeout": "50ms" }), 0, 1);
    let mut client = get(&front);
    let mut program = programs[0].accept();
    program.until("\r\n\r\n");
    vacate(&mut front, 900);
    vacate(&mut front, 901);
    assert_eq!(get(&front).response().status, 503, "it gets nothing more");
    assert!(programs[0].accepts().is_none());
    let replies = replies_so_far(&mut front);
    assert!(replies.is_empty(), "it still has something: {replies:?}");
    program.send("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhel");
    client.until("hel");
    program.send("lo");
    assert!(replied(&mut front, 900).ok);
    assert!(replied(&mut front, 901).ok);
    // An idle connection would keep it from leaving.
    assert_eq!(program.rest(), b"");
    vacate(&mut front, 902);
    assert!(replied(&mut front, 902).ok);
}
