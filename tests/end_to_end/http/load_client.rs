//! The load client is only worth something if it notices: here it meets
//! servers that lose requests in each way that it counts, and one that ends
//! its connections as it should.

use std::convert::Infallible;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};

use crate::harness::deadline::{PATIENCE, eventually};
use crate::harness::load::{Failure, Kind, Load, Outcomes};

/// How a server treats its `number`th connection.
type Treat = fn(number: u64, stream: TcpStream);

/// A server in this process; gives its address.
fn server(treat: Treat) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let address = listener.local_addr().expect("it is bound");
    std::thread::spawn(move || {
        for (number, stream) in (0..).zip(listener.incoming().flatten()) {
            std::thread::spawn(move || treat(number, stream));
        }
    });
    address
}

/// Reads one request with its body; `false` at the end of the connection.
fn read_request(stream: &mut BufReader<TcpStream>) -> bool {
    let mut length = 0;
    loop {
        let mut line = String::new();
        if !matches!(stream.read_line(&mut line), Ok(1..)) {
            return false;
        }
        if let Some(value) = line.strip_prefix("Content-Length: ") {
            length = value.trim().parse().expect("a length");
        }
        if line == "\r\n" {
            return stream.read_exact(&mut vec![0; length]).is_ok();
        }
    }
}

/// Answers every request of a connection like this.
fn answer_all(stream: TcpStream, answer: &str) {
    let mut stream = BufReader::new(stream);
    while read_request(&mut stream) && stream.get_mut().write_all(answer.as_bytes()).is_ok() {}
}

/// Answers the first request of a connection like this, and closes it.
fn answer_one(stream: TcpStream, answer: &str) {
    let mut stream = BufReader::new(stream);
    if read_request(&mut stream) {
        let _ = stream.get_mut().write_all(answer.as_bytes());
    }
}

/// What one client of a kind has to say when it has lost five requests.
#[track_caller]
fn after_five_losses(kind: Kind, address: SocketAddr) -> Outcomes {
    let load = Load::with_patience(kind, address, 1, Duration::from_millis(300));
    eventually("requests are lost", PATIENCE, || load.failed() >= 5);
    load.stop()
}

/// Wants these failures and no others.
#[track_caller]
fn loses(kind: Kind, address: SocketAddr, expected: &[Failure]) -> Outcomes {
    let outcomes = after_five_losses(kind, address);
    assert!(
        outcomes.failures.keys().all(|f| expected.contains(f)),
        "{kind:?}, expected {expected:?}: {outcomes:#?}"
    );
    outcomes
}

const ONE_BY_ONE: [Kind; 3] = [Kind::KeepAlive, Kind::Close, Kind::Digest];

#[test]
fn a_refused_connection_is_counted() {
    let free = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    // Bound and not listening: nobody else can take the port meanwhile.
    let address = free.local_addr().expect("it is bound");
    let unheard = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
    let unheard = unheard.expect("a socket can be made");
    drop(free);
    unheard.set_reuse_address(true).expect("it is an option");
    unheard.bind(&address.into()).expect("the port is free");
    for kind in Kind::ALL {
        let outcomes = loses(kind, address, &[Failure::Refused]);
        assert_eq!(outcomes.served, 0);
    }
}

#[test]
fn a_reset_is_counted() {
    let address = server(|_, stream| {
        let mut reader = BufReader::new(stream);
        if read_request(&mut reader) {
            let socket = socket2::SockRef::from(reader.get_ref());
            socket
                .set_linger(Some(Duration::ZERO))
                .expect("it is an option");
        }
    });
    for kind in ONE_BY_ONE {
        loses(kind, address, &[Failure::Reset]);
    }
}

#[test]
fn a_connection_that_is_closed_instead_of_an_answer_is_counted() {
    let address = server(|_, stream| answer_one(stream, ""));
    for kind in ONE_BY_ONE {
        loses(kind, address, &[Failure::Unanswered]);
    }
}

#[test]
fn a_connection_that_is_closed_after_an_answer_that_did_not_say_so_is_counted() {
    let address = server(|_, stream| {
        answer_one(stream, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    });
    let outcomes = loses(
        Kind::KeepAlive,
        address,
        &[Failure::Unanswered, Failure::Reset],
    );
    // Each connection served one request and lost one; the last may have been
    // told to end between the two.
    let lost: u64 = outcomes.failures.values().sum();
    assert!(outcomes.served - lost <= 1, "{outcomes:?}");
}

#[test]
fn an_answer_that_is_cut_is_counted() {
    let treats: [Treat; 4] = [
        |_, stream| answer_one(stream, "HTTP/1.1 200"),
        |_, stream| answer_one(stream, "HTTP/1.1 200 OK\r\nContent-Le"),
        |_, stream| answer_one(stream, "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n"),
        |_, stream| {
            let head = "HTTP/1.1 200 OK\r\nContent-Length: 9\r\nConnection: close";
            answer_one(stream, &format!("{head}\r\n\r\nfour"));
        },
    ];
    for treat in treats {
        let address = server(treat);
        for kind in ONE_BY_ONE {
            let outcomes = loses(kind, address, &[Failure::Short]);
            assert_eq!(outcomes.served, 0);
        }
    }
}

#[test]
fn another_status_than_2xx_is_counted() {
    let address = server(|_, stream| {
        answer_all(
            stream,
            "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n",
        );
    });
    for kind in ONE_BY_ONE {
        loses(kind, address, &[Failure::Status]);
    }
}

#[test]
fn a_wrong_digest_is_counted() {
    let address = server(|_, stream| {
        answer_all(stream, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nbeef");
    });
    loses(Kind::Digest, address, &[Failure::WrongBody]);
}

#[test]
fn what_is_no_http_or_too_much_of_it_is_counted() {
    let treats: [Treat; 3] = [
        |_, stream| answer_one(stream, "220 mail.example.org ESMTP\r\n"),
        |_, stream| answer_one(stream, "HTTP/1.1 200 OK\r\n\r\nno length"),
        |_, stream| answer_all(stream, "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\ntwo"),
    ];
    for treat in treats {
        loses(Kind::KeepAlive, server(treat), &[Failure::Garbage]);
    }
    let kept: Treat = |_, stream| {
        answer_all(stream, "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na");
    };
    loses(Kind::Close, server(kept), &[Failure::Garbage]);
}

#[test]
fn silence_is_counted() {
    let address = server(|_, stream| {
        // Until the client gives up.
        let _ = (&stream).read_to_end(&mut Vec::new());
    });
    for kind in ONE_BY_ONE {
        loses(kind, address, &[Failure::TimedOut]);
    }
}

#[test]
fn a_server_that_announces_each_end_loses_nothing() {
    let address = server(|number, stream| {
        let mut stream = BufReader::new(stream);
        for _ in 0..number % 5 {
            if !read_request(&mut stream) {
                return;
            }
            let kept = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
            let _ = stream.get_mut().write_all(kept);
        }
        answer_one_reader(stream);
    });
    let load = Load::start(address, 2);
    load.serves(200);
    load.stop_flawless();
}

fn answer_one_reader(mut stream: BufReader<TcpStream>) {
    if read_request(&mut stream) {
        let last = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: Close\r\n\r\nok";
        let _ = stream.get_mut().write_all(last);
    }
}

/// How an HTTP/2 server treats a connection from its tenth request on.
#[derive(Clone, Copy)]
enum Ends {
    /// GOAWAY in two steps; what was sent is answered.
    Gracefully,
    /// The connection is dropped, with all that is on its way.
    Abruptly,
    /// It doesn't, and each answer is a 503.
    NeverUnavailable,
}

/// An HTTP/2 server in this process; gives its address.
fn http2_server(ends: Ends) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let address = listener.local_addr().expect("it is bound");
    listener.set_nonblocking(true).expect("it can be");
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime can be made");
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener).expect("it is a listener");
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(http2_connection(stream, ends));
            }
        });
    });
    address
}

async fn http2_connection(stream: tokio::net::TcpStream, ends: Ends) {
    let requests = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&requests);
    let service = service_fn(move |_: Request<hyper::body::Incoming>| {
        counted.fetch_add(1, Ordering::Relaxed);
        async move {
            // Long enough for the end to come while it is in flight.
            tokio::time::sleep(Duration::from_millis(2)).await;
            let mut response = Response::new(Full::new(Bytes::from_static(b"ok")));
            if let Ends::NeverUnavailable = ends {
                *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
            }
            Ok::<_, Infallible>(response)
        }
    });
    let connection = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    let mut look = tokio::time::interval(Duration::from_millis(1));
    loop {
        tokio::select! {
            _ = &mut connection => return,
            _ = look.tick() => {}
        }
        if requests.load(Ordering::Relaxed) < 10 {
            continue;
        }
        match ends {
            Ends::Gracefully => connection.as_mut().graceful_shutdown(),
            Ends::Abruptly => return,
            Ends::NeverUnavailable => {}
        }
    }
}

#[test]
fn an_http2_server_that_says_goaway_first_loses_nothing() {
    let load = Load::of(Kind::Http2, http2_server(Ends::Gracefully), 2);
    load.serves(500);
    load.stop_flawless();
}

#[test]
fn an_http2_server_that_just_goes_is_counted() {
    let address = http2_server(Ends::Abruptly);
    let outcomes = loses(Kind::Http2, address, &[Failure::Stream, Failure::Reset]);
    assert!(outcomes.served > 0, "{outcomes:?}");
}

#[test]
fn another_status_by_http2_is_counted() {
    let address = http2_server(Ends::NeverUnavailable);
    let outcomes = loses(Kind::Http2, address, &[Failure::Status]);
    assert_eq!(outcomes.served, 0);
}
