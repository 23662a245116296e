//! The same by a program that is not ours: `wrk` counts socket errors and
//! answers other than 2xx and 3xx.

use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::harness::deadline::{PATIENCE, eventually};
use crate::harness::processes;

/// A running `wrk`.
pub(crate) struct Wrk {
    child: Child,
}

/// What it counted.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Answers of any kind.
    pub(crate) requests: u64,
    /// Connects, reads, writes that failed, and answers that came too late.
    pub(crate) socket_errors: u64,
    /// How many of which, in wrk's words.
    pub(crate) kinds: String,
    /// Answers that are neither 2xx nor 3xx.
    pub(crate) not_2xx: u64,
}

impl Wrk {
    /// Keep-alive connections until it is stopped, for this long at most; `None` where there is no `wrk`,
    /// and then says so.
    pub(crate) fn start(address: SocketAddr, connections: u32, long: Duration) -> Option<Self> {
        let mut command = Command::new("wrk");
        command
            .arg("-t1")
            .arg(format!("-c{connections}"))
            .arg(format!("-d{}s", long.as_secs()))
            .arg(format!("http://{address}/"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        match command.spawn() {
            Ok(child) => Some(Self { child }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                eprintln!("SKIPPED: load by wrk, which is not installed");
                None
            }
            Err(error) => panic!("{error}: {command:?}"),
        }
    }

    /// Whether it still asks.
    pub(crate) fn asks(&mut self) -> bool {
        self.child.try_wait().expect("wrk is our child").is_none()
    }

    /// Ends it, if it has not come to its end, and reads what it counted.
    #[track_caller]
    pub(crate) fn stop(mut self) -> Counts {
        let pid = i32::try_from(self.child.id()).expect("a pid is an i32");
        eventually("wrk ends at SIGINT", PATIENCE, || {
            // Until it has started its threads it ignores the signal.
            let asks = self.asks();
            if asks {
                processes::send(pid, Signal::SIGINT);
            }
            !asks
        });
        let mut text = String::new();
        let stdout = self.child.stdout.as_mut().expect("stdout is piped");
        std::io::Read::read_to_string(stdout, &mut text).expect("wrk writes text");
        let status = self.child.wait().expect("wrk is our child");
        assert!(status.success(), "{status}: {text}");
        parse(&text).unwrap_or_else(|| panic!("not what wrk writes: {text}"))
    }
}

impl Drop for Wrk {
    fn drop(&mut self) {
        // Of no effect where it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn parse(text: &str) -> Option<Counts> {
    let mut counts = Counts::default();
    let mut requests = None;
    for line in text.lines().map(str::trim) {
        if let Some(rest) = line.strip_prefix("Socket errors: ") {
            counts.kinds = rest.to_owned();
            for part in rest.split(", ") {
                counts.socket_errors += part.split(' ').nth(1)?.parse::<u64>().ok()?;
            }
        } else if let Some(rest) = line.strip_prefix("Non-2xx or 3xx responses: ") {
            counts.not_2xx = rest.parse().ok()?;
        } else if let Some((number, _)) = line.split_once(" requests in ") {
            requests = number.parse().ok();
        }
    }
    counts.requests = requests?;
    Some(counts)
}

#[test]
fn what_wrk_counts_is_read() {
    let text = "Running 1s test @ http://127.0.0.1:1/\n  1 threads and 2 connections\n  \
        1234 requests in 1.00s, 1.00MB read\n  \
        Socket errors: connect 1, read 2, write 3, timeout 4\n  \
        Non-2xx or 3xx responses: 5\nRequests/sec: 1234.00\n";
    let wanted = Counts {
        requests: 1234,
        socket_errors: 10,
        kinds: "connect 1, read 2, write 3, timeout 4".to_owned(),
        not_2xx: 5,
    };
    assert_eq!(parse(text), Some(wanted));
    assert_eq!(parse("unable to connect"), None);
}
