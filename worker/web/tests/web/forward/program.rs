//! A program behind, of which a test says every byte, and the front before it.

use std::io::ErrorKind;
use std::net::TcpListener;
use std::time::{Duration, Instant};

use prefork_proto::message::{Reply, ToSupervisor, ToWorker, Upstream, Upstreams, Vacate};
use serde_json::{Value, json};

use prefork_testkit::client::Client;
use prefork_testkit::supervisor::{DEADLINE, Orders, Worker};

/// Where a program listens.
pub(super) struct Program(TcpListener);

impl Program {
    pub(super) fn listen() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        Self(listener)
    }

    pub(super) fn address(&self) -> String {
        self.0.local_addr().unwrap().to_string()
    }

    /// The next connection of the front's.
    pub(super) fn accept(&self) -> Client {
        let deadline = Instant::now() + DEADLINE;
        loop {
            if let Some(client) = self.accepts() {
                return client;
            }
            assert!(Instant::now() < deadline, "the front does not connect");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Waits until the front's ends of all connections have heard that they are closed:
    /// what it sends before that is as lost as it is with any server.
    pub(super) fn is_known_to_have_closed(&self) {
        let port = self.0.local_addr().unwrap().port();
        let deadline = Instant::now() + DEADLINE;
        // The second field is the other end's address, the third the state
        // (proc_pid_net(5)); 01 is ESTABLISHED.
        let is_open = |row: &str| {
            let mut fields = row.split_ascii_whitespace().skip(2);
            let peer = fields.next().unwrap_or_default();
            peer.ends_with(&format!(":{port:04X}")) && fields.next() == Some("01")
        };
        while std::fs::read_to_string("/proc/net/tcp")
            .unwrap()
            .lines()
            .any(is_open)
        {
            assert!(Instant::now() < deadline, "the front's end is open");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// The next connection, if there is one.
    pub(super) fn accepts(&self) -> Option<Client> {
        match self.0.accept() {
            Ok((stream, _)) => {
                stream.set_nonblocking(false).unwrap();
                stream.set_read_timeout(Some(DEADLINE)).unwrap();
                Some(Client::over(stream))
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => None,
            Err(error) => panic!("{error}"),
        }
    }
}

/// A front that is ready and knows of no worker yet.
pub(super) fn front(mut app: Value) -> Worker {
    app["confine"] = json!(false);
    app["forward"] = json!("shop");
    let mut orders = Orders {
        program: "web_server",
        ..Orders::default()
    };
    orders.welcome.app = app;
    Worker::with(orders)
}

/// A front and the programs that it forwards to.
pub(super) fn before(app: Value, concurrency: u32, programs: usize) -> (Worker, Vec<Program>) {
    let programs: Vec<_> = (0..programs).map(|_| Program::listen()).collect();
    let mut front = front(app);
    let addresses: Vec<_> = programs.iter().map(Program::address).collect();
    learn(&mut front, concurrency, &addresses);
    (front, programs)
}

/// Tells a front of these workers, each in its slot.
pub(super) fn learn(front: &mut Worker, concurrency: u32, addresses: &[String]) {
    let workers = (0..).zip(addresses).map(|(slot, address)| Upstream {
        slot,
        incarnation: 1,
        address: address.clone(),
        leaving: false,
        place: Some(slot * 2 + 1),
    });
    let workers = workers.collect();
    let reply = front.ask(|id| {
        ToWorker::Upstreams(Upstreams {
            id,
            pool: "shop".to_owned(),
            concurrency,
            workers,
            more: false,
        })
    });
    assert!(reply.ok, "{reply:?}");
}

/// Asks a front to leave slot 0 alone, and does not wait for the reply.
pub(super) fn vacate(front: &mut Worker, id: u64) {
    front.say(&ToWorker::Vacate(Vacate {
        id,
        pool: "shop".to_owned(),
        slot: 0,
        incarnation: 1,
    }));
}

/// Waits for the reply to this.
pub(super) fn replied(front: &mut Worker, id: u64) -> Reply {
    front.until(|message| match message {
        ToSupervisor::Reply(reply) if reply.id == id => Some(reply),
        _ => None,
    })
}

/// What it has replied by now, but for an answer to a ping.
pub(super) fn replies_so_far(front: &mut Worker) -> Vec<u64> {
    const PING: u64 = 999;
    front.say(&ToWorker::Ping { id: PING });
    let mut replies = Vec::new();
    front.until(|message| {
        match message {
            ToSupervisor::Reply(reply) if reply.id == PING => return Some(()),
            ToSupervisor::Reply(reply) => replies.push(reply.id),
            _ => {}
        }
        None
    });
    replies
}

pub(super) fn get(front: &Worker) -> Client {
    let mut client = Client::connect(front.address);
    client.ask("/shoes");
    client
}

pub(super) fn post(front: &Worker) -> Client {
    let mut client = Client::connect(front.address);
    client.send("POST /shoes HTTP/1.1\r\nhost: test\r\ncontent-length: 4\r\n\r\nsize");
    client
}

/// What a program says when all is well.
pub(super) const HELLO: &str = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello";
