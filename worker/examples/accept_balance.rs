//! What an arriving connection costs, and how evenly connections spread, when
//! eight processes accept from one listener. Prints a table:
//! `cargo run --release -p prefork-worker --example accept_balance`.
//!
//! The workers here have no runtime, so that what is measured is the kernel's
//! doing: each has one epoll, with its connections and, in a way that depends
//! on the strategy, the listener.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::signalfd::SignalFd;
use nix::sys::time::TimeValLike;
use nix::unistd::{Pid, dup};

const WORKERS: usize = 8;
const EDGE: EpollFlags = EpollFlags::EPOLLIN.union(EpollFlags::EPOLLET);
const ONE_WAKES: EpollFlags = EpollFlags::EPOLLIN.union(EpollFlags::EPOLLEXCLUSIVE);
const LISTENER: u64 = u64::MAX;

/// How a worker learns that a connection waits.
#[derive(Debug, Clone, Copy)]
struct Strategy {
    name: &'static str,
    notice: Notice,
    /// Whether it goes to the end of the listener's wait queue each time.
    rotates: bool,
    /// How many connections it takes at a time.
    batch: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Notice {
    /// In its own epoll, edge-triggered: what tokio does.
    Everyone,
    /// In an exclusive epoll inside its own: what can be given to tokio.
    Nested,
    /// Exclusively in its own epoll: what tokio has no way to.
    Exclusive,
    /// In an exclusive epoll that a thread sleeps in, which tells the loop.
    Thread,
}

const fn strategy(name: &'static str, notice: Notice, rotates: bool, batch: u32) -> Strategy {
    Strategy {
        name,
        notice,
        rotates,
        batch,
    }
}

const STRATEGIES: [Strategy; 9] = [
    strategy("everyone", Notice::Everyone, false, u32::MAX),
    strategy("everyone, one by one", Notice::Everyone, false, 1),
    strategy("nested", Notice::Nested, false, u32::MAX),
    strategy("nested, rotating", Notice::Nested, true, u32::MAX),
    strategy("nested, rotating, one by one", Notice::Nested, true, 1),
    strategy("exclusive", Notice::Exclusive, false, u32::MAX),
    strategy("exclusive, rotating", Notice::Exclusive, true, 1),
    strategy("thread", Notice::Thread, false, 1),
    strategy("thread, rotating", Notice::Thread, true, 1),
];

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    match arguments.next().as_deref() {
        Some("worker") => {
            let index: usize = arguments.next().ok_or("which strategy?")?.parse()?;
            work(STRATEGIES[index])
        }
        _ => compare(),
    }
}

// The measured side.

struct Loop {
    strategy: Strategy,
    listener: TcpListener,
    epoll: Epoll,
    /// The exclusive epoll inside, where the strategy has one.
    inner: Option<Arc<Epoll>>,
    thread: Option<Bell>,
    open: HashMap<u64, TcpStream>,
    next: u64,
    accepted: u64,
    /// How often its epoll told of a connection.
    told: u64,
}

/// The two ends of a loop's thread.
struct Bell {
    rings: Arc<EventFd>,
    heard: mpsc::Sender<()>,
}

fn work(strategy: Strategy) -> Result<()> {
    let stdin = io::stdin();
    let listener = TcpListener::from(dup(stdin.as_fd())?);
    listener.set_nonblocking(true)?;
    // Its own end tells it that the run is over.
    let mut state = Loop {
        strategy,
        listener,
        epoll: Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?,
        inner: None,
        thread: None,
        open: HashMap::new(),
        next: 0,
        accepted: 0,
        told: 0,
    };
    // Before there is a thread, which inherits it.
    let end = SigSet::from_iter([Signal::SIGTERM]);
    end.thread_block()?;
    let end = SignalFd::new(&end)?;
    state.register()?;
    println!("ready");
    io::stdout().flush()?;
    state
        .epoll
        .add(&end, EpollEvent::new(EpollFlags::EPOLLIN, LISTENER - 1))?;
    state.run()?;
    let usage = getrusage(UsageWho::RUSAGE_SELF)?;
    let cpu = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
    // Each sleep ended in a wake-up, also where the kernel saw that nothing
    // was left to tell.
    let wakes = usage.voluntary_context_switches();
    println!("{} {} {wakes} {cpu}", state.accepted, state.told);
    // At once: closing is no part of it.
    std::process::exit(0)
}

impl Loop {
    fn register(&mut self) -> Result<()> {
        match self.strategy.notice {
            Notice::Everyone => self
                .epoll
                .add(&self.listener, EpollEvent::new(EDGE, LISTENER))?,
            Notice::Exclusive => self
                .epoll
                .add(&self.listener, EpollEvent::new(ONE_WAKES, LISTENER))?,
            Notice::Nested => {
                let inner = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
                inner.add(&self.listener, EpollEvent::new(ONE_WAKES, 0))?;
                self.epoll.add(&inner.0, EpollEvent::new(EDGE, LISTENER))?;
                self.inner = Some(Arc::new(inner));
            }
            Notice::Thread => {
                let inner = Arc::new(Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?);
                inner.add(&self.listener, EpollEvent::new(ONE_WAKES, 0))?;
                let rings = Arc::new(EventFd::from_flags(EfdFlags::EFD_NONBLOCK)?);
                self.epoll
                    .add(rings.as_fd(), EpollEvent::new(EDGE, LISTENER))?;
                let (heard, hears) = mpsc::channel();
                self.thread = Some(Bell {
                    rings: Arc::clone(&rings),
                    heard,
                });
                self.inner = Some(Arc::clone(&inner));
                thread::spawn(move || -> nix::Result<()> {
                    loop {
                        let mut events = [EpollEvent::empty()];
                        inner.wait(&mut events, EpollTimeout::NONE)?;
                        rings.write(1)?;
                        if hears.recv().is_err() {
                            return Ok(());
                        }
                    }
                });
            }
        }
        Ok(())
    }

    fn run(&mut self) -> Result<()> {
        let mut events = [EpollEvent::empty(); 64];
        loop {
            let ready = match self.epoll.wait(&mut events, EpollTimeout::NONE) {
                Ok(ready) => ready,
                Err(Errno::EINTR) => 0,
                Err(error) => return Err(error.into()),
            };
            for event in &events[..ready] {
                match event.data() {
                    LISTENER => self.arrival()?,
                    token if token == LISTENER - 1 => return Ok(()),
                    token => self.answer(token),
                }
            }
        }
    }

    fn arrival(&mut self) -> Result<()> {
        self.told += 1;
        for _ in 0..self.strategy.batch {
            let Ok((stream, _)) = self.listener.accept() else {
                break;
            };
            stream.set_nonblocking(true)?;
            self.epoll.add(&stream, EpollEvent::new(EDGE, self.next))?;
            self.open.insert(self.next, stream);
            self.next += 1;
            self.accepted += 1;
        }
        if self.strategy.rotates {
            self.rotate()?;
        }
        if self.strategy.notice == Notice::Everyone && self.strategy.batch == 1 {
            // An edge comes once; this asks for another where more wait.
            self.epoll
                .modify(&self.listener, &mut EpollEvent::new(EDGE, LISTENER))?;
        }
        if let Some(bell) = &self.thread {
            let _ = bell.rings.read();
            let _ = bell.heard.send(());
        }
        Ok(())
    }

    fn rotate(&self) -> nix::Result<()> {
        let (epoll, token) = match &self.inner {
            Some(inner) => (&**inner, 0),
            None => (&self.epoll, LISTENER),
        };
        epoll.delete(&self.listener)?;
        epoll.add(&self.listener, EpollEvent::new(ONE_WAKES, token))
    }

    fn answer(&mut self, token: u64) {
        let Some(stream) = self.open.get_mut(&token) else {
            return;
        };
        let mut request = [0; 1024];
        loop {
            match stream.read(&mut request) {
                Ok(1..) => {
                    let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Ok(0) | Err(_) => break,
            }
        }
        self.open.remove(&token);
    }
}

// The measuring side.

/// How connections come.
#[derive(Debug, Clone, Copy)]
enum Load {
    /// This many, one every so often, each staying open.
    Steady(u32, Duration),
    /// This many at once, each staying open.
    Burst(usize),
    /// From this many clients at once, each its next when the last is answered.
    Closed(u32, Duration),
    /// This many, one after the other, while half of the workers are stopped.
    Stopped(u32),
}

const LOADS: [(&str, Load); 5] = [
    ("200/s", Load::Steady(600, Duration::from_millis(5))),
    ("1000/s", Load::Steady(2000, Duration::from_millis(1))),
    ("burst", Load::Burst(400)),
    ("most", Load::Closed(16, Duration::from_secs(2))),
    ("stopped", Load::Stopped(40)),
];

/// How long a client waits for its answer.
const PATIENCE: Duration = Duration::from_millis(500);

fn compare() -> Result<()> {
    println!(
        "{:<28} {:>8} {:>7} {:>11} {:>7} {:>7} {:>10} {:>10}",
        "strategy", "rate", "served", "min..max", "told", "wakes", "CPU us", "unanswered"
    );
    for (index, strategy) in STRATEGIES.iter().enumerate() {
        for (rate, load) in LOADS {
            let (shares, unanswered) = measure(index, load)?;
            let sum = |of: fn(&Share) -> u64| shares.iter().map(of).sum::<u64>();
            let accepted = sum(|share| share.accepted).max(1);
            let least = shares.iter().map(|share| share.accepted).min();
            let most = shares.iter().map(|share| share.accepted).max();
            let each = |of| sum(of) as f64 / accepted as f64;
            println!(
                "{:<28} {rate:>8} {accepted:>7} {:>11} {:>7.2} {:>7.2} {:>10.1} {unanswered:>10}",
                strategy.name,
                format!("{}..{}", least.unwrap_or(0), most.unwrap_or(0)),
                each(|share| share.told),
                each(|share| share.wakes),
                each(|share| share.cpu_us),
            );
        }
    }
    Ok(())
}

/// What one worker did.
struct Share {
    accepted: u64,
    told: u64,
    wakes: u64,
    cpu_us: u64,
}

struct Worker(Child, io::BufReader<std::process::ChildStdout>);

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What each worker did, and how many clients got no answer in time.
fn measure(strategy: usize, load: Load) -> Result<(Vec<Share>, u64)> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let mut workers = (0..WORKERS)
        .map(|_| start(strategy, &listener))
        .collect::<Result<Vec<_>>>()?;
    let address = listener.local_addr()?;
    let (_open, unanswered) = match load {
        Load::Steady(count, every) => (steady(address, count, every)?, 0),
        Load::Burst(count) => burst(address, count),
        Load::Closed(clients, time) => (Vec::new(), closed(address, clients, time)),
        Load::Stopped(count) => {
            let half = || workers.iter().take(WORKERS / 2);
            half().try_for_each(|worker| signal(worker, Signal::SIGSTOP))?;
            let unanswered = (0..count).filter(|_| request(address).is_err()).count();
            half().try_for_each(|worker| signal(worker, Signal::SIGCONT))?;
            (Vec::new(), unanswered as u64)
        }
    };
    let shares = workers.iter_mut().map(finish).collect::<Result<_>>()?;
    Ok((shares, unanswered))
}

fn signal(worker: &Worker, signal: Signal) -> Result<()> {
    Ok(kill(Pid::from_raw(worker.0.id().try_into()?), signal)?)
}

/// Ends a worker and reads what it did.
fn finish(worker: &mut Worker) -> Result<Share> {
    signal(worker, Signal::SIGTERM)?;
    let line = line(worker)?;
    let figures = line
        .split_whitespace()
        .map(str::parse)
        .collect::<std::result::Result<Vec<u64>, _>>()?;
    let [accepted, told, wakes, cpu_us] = figures[..] else {
        return Err(format!("not four figures: {line:?}").into());
    };
    Ok(Share {
        accepted,
        told,
        wakes,
        cpu_us,
    })
}

fn start(strategy: usize, listener: &TcpListener) -> Result<Worker> {
    let mut child = Command::new(std::env::current_exe()?)
        .args(["worker", &strategy.to_string()])
        .stdin(Stdio::from(OwnedFd::from(listener.try_clone()?)))
        .stdout(Stdio::piped())
        .spawn()?;
    let stdout = child.stdout.take().ok_or("no stdout")?;
    let mut worker = Worker(child, io::BufReader::new(stdout));
    line(&mut worker)?;
    Ok(worker)
}

fn line(worker: &mut Worker) -> Result<String> {
    let mut line = String::new();
    io::BufRead::read_line(&mut worker.1, &mut line)?;
    Ok(line)
}

fn request(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address)?;
    ask(&stream)?;
    Ok(stream)
}

fn ask(mut stream: &TcpStream) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"GET / HTTP/1.1\r\nhost: test\r\n\r\n")?;
    if stream.read(&mut [0; 256])? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(())
}

fn steady(address: SocketAddr, count: u32, every: Duration) -> Result<Vec<TcpStream>> {
    let begun = Instant::now();
    let mut open = Vec::new();
    for number in 0..count {
        let due = begun + every * number;
        thread::sleep(due.saturating_duration_since(Instant::now()));
        open.push(request(address)?);
    }
    Ok(open)
}

fn burst(address: SocketAddr, count: usize) -> (Vec<TcpStream>, u64) {
    let clients: Vec<_> = (0..count).map(|_| TcpStream::connect(address)).collect();
    let open: Vec<_> = clients.into_iter().flatten().collect();
    let answered = open.iter().filter(|stream| ask(stream).is_ok()).count();
    (open, (count - answered) as u64)
}

fn closed(address: SocketAddr, clients: u32, time: Duration) -> u64 {
    let unanswered = AtomicU64::new(0);
    let end = Instant::now() + time;
    thread::scope(|scope| {
        for _ in 0..clients {
            scope.spawn(|| {
                while Instant::now() < end {
                    if request(address).is_err() {
                        unanswered.fetch_add(1, Relaxed);
                    }
                }
            });
        }
    });
    unanswered.into_inner()
}
