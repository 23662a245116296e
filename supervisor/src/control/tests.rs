//! The control socket as any HTTP client sees it: real sockets, raw bytes.

use std::future::Future;
use std::path::Path;
use std::time::Duration;

use prefork_api::{Event, JobLine};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::task::LocalSet;
use tokio::time::timeout;

use super::Allowed;
use super::fake::{Fake, done, status};

const DEADLINE: Duration = Duration::from_secs(20);

/// Runs a test on one thread, with a deadline.
fn on_one_thread(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    LocalSet::new().block_on(&runtime, async {
        timeout(DEADLINE, test).await.expect("the test is too slow");
    });
}

/// Waits for something that another task brings about.
async fn eventually(what: &str, condition: impl Fn() -> bool) {
    let waiting = async {
        while !condition() {
            tokio::task::yield_now().await;
        }
    };
    timeout(DEADLINE, waiting).await.expect(what);
}

/// Sends bytes and reads all that comes until the server closes.
async fn exchange(socket: &Path, bytes: &[u8]) -> String {
    let mut stream = UnixStream::connect(socket).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

async fn get(socket: &Path, path: &str) -> String {
    let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    exchange(socket, request.as_bytes()).await
}

async fn post(socket: &Path, path: &str, body: &str) -> String {
    let length = body.len();
    let request = format!(
        "POST {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}"
    );
    exchange(socket, request.as_bytes()).await
}

fn starts(answer: &str, status: &str) -> bool {
    answer.starts_with(&format!("HTTP/1.1 {status}"))
}

#[test]
fn questions_are_answered_with_their_media_types() {
    on_one_thread(async {
        let fake = Fake::start();
        let socket = fake.socket();
        let answer = get(&socket, "/v1/status").await;
        assert!(starts(&answer, "200"), "{answer}");
        assert!(answer.contains("content-type: application/json"));
        assert!(answer.contains(r#""schema":1"#));
        let answer = get(&socket, "/v1/metrics").await;
        assert!(answer.contains("content-type: text/plain; version=0.0.4"));
        assert!(answer.ends_with("fake_metric 1\n"));
        assert!(starts(&get(&socket, "/v1/livez").await, "200"));
        assert!(starts(&get(&socket, "/v1/readyz").await, "200"));
        fake.change(|it| *it = status(2, 1));
        let answer = get(&socket, "/v1/readyz").await;
        assert!(starts(&answer, "503"), "{answer}");
        assert!(answer.contains("pool web: 1 of 2 workers ready"));
    });
}

#[test]
fn an_array_is_not_taken_for_the_fields_of_a_body() {
    on_one_thread(async {
        let fake = Fake::start();
        let socket = fake.socket();
        for path in [
            "/v1/pools/web/scale",
            "/v1/reload",
            "/v1/workers/web/0/kill",
        ] {
            let answer = post(&socket, path, " [3]").await;
            assert!(starts(&answer, "400"), "{path}: {answer}");
            assert!(answer.contains("an array is no object"), "{answer}");
        }
    });
}

#[test]
fn wrong_requests_get_the_status_that_says_why() {
    on_one_thread(async {
        let fake = Fake::start();
        let socket = fake.socket();
        let answer = get(&socket, "/v1/nothing").await;
        assert!(starts(&answer, "404") && answer.contains("/v1/status"));
        let answer = get(&socket, "/v1/stop").await;
        assert!(starts(&answer, "405") && answer.contains("allow: POST"));
        let answer = get(&socket, "/v1/events?since=x").await;
        assert!(starts(&answer, "400") && answer.contains("since=x"));
        let answer = post(&socket, "/v1/pools/web/scale", r#"{"worker": 3}"#).await;
        assert!(starts(&answer, "400"), "{answer}");
        assert!(answer.contains("unknown field `worker`") && answer.contains("line 1"));
        let answer = post(&socket, "/v1/pools/nope/scale", r#"{"workers": 3}"#).await;
        assert!(starts(&answer, "404"), "{answer}");
        assert!(answer.contains(r#""code":"not_found""#));
        let answer = post(&socket, "/v1/workers/web/0/resume", "").await;
        assert!(starts(&answer, "409"), "{answer}");
        let answer = exchange(&socket, b"rubbish\r\n\r\n").await;
        assert!(starts(&answer, "400"), "{answer}");
        let state = fake.state.borrow();
        assert_eq!(state.failures, ["scale", "scale", "resume"]);
        assert_eq!(
            state.audits,
            [
                "allowed: scale web (invalid)",
                "allowed: scale nope 3",
                "allowed: resume web/0"
            ]
        );
    });
}

#[test]
fn a_body_that_is_too_long_is_refused_even_while_it_is_still_sent() {
    on_one_thread(async {
        let fake = Fake::start();
        let body = " ".repeat(512 * 1024);
        let answer = post(&fake.socket(), "/v1/pools/web/tell", &body).await;
        assert!(starts(&answer, "413"), "{answer}");
        assert!(answer.contains("65536"));
    });
}

#[test]
fn a_job_streams_its_lines_as_they_come_and_outlives_its_client() {
    on_one_thread(async {
        let fake = Fake::start();
        let mut client = UnixStream::connect(fake.socket()).await.unwrap();
        let request =
            b"POST /v1/workers/web/0/drain HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n";
        client.write_all(request).await.unwrap();
        let mut head = String::new();
        while !head.contains("drains") {
            let mut buffer = [0; 1024];
            let length = client.read(&mut buffer).await.unwrap();
            assert_ne!(length, 0, "closed after {head}");
            head.push_str(str::from_utf8(&buffer[..length]).unwrap());
        }
        assert!(
            head.contains("content-type: application/x-ndjson"),
            "{head}"
        );
        drop(client);
        let lines = fake.state.borrow_mut().held.remove(0);
        // The failure is counted although nobody listens any more: the job has
        // no result, since its reactor went away.
        lines
            .send(JobLine::step("web", "goes on"))
            .expect("a client that leaves doesn't cancel the job");
        drop(lines);
        eventually("the job's end counts", || {
            fake.state.borrow().failures == ["drain"]
        })
        .await;
    });
}

#[test]
fn a_slow_client_holds_up_nobody() {
    on_one_thread(async {
        let fake = Fake::start();
        let socket = fake.socket();
        let mut slow = UnixStream::connect(&socket).await.unwrap();
        slow.write_all(b"POST /v1/stop HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\r\n{")
            .await
            .unwrap();
        assert!(starts(&get(&socket, "/v1/status").await, "200"));
        slow.write_all(b"   }").await.unwrap();
        let mut answer = vec![0; 16];
        slow.read_exact(&mut answer).await.unwrap();
        assert!(answer.starts_with(b"HTTP/1.1 200"));
    });
}

#[test]
fn an_idle_connection_is_closed_and_a_body_that_never_comes_is_refused() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .unwrap();
    LocalSet::new().block_on(&runtime, async {
        let fake = Fake::start();
        let mut idle = UnixStream::connect(fake.socket()).await.unwrap();
        let mut waiting = UnixStream::connect(fake.socket()).await.unwrap();
        waiting
            .write_all(b"POST /v1/stop HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\r\n{")
            .await
            .unwrap();
        let begun = tokio::time::Instant::now();
        let mut answer = Vec::new();
        idle.read_to_end(&mut answer).await.unwrap();
        let mut answer = [0; 12];
        waiting.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"HTTP/1.1 408");
        assert!(begun.elapsed() < Duration::from_secs(15));
    });
}

#[test]
fn strangers_are_refused_and_leave_an_audit_line() {
    on_one_thread(async {
        let fake = Fake::start_for(Some(Allowed::none()));
        let answer = post(&fake.socket(), "/v1/stop", "").await;
        assert!(starts(&answer, "403"), "{answer}");
        assert!(starts(&get(&fake.socket(), "/v1/status").await, "403"));
        assert_eq!(fake.state.borrow().audits, ["refused: stop"]);
    });
}

#[test]
fn followers_get_what_was_and_what_comes_even_when_they_lag() {
    on_one_thread(async {
        let fake = Fake::start();
        let mut client = UnixStream::connect(fake.socket()).await.unwrap();
        client
            .write_all(b"GET /v1/events?since=2&follow=1 HTTP/1.0\r\n\r\n")
            .await
            .unwrap();
        let mut seen = String::new();
        let mut buffer = [0; 4096];
        let mut changed = false;
        while !seen.contains("event 23") {
            let length = client.read(&mut buffer).await.unwrap();
            assert_ne!(length, 0, "closed after {seen}");
            seen.push_str(str::from_utf8(&buffer[..length]).unwrap());
            if seen.contains("event 3") && !changed {
                changed = true;
                // More at once than the subscription holds.
                for _ in 0..20 {
                    fake.change(|_| {});
                }
            }
        }
        let body = seen.split_once("\r\n\r\n").unwrap().1;
        let seqs: Vec<u64> = body
            .lines()
            .map(|line| serde_json::from_str::<Event>(line).unwrap().seq)
            .collect();
        assert_eq!(seqs, (2..=23).collect::<Vec<_>>());
    });
}

#[test]
fn whoever_begins_after_all_that_was_gets_what_comes() {
    on_one_thread(async {
        let fake = Fake::start();
        let mut client = UnixStream::connect(fake.socket()).await.unwrap();
        let asked = format!(
            "GET /v1/events?since={}&follow=1 HTTP/1.0\r\n\r\n",
            u64::MAX
        );
        client.write_all(asked.as_bytes()).await.unwrap();
        let mut seen = String::new();
        let mut buffer = [0; 4096];
        let mut changed = false;
        while !seen.contains("event 4") {
            let length = client.read(&mut buffer).await.unwrap();
            assert_ne!(length, 0, "closed after {seen}");
            seen.push_str(str::from_utf8(&buffer[..length]).unwrap());
            // The subscription is older than the answer's head.
            if seen.contains("\r\n\r\n") && !changed {
                changed = true;
                fake.change(|_| {});
            }
        }
        assert!(!seen.contains("event 3"), "{seen}");
    });
}

#[test]
fn two_hundred_connections_at_once_are_all_served() {
    on_one_thread(async {
        let fake = Fake::start();
        let clients = tokio::task::JoinSet::from_iter((0..200).map(|_| {
            let socket = fake.socket();
            async move { get(&socket, "/v1/status").await }
        }));
        let answers = clients.join_all().await;
        assert_eq!(answers.len(), 200);
        assert!(answers.iter().all(|answer| starts(answer, "200")));
    });
}

#[test]
fn log_orders_are_jobs_of_one_line() {
    on_one_thread(async {
        let fake = Fake::start();
        let socket = fake.socket();
        let answer = post(&socket, "/v1/log-level", r#"{"level": "debug"}"#).await;
        assert!(starts(&answer, "200"), "{answer}");
        assert!(answer.contains("the log level is debug"));
        let answer = post(&socket, "/v1/reopen-logs", "").await;
        assert!(starts(&answer, "200"), "{answer}");
        assert_eq!(
            fake.state.borrow().audits,
            ["allowed: log-level debug", "allowed: reopen-logs"]
        );
    });
}

/// The descriptor limit is the whole process's, so this test runs in one of its own.
#[test]
fn at_the_descriptor_limit_the_reserve_pays_for_answers() {
    const ALONE: &str = "PREFORK_TEST_DESCRIPTOR_LIMIT";
    if std::env::var_os(ALONE).is_none() {
        let name = "control::tests::at_the_descriptor_limit_the_reserve_pays_for_answers";
        let output = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", name, "--nocapture"])
            .env(ALONE, "1")
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        let told = String::from_utf8_lossy(&output.stdout).contains("1 passed");
        assert!(told, "the child ran another test: {output:?}");
        return;
    }
    on_one_thread(async {
        let fake = Fake::start();
        let socket = fake.socket();
        // Connected while there are descriptors, asked when there are none.
        let mut clients = Vec::new();
        for _ in 0..6 {
            clients.push(std::os::unix::net::UnixStream::connect(&socket).unwrap());
        }
        use nix::sys::resource::{Resource, getrlimit, setrlimit};
        let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        setrlimit(Resource::RLIMIT_NOFILE, 64, hard).unwrap();
        let mut hoard = Vec::new();
        while let Ok(file) = std::fs::File::open("/dev/null") {
            hoard.push(file);
        }
        for client in clients {
            client.set_nonblocking(true).unwrap();
            let mut client = UnixStream::from_std(client).unwrap();
            client
                .write_all(b"GET /v1/status HTTP/1.1\r\nhost: x\r\n\r\n")
                .await
                .unwrap();
            let mut answer = String::new();
            // Nothing keeps the connection: the reserve wants its descriptor back.
            client.read_to_string(&mut answer).await.unwrap();
            assert!(starts(&answer, "200"), "{answer}");
        }
        drop(hoard);
        assert!(fake.reserve.is_full());
        assert!(starts(&get(&socket, "/v1/status").await, "200"));
    });
}

#[test]
fn a_finished_job_ends_its_stream() {
    on_one_thread(async {
        let fake = Fake::start();
        let socket = fake.socket();
        let (answer, ()) = tokio::join!(post(&socket, "/v1/workers/web/0/drain", "{}"), async {
            eventually("the job is there", || !fake.state.borrow().held.is_empty()).await;
            let lines = fake.state.borrow_mut().held.remove(0);
            lines.send(done("web/0 has drained")).unwrap();
        });
        assert!(starts(&answer, "200"), "{answer}");
        assert!(answer.contains("drains") && answer.contains("web/0 has drained"));
        assert!(fake.state.borrow().failures.is_empty());
    });
}
