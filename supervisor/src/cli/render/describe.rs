//! `prefork describe`.

use prefork_api::{ChannelStatus, Describe, Exit, WorkerRequest};

use super::thread_dump::thread_dump;
use super::{ago, exit_words, requests, state_style};
use crate::cli::table::{Align, Cell, Style, Table};
use crate::cli::units::{bytes, seconds};
use crate::sanitize::{harmless, one_line};

/// One slot: what it is, its channel, its last exits.
pub(in crate::cli) fn describe(describe: &Describe, now: f64, color: bool) -> String {
    let mut out = format!("{}/{}\n", one_line(&describe.pool), describe.worker.slot);
    out.push_str(&facts(worker(describe), color));
    out.push_str("\nchannel\n");
    out.push_str(&facts(channel(&describe.channel, now), color));
    if let Some(running) = &describe.requests {
        out.push_str(&requests_now(running, describe.requests_unlisted, color));
    }
    if describe.exits.is_empty() {
        out.push_str("\nno exits yet\n");
    } else {
        out.push_str("\nlast exits, newest first\n");
    }
    for exit in &describe.exits {
        out.push_str(&certificate(exit, now, color));
    }
    out
}

/// What its processes are serving.
fn requests_now(running: &[WorkerRequest], unlisted: u64, color: bool) -> String {
    let mut out = match running.is_empty() {
        true => "\nno requests are being served\n".to_owned(),
        false => "\nrequests, oldest first\n".to_owned(),
    };
    for running in running {
        let line = requests::one(&running.request);
        out.push_str(&format!("  pid {}: {}\n", running.pid, one_line(&line)));
    }
    if unlisted > 0 {
        let line = format!("  and {unlisted} that there was no room to note\n");
        out.push_str(&Style::Faint.paint(&line, color));
    }
    out
}

type Fact = (&'static str, Cell);

/// A line per fact, indented and aligned.
fn facts(facts: Vec<Fact>, color: bool) -> String {
    let mut table = Table::new([("", Align::Left), ("", Align::Left), ("", Align::Left)]);
    for (name, value) in facts {
        table.row(["".into(), Cell::styled(name, Style::Faint), value]);
    }
    // Without the line of the heading, which is empty.
    table.render(color).trim_start_matches('\n').to_owned()
}

fn worker(describe: &Describe) -> Vec<Fact> {
    let worker = &describe.worker;
    let mut facts = vec![
        (
            "state",
            Cell::styled(worker.state.as_str(), state_style(worker.state)),
        ),
        ("pid", Cell::or_dash(worker.pid)),
        ("program", program(describe).into()),
        ("says it is", Cell::or_dash(describe.hello.as_deref())),
        ("can", describe.capabilities.join(", ").into()),
        ("generation", Cell::or_dash(worker.generation)),
        ("incarnation", worker.incarnation.into()),
        ("uptime", Cell::or_dash(worker.uptime_seconds.map(seconds))),
        ("restarts", worker.restarts.into()),
        ("crashes", worker.crashes.into()),
        ("in flight", worker.in_flight.into()),
        ("connections", worker.connections.into()),
        ("requests", Cell::or_dash(worker.requests)),
        ("memory", Cell::or_dash(worker.resident_bytes.map(bytes))),
    ];
    if !worker.status.is_empty() {
        facts.push(("status", Cell::from(&worker.status)));
    }
    if let Some(upstream) = &worker.upstream {
        facts.push(("upstream", Cell::from(upstream)));
    }
    if let Some(wait) = worker.backoff_seconds {
        facts.push(("next start in", seconds(wait).into()));
    }
    for old in &worker.draining {
        let words = format!(
            "pid {} of generation {}, {} in flight",
            old.pid, old.generation, old.in_flight
        );
        facts.push(("draining", words.into()));
    }
    facts
}

fn channel(channel: &ChannelStatus, now: f64) -> Vec<Fact> {
    let both = |sent: u64, received: u64| Cell::from(format!("{sent} sent, {received} received"));
    vec![
        ("up", if channel.up { "yes" } else { "no" }.into()),
        (
            "messages",
            both(channel.messages_sent, channel.messages_received),
        ),
        (
            "bytes",
            Cell::from(format!(
                "{} sent, {} received",
                bytes(channel.sent_bytes),
                bytes(channel.received_bytes)
            )),
        ),
        (
            "descriptors",
            Cell::from(format!(
                "{} sent, {} received, {} rejected",
                channel.fds_sent, channel.fds_received, channel.fds_rejected
            )),
        ),
        (
            "errors",
            Cell::from(format!(
                "{} decoding, {} sending",
                channel.decode_errors, channel.send_errors
            )),
        ),
        ("queue", bytes(channel.send_queue_bytes).into()),
        (
            "round trip",
            Cell::or_dash(channel.round_trip_seconds.map(seconds)),
        ),
        (
            "heartbeat",
            Cell::or_dash(channel.last_heartbeat_at.map(|at| ago(now, at))),
        ),
        ("missed", channel.heartbeats_missed.into()),
    ]
}

/// A death certificate, with the worker's last words set off.
fn certificate(exit: &Exit, now: f64, color: bool) -> String {
    let served = exit
        .served()
        .map_or_else(String::new, |served| format!("served {served} requests, "));
    let mut out = format!(
        "  #{} pid {}: {}, {}; lived {}, {served}took {} at most\n",
        exit.incarnation,
        exit.pid,
        Style::Bad.paint(&exit_words(exit), color),
        ago(now, exit.at),
        seconds(exit.uptime_seconds),
        bytes(exit.peak_memory_bytes),
    );
    if !exit.detail.is_empty() {
        out.push_str(&format!("     {}\n", one_line(&exit.detail)));
    }
    for request in &exit.in_flight {
        let line = requests::one(request);
        out.push_str(&format!("     in flight: {}\n", one_line(&line)));
    }
    if exit.in_flight_unlisted > 0 {
        let more = exit.in_flight_unlisted;
        out.push_str(&format!("     in flight: {more} more\n"));
    }
    if let Some(dump) = &exit.thread_dump {
        out.push_str(&thread_dump(dump, "     "));
    }
    for line in harmless(exit.stderr.trim_end()).lines() {
        out.push_str(&format!("     | {line}\n"));
    }
    out
}

/// The command line, and whether the file is still what runs.
fn program(describe: &Describe) -> String {
    let mut shown = describe.program.join(" ");
    if let Some(difference) = &describe.on_disk {
        shown.push_str(&format!(" ({difference})"));
    }
    shown
}

#[cfg(test)]
mod tests {
    use prefork_api::{
        ExitReason, RequestStage, RunningRequest, SlotState, StackFrame, ThreadDump, ThreadStack,
        WorkerStatus,
    };

    use super::*;

    fn request(target: &str) -> RunningRequest {
        RunningRequest {
            method: "GET".to_owned(),
            target: target.to_owned(),
            client: Some("192.0.2.7:80".to_owned()),
            id: None,
            stage: RequestStage::Working,
            age_ms: 500,
            sent_bytes: 0,
        }
    }

    fn dump() -> ThreadDump {
        let frame = |function: Option<&str>, source: Option<&str>| StackFrame {
            address: "0x7f00".to_owned(),
            function: function.map(str::to_owned),
            source: source.map(str::to_owned),
            module: Some("shop".to_owned()),
        };
        ThreadDump {
            threads: vec![ThreadStack {
                pid: 4712,
                tid: 4712,
                name: "shop".to_owned(),
                state: "S".to_owned(),
                wchan: Some("hrtimer_nanosleep".to_owned()),
                syscall: Some("clock_nanosleep".to_owned()),
                frames: vec![
                    frame(None, None),
                    frame(Some("sleep"), None),
                    frame(Some("shop::pay\n"), Some("src/pay.rs:7")),
                ],
            }],
            further_threads: 2,
            lacks: vec!["source lines: no debug information in libc.so.6".to_owned()],
        }
    }

    fn document() -> Describe {
        Describe {
            pool: "web".to_owned(),
            worker: WorkerStatus {
                slot: 0,
                state: SlotState::Ready,
                pid: Some(4713),
                generation: Some(3),
                incarnation: 6,
                uptime_seconds: Some(12.0),
                restarts: 5,
                crashes: 1,
                in_flight: 4,
                connections: 32,
                requests: Some(8812),
                resident_bytes: Some(4_300_000),
                status: String::new(),
                upstream: None,
                backoff_seconds: None,
                draining: vec![],
                last_exit: None,
            },
            program: vec!["/usr/bin/shop".to_owned(), "--fast".to_owned()],
            program_on_disk: None,
            on_disk: None,
            hello: Some("shop 1.2".to_owned()),
            capabilities: vec!["tell".to_owned(), "pause".to_owned()],
            channel: ChannelStatus {
                pool: "web".to_owned(),
                slot: 0,
                up: true,
                messages_sent: 14,
                messages_received: 15,
                sent_bytes: 900,
                received_bytes: 2048,
                fds_sent: 1,
                fds_received: 0,
                fds_rejected: 0,
                decode_errors: 0,
                send_errors: 0,
                send_queue_bytes: 0,
                round_trip_seconds: Some(0.000_04),
                last_heartbeat_at: Some(999.5),
                heartbeats_missed: 0,
            },
            exits: vec![Exit {
                reason: ExitReason::Signal,
                code: None,
                signal: Some(9),
                pid: 4712,
                generation: 3,
                incarnation: 5,
                at: 988.0,
                uptime_seconds: 41.0,
                requests: 5120,
                uncounted: false,
                peak_memory_bytes: 5_242_880,
                detail: String::new(),
                stderr: "thread panicked\n\x1b[2Jbye\n".to_owned(),
                in_flight: vec![request("/died")],
                in_flight_unlisted: 2,
                thread_dump: Some(Box::new(dump())),
            }],
            requests: Some(vec![WorkerRequest {
                pool: "web".to_owned(),
                slot: 0,
                pid: 4713,
                request: request("/lives"),
            }]),
            requests_unlisted: 1,
        }
    }

    #[test]
    fn a_slot_tells_its_whole_story() {
        assert_eq!(
            describe(&document(), 1000.0, false),
            "\
web/0
  state        ready
  pid          4713
  program      /usr/bin/shop --fast
  says it is   shop 1.2
  can          tell, pause
  generation   3
  incarnation  6
  uptime       12s
  restarts     5
  crashes      1
  in flight    4
  connections  32
  requests     8812
  memory       4.1 MiB

channel
  up           yes
  messages     14 sent, 15 received
  bytes        900 B sent, 2.0 KiB received
  descriptors  1 sent, 0 received, 0 rejected
  errors       0 decoding, 0 sending
  queue        0 B
  round trip   40µs
  heartbeat    0.5s ago
  missed       0

requests, oldest first
  pid 4713: GET /lives from 192.0.2.7:80, working, 0.5s old
  and 1 that there was no room to note

last exits, newest first
  #5 pid 4712: signal 9 (SIGKILL), 12s ago; lived 41s, served 5120 requests, took 5.0 MiB at most
     in flight: GET /died from 192.0.2.7:80, working, 0.5s old
     in flight: 2 more
     thread 4712 (shop): state S, system call clock_nanosleep, wchan hrtimer_nanosleep
       at 0x7f00 [shop]
       at sleep [shop]
       at shop::pay\\n (src/pay.rs:7)
     2 more threads
     not known: source lines: no debug information in libc.so.6
     | thread panicked
     | \\u{1b}[2Jbye
"
        );
    }
}
