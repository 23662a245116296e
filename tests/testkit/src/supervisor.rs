//! The supervisor's end of the channel, held by a test.

use std::io::Read;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use prefork_proto::channel::{self, Receive, SupervisorEnd};
use prefork_proto::message::{
    CHANNEL_FD_ENV, Health, Hello, ListenerOffer, OutputOffer, OutputStream, PROTOCOL, Reply,
    Rescue, ScoreboardOffer, TlsOffer, ToSupervisor, ToWorker, Welcome,
};
use prefork_proto::scoreboard::{self, ABI, BYTES, Board};
use prefork_proto::tls::{SealedSettings, TicketKey, TlsSettings};
use serde_json::{Value, json};

/// How long anything may take before a test fails.
pub const DEADLINE: Duration = Duration::from_secs(10);

/// An example program that tests run.
pub fn example(name: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let target = test.parent().and_then(|deps| deps.parent()).unwrap();
    crate::fresh::example(target, name)
}

/// A child process, killed when dropped.
pub struct Process(pub Child);

impl Process {
    pub fn pid(&self) -> i32 {
        self.0.id().try_into().unwrap()
    }

    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.pid()), signal).unwrap();
    }

    /// Waits until SIGSTOP has reached it.
    pub fn until_stopped(&self) {
        let deadline = Instant::now() + DEADLINE;
        let path = format!("/proc/{}/status", self.pid());
        while !std::fs::read_to_string(&path)
            .unwrap()
            .contains("State:\tT")
        {
            assert!(Instant::now() < deadline, "the process does not stop");
            std::thread::yield_now();
        }
    }

    /// Waits for its end.
    pub fn exit(&mut self) -> ExitStatus {
        let deadline = Instant::now() + DEADLINE;
        loop {
            if let Some(status) = self.0.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "the process does not end");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// All it wrote to stderr; call after its end.
    pub fn stderr(&mut self) -> String {
        let mut text = String::new();
        let mut stderr = self.0.stderr.take().unwrap();
        stderr.read_to_string(&mut text).unwrap();
        text
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// How a worker is started.
pub struct Orders {
    pub welcome: Welcome,
    /// The example program that is run, and which of its kinds it is to be.
    pub program: &'static str,
    pub kind: &'static str,
    pub prefix: Option<&'static str>,
    /// Whether it is given the reading ends of what it prints to.
    pub keeps_output: bool,
}

impl Default for Orders {
    fn default() -> Self {
        Self {
            welcome: Welcome {
                protocol: PROTOCOL,
                pool: "web".to_owned(),
                slot: 3,
                generation: 7,
                incarnation: 2,
                heartbeat_ms: 20,
                idle_grace_ms: 300,
                http: Box::default(),
                paused: false,
                rejoin: None,
                app: json!({}),
            },
            program: "probe",
            kind: "",
            prefix: None,
            keeps_output: false,
        }
    }
}

/// A worker and the other end of its channel.
pub struct Worker {
    pub process: Process,
    pub end: SupervisorEnd,
    pub address: SocketAddr,
    /// Kept as a supervisor keeps it.
    pub listener: TcpListener,
    next_id: u64,
    /// Whether its listeners speak TLS.
    pub tls: bool,
    /// Whether its connections begin with a header of the PROXY protocol.
    pub proxy_protocol: bool,
}

impl Worker {
    /// A worker up to `ready`.
    pub fn ready() -> Self {
        Self::with(Orders::default())
    }

    /// A worker with these orders, up to `ready`.
    pub fn with(orders: Orders) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        Self::beside(orders, listener)
    }

    /// A worker that shares a listener, up to `ready`.
    pub fn beside(orders: Orders, listener: TcpListener) -> Self {
        let mut worker = Self::spawned(&orders);
        worker.address = listener.local_addr().unwrap();
        worker.listener = listener;
        worker.hello();
        worker.say(&ToWorker::Welcome(orders.welcome));
        if orders.keeps_output {
            worker.offer_outputs();
        }
        worker.offer();
        worker.say(&ToWorker::Start);
        worker.until_ready();
        worker
    }

    /// A worker whose connections begin with a header of the PROXY protocol, and speak
    /// TLS after that where there are settings for it; up to `ready`.
    pub fn proxied(orders: Orders, settings: Option<&TlsSettings>) -> Self {
        let mut worker = Self::spawned(&orders);
        worker.hello();
        worker.say(&ToWorker::Welcome(orders.welcome));
        if let Some(settings) = settings {
            assert!(worker.certify(settings).ok);
            worker.tls = true;
        }
        worker.proxy_protocol = true;
        worker.offer();
        worker.say(&ToWorker::Start);
        worker.until_ready();
        worker
    }

    /// Hands it the reading ends of what it prints to.
    fn offer_outputs(&mut self) {
        let process = &self.process.0;
        let stdout = process.stdout.as_ref().unwrap().as_fd();
        let stderr = process.stderr.as_ref().unwrap().as_fd();
        let streams = [
            (OutputStream::Stdout, stdout),
            (OutputStream::Stderr, stderr),
        ];
        for (stream, pipe) in streams.map(|(stream, pipe)| (stream, pipe.try_clone_to_owned())) {
            let offer = ToWorker::Output(OutputOffer { stream, fds: 1 });
            self.end.queue_with_fd(&offer, pipe.unwrap()).unwrap();
        }
    }

    /// A worker whose listener speaks TLS, up to `ready`.
    pub fn secured(orders: Orders, settings: &TlsSettings, tickets: &[TicketKey]) -> Self {
        let mut worker = Self::spawned(&orders);
        worker.hello();
        worker.say(&ToWorker::Welcome(orders.welcome));
        assert!(worker.certify(settings).ok);
        worker.say(&ToWorker::Tickets {
            keys: tickets.to_vec(),
        });
        worker.tls = true;
        worker.offer();
        worker.say(&ToWorker::Start);
        worker.until_ready();
        worker
    }

    /// Hands it these certificates.
    pub fn certify(&mut self, settings: &TlsSettings) -> Reply {
        let id = self.offer_certificates(settings);
        self.until(|message| match message {
            ToSupervisor::Reply(reply) if reply.id == id => Some(reply),
            _ => None,
        })
    }

    /// Hands it these certificates, and does not wait for the reply.
    pub fn offer_certificates(&mut self, settings: &TlsSettings) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        let sealed = SealedSettings::new(settings).unwrap();
        let offer = TlsOffer {
            id,
            bytes: sealed.bytes(),
            fds: 1,
        };
        self.end
            .queue_with_fd(&ToWorker::Tls(offer), sealed.duplicate().unwrap())
            .unwrap();
        self.end.flush().unwrap();
        id
    }

    /// A worker that counts in a scoreboard, up to `ready`.
    pub fn with_board() -> (Self, Board) {
        Self::with_board_and(Orders::default())
    }

    /// A worker with these orders that counts in a scoreboard, up to `ready`.
    pub fn with_board_and(orders: Orders) -> (Self, Board) {
        let mut worker = Self::spawned(&orders);
        worker.hello();
        worker.say(&ToWorker::Welcome(orders.welcome));
        let (unsealed, theirs) = scoreboard::create().unwrap();
        worker.offer_board(ABI, theirs);
        worker.offer();
        worker.say(&ToWorker::Start);
        worker.until_ready();
        (worker, unsealed.seal().unwrap())
    }

    /// Offers this as a scoreboard of that version.
    pub fn offer_board(&mut self, abi: u32, fd: OwnedFd) {
        let offer = ScoreboardOffer {
            abi,
            bytes: BYTES,
            fds: 1,
        };
        self.end
            .queue_with_fd(&ToWorker::Scoreboard(offer), fd)
            .unwrap();
        self.end.flush().unwrap();
    }

    /// A process that was told nothing yet.
    pub fn spawned(orders: &Orders) -> Self {
        let (end, theirs) = channel::pair().unwrap();
        // The shell moves the channel to a descriptor that the program inherits.
        let script = format!(
            "exec 3<&0 </dev/null; {} exec \"$0\"",
            orders.prefix.unwrap_or("")
        );
        let child = Command::new("sh")
            .args(["-c", &script])
            .arg(example(orders.program))
            .env(CHANNEL_FD_ENV, "3")
            .env("PROBE", orders.kind)
            .stdin(Stdio::from(theirs))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        Self {
            process: Process(child),
            end,
            address: listener.local_addr().unwrap(),
            listener,
            next_id: 1,
            tls: false,
            proxy_protocol: false,
        }
    }

    pub fn say(&mut self, message: &ToWorker) {
        self.end.queue(message).unwrap();
        self.end.flush().unwrap();
    }

    pub fn offer(&mut self) {
        let fd = OwnedFd::from(self.listener.try_clone().unwrap());
        self.offer_fd(fd);
    }

    pub fn offer_fd(&mut self, fd: OwnedFd) {
        let offer = ListenerOffer {
            name: "main".to_owned(),
            address: self.address.to_string(),
            tls: self.tls,
            proxy_protocol: self.proxy_protocol,
            fds: 1,
        };
        self.end
            .queue_with_fd(&ToWorker::Listener(offer), fd)
            .unwrap();
        self.end.flush().unwrap();
    }

    /// The next message, `None` once the worker has closed its end.
    pub fn hear(&mut self) -> Option<ToSupervisor> {
        self.hear_with_fd().map(|(message, _)| message)
    }

    /// The next message and the descriptor that came with it.
    pub fn hear_with_fd(&mut self) -> Option<(ToSupervisor, Option<OwnedFd>)> {
        loop {
            match self.end.receive().unwrap() {
                Receive::Message(received) => return Some((received.message, received.fd)),
                Receive::Unknown { kind, .. } => panic!("an unknown {kind}"),
                Receive::Closed => return None,
                Receive::Blocked => {
                    assert!(
                        self.end.wait(false, DEADLINE).unwrap(),
                        "the worker is silent"
                    );
                }
            }
        }
    }

    pub fn hello(&mut self) -> Hello {
        match self.hear() {
            Some(ToSupervisor::Hello(hello)) => hello,
            other => panic!("not hello: {other:?}"),
        }
    }

    pub fn until_ready(&mut self) {
        match self.hear() {
            Some(ToSupervisor::Ready) => {}
            other => panic!("not ready: {other:?}"),
        }
    }

    /// Hears until something fits; fails when it never does.
    pub fn until<T>(&mut self, mut fits: impl FnMut(ToSupervisor) -> Option<T>) -> T {
        let deadline = Instant::now() + DEADLINE;
        loop {
            assert!(Instant::now() < deadline, "what was waited for never came");
            let message = self.hear().expect("the worker closed its end");
            if let Some(found) = fits(message) {
                return found;
            }
        }
    }

    /// Hears until a report fits.
    pub fn health(&mut self, mut fits: impl FnMut(&Health) -> bool) -> Health {
        self.until(|message| match message {
            ToSupervisor::Health(health) if fits(&health) => Some(health),
            _ => None,
        })
    }

    pub fn in_flight(&mut self, requests: u64) {
        self.health(|health| health.in_flight == requests);
    }

    pub fn connections(&mut self, connections: u64) {
        self.health(|health| health.connections == connections);
    }

    /// Asks and waits for the reply.
    pub fn ask(&mut self, request: impl FnOnce(u64) -> ToWorker) -> Reply {
        let id = self.next_id;
        self.next_id += 1;
        self.say(&request(id));
        self.until(|message| match message {
            ToSupervisor::Reply(reply) if reply.id == id => Some(reply),
            _ => None,
        })
    }

    pub fn tell(&mut self, command: &str, args: Value) -> Reply {
        let command = command.to_owned();
        self.ask(|id| ToWorker::Tell { id, command, args })
    }

    pub fn drain(&mut self, deadline: Duration) {
        let deadline_ms = deadline.as_millis().try_into().unwrap();
        let reply = self.ask(|id| ToWorker::Drain {
            id,
            deadline_ms,
            sweep: false,
            pass_on: Vec::new(),
        });
        assert!(reply.ok, "{reply:?}");
    }

    /// A drain after which nobody accepts from the listeners.
    pub fn sweep(&mut self, deadline: Duration) {
        let deadline_ms = deadline.as_millis().try_into().unwrap();
        let reply = self.ask(|id| ToWorker::Drain {
            id,
            deadline_ms,
            sweep: true,
            pass_on: Vec::new(),
        });
        assert!(reply.ok, "{reply:?}");
    }

    /// Has it rescue what waits in a listener's queue.
    pub fn rescue(&mut self, queue: impl Into<OwnedFd>) -> Reply {
        let id = self.next_id;
        self.next_id += 1;
        let rescue = Rescue {
            id,
            name: if self.tls { "main" } else { "another" }.to_owned(),
            address: "another".to_owned(),
            tls: self.tls,
            proxy_protocol: self.proxy_protocol,
            fds: 1,
        };
        self.end
            .queue_with_fd(&ToWorker::Rescue(rescue), queue.into())
            .unwrap();
        self.end.flush().unwrap();
        self.until(|message| match message {
            ToSupervisor::Reply(reply) if reply.id == id => Some(reply),
            _ => None,
        })
    }

    /// Whether the process holds this socket.
    pub fn holds(&self, socket: &impl AsRawFd) -> bool {
        let link = format!("/proc/self/fd/{}", socket.as_raw_fd());
        let name = std::fs::read_link(link).unwrap();
        let fds = std::fs::read_dir(format!("/proc/{}/fd", self.process.pid())).unwrap();
        fds.flatten()
            .any(|fd| std::fs::read_link(fd.path()).is_ok_and(|held| held == name))
    }

    /// Hears to the end of the channel: the last report and the last word.
    pub fn last_words(&mut self) -> (Health, ToSupervisor) {
        let mut health = None;
        let mut last = None;
        while let Some(message) = self.hear() {
            match message {
                ToSupervisor::Health(report) => health = Some(report),
                message => last = Some(message),
            }
        }
        (health.expect("no report"), last.expect("no last word"))
    }

    /// Waits until it has left by itself after a drain, and says with what totals.
    pub fn drained(&mut self) -> Health {
        let (health, last) = self.last_words();
        assert_eq!(last, ToSupervisor::Drained);
        assert_eq!(self.process.exit().code(), Some(0));
        health
    }
}
