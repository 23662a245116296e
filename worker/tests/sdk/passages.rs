//! Connections that come through a passage, and those that go out by it.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, send, shutdown};
use prefork_proto::message::{Handoffs, PassageOffer, ToWorker};
use prefork_proto::passage::{self, Kept, Passed, Received};

use prefork_testkit::client::Client;
use prefork_testkit::supervisor::{DEADLINE, Orders, Worker};

const LONG: Duration = Duration::from_secs(60);

/// Gives a worker a passage for its listener; the test's own duplicate of it.
fn with_passage(worker: &mut Worker) -> OwnedFd {
    let passage = passage::create().unwrap();
    give(worker, &passage);
    passage
}

fn give(worker: &mut Worker, passage: &OwnedFd) {
    let offer = PassageOffer {
        name: "main".to_owned(),
        version: passage::VERSION,
        fds: 1,
    };
    let duplicate = passage.try_clone().unwrap();
    let offer = ToWorker::Passage(offer);
    worker.end.queue_with_fd(&offer, duplicate).unwrap();
    worker.end.flush().unwrap();
    assert!(worker.ask(|id| ToWorker::Ping { id }).ok);
}

/// A client, and its connection as a worker has it.
fn connection() -> (Client, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (accepted, _) = listener.accept().unwrap();
    accepted.set_nonblocking(true).unwrap();
    client.set_read_timeout(Some(DEADLINE)).unwrap();
    (Client::over(client), accepted)
}

fn pass(passage: &OwnedFd, passed: Passed, connection: &impl AsFd, read: &[u8]) {
    passage::send(passage.as_fd(), &passed, connection.as_fd(), read).unwrap();
}

/// What a worker hands on.
fn handed_on(passage: &OwnedFd) -> Received {
    let deadline = Instant::now() + DEADLINE;
    loop {
        match passage::receive(passage.as_fd()) {
            Ok(received) => return received,
            Err(error) => assert_eq!(error.raw_os_error(), Some(Errno::EAGAIN as i32)),
        }
        assert!(Instant::now() < deadline, "nothing is handed on");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// What has become of the connections of a worker that leaves by itself.
fn left(worker: &mut Worker) -> Handoffs {
    *worker.drained().handoffs.expect("it has drained")
}

fn leave(worker: &mut Worker) {
    let drained = worker.ask(|id| ToWorker::Drain {
        id,
        deadline_ms: 60_000,
        sweep: false,
        pass_on: vec!["main".to_owned()],
    });
    assert!(drained.ok, "{drained:?}");
}

#[test]
fn what_comes_is_served_as_if_it_had_been_accepted_but_not_counted_again() {
    let mut worker = Worker::ready();
    let passage = with_passage(&mut worker);
    let passed = Passed {
        client: Some("192.0.2.7:4711".parse().unwrap()),
        by_proxy: true,
        has_spoken: true,
    };
    let (mut client, accepted) = connection();
    pass(&passage, passed, &accepted, b"");
    drop(accepted);
    worker.connections(1);
    let peer = client.get("/peer");
    assert!(peer.text().contains("192.0.2.7:4711"), "{}", peer.text());
    // Half of a head that another worker has read.
    let (mut half, accepted) = connection();
    pass(&passage, passed, &accepted, b"GET / HT");
    drop(accepted);
    half.send("TP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(half.response().status, 200);
    // A request that nobody has read.
    let (mut unread, accepted) = connection();
    unread.ask("/");
    pass(&passage, passed, &accepted, b"");
    assert_eq!(unread.response().status, 200);
    let health = worker.health(|health| health.connections == 3);
    assert_eq!(health.http.unwrap().accepted, 0);
}

#[test]
fn what_is_no_connection_is_dropped_and_the_next_one_is_served() {
    let mut worker = Worker::ready();
    let passage = with_passage(&mut worker);
    let passed = Passed::default();
    for nonsense in [&b""[..], b"nonsense", &[1; 32], &[0xff; 4096]] {
        send(passage.as_raw_fd(), nonsense, MsgFlags::empty()).unwrap();
    }
    let (reader, _writer) = std::io::pipe().unwrap();
    pass(&passage, passed, &reader, b"");
    pass(
        &passage,
        passed,
        &std::fs::File::open("/dev/zero").unwrap(),
        b"",
    );
    pass(&passage, passed, &passage, b"");
    pass(
        &passage,
        passed,
        &std::net::UdpSocket::bind("127.0.0.1:0").unwrap(),
        b"GET",
    );
    // These are sockets of the right kind; that is all that is right about them.
    pass(
        &passage,
        passed,
        &TcpListener::bind("127.0.0.1:0").unwrap(),
        b"",
    );
    let (gone, accepted) = connection();
    drop(gone);
    pass(&passage, passed, &accepted, b"");
    let (near, far) = UnixStream::pair().unwrap();
    near.shutdown(Shutdown::Both).unwrap();
    pass(&passage, passed, &far, b"\0\xff\r\n\r\n");
    drop((accepted, far));
    let (mut client, accepted) = connection();
    pass(&passage, passed, &accepted, b"");
    drop(accepted);
    assert_eq!(client.get("/").status, 200);
    worker.connections(1);
}

#[test]
fn a_passage_that_somebody_has_closed_costs_nothing_and_another_takes_its_place() {
    let mut worker = Worker::ready();
    let closed = with_passage(&mut worker);
    shutdown(closed.as_raw_fd(), nix::sys::socket::Shutdown::Both).unwrap();
    assert_eq!(Client::connect(worker.address).get("/").status, 200);
    let deadline = Instant::now() + DEADLINE;
    while worker.holds(&closed) {
        assert!(
            Instant::now() < deadline,
            "it keeps what nothing comes through"
        );
        std::thread::sleep(Duration::from_millis(2));
    }
    let passage = with_passage(&mut worker);
    let (mut client, accepted) = connection();
    pass(&passage, Passed::default(), &accepted, b"");
    drop(accepted);
    assert_eq!(client.get("/").status, 200);
}

#[test]
fn who_has_spoken_http1_speaks_nothing_else() {
    let mut worker = Worker::ready();
    let passage = with_passage(&mut worker);
    let (mut client, accepted) = connection();
    let passed = Passed {
        has_spoken: true,
        ..Passed::default()
    };
    pass(&passage, passed, &accepted, b"");
    drop(accepted);
    client.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    assert_eq!(client.response().status, 400);
    client.until_closed();
}

#[test]
fn what_is_idle_goes_with_what_has_come_of_its_next_request() {
    let mut worker = Worker::ready();
    let passage = with_passage(&mut worker);
    let mut spoken = Client::connect(worker.address);
    assert_eq!(spoken.get("/").status, 200);
    let mut silent = Client::connect(worker.address);
    worker.connections(2);
    let mut half = Client::connect(worker.address);
    half.send("GET /");
    worker.connections(3);
    let mut busy = Client::connect(worker.address);
    busy.ask("/slow?300");
    worker.in_flight(1);
    leave(&mut worker);
    let mut came: Vec<Received> = (0..4).map(|_| handed_on(&passage)).collect();
    assert!(!busy.response().says_close());
    let has_spoken = |it: &&Received| it.passed.has_spoken;
    assert_eq!(came.iter().filter(has_spoken).count(), 3);
    assert!(came.iter().all(|it| it.passed.client.is_some()));
    let read: Vec<u8> = came.iter().flat_map(|it| it.read.clone()).collect();
    assert!(read.is_empty() || read == b"GET /", "{read:?}");
    let left = left(&mut worker);
    assert_eq!((left.passed_on, left.not_passed_on), (4, [0; 5]));
    // They are open, each at its end.
    for received in came.drain(..) {
        let mut connection = TcpStream::from(received.connection);
        connection
            .write_all(b"HTTP/1.1 204 No Content\r\n\r\n")
            .unwrap();
    }
    for client in [&mut spoken, &mut silent, &mut half, &mut busy] {
        assert_eq!(client.response().status, 204);
    }
}

#[test]
fn where_nobody_takes_them_they_end_in_good_order() {
    let mut worker = Worker::ready();
    let passage = with_passage(&mut worker);
    let mut client = Client::connect(worker.address);
    assert_eq!(client.get("/").status, 200);
    worker.drain(LONG);
    client.until_closed();
    let left = left(&mut worker);
    assert_eq!(left.passed_on, 0);
    assert_eq!(left.not_passed_on[Kept::NoReceiver as usize], 1);
    let nothing = passage::receive(passage.as_fd()).unwrap_err();
    assert_eq!(nothing.raw_os_error(), Some(Errno::EAGAIN as i32));
}

#[test]
fn where_there_is_no_room_for_it_a_connection_is_served_until_there_is() {
    let mut orders = Orders::default();
    orders.welcome.idle_grace_ms = 60_000;
    let mut worker = Worker::with(orders);
    let passage = with_passage(&mut worker);
    let mut client = Client::connect(worker.address);
    assert_eq!(client.get("/").status, 200);
    assert!(worker.ask(|id| ToWorker::Pause { id }).ok);
    let (_other, accepted) = connection();
    let full = || passage::send(passage.as_fd(), &Passed::default(), accepted.as_fd(), b"");
    let mut under_way = 0;
    while full().is_ok() {
        under_way += 1;
    }
    leave(&mut worker);
    for _ in 0..3 {
        let answer = client.get("/");
        assert_eq!(answer.status, 200);
        assert!(!answer.says_close());
    }
    for _ in 0..under_way {
        handed_on(&passage);
    }
    handed_on(&passage);
    assert_eq!(left(&mut worker).passed_on, 1);
}

#[test]
fn another_passage_takes_the_place_of_one_once_that_is_empty() {
    let mut worker = Worker::ready();
    let first = with_passage(&mut worker);
    assert!(worker.ask(|id| ToWorker::Pause { id }).ok);
    let (mut waits, accepted) = connection();
    pass(&first, Passed::default(), &accepted, b"");
    drop(accepted);
    let second = with_passage(&mut worker);
    assert_eq!(waits.get("/").status, 200);
    assert!(!worker.holds(&first));
    assert!(worker.holds(&second));
    assert!(worker.ask(|id| ToWorker::Resume { id }).ok);
    let (mut client, accepted) = connection();
    pass(&second, Passed::default(), &accepted, b"");
    drop(accepted);
    assert_eq!(client.get("/").status, 200);
}

#[test]
fn without_a_descriptor_for_it_a_connection_waits() {
    let mut worker = Worker::with(Orders {
        prefix: Some("ulimit -n 32;"),
        ..Orders::default()
    });
    let passage = with_passage(&mut worker);
    let mut crowd: Vec<Client> = (0..40).map(|_| Client::connect(worker.address)).collect();
    worker.health(|health| health.connections >= 5);
    let (mut client, accepted) = connection();
    client.ask("/");
    pass(&passage, Passed::default(), &accepted, b"");
    drop(accepted);
    for client in &mut crowd {
        client.close_sending();
    }
    drop(crowd);
    assert_eq!(client.response().status, 200);
}

#[test]
fn a_connection_that_rests_goes_on_by_the_terms_on_which_it_came() {
    let mut orders = Orders::default();
    orders.welcome.http.idle_timeout_ms = Some(4000);
    let mut worker = Worker::with(orders);
    let mut client = Client::connect(worker.address);
    assert_eq!(client.get("/").status, 200);
    let mut silent = Client::connect(worker.address);
    worker.connections(2);
    // Longer than a connection keeps what it does not use.
    std::thread::sleep(Duration::from_millis(3000));
    assert_eq!(client.get("/").status, 200);
    assert_eq!(silent.get("/").status, 200);
    let begun = Instant::now();
    client.until_closed();
    silent.until_closed();
    assert!(begun.elapsed() >= Duration::from_millis(3900), "{begun:?}");
    worker.connections(0);
}

/// What reads like a request and is the second half of a body.
const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";

/// A client whose request is answered before its body is read, which takes so long, and
/// which has come by then but for `SMUGGLED`.
fn answered_early(worker: &mut Worker, millis: u64) -> Client {
    let mut client = Client::connect(worker.address);
    let length = SMUGGLED.len() + 1;
    client.send(format!(
        "POST /early?{millis} HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n-"
    ));
    assert_eq!(client.response().text(), "early\n");
    client
}

#[test]
fn a_connection_goes_once_the_body_is_read_that_was_answered_before() {
    let mut worker = Worker::ready();
    let passage = with_passage(&mut worker);
    let mut client = answered_early(&mut worker, 100);
    leave(&mut worker);
    client.send(SMUGGLED);
    let received = handed_on(&passage);
    assert!(received.read.is_empty(), "{:?}", received.read);
    let mut connection = TcpStream::from(received.connection);
    let left = connection.read(&mut [0; 64]).map_err(|error| error.kind());
    assert_eq!(left, Err(std::io::ErrorKind::WouldBlock));
    assert!(!client.hears_within(Duration::from_millis(50)));
    worker.drained();
}

#[test]
fn a_body_that_nobody_reads_in_time_is_never_taken_for_a_request() {
    let mut worker = Worker::ready();
    let passage = with_passage(&mut worker);
    let mut client = answered_early(&mut worker, 60_000);
    client.send(SMUGGLED);
    leave(&mut worker);
    client.until_closed();
    let nothing = passage::receive(passage.as_fd()).unwrap_err();
    assert_eq!(nothing.raw_os_error(), Some(Errno::EAGAIN as i32));
    worker.drained();
}
