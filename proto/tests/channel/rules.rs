//! What a peer that breaks a rule gets: a reason, and the end of the link.

use std::io::Write;

use prefork_proto::channel::{ChannelError, LINE_LIMIT, Receive};
use prefork_proto::message::{ToSupervisor, ToWorker};

use crate::peer::{connected, next, settled};

/// Sends `bytes`, closes, and gives the error that the supervisor's end gets.
fn breaks(bytes: &[u8]) -> ChannelError {
    let (mut peer, mut channel) = connected::<ToWorker, ToSupervisor>();
    peer.write_all(b"{\"type\":\"ready\"}\n").unwrap();
    peer.write_all(bytes).unwrap();
    drop(peer);
    assert_eq!(next(&mut channel).message, ToSupervisor::Ready);
    let error = settled(&mut channel).unwrap_err();
    assert!(error.breaks_link());
    assert!(ChannelError::DECODE_REASONS.contains(&error.reason()));
    let after = channel.receive().unwrap();
    assert!(matches!(after, Receive::Closed), "{after:?}");
    error
}

#[test]
fn every_broken_line_has_its_reason() {
    let cases: &[(&[u8], &str)] = &[
        (b"\n", "not_json"),
        (b"hello\n", "not_json"),
        (b"{\"type\":\"ready\"\n", "not_json"),
        (b"{\"type\":\"ready\"}{\"type\":\"ready\"}\n", "not_json"),
        (b"{\"type\":\"ready\",\"x\":\"\xff\"}\n", "not_utf8"),
        (b"[\"ready\",null,0]\n", "not_object"),
        (b"\"ready\"\n", "not_object"),
        (b"null\n", "not_object"),
        (b"{}\n", "no_type"),
        (b"{\"type\":\"\"}\n", "no_type"),
        (b"{\"id\":3,\"ok\":true}\n", "no_type"),
        (b"{\"type\":5}\n", "bad_field"),
        (b"{\"type\":\"ready\",\"type\":\"drained\"}\n", "bad_field"),
        (b"{\"type\":\"bye\"}\n", "bad_field"),
        (b"{\"type\":\"bye\",\"reason\":1}\n", "bad_field"),
        (b"{\"type\":\"reply\",\"id\":-1,\"ok\":true}\n", "bad_field"),
        (b"{\"type\":\"ready\",\"fds\":1}\n", "bad_field"),
        (b"{\"type\":\"novel\",\"fds\":2}\n", "bad_field"),
        (b"{\"type\":\"novel\",\"fds\":1}\n", "fds_missing"),
        (b"{\"type\":\"rea", "truncated"),
        (b"{\"type\":\"ready\"}", "truncated"),
    ];
    for (bytes, reason) in cases {
        let error = breaks(bytes);
        assert_eq!(
            error.reason(),
            *reason,
            "{:?}: {error}",
            String::from_utf8_lossy(bytes)
        );
    }
}

#[test]
fn an_error_says_what_is_wrong_and_where() {
    let error = breaks(b"{\"type\":\"bye\",\"reason\":17}\n").to_string();
    assert!(error.contains("integer `17`"), "{error}");
    let error = breaks(b"{\"type\":\"ready\",\"x\":\"\xff\"}\n").to_string();
    assert!(error.contains("byte 21"), "{error}");
}

#[test]
fn what_the_peer_wrote_is_bounded_and_cannot_forge_a_log_line() {
    let line = format!(
        "{{\"type\":\"bye\",\"reason\":1,\"\\n{}\":2}}\n",
        "y".repeat(9000)
    );
    assert!(breaks(line.as_bytes()).to_string().len() < 1000);
    let line = format!(
        "{{\"type\":\"reply\",\"ok\":\"\\nERROR {}\",\"id\":1}}\n",
        "y".repeat(9000)
    );
    let text = breaks(line.as_bytes()).to_string();
    assert!(text.contains("ERROR yyy"), "{text}");
    assert!(text.len() < 1000 && !text.contains('\n'), "{text}");
}

#[test]
fn a_deeply_nested_line_is_an_error_and_not_a_stack_overflow() {
    let nested = "[".repeat(30_000) + &"]".repeat(30_000);
    let line = format!("{{\"type\":\"reply\",\"id\":1,\"ok\":true,\"data\":{nested}}}\n");
    assert_eq!(breaks(line.as_bytes()).reason(), "not_json");
}

#[test]
fn a_line_over_the_limit_is_found_at_the_limit() {
    let (peer, mut channel) = connected::<ToWorker, ToSupervisor>();
    let mut line = vec![b' '; LINE_LIMIT];
    // Not even a newline has to come: no more than the limit is ever held.
    (&peer).write_all(&line).unwrap();
    let error = settled(&mut channel).unwrap_err();
    assert_eq!(error, ChannelError::LineTooLong);
    assert_eq!(channel.counters().received_bytes, LINE_LIMIT as u64);

    line.push(b'\n');
    assert_eq!(breaks(&line).reason(), "too_long");
    let mut longest = b"{\"type\":\"ready\"}".to_vec();
    longest.resize(LINE_LIMIT - 1, b' ');
    longest.push(b'\n');
    let (mut peer, mut channel) = connected::<ToWorker, ToSupervisor>();
    peer.write_all(&longest).unwrap();
    assert_eq!(next(&mut channel).message, ToSupervisor::Ready);
}
