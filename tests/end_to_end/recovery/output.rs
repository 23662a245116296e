//! What workers print while their supervisor is killed: nothing breaks by it,
//! and nothing is lost.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

use nix::sys::signal::Signal;

use crate::harness::deadline::{PATIENCE, eventually};
use crate::harness::http::{Connection, get};
use crate::harness::{Pool, Prefork, processes};

const WORKERS: u32 = 2;
const STREAMS: [&str; 2] = ["out", "err"];

/// A file that all supervisors of a test log to, one after the other.
const LOG: &str = "all.log";

/// A supervisor that logs to [`LOG`].
fn logging(pools: &[Pool]) -> Prefork {
    let prefork = Prefork::launch_with(&format!("log = {LOG:?}"), pools);
    prefork.wait_until_ready();
    prefork
}

fn log(prefork: &Prefork) -> String {
    fs::read_to_string(prefork.dir().join(LOG)).expect("it is logged to")
}

/// How often each word follows `stream: ` in the log.
fn printed(log: &str, stream: &str) -> BTreeMap<String, u32> {
    let mut words = BTreeMap::new();
    for line in log.lines() {
        let marker = format!(" {stream}: ");
        if let Some((_, rest)) = line.split_once(&marker) {
            let word = rest.split(' ').next().unwrap_or(rest);
            *words.entry(word.to_owned()).or_default() += 1;
        }
    }
    words
}

/// Waits until so many words are in the log, as long as it grows: a busy machine takes
/// its time for what has been printed.
#[track_caller]
fn all_logged(prefork: &Prefork, stream: &str, count: u64) {
    let logged = || printed(&log(prefork), stream).len() as u64;
    let mut seen = logged();
    while seen < count {
        let what = format!("more than {seen} of {count} lines are logged");
        eventually(&what, PATIENCE, || logged() > seen);
        seen = logged();
    }
}

/// Clients that have every request print a number of its own, and never retry.
struct Printers {
    stop: Arc<AtomicBool>,
    next: Arc<AtomicU64>,
    clients: Vec<JoinHandle<Result<(), String>>>,
}

impl Printers {
    fn start(address: SocketAddr, clients: usize) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let next = Arc::new(AtomicU64::new(0));
        let clients = (0..clients).map(|_| {
            let (stop, next) = (Arc::clone(&stop), Arc::clone(&next));
            std::thread::spawn(move || print(address, &stop, &next))
        });
        Self {
            clients: clients.collect(),
            stop,
            next,
        }
    }

    /// Returns when `more` requests have been begun.
    fn print(&self, more: u64) {
        let wanted = self.next.load(Ordering::Relaxed) + more;
        eventually("requests go on being served", PATIENCE, || {
            let broken = self.clients.iter().any(JoinHandle::is_finished);
            broken || self.next.load(Ordering::Relaxed) >= wanted
        });
    }

    /// Ends them: how many numbers have been printed. Panics if a request broke.
    fn stop(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        let ends = self.clients.into_iter().map(|it| it.join());
        let broken: Vec<String> = ends
            .filter_map(|end| end.expect("clients don't panic").err())
            .collect();
        assert!(broken.is_empty(), "{broken:#?}");
        self.next.load(Ordering::Relaxed)
    }
}

fn print(address: SocketAddr, stop: &AtomicBool, next: &AtomicU64) -> Result<(), String> {
    let mut connection = Connection::open(address).map_err(|error| error.to_string())?;
    while !stop.load(Ordering::Relaxed) {
        let number = next.fetch_add(1, Ordering::Relaxed);
        match connection.get(&format!("/print/{number}")) {
            Ok(answer) if answer.status == 200 => {}
            Ok(answer) => return Err(format!("{number}: status {}", answer.status)),
            Err(error) => return Err(format!("{number}: {error}")),
        }
    }
    Ok(())
}

#[test]
fn no_request_that_prints_breaks_and_no_line_is_lost_when_the_supervisor_is_killed_often() {
    let mut prefork = logging(&[Pool::service("web", WORKERS)]);
    let workers = prefork.ready_pids("web");
    let printers = Printers::start(prefork.address("web"), 8);
    let kills = if std::env::var_os("PREFORK_TEST_FULL").is_some() {
        100
    } else {
        10
    };
    for _ in 0..kills {
        printers.print(200);
        prefork.killed();
        printers.print(100);
        prefork.ready_again();
        assert_eq!(prefork.ready_pids("web"), workers);
    }
    let count = printers.stop();
    for stream in STREAMS {
        all_logged(&prefork, stream, count);
    }
    let log = log(&prefork);
    assert!(!log.contains("dropped"), "{log}");
    for stream in STREAMS {
        let words = printed(&log, stream);
        for number in 0..count {
            assert!(
                words.contains_key(&number.to_string()),
                "{stream}: {number}"
            );
        }
        assert_eq!(words.len() as u64, count, "there are no halves of lines");
        // A line that was being logged when the supervisor was killed is logged
        // again, since nobody knows how far that had come.
        let again: u32 = words.values().map(|times| times - 1).sum();
        assert!(again <= kills * WORKERS, "{again} lines came twice");
    }
}

/// What a reader may have been told to take out when it dies, in bytes.
const IN_FLIGHT: usize = 16 * 1024;

#[test]
fn no_line_is_lost_when_the_process_that_reads_them_is_killed_often() {
    let prefork = logging(&[Pool::service("web", WORKERS)]);
    let printers = Printers::start(prefork.address("web"), 8);
    let kills = 20;
    let mut last = None;
    for _ in 0..kills {
        printers.print(100);
        eventually("another one reads", PATIENCE, || {
            let readers = readers_of(prefork.pid());
            let new = readers.iter().copied().find(|pid| Some(*pid) != last);
            last = new.or(last);
            new.is_some_and(|reader| {
                processes::send(reader, Signal::SIGKILL);
                true
            })
        });
    }
    let count = printers.stop();
    for stream in STREAMS {
        all_logged(&prefork, stream, count);
        let words = printed(&log(&prefork), stream);
        assert_eq!(words.len() as u64, count, "there are no halves of lines");
        let again = words.iter().map(|(word, times)| {
            let line = stream.len() + ": ".len() + word.len() + 1;
            (*times as usize - 1) * line
        });
        let again: usize = again.sum();
        assert!(again <= kills * IN_FLIGHT, "{again} bytes came twice");
    }
}

/// The processes that read for a supervisor.
fn readers_of(supervisor: i32) -> Vec<i32> {
    let children = fs::read_to_string(format!("/proc/{supervisor}/task/{supervisor}/children"));
    let children = children.expect("the supervisor lives");
    let children = children.split_ascii_whitespace().flat_map(str::parse);
    children
        .filter(|pid: &i32| {
            let words = fs::read_to_string(format!("/proc/{pid}/cmdline"));
            words.is_ok_and(|words| words.contains("read-output"))
        })
        .collect()
}

#[test]
fn what_is_printed_without_a_supervisor_is_logged_and_kept_for_the_certificate() {
    let mut prefork = Prefork::start(&[Pool::service("web", 1)]);
    let address = prefork.address("web");
    for word in ["pear", "plum"] {
        prefork.killed();
        let answer = get(address, &format!("/print/{word}")).expect("it serves on");
        assert_eq!(answer.status, 200);
        prefork.ready_again();
        prefork.logged(&[&format!("out: {word}")]);
        prefork.logged(&[&format!("err: {word}")]);
    }
    let old = prefork.ready_pid("web", 0);
    processes::send(old, Signal::SIGKILL);
    prefork.replaced("web", 0, old);
    let exit = &prefork.describe("web", 0).exits[0];
    assert!(exit.stderr.contains("err: plum"), "{exit:?}");
    assert!(!exit.stderr.contains("err: pear"), "{exit:?}");
}

#[test]
fn the_last_words_of_a_worker_that_hangs_are_taken_from_it() {
    let mut prefork = Prefork::start(&[Pool::service("web", 1)]);
    let (address, hung) = (prefork.address("web"), prefork.ready_pid("web", 0));
    prefork.signal(Signal::SIGSTOP);
    get(address, "/print/pear").expect("it serves on");
    processes::send(hung, Signal::SIGSTOP);
    prefork.killed();
    prefork.ready_again();
    for words in ["out: pear", "err: pear"] {
        prefork.logged(&[words, &format!("pid={hung} ")]);
    }
    let exit = &prefork.describe("web", 0).exits[0];
    assert!(exit.stderr.contains("err: pear"), "{exit:?}");
}

/// How many lines of `/print-lines` are far more than any pipe holds.
const MANY: u32 = 50_000;

#[test]
fn a_worker_that_prints_more_than_its_pipe_holds_serves_on_and_says_what_was_dropped() {
    let mut prefork = logging(&[Pool::service("web", 1)]);
    let address = prefork.address("web");
    let worker = prefork.ready_pid("web", 0);
    for _ in 0..2 {
        prefork.killed();
        let before = log(&prefork).len();
        let answer = get(address, &format!("/print-lines/{MANY}")).expect("it serves on");
        assert_eq!(answer.status, 200);
        prefork.ready_again();
        assert_eq!(prefork.ready_pid("web", 0), worker);
        let last = format!("line: {} ", MANY - 1);
        eventually("the last line is logged", PATIENCE, || {
            let log = &log(&prefork)[before..];
            log.contains(&last) && log.contains("bytes of what was printed")
        });
        let log = &log(&prefork)[before..];
        let lines = log.lines().filter(|line| line.contains("xx"));
        let lines: Vec<u32> = lines
            .map(|line| {
                let (_, rest) = line.split_once(" line: ").expect("it is whole");
                let mut words = rest.split(' ');
                let (number, filling) = (words.next(), words.next());
                assert_eq!(filling.map(str::len), Some(80), "no line is cut: {rest}");
                number.and_then(|it| it.parse().ok()).expect("it is whole")
            })
            .collect();
        // The newest are there, and more of them than a pipe holds by itself.
        assert!(lines.is_sorted_by(|a, b| a + 1 == *b), "{lines:?}");
        assert!(lines.len() > 1000, "{}", lines.len());
    }
}

#[test]
fn a_worker_that_waits_for_its_reader_goes_on_when_that_is_killed() {
    let mut prefork = logging(&[Pool::service("web", 1)]);
    let address = prefork.address("web");
    let worker = prefork.ready_pid("web", 0);
    prefork.signal(Signal::SIGSTOP);
    let request = std::thread::spawn(move || get(address, &format!("/print-lines/{MANY}")));
    eventually("it waits to print", PATIENCE, || {
        let waits = fs::read_to_string(format!("/proc/{worker}/wchan"));
        waits.is_ok_and(|place| place.contains("pipe_write"))
    });
    prefork.killed();
    let answer = request.join().expect("clients don't panic");
    assert_eq!(answer.expect("it is served").status, 200);
    prefork.ready_again();
    assert_eq!(prefork.ready_pid("web", 0), worker);
    let last = format!("line: {} ", MANY - 1);
    eventually("the last line is logged", PATIENCE, || {
        log(&prefork).contains(&last)
    });
}

#[test]
fn a_worker_that_prints_as_it_starts_leaves_with_the_supervisor() {
    let pool = Pool::service_with("web", &["--print-for-ever", "0"], 1);
    let mut prefork = Prefork::launch(&[pool]);
    prefork.logged(&["still starting"]);
    prefork.killed();
    eventually("nobody is left", PATIENCE, || {
        prefork.processes().is_empty()
    });
}
