//! Workers replaced under the load of clients that never retry: not one
//! request may break.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use prefork_proto::message::{ToSupervisor, ToWorker};

use prefork_testkit::client::Client;
use prefork_testkit::supervisor::{DEADLINE, Orders, Worker};

const CLIENTS: usize = 32;
const REPLACEMENTS: usize = 6;

/// What the clients are told, and tell.
#[derive(Default)]
struct Fire {
    over: AtomicBool,
    answered: AtomicU64,
    /// Connections that a worker ended as it drained.
    ended: AtomicU64,
}

impl Fire {
    fn burns(&self) -> bool {
        !self.over.load(Relaxed)
    }

    /// Waits until the clients have had some more answers. Which worker gives them is not
    /// said: connections that one has handed on may all be with another.
    fn burns_on(&self) {
        let wanted = self.answered.load(Relaxed) + 50;
        let deadline = Instant::now() + DEADLINE;
        while self.answered.load(Relaxed) < wanted {
            assert!(Instant::now() < deadline, "nobody is answered");
            thread::sleep(Duration::from_millis(1));
        }
    }
}

/// One client: works until the fire is over and panics at the first request
/// that breaks.
type Work = fn(SocketAddr, &Fire, usize);

/// Replaces one of two workers after the other under the fire of these clients.
fn replaced_under_fire(clients: usize, work: Work) -> Arc<Fire> {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let start = || Worker::beside(Orders::default(), listener.try_clone().unwrap());
    let mut workers = vec![start(), start()];
    let fire = Arc::new(Fire::default());
    let clients: Vec<JoinHandle<()>> = (0..clients)
        .map(|number| {
            let fire = Arc::clone(&fire);
            thread::spawn(move || work(address, &fire, number))
        })
        .collect();
    let mut served = 0;
    for _ in 0..REPLACEMENTS {
        workers.push(start());
        let mut old = workers.remove(0);
        fire.burns_on();
        old.drain(DEADLINE);
        served += old.drained().http.unwrap().total();
    }
    fire.over.store(true, Relaxed);
    for client in clients {
        client.join().expect("no request breaks");
    }
    for mut worker in workers {
        worker.say(&ToWorker::Stop { id: 0 });
        let (health, last) = worker.last_words();
        assert!(matches!(last, ToSupervisor::Bye { .. }), "{last:?}");
        served += health.http.unwrap().total();
    }
    assert_eq!(
        served,
        fire.answered.load(Relaxed),
        "each answer counted once"
    );
    fire
}

fn keeps_alive(address: SocketAddr, fire: &Fire, _: usize) {
    while fire.burns() {
        let mut client = Client::connect(address);
        while fire.burns() {
            let response = client.get("/");
            assert_eq!((response.status, response.text()), (200, "ok\n"));
            fire.answered.fetch_add(1, Relaxed);
            if response.says_close() {
                client.until_closed();
                fire.ended.fetch_add(1, Relaxed);
                break;
            }
        }
    }
}

fn closes(address: SocketAddr, fire: &Fire, _: usize) {
    while fire.burns() {
        let mut client = Client::connect(address);
        client.send("GET / HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n");
        assert_eq!(client.response().status, 200);
        client.until_closed();
        fire.answered.fetch_add(1, Relaxed);
    }
}

fn posts(address: SocketAddr, fire: &Fire, number: usize) {
    let mut round = number;
    while fire.burns() {
        let mut client = Client::connect(address);
        while fire.burns() {
            round += 1;
            let body: Vec<u8> = (0..16 * 1024).map(|at| (at * round) as u8).collect();
            client.send("POST /echo HTTP/1.1\r\nhost: test\r\ncontent-length: 16384\r\n\r\n");
            let (first, second) = body.split_at(9_000);
            client.send(first);
            client.send(second);
            let response = client.response();
            assert_eq!(response.status, 200);
            assert!(response.body == body, "another body came back");
            fire.answered.fetch_add(1, Relaxed);
            if response.says_close() {
                client.until_closed();
                fire.ended.fetch_add(1, Relaxed);
                break;
            }
        }
    }
}

fn multiplexes(address: SocketAddr, fire: &Fire, _: usize) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        while fire.burns() {
            let stream = tokio::net::TcpStream::connect(address).await.unwrap();
            stream.set_nodelay(true).unwrap();
            let io = TokioIo::new(stream);
            let (sender, connection) = http2::handshake(TokioExecutor::new(), io).await.unwrap();
            let connection = tokio::spawn(connection);
            let stream = || one_stream(sender.clone(), fire);
            tokio::join!(stream(), stream(), stream(), stream());
            drop(sender);
            if fire.burns() {
                connection.await.unwrap().expect("a clean end");
                fire.ended.fetch_add(1, Relaxed);
            }
        }
    });
}

/// One request after the other, until GOAWAY lets no more of them begin.
async fn one_stream(mut sender: http2::SendRequest<Full<Bytes>>, fire: &Fire) {
    while fire.burns() {
        if sender.ready().await.is_err() {
            return;
        }
        let request = Request::get("http://test/").body(Full::default()).unwrap();
        let response = match sender.try_send_request(request).await {
            Ok(response) => response,
            Err(error) => {
                // What has never been sent may go another way.
                let sent = error.message().is_none();
                assert!(!sent, "a request was lost: {:?}", error.error());
                return;
            }
        };
        assert_eq!(response.status(), 200);
        let body = response.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(body, "ok\n");
        fire.answered.fetch_add(1, Relaxed);
    }
}

#[test]
fn connections_that_are_kept_alive() {
    let fire = replaced_under_fire(CLIENTS, keeps_alive);
    assert!(fire.ended.load(Relaxed) >= REPLACEMENTS as u64);
}

#[test]
fn connections_of_one_request() {
    replaced_under_fire(CLIENTS, closes);
}

#[test]
fn bodies_of_16_kib() {
    let fire = replaced_under_fire(CLIENTS, posts);
    assert!(fire.ended.load(Relaxed) >= REPLACEMENTS as u64);
}

#[test]
fn http_2() {
    let fire = replaced_under_fire(4, multiplexes);
    assert!(fire.ended.load(Relaxed) >= 2);
}
