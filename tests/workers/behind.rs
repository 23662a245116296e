//! A program that speaks HTTP/1.1 on a unix socket and nothing else, and that drops
//! everything at SIGTERM: what has to be behind a front to be a worker.
//!
//! `behind PATH [MOST [FAILING]]` listens on the path. `/` names the process, `/slow/MILLISECONDS` takes
//! that long, `POST /digest` answers with the SHA-256 of the body, `/head` with the head that has
//! come. A request beyond `MOST` at a time is answered with 500, and so are `FAILING` of a hundred of all.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use sha2::{Digest, Sha256};

/// What it can take.
struct Limits {
    /// At a time.
    most: usize,
    /// Of a hundred.
    failing: usize,
    busy: AtomicUsize,
    answered: AtomicUsize,
}

impl Limits {
    /// Answers a request, with 500 where it is one too many or its turn to fail.
    fn answer(&self, request: &Request) -> (&'static str, String) {
        let is_one_too_many = self.busy.fetch_add(1, Ordering::SeqCst) >= self.most;
        // Every seventh of a hundred, so that they are spread over the hundred.
        let turn = self.answered.fetch_add(1, Ordering::SeqCst) * 7 % 100;
        let answer = answer(request);
        self.busy.fetch_sub(1, Ordering::SeqCst);
        match is_one_too_many || turn < self.failing {
            true => ("500 Too Many", answer),
            false => ("200 OK", answer),
        }
    }
}

/// A request, as far as it matters here.
struct Request {
    path: String,
    head: String,
    body: Vec<u8>,
    is_last: bool,
}

fn main() -> io::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let path = arguments.next().expect("the path of a socket");
    let mut number = || arguments.next().and_then(|number| number.parse().ok());
    let limits = Arc::new(Limits {
        most: number().unwrap_or(usize::MAX),
        failing: number().unwrap_or(0),
        busy: AtomicUsize::new(0),
        answered: AtomicUsize::new(0),
    });
    let listener = UnixListener::bind(path)?;
    for stream in listener.incoming() {
        let (stream, limits) = (stream?, Arc::clone(&limits));
        // How a connection ends is its client's affair.
        std::thread::spawn(move || drop(serve(stream, &limits)));
    }
    Ok(())
}

fn serve(stream: UnixStream, limits: &Limits) -> io::Result<()> {
    let mut stream = BufReader::new(stream);
    while let Some(request) = read(&mut stream)? {
        let (status, answer) = limits.answer(&request);
        let length = answer.len();
        let head = format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\n\r\n");
        stream.get_mut().write_all((head + &answer).as_bytes())?;
        if request.is_last {
            break;
        }
    }
    Ok(())
}

fn answer(request: &Request) -> String {
    if let Some(time) = request.path.strip_prefix("/slow/") {
        std::thread::sleep(Duration::from_millis(time.parse().unwrap_or(0)));
    }
    match request.path.as_str() {
        "/digest" => {
            let digest = Sha256::digest(&request.body);
            digest.iter().map(|byte| format!("{byte:02x}")).collect()
        }
        "/head" => request.head.clone(),
        _ => format!("pid {}\n", std::process::id()),
    }
}

/// The next request; none where the client has closed.
fn read(stream: &mut BufReader<UnixStream>) -> io::Result<Option<Request>> {
    let mut line = String::new();
    if stream.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let path = line.split(' ').nth(1).unwrap_or_default().to_owned();
    let (mut length, mut is_last) = (0, false);
    let mut head = line.clone();
    loop {
        line.clear();
        stream.read_line(&mut line)?;
        head.push_str(&line);
        match line.trim_end().split_once(": ") {
            Some(("content-length", value)) => length = value.parse().unwrap_or(0),
            Some(("connection", value)) => is_last = value.contains("close"),
            Some(_) => {}
            None => break,
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    Ok(Some(Request {
        path,
        head,
        body,
        is_last,
    }))
}
