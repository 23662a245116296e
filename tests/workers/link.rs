//! The worker's end of the channel: as the protocol wants it, and raw.

use std::fs::File;
use std::io::{IoSlice, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollTimeout, poll};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use prefork_proto::channel::{Flush, Receive, Received, WorkerEnd};
use prefork_proto::message::{
    DURATION_BOUNDS, Health, Hello, HttpCounts, PROTOCOL, Rejoin, RejoinOffer, RejoinState,
    ToSupervisor, ToWorker, Welcome,
};

use crate::serve::Server;

/// How long the supervisor may take to read or to answer.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct Link {
    /// Well-formed messages go this way.
    end: WorkerEnd,
    /// The same socket, for what is not well-formed.
    raw: UnixStream,
    closed: bool,
}

impl Link {
    /// `None` when no supervisor started this process.
    pub(crate) fn to_supervisor() -> Option<Self> {
        let end = WorkerEnd::from_env().expect("the channel is a unix stream socket")?;
        let raw = end.as_fd().try_clone_to_owned();
        Some(Self {
            raw: UnixStream::from(raw.expect("a descriptor is left")),
            end,
            closed: false,
        })
    }

    /// The link to the next supervisor, to which no listener is brought; panics
    /// if none comes.
    pub(crate) fn come_back(welcome: &Welcome) -> Self {
        let offer = welcome.rejoin.as_ref().expect("there is a next one");
        let begun = Instant::now();
        loop {
            assert!(begun.elapsed() < PATIENCE, "no supervisor comes");
            // The socket of the one that dies may still take a connection.
            match Self::welcomed_at(offer, welcome) {
                Some(link) => return link,
                None => std::thread::sleep(Duration::from_millis(20)),
            }
        }
    }

    /// The link to who listens there; none where nobody answers.
    fn welcomed_at(offer: &RejoinOffer, welcome: &Welcome) -> Option<Self> {
        let socket = UnixStream::connect(&offer.path).ok()?;
        let mut link = Self {
            raw: socket.try_clone().expect("a descriptor is left"),
            end: WorkerEnd::new(socket.into()),
            closed: false,
        };
        link.say(&ToSupervisor::Rejoin(Rejoin {
            protocol: PROTOCOL,
            secret: offer.secret.clone(),
            pid: std::process::id().cast_signed(),
            pool: welcome.pool.clone(),
            slot: welcome.slot,
            generation: welcome.generation,
            incarnation: welcome.incarnation,
            program: "test_worker".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            capabilities: vec!["rejoin".to_owned()],
            listeners: 0,
            scoreboard: false,
            requests: false,
            outputs: 0,
            state: RejoinState::Ready,
        }));
        while !link.closed {
            if let Some(received) = link.heard() {
                let answer = received.message;
                assert!(matches!(answer, ToWorker::Welcome(_)), "{answer:?}");
                return Some(link);
            }
            link.wait(Duration::from_millis(20));
        }
        None
    }

    /// Whether the supervisor has closed its end.
    pub(crate) fn closed(&self) -> bool {
        self.closed
    }

    /// Sends a message whole.
    pub(crate) fn say(&mut self, message: &ToSupervisor) {
        if self.closed {
            return;
        }
        self.end.queue(message).expect("one message fits the queue");
        loop {
            match self.end.flush() {
                Ok(Flush::Done) => return,
                Ok(Flush::Blocked) => {
                    let _ = self.end.wait(true, PATIENCE);
                }
                Err(_) => {
                    self.closed = true;
                    return;
                }
            }
        }
    }

    /// The next message; panics if none comes.
    pub(crate) fn hear(&mut self) -> Received<ToWorker> {
        loop {
            if let Some(received) = self.heard() {
                return received;
            }
            assert!(!self.closed, "the supervisor closed the channel");
            let came = self.end.wait(false, PATIENCE).expect("the channel is open");
            assert!(came, "the supervisor says nothing");
        }
    }

    /// The next message if there is one.
    pub(crate) fn heard(&mut self) -> Option<Received<ToWorker>> {
        loop {
            match self.end.receive() {
                Ok(Receive::Message(received)) => return Some(received),
                Ok(Receive::Unknown { .. }) => {}
                Ok(Receive::Blocked) => return None,
                Ok(Receive::Closed) | Err(_) => {
                    self.closed = true;
                    return None;
                }
            }
        }
    }

    /// Waits for something to hear.
    pub(crate) fn wait(&self, timeout: Duration) {
        let _ = self.end.wait(false, timeout);
    }

    /// Sends bytes as they are.
    pub(crate) fn write(&mut self, bytes: &[u8]) {
        // The supervisor may close the channel before it has read them all.
        let _ = self.raw.write_all(bytes);
    }

    /// Sends a message with descriptors that it doesn't announce.
    pub(crate) fn say_with_descriptors(&self, message: &ToSupervisor, number: usize) {
        let mut line = serde_json::to_vec(message).expect("messages are JSON");
        line.push(b'\n');
        let null = File::open("/dev/null").expect("/dev/null is there");
        let descriptors = vec![null.as_raw_fd(); number];
        sendmsg::<()>(
            self.raw.as_raw_fd(),
            &[IoSlice::new(&line)],
            &[ControlMessage::ScmRights(&descriptors)],
            MsgFlags::MSG_NOSIGNAL,
            None,
        )
        .expect("the descriptors are sent");
    }

    /// Closes the channel for both directions.
    pub(crate) fn hang_up(&self) {
        self.raw
            .shutdown(Shutdown::Both)
            .expect("the channel is open");
    }

    /// Stays, doing nothing, until the supervisor is gone: not to be left over
    /// when nobody is there to kill it.
    pub(crate) fn outlive_supervisor(&self) -> ExitCode {
        let parent = nix::unistd::getppid();
        while nix::unistd::getppid() == parent {
            let mut nothing: [PollFd<'_>; 0] = [];
            let _ = poll(&mut nothing, PollTimeout::from(100u8));
        }
        ExitCode::SUCCESS
    }
}

/// Leaves as many descriptors unread as the kernel allows this user, whose limit is raised
/// as far as it goes; they are there for as long as what comes back is.
pub(crate) fn park() -> Vec<UnixStream> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("every process has limits");
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).expect("up to the hard limit all may");
    let null = File::open("/dev/null").expect("/dev/null is there");
    let mut parked = Vec::new();
    loop {
        let (one, other) = UnixStream::pair().expect("descriptors are left");
        parked.extend([one, other]);
        let into = parked[parked.len() - 2].as_raw_fd();
        let sent = loop {
            let fds = [null.as_raw_fd(); 64];
            let rights = [ControlMessage::ScmRights(&fds)];
            let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
            let sent = sendmsg::<()>(into, &[IoSlice::new(b"p")], &rights, flags, None);
            if sent.is_err() {
                break sent;
            }
        };
        match sent {
            Err(Errno::ETOOMANYREFS) => return parked,
            Err(Errno::EAGAIN) => {}
            other => panic!("cannot park: {other:?}"),
        }
    }
}

/// The first message.
pub(crate) fn hello(pid: i32, protocol: u32, comes_back: bool, counts: bool) -> ToSupervisor {
    let mut can = vec!["tell", "pause"];
    can.extend(counts.then_some("http_counts"));
    can.extend(comes_back.then_some("rejoin"));
    ToSupervisor::Hello(Hello {
        protocol,
        pid,
        program: "test_worker".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        capabilities: can.into_iter().map(str::to_owned).collect(),
    })
}

/// A report on what the server has done.
pub(crate) fn health(seq: u64, server: &Server, ballast: usize) -> ToSupervisor {
    let served = server.served();
    let mut buckets = [0; DURATION_BOUNDS.len() + 1];
    buckets[0] = served;
    ToSupervisor::Health(Health {
        seq,
        in_flight: server.in_flight(),
        connections: server.connections(),
        loop_lag_us: 0,
        status: format!("ballast {ballast}"),
        http: Some(Box::new(HttpCounts {
            requests: [0, served, 0, 0, 0],
            accepted: server.accepted(),
            duration_buckets: buckets,
            ..HttpCounts::default()
        })),
        access_log_dropped: 0,
        handoffs: None,
    })
}
