//! A scoreboard between two processes, of which one may be hostile or killed.
#![allow(clippy::unwrap_used)]

use std::fs::{self, File};
use std::io::{Seek, SeekFrom, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use std::{env, thread};

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, FcntlArg, SealFlag, fallocate, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::unistd::ftruncate;
use prefork_proto::channel::{self, Receive, SupervisorEnd, WorkerEnd};
use prefork_proto::message::{
    CHANNEL_FD_ENV, DURATION_BOUNDS, Reply, ScoreboardOffer, ToSupervisor, ToWorker,
};
use prefork_proto::scoreboard::{self, ABI, BYTES, Board, ScoreboardError, Tally, Unsealed};
use serde_json::{Value, json};

const DEADLINE: Duration = Duration::from_secs(20);

fn offer() -> ScoreboardOffer {
    ScoreboardOffer {
        abi: ABI,
        bytes: BYTES,
        fds: 1,
    }
}

/// Counts a little of everything.
fn count(tally: &Tally) {
    tally.accepted();
    tally.connections(3);
    tally.request_began();
    tally.request_began();
    tally.received(100);
    tally.answered(200, Duration::from_micros(400));
    tally.answered(404, Duration::from_secs(20));
    tally.sent(2000);
    tally.request_ended();
}

fn check_counted(board: &Board) {
    let seen = board.read();
    assert_eq!(seen.http.requests, [0, 1, 0, 1, 0]);
    assert_eq!(seen.http.accepted, 1);
    assert_eq!(seen.http.received_bytes, 100);
    assert_eq!(seen.http.sent_bytes, 2000);
    assert_eq!(seen.http.duration_buckets[0], 1);
    assert_eq!(seen.http.duration_buckets[DURATION_BOUNDS.len()], 1);
    assert_eq!(seen.http.duration_sum_us, 20_000_400);
    assert_eq!((seen.in_flight, seen.connections), (1, 3));
}

#[test]
fn what_is_counted_on_one_side_is_read_on_the_other() {
    let (unsealed, theirs) = scoreboard::create().unwrap();
    let tally = Tally::map(&offer(), theirs).unwrap();
    assert!(tally.memory().is_some());
    count(&tally);
    let board = unsealed.seal().unwrap();
    check_counted(&board);
    assert_eq!(board.read().http, tally.totals());
    tally.answered(200, Duration::ZERO);
    assert_eq!(board.read().http.requests, [0, 2, 0, 1, 0]);
}

#[test]
fn bytes_may_be_counted_by_many_threads() {
    let (unsealed, theirs) = scoreboard::create().unwrap();
    let tally = Tally::map(&offer(), theirs).unwrap();
    let board = unsealed.seal().unwrap();
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..10_000).for_each(|_| tally.sent(3)));
        }
    });
    assert_eq!(board.read().http.sent_bytes, 4 * 10_000 * 3);
}

/// A next supervisor gets the memory from the one before it, or from the worker.
#[test]
fn a_board_is_adopted_with_all_that_was_counted() {
    let (unsealed, theirs) = scoreboard::create().unwrap();
    let tally = Tally::map(&offer(), theirs).unwrap();
    count(&tally);
    let first = unsealed.seal().unwrap();
    let handed_on = first.as_fd().try_clone_to_owned().unwrap();
    drop(first);
    check_counted(&Board::adopt(handed_on).unwrap());
    let handed_back = tally.memory().unwrap().try_clone_to_owned().unwrap();
    check_counted(&Board::adopt(handed_back).unwrap());
}

#[test]
fn what_no_supervisor_made_is_not_adopted() {
    let file = OwnedFd::from(File::open("/dev/null").unwrap());
    let error = Board::adopt(file).unwrap_err();
    assert!(matches!(error, ScoreboardError::System(_)), "{error}");

    let memory = |size: u64, seals: SealFlag| {
        let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
        let memory = memfd_create(c"test", flags).unwrap();
        ftruncate(&memory, i64::try_from(size).unwrap()).unwrap();
        fcntl(&memory, FcntlArg::F_ADD_SEALS(seals)).unwrap();
        memory
    };
    let keeps_size = SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW;
    for seals in [
        SealFlag::F_SEAL_GROW,
        SealFlag::F_SEAL_SHRINK,
        keeps_size | SealFlag::F_SEAL_SEAL,
    ] {
        let error = Board::adopt(memory(BYTES, seals)).unwrap_err();
        assert!(matches!(error, ScoreboardError::Seals { .. }), "{error}");
    }
    for size in [0, BYTES - 1, BYTES + 1, 1 << 30] {
        let error = Board::adopt(memory(size, keeps_size)).unwrap_err();
        assert!(matches!(error, ScoreboardError::Size { .. }), "{error}");
    }
    Board::adopt(memory(BYTES, keeps_size)).unwrap();
}

#[test]
fn a_worker_maps_only_what_it_can_count_in() {
    let (_unsealed, theirs) = scoreboard::create().unwrap();
    let later = ScoreboardOffer { abi: 2, ..offer() };
    let error = Tally::map(&later, theirs).unwrap_err();
    assert_eq!(error, ScoreboardError::Abi { found: 2 });

    let file = OwnedFd::from(File::open("/dev/null").unwrap());
    let error = Tally::map(&offer(), file).unwrap_err();
    assert!(matches!(error, ScoreboardError::System(_)), "{error}");

    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    let small = memfd_create(c"test", flags).unwrap();
    fcntl(&small, FcntlArg::F_ADD_SEALS(SealFlag::F_SEAL_SHRINK)).unwrap();
    let error = Tally::map(&offer(), small).unwrap_err();
    assert_eq!(error, ScoreboardError::Size { found: 0 });

    let shrinks = memfd_create(c"test", flags).unwrap();
    let error = Tally::map(&offer(), shrinks).unwrap_err();
    assert!(matches!(error, ScoreboardError::Seals { .. }), "{error}");
}

#[test]
fn after_the_seal_no_one_maps_it_for_counting() {
    let (unsealed, theirs) = scoreboard::create().unwrap();
    let _board = unsealed.seal().unwrap();
    let error = Tally::map(&offer(), theirs).unwrap_err();
    assert!(error.to_string().contains("EPERM"), "{error}");
    assert!(error.to_string().contains("before it says"), "{error}");
}

/// A process of its own that has the other end of the channel.
struct Worker {
    process: Child,
    channel: SupervisorEnd,
}

impl Worker {
    /// Starts this program again as `role`.
    fn start(role: &str) -> (Self, Unsealed) {
        let (mut channel, fd) = channel::pair().unwrap();
        let script = "exec 5<&0 </dev/null; exec \"$0\" --ignored --exact \"$1\"";
        let process = Command::new("sh")
            .args(["-c", script])
            .arg(env::current_exe().unwrap())
            .arg(role)
            .env(CHANNEL_FD_ENV, "5")
            .stdin(fd)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let (unsealed, theirs) = scoreboard::create().unwrap();
        let offer = ToWorker::Scoreboard(offer());
        channel.queue_with_fd(&offer, theirs).unwrap();
        channel.flush().unwrap();
        (Self { process, channel }, unsealed)
    }

    fn next(&mut self) -> ToSupervisor {
        loop {
            match self.channel.receive().unwrap() {
                Receive::Message(received) => return received.message,
                Receive::Blocked => {
                    assert!(self.channel.wait(false, DEADLINE).unwrap(), "it is silent");
                }
                other => panic!("{other:?}"),
            }
        }
    }

    /// Lets it go on, and gives what it answers.
    fn ask(&mut self) -> Value {
        self.channel.queue(&ToWorker::Ping { id: 1 }).unwrap();
        self.channel.flush().unwrap();
        match self.next() {
            ToSupervisor::Reply(reply) => reply.data,
            other => panic!("{other:?}"),
        }
    }

    fn kill(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The worker's side of [`Worker::start`].
struct Supervisor(WorkerEnd);

impl Supervisor {
    fn take() -> (Self, OwnedFd) {
        let mut this = Self(WorkerEnd::from_env().unwrap().unwrap());
        (this.0.queue(&ToSupervisor::Ready)).unwrap();
        match this.hear() {
            (ToWorker::Scoreboard(it), Some(fd)) if it == offer() => (this, fd),
            other => panic!("{other:?}"),
        }
    }

    fn hear(&mut self) -> (ToWorker, Option<OwnedFd>) {
        loop {
            match self.0.receive().unwrap() {
                Receive::Message(received) => return (received.message, received.fd),
                Receive::Blocked => assert!(self.0.wait(false, DEADLINE).unwrap()),
                other => panic!("{other:?}"),
            }
        }
    }

    fn ready(&mut self) {
        self.0.flush().unwrap();
    }

    fn answer(&mut self, answer: impl FnOnce() -> Value) {
        let (ToWorker::Ping { id }, _) = self.hear() else {
            panic!("not a ping");
        };
        let reply = Reply::done(id, answer());
        self.0.queue(&ToSupervisor::Reply(reply)).unwrap();
        self.0.flush().unwrap();
    }
}

#[test]
#[ignore = "another test starts it in a process of its own"]
fn the_counting_worker() {
    let (mut supervisor, fd) = Supervisor::take();
    let tally = Tally::map(&offer(), fd).unwrap();
    supervisor.ready();
    supervisor.answer(|| {
        count(&tally);
        Value::Null
    });
    supervisor.hear();
}

#[test]
fn what_a_killed_worker_counted_is_there() {
    let (mut worker, unsealed) = Worker::start("the_counting_worker");
    assert_eq!(worker.next(), ToSupervisor::Ready);
    let board = unsealed.seal().unwrap();
    worker.ask();
    worker.kill();
    check_counted(&board);
}

/// Everything that would make a reader of the memory fault or starve.
fn attacks(memory: BorrowedFd<'_>) -> Value {
    let size = i64::try_from(BYTES).unwrap();
    let path = format!("/proc/self/fd/{}", memory.as_raw_fd());
    let result = |result: Result<(), Errno>| match result {
        Ok(()) => "done".to_owned(),
        Err(errno) => format!("{errno:?}"),
    };
    let io = |result: std::io::Result<()>| match result {
        Ok(()) => "done".to_owned(),
        Err(error) => format!("{:?}", Errno::from_raw(error.raw_os_error().unwrap())),
    };
    let punch = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
    let seal = |seal| fcntl(memory, FcntlArg::F_ADD_SEALS(seal)).map(drop);
    let map = Tally::map(&offer(), memory.try_clone_to_owned().unwrap());
    json!({
        "shrink": result(ftruncate(memory, 0)),
        "grow": result(ftruncate(memory, size * 2)),
        "truncate by opening": io(File::options().write(true).truncate(true).open(&path).map(drop)),
        "punch": result(fallocate(memory, punch, 0, size)),
        "extend": result(fallocate(memory, FallocateFlags::empty(), size, size)),
        "write": result(nix::unistd::write(memory, b"no").map(drop)),
        "write by opening": io(File::options().write(true).open(&path).and_then(|mut it| it.write_all(b"no"))),
        "map": map.map_or_else(|error| error.to_string(), |_| "done".to_owned()),
        "seal": result(seal(SealFlag::F_SEAL_WRITE)),
    })
}

/// Writes this byte over the whole mapping, page end included.
fn scribble(byte: u8) {
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let mut memory = File::options().write(true).open("/proc/self/mem").unwrap();
    let mut scribbled = 0;
    for line in maps
        .lines()
        .filter(|line| line.contains("prefork-scoreboard"))
    {
        let (from, _) = line.split_once('-').unwrap();
        let from = u64::from_str_radix(from, 16).unwrap();
        memory.seek(SeekFrom::Start(from)).unwrap();
        memory.write_all(&[byte; 4096]).unwrap();
        scribbled += 1;
    }
    assert!(scribbled > 0, "no mapping in {maps}");
}

#[test]
#[ignore = "another test starts it in a process of its own"]
fn the_hostile_worker() {
    let (mut supervisor, fd) = Supervisor::take();
    let tally = Tally::map(&offer(), fd.try_clone().unwrap()).unwrap();
    count(&tally);
    // Before the seal a hole is possible; it must not be there afterwards.
    let punch = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
    fallocate(&fd, punch, 0, 4096).unwrap();
    assert_eq!(ftruncate(&fd, 0), Err(Errno::EPERM));
    assert_eq!(ftruncate(&fd, 1 << 20), Err(Errno::EPERM));
    supervisor.ready();
    supervisor.answer(|| attacks(fd.as_fd()));
    for byte in [0xFF, 0x01, 0x00] {
        supervisor.answer(|| {
            scribble(byte);
            Value::Null
        });
    }
    supervisor.hear();
}

#[test]
fn a_hostile_worker_can_write_nonsense_and_nothing_else() {
    let (mut worker, unsealed) = Worker::start("the_hostile_worker");
    assert_eq!(worker.next(), ToSupervisor::Ready);
    let board = unsealed.seal().unwrap();
    assert_eq!(board.read().http.total(), 0, "a hole reads as zeroes");

    let came_of = worker.ask();
    for (attack, result) in came_of.as_object().unwrap() {
        let result = result.as_str().unwrap();
        assert!(result.contains("EPERM"), "{attack}: {result}");
    }
    worker.ask();
    assert_eq!(board.read().in_flight, u64::MAX);
    assert_eq!(board.read().http.total(), u64::MAX);
    worker.ask();
    assert_eq!(board.read().connections, 0x0101_0101_0101_0101);
    worker.ask();
    assert_eq!(board.read(), scoreboard::Snapshot::default());
    worker.kill();
    assert_eq!(board.read(), scoreboard::Snapshot::default());
}

#[test]
#[ignore = "another test starts it in a process of its own"]
fn the_sealing_worker() {
    let (mut supervisor, fd) = Supervisor::take();
    fcntl(&fd, FcntlArg::F_ADD_SEALS(SealFlag::F_SEAL_SEAL)).unwrap();
    supervisor.ready();
    supervisor.hear();
}

#[test]
fn a_worker_that_forbids_the_seals_is_found_out() {
    let (mut worker, unsealed) = Worker::start("the_sealing_worker");
    assert_eq!(worker.next(), ToSupervisor::Ready);
    let error = unsealed.seal().unwrap_err();
    assert!(matches!(error, ScoreboardError::Seals { .. }), "{error}");
}

#[test]
fn the_descriptors_of_a_scoreboard_are_close_on_exec() {
    let (unsealed, theirs) = scoreboard::create().unwrap();
    let board = unsealed.seal().unwrap();
    for fd in [board.as_fd(), theirs.as_fd()] {
        let flags = fcntl(fd, FcntlArg::F_GETFD).unwrap();
        assert_eq!(flags & nix::libc::FD_CLOEXEC, nix::libc::FD_CLOEXEC);
    }
    let socket = UnixStream::pair().unwrap().0;
    assert!(Board::adopt(OwnedFd::from(socket)).is_err());
}
