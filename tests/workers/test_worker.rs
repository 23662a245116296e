//! A worker that does as it is told, also what no worker should.
//!
//! `test_worker ORDERS` speaks the channel protocol with blocking calls and
//! serves a small page that names it. While it runs it looks for orders in
//! the directory ORDERS: `boot` says how to begin and stays in force for as
//! long as the file is there; a file with the slot's number is taken away and
//! carried out once, so that the process which follows is a good one again.
//! See `orders.rs` for what can be ordered.

mod hole;
mod link;
mod orders;
mod serve;

use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sys::signal::{SigSet, Signal};
use nix::time::{ClockId, clock_gettime};
use prefork_proto::message::{PROTOCOL, Reply, ToSupervisor, ToWorker, Welcome};
use serde_json::{Value, json};

use hole::Hole;
use link::{Link, health, hello};
use orders::{Boot, Order, Orders};
use serve::Server;

/// How often orders are looked for.
const TICK: Duration = Duration::from_millis(40);

fn main() -> ExitCode {
    let orders = Orders::in_directory(std::env::args_os().nth(1));
    let Some(mut link) = Link::to_supervisor() else {
        eprintln!("test_worker runs only under a supervisor");
        return ExitCode::FAILURE;
    };
    let boot = orders.boot();
    match &boot {
        Boot::Exit { code, text } => {
            eprintln!("{text}");
            return ExitCode::from(*code);
        }
        Boot::Mute => return link.outlive_supervisor(),
        Boot::HangUp => {
            link.hang_up();
            return link.outlive_supervisor();
        }
        Boot::Listen => {
            let listener = std::net::TcpListener::bind("127.0.0.1:0");
            let ended = link.outlive_supervisor();
            drop(listener);
            return ended;
        }
        Boot::Write(bytes) => {
            link.write(bytes);
            return link.outlive_supervisor();
        }
        Boot::Slow(delay) => std::thread::sleep(*delay),
        Boot::Stubborn => {
            // Before the first thread starts, so that all of them inherit it.
            SigSet::from(Signal::SIGTERM)
                .thread_block()
                .expect("SIGTERM can be blocked");
        }
        Boot::Well | Boot::Unready | Boot::Withhold | Boot::Uncounted => {}
    }
    let withholds = matches!(boot, Boot::Withhold);
    let counts = !matches!(boot, Boot::Uncounted);
    link.say(&hello(
        std::process::id().cast_signed(),
        PROTOCOL,
        withholds,
        counts,
    ));
    let (welcome, server) = handshake(&mut link);
    if matches!(boot, Boot::Unready) {
        return link.outlive_supervisor();
    }
    link.say(&ToSupervisor::Ready);
    let mut worker = Worker {
        link,
        orders,
        welcome,
        server,
        stubborn: matches!(boot, Boot::Stubborn),
        withholds,
        silent: false,
        deaf: false,
        labour: Duration::ZERO,
        draining: false,
        seq: 0,
        ballast: Vec::new(),
        hole: None,
        parked: Vec::new(),
    };
    worker.run()
}

/// Reads what follows `hello` up to `start`.
fn handshake(link: &mut Link) -> (Welcome, Arc<Server>) {
    let ToWorker::Welcome(welcome) = link.hear().message else {
        panic!("the first message is not welcome");
    };
    let server = Server::new(&welcome);
    loop {
        let received = link.hear();
        match received.message {
            ToWorker::Listener(_) => {
                let listener = received.fd.expect("a listener comes with its descriptor");
                server.serve(listener);
            }
            ToWorker::Start => return (welcome, server),
            ToWorker::Ping { id } => link.say(&ToSupervisor::Reply(Reply::done(id, Value::Null))),
            other => panic!("{other:?} within the handshake"),
        }
    }
}

fn shell(command: &str) -> Command {
    let mut shell = Command::new("sh");
    shell.args(["-c", command]);
    shell
}

/// Loops for ever.
fn spin() -> ! {
    loop {
        std::hint::spin_loop();
    }
}

struct Worker {
    link: Link,
    orders: Orders,
    welcome: Welcome,
    server: Arc<Server>,
    /// Answers neither `drain` nor `stop`, and SIGTERM is blocked.
    stubborn: bool,
    /// Comes back to the next supervisor without the listeners.
    withholds: bool,
    /// Sends no more health.
    silent: bool,
    /// Reads no more.
    deaf: bool,
    /// How much of a processor it takes from report to report.
    labour: Duration,
    /// Leaves when nothing is in flight.
    draining: bool,
    seq: u64,
    /// What `grow` has taken.
    ballast: Vec<u8>,
    /// What `hold` writes out of.
    hole: Option<Hole>,
    /// Where `park` has left descriptors.
    parked: Vec<UnixStream>,
}

impl Worker {
    fn run(&mut self) -> ExitCode {
        let interval = Duration::from_millis(self.welcome.heartbeat_ms);
        let mut report_at = Instant::now();
        self.server.accept(true);
        loop {
            while !self.deaf {
                let Some(received) = self.link.heard() else {
                    break;
                };
                if let Some(code) = self.answer(received.message) {
                    return code;
                }
            }
            if self.link.closed() && self.withholds {
                self.link = Link::come_back(&self.welcome);
            }
            if self.link.closed() {
                eprintln!("the supervisor is gone");
                return ExitCode::SUCCESS;
            }
            if let Some(order) = self.orders.take(self.welcome.slot)
                && let Some(code) = self.obey(order)
            {
                return code;
            }
            if !self.silent && report_at <= Instant::now() {
                self.labour();
                self.report();
                report_at = Instant::now() + interval;
            }
            if self.draining && self.server.in_flight() == 0 {
                self.link.say(&ToSupervisor::Drained);
                return ExitCode::SUCCESS;
            }
            if self.deaf {
                // Its input stays unread, so waiting for input would not wait.
                std::thread::sleep(TICK);
            } else {
                self.link.wait(TICK);
            }
        }
    }

    /// Works, however long it has to wait for a processor.
    fn labour(&self) {
        let worked = || {
            let worked = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID);
            Duration::from(worked.expect("every thread has this clock"))
        };
        let end = worked() + self.labour;
        while worked() < end {
            std::hint::spin_loop();
        }
    }

    fn report(&mut self) {
        self.seq += 1;
        let report = health(self.seq, &self.server, self.ballast.len());
        self.link.say(&report);
    }

    /// Answers a message; `Some` to leave.
    fn answer(&mut self, message: ToWorker) -> Option<ExitCode> {
        let reply = match message {
            ToWorker::Ping { id } => Reply::done(id, Value::Null),
            ToWorker::Tell { id, command, args } => self.told(id, &command, args),
            ToWorker::Pause { id } => {
                self.server.accept(false);
                Reply::done(id, Value::Null)
            }
            ToWorker::Resume { id } => {
                self.server.accept(true);
                Reply::done(id, Value::Null)
            }
            ToWorker::Drain { .. } | ToWorker::Stop { .. } if self.stubborn => return None,
            ToWorker::Drain { id, .. } => {
                self.server.accept(false);
                self.draining = true;
                Reply::done(id, Value::Null)
            }
            ToWorker::Stop { .. } => {
                let reason = "told to stop".to_owned();
                self.link.say(&ToSupervisor::Bye { reason });
                return Some(ExitCode::SUCCESS);
            }
            ToWorker::Reload { id, .. } => Reply::failed(id, "unsupported", "no settings"),
            other => panic!("{other:?} after the handshake"),
        };
        self.link.say(&ToSupervisor::Reply(reply));
        None
    }

    fn told(&self, id: u64, command: &str, args: Value) -> Reply {
        match command {
            "echo" => Reply::done(id, args),
            "who" => Reply::done(id, json!({"pid": std::process::id()})),
            "fail" => Reply::failed(id, "as_told", "failed as it was told to"),
            _ => Reply::failed(id, "unknown_command", format!("no command {command}")),
        }
    }

    /// Carries out an order; `Some` to leave.
    fn obey(&mut self, order: Order) -> Option<ExitCode> {
        match order {
            Order::Exit { code, text } => {
                eprintln!("{text}");
                return Some(ExitCode::from(code));
            }
            Order::Abort => std::process::abort(),
            Order::Print(text) => println!("{text}"),
            Order::Silent => self.silent = true,
            Order::Labour(time) => self.labour = time,
            Order::Crowd(number) => {
                for _ in 0..number {
                    std::thread::spawn(spin);
                }
            }
            Order::Spin => spin(),
            Order::Deaf => self.deaf = true,
            Order::Stubborn => self.stubborn = true,
            Order::Write(bytes) => self.link.write(&bytes),
            Order::Long(length) => self.link.write(&vec![b'a'; length]),
            Order::Flood(seconds) => self.flood(seconds),
            Order::Descriptors(number) => {
                self.seq += 1;
                let report = health(self.seq, &self.server, self.ballast.len());
                self.link.say_with_descriptors(&report, number);
            }
            Order::Grow(bytes) => self.ballast.resize(bytes, 1),
            Order::Hold(text) => match Hole::new(&format!("{text}\n")) {
                Ok(hole) => {
                    // The supervisor has a reason to look at the pipe.
                    eprintln!("about to hold it");
                    hole.write_out_of_it();
                    self.hole = Some(hole);
                }
                Err(error) => {
                    println!("no memory that does not come: {error}");
                    return Some(ExitCode::FAILURE);
                }
            },
            Order::LetGo => self.hole.take().expect("there is a hole").fill(),
            Order::Park => {
                self.parked = link::park();
                println!("nothing more can be parked");
            }
            Order::Start(command) => {
                let listener = self.server.a_listener();
                let mut child = std::process::Command::new("/bin/sh")
                    .args(["-c", &command])
                    .stdin(listener.map_or_else(std::process::Stdio::null, Into::into))
                    .spawn()
                    .expect("there is a shell");
                std::thread::spawn(move || child.wait());
            }
            Order::Become(command) => panic!("no shell: {}", shell(&command).exec()),
            Order::HangUp => {
                self.link.hang_up();
                return Some(self.link.outlive_supervisor());
            }
        }
        None
    }

    /// Sends reports as fast as the supervisor takes them.
    fn flood(&mut self, duration: Duration) {
        let end = Instant::now() + duration;
        while Instant::now() < end && !self.link.closed() {
            for _ in 0..100 {
                self.report();
            }
        }
    }
}
