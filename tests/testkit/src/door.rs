//! Where orphans come: the next supervisor's socket, held by a test.

use std::io::ErrorKind;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use prefork_proto::channel::{self, SupervisorEnd};
use prefork_proto::message::{
    ListenerOffer, OutputStream, Rejoin, RejoinOffer, ToSupervisor, ToWorker,
};
use socket2::SockRef;
use tempfile::TempDir;

use crate::supervisor::{DEADLINE, Orders, Worker};

/// A place for the socket, and the socket once it is open.
pub struct Door {
    dir: TempDir,
    listener: Option<UnixListener>,
    secret: &'static str,
}

/// What a worker brought.
pub struct Returned {
    pub rejoin: Rejoin,
    pub scoreboard: Option<OwnedFd>,
    pub requests: Option<OwnedFd>,
    pub listeners: Vec<(ListenerOffer, OwnedFd)>,
    pub outputs: Vec<(OutputStream, OwnedFd)>,
}

impl Door {
    /// A door that nobody has opened yet.
    pub fn closed(secret: &'static str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self {
            dir,
            listener: None,
            secret,
        }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("rejoin.sock")
    }

    pub fn open(&mut self) {
        let listener = UnixListener::bind(self.path()).unwrap();
        listener.set_nonblocking(true).unwrap();
        self.listener = Some(listener);
    }

    pub fn opened(secret: &'static str) -> Self {
        let mut door = Self::closed(secret);
        door.open();
        door
    }

    pub fn offer(&self, orphan_timeout: Duration) -> RejoinOffer {
        RejoinOffer {
            path: self.path().to_str().unwrap().to_owned(),
            secret: self.secret.to_owned(),
            orphan_timeout_ms: orphan_timeout.as_millis().try_into().unwrap(),
        }
    }

    /// Orders that name this door, and patience for a whole test.
    pub fn orders(&self) -> Orders {
        let mut orders = Orders::default();
        orders.welcome.rejoin = Some(self.offer(6 * DEADLINE));
        orders
    }

    /// Whether somebody knocks, right now.
    pub fn knock(&self) -> Option<UnixStream> {
        match self.listener.as_ref().unwrap().accept() {
            Ok((stream, _)) => Some(stream),
            Err(error) if error.kind() == ErrorKind::WouldBlock => None,
            Err(error) => panic!("{error}"),
        }
    }

    /// Waits for a knock.
    pub fn answer(&self) -> UnixStream {
        let deadline = Instant::now() + DEADLINE;
        loop {
            if let Some(stream) = self.knock() {
                return stream;
            }
            assert!(Instant::now() < deadline, "nobody comes");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Lets a worker in, without a word to it, and takes what it brings.
    pub fn let_in(&self, worker: &mut Worker) -> Returned {
        worker.end = SupervisorEnd::new(self.answer().into());
        let rejoin = match worker.hear() {
            Some(ToSupervisor::Rejoin(rejoin)) => rejoin,
            other => panic!("not rejoin: {other:?}"),
        };
        assert_eq!(rejoin.secret, self.secret);
        let scoreboard = rejoin
            .scoreboard
            .then(|| match worker.hear_with_fd().unwrap() {
                (ToSupervisor::Scoreboard(_), Some(fd)) => fd,
                other => panic!("not the scoreboard: {other:?}"),
            });
        let requests = rejoin
            .requests
            .then(|| match worker.hear_with_fd().unwrap() {
                (ToSupervisor::Requests(_), Some(fd)) => fd,
                other => panic!("not the request table: {other:?}"),
            });
        let listeners = (0..rejoin.listeners)
            .map(|_| match worker.hear_with_fd().unwrap() {
                (ToSupervisor::Listener(offer), Some(fd)) => (offer, fd),
                other => panic!("not a listener: {other:?}"),
            })
            .collect();
        let outputs = (0..rejoin.outputs)
            .map(|_| match worker.hear_with_fd().unwrap() {
                (ToSupervisor::Output(offer), Some(fd)) => (offer.stream, fd),
                other => panic!("not an output: {other:?}"),
            })
            .collect();
        Returned {
            rejoin,
            scoreboard,
            requests,
            listeners,
            outputs,
        }
    }

    /// Lets a worker in and goes on with it.
    pub fn welcome(&self, worker: &mut Worker) -> Returned {
        let returned = self.let_in(worker);
        worker.say(&ToWorker::Welcome(self.orders().welcome));
        returned
    }
}

impl Worker {
    /// Ends the channel as a killed supervisor does.
    pub fn abandon(&mut self) {
        self.end = channel::pair().unwrap().0;
    }

    /// A worker that this door was named to, up to `ready`.
    pub fn near(door: &Door) -> Self {
        Self::with(door.orders())
    }
}

/// What a socket is known by, whoever holds it (socket(7)).
pub fn cookie(socket: &impl std::os::fd::AsFd) -> u64 {
    SockRef::from(socket).cookie().unwrap()
}
