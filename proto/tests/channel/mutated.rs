//! Lines that are nearly right, with descriptors: each ends in messages or an error that has
//! a name, and no descriptor stays open.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;

use prefork_proto::channel::{ChannelError, Receive};
use prefork_proto::message::{Message, ToSupervisor, ToWorker};
use prefork_testkit::mutate::mutate;
use serde_json::Value;

use crate::peer::{connected, send_with, settled};

/// The messages that the schema has as examples, each as its line.
fn corpus(lines: &[&str]) -> Vec<Vec<u8>> {
    let whole = |line: &&str| {
        serde_json::from_str::<Value>(line).expect("an example is JSON");
        format!("{line}\n").into_bytes()
    };
    let mut corpus: Vec<Vec<u8>> = lines.iter().map(whole).collect();
    corpus.push(corpus.concat());
    corpus
}

/// Sends these bytes with as many descriptors as the first one says, and hears what comes
/// of them.
fn receive<Out: Message, In: Message>(bytes: &[u8]) {
    let (peer, mut channel) = connected::<Out, In>();
    let (mut end, sent) = io::pipe().expect("a pipe");
    let sent = File::from(OwnedFd::from(sent));
    let count = usize::from(bytes.first().copied().unwrap_or_default() % 3);
    let at = bytes.len() / 2;
    for (piece, fds) in [(&bytes[..at], count), (&bytes[at..], 1)] {
        if !piece.is_empty() {
            send_with(&peer, piece, &vec![&sent; fds]).expect("there is room");
        }
    }
    drop((peer, sent));
    loop {
        match settled(&mut channel) {
            Ok(Receive::Closed) => break,
            Ok(Receive::Blocked) => panic!("it is closed and blocks"),
            Ok(_) => {}
            Err(error) => {
                let reason = error.reason();
                assert!(ChannelError::DECODE_REASONS.contains(&reason), "{reason}");
            }
        }
    }
    drop(channel);
    // Its writers have all gone.
    assert_eq!(end.read(&mut [0]).expect("it is a pipe"), 0);
}

#[test]
fn lines_of_a_worker_that_are_nearly_right_are_judged_and_leave_no_descriptor() {
    let corpus = corpus(&[
        r#"{"type":"hello","protocol":1,"pid":7,"program":"p","version":"1","capabilities":["tell"]}"#,
        r#"{"type":"health","seq":3,"in_flight":1,"connections":2,"loop_lag_us":40,"status":"ok"}"#,
        r#"{"type":"reply","id":9,"ok":false,"error":{"code":"failed","message":"no"}}"#,
        r#"{"type":"reply","id":9,"ok":true,"data":{"a":[1,2,{"b":null}]}}"#,
        r#"{"type":"metrics","families":[{"name":"a_total","help":"h","type":"counter","samples":[{"labels":{"a":"b"},"value":1.5}]}]}"#,
        r#"{"type":"rejoin","fds":1,"pool":"web","slot":0,"generation":1,"incarnation":4,"secret":"s"}"#,
        r#"{"type":"listener","fds":1,"name":"http","address":"127.0.0.1:80","tls":false}"#,
        r#"{"type":"bye","reason":"max_requests"}"#,
    ]);
    mutate(14, 4_000, &corpus, receive::<ToWorker, ToSupervisor>);
}

#[test]
fn lines_of_a_supervisor_that_are_nearly_right_are_judged_and_leave_no_descriptor() {
    let corpus = corpus(&[
        r#"{"type":"welcome","protocol":1,"pool":"web","slot":0,"generation":1,"incarnation":4,"heartbeat_ms":1000,"app":{"a":1},"rejoin":null}"#,
        r#"{"type":"scoreboard","fds":1,"abi":1,"bytes":4096}"#,
        r#"{"type":"listener","fds":1,"name":"http","address":"127.0.0.1:80","tls":false,"proxy_protocol":true}"#,
        r#"{"type":"tell","id":18446744073709551615,"command":"c","args":{"a":[]}}"#,
        r#"{"type":"drain","id":4,"deadline_ms":30000}"#,
        r#"{"type":"ping","id":1}"#,
    ]);
    mutate(15, 4_000, &corpus, receive::<ToSupervisor, ToWorker>);
}
