//! HTTP/1.1 clients on plain sockets, so that nothing is retried or forgiven
//! behind the test's back.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};

use super::{Failed, Failure, Outcomes, Progress};

/// Between two requests: enough to see every gap, and the machine is needed
/// by the processes under test.
const THINK: Duration = Duration::from_millis(1);

/// After a failure. A refusal comes at once: don't count the same one a
/// million times.
const PAUSE: Duration = Duration::from_millis(5);

const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";
const GET_AND_CLOSE: &[u8] = b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";

/// Bodies that a client sends in turn, and the length of each.
const BODIES: usize = 4;
const BODY: usize = 16 * 1024;

/// Asks on one connection until the server announces its end.
pub(super) fn keep_alive(progress: &Progress) -> Outcomes {
    again_and_again(progress, |connection| {
        ask(progress, connection, GET).map(drop)
    })
}

/// Asks on a connection of its own each time.
pub(super) fn close(progress: &Progress) -> Outcomes {
    again_and_again(progress, |connection| {
        let answer = ask(progress, connection, GET_AND_CLOSE)?;
        match connection.take() {
            None => Ok(()),
            Some(_) => Err(Failed::new(
                Failure::Garbage,
                format!("asked to close, the server keeps the connection: {answer:?}"),
            )),
        }
    })
}

/// Posts bodies and wants their SHA-256 back.
pub(super) fn digest(progress: &Progress, seed: u64) -> Outcomes {
    let mut random = fastrand::Rng::with_seed(seed);
    let requests: Vec<(Vec<u8>, String)> = (0..BODIES).map(|_| post(&mut random)).collect();
    let mut next = requests.iter().cycle();
    again_and_again(progress, move |connection| {
        let (request, digest) = next.next().expect("a cycle has no end");
        let answer = ask(progress, connection, request)?;
        if answer == digest.as_bytes() {
            return Ok(());
        }
        let answer = String::from_utf8_lossy(&answer).into_owned();
        Err(Failed::new(
            Failure::WrongBody,
            format!("{digest} expected, not {answer:?}"),
        ))
    })
}

/// A request with a random body, and the body's digest.
fn post(random: &mut fastrand::Rng) -> (Vec<u8>, String) {
    let body: Vec<u8> = (0..BODY).map(|_| random.u8(..)).collect();
    let digest = Sha256::digest(&body)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let head =
        format!("POST /digest HTTP/1.1\r\nHost: localhost\r\nContent-Length: {BODY}\r\n\r\n");
    let mut request = head.into_bytes();
    request.extend(body);
    (request, digest)
}

type Connection = BufReader<Box<dyn Stream>>;

/// What a connection's bytes go through.
trait Stream: Read + Write {}

impl<S: Read + Write> Stream for S {}

fn again_and_again(
    progress: &Progress,
    mut once: impl FnMut(&mut Option<Connection>) -> Result<(), Failed>,
) -> Outcomes {
    let mut outcomes = Outcomes::default();
    let mut connection = None;
    while !progress.stopped() {
        let began = Instant::now();
        let outcome = once(&mut connection);
        let pause = if outcome.is_ok() { THINK } else { PAUSE };
        progress.count(&mut outcomes, outcome, began);
        std::thread::sleep(pause);
    }
    outcomes
}

/// Sends a request on the open connection, or on a new one where there is
/// none, and reads its answer. The connection is kept unless the answer
/// announces its end or anything is wrong.
fn ask(
    progress: &Progress,
    slot: &mut Option<Connection>,
    request: &[u8],
) -> Result<Vec<u8>, Failed> {
    let mut connection = match slot.take() {
        Some(connection) => connection,
        None => connect(progress).map_err(|error| Failed::connecting(&error))?,
    };
    if let Err(error) = connection.get_mut().write_all(request) {
        return Err(Failed::talking(&error));
    }
    let answer = read_answer(&mut connection)?;
    if !(200..300).contains(&answer.status) {
        return Err(Failed::new(
            Failure::Status,
            format!("status {}", answer.status),
        ));
    }
    if !connection.buffer().is_empty() {
        let rest = String::from_utf8_lossy(connection.buffer()).into_owned();
        return Err(Failed::new(
            Failure::Garbage,
            format!("{rest:?} follows the answer"),
        ));
    }
    if !answer.closes {
        *slot = Some(connection);
    }
    Ok(answer.body)
}

fn connect(progress: &Progress) -> io::Result<Connection> {
    if let Some(trust) = &progress.tls {
        return Ok(BufReader::new(Box::new(trust.connect(progress.address)?)));
    }
    let stream = TcpStream::connect_timeout(&progress.address, progress.patience)?;
    stream.set_read_timeout(Some(progress.patience))?;
    stream.set_write_timeout(Some(progress.patience))?;
    stream.set_nodelay(true)?;
    Ok(BufReader::new(Box::new(stream)))
}

struct Answer {
    status: u16,
    /// Whether the server announces that it closes the connection.
    closes: bool,
    body: Vec<u8>,
}

fn read_answer(connection: &mut Connection) -> Result<Answer, Failed> {
    let first = connection.fill_buf().map_err(|e| Failed::talking(&e))?;
    if first.is_empty() {
        return Err(Failed::new(Failure::Unanswered, "closed before the answer"));
    }
    let status_line = line(connection)?;
    let status = status_line
        .strip_prefix("HTTP/1.1 ")
        .and_then(|rest| rest.get(..3)?.parse().ok())
        .ok_or_else(|| Failed::new(Failure::Garbage, format!("{status_line:?}")))?;
    let mut closes = false;
    let mut length = None;
    loop {
        let line = line(connection)?;
        if line.is_empty() {
            break;
        }
        let Some((name, value)) = line.split_once(':') else {
            return Err(Failed::new(Failure::Garbage, format!("{line:?}")));
        };
        match name.to_ascii_lowercase().as_str() {
            "connection" => closes = value.trim().eq_ignore_ascii_case("close"),
            "content-length" => length = value.trim().parse().ok(),
            _ => {}
        }
    }
    // A body without a length would end with the connection, whole or not.
    let length: usize =
        length.ok_or_else(|| Failed::new(Failure::Garbage, "an answer without a length"))?;
    let mut body = vec![0; length];
    connection
        .read_exact(&mut body)
        .map_err(|error| within_the_answer(&error))?;
    Ok(Answer {
        status,
        closes,
        body,
    })
}

/// A line of the answer's head, without its end.
fn line(connection: &mut Connection) -> Result<String, Failed> {
    let mut line = Vec::new();
    connection
        .read_until(b'\n', &mut line)
        .map_err(|error| within_the_answer(&error))?;
    let line = String::from_utf8_lossy(&line).into_owned();
    match line.strip_suffix("\r\n") {
        Some(line) => Ok(line.to_owned()),
        None => Err(Failed::new(
            Failure::Short,
            format!("closed within {line:?}"),
        )),
    }
}

fn within_the_answer(error: &io::Error) -> Failed {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => Failed::new(Failure::Short, "closed within the body"),
        _ => Failed::talking(error),
    }
}
