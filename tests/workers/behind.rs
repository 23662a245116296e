//! A program that speaks HTTP/1.1 on a unix socket and nothing else, and that drops
//! everything at SIGTERM: what has to be behind a front to be a worker.
//!
//! `behind PATH [MOST]` listens on the path. `/` names the process, `/slow/MILLISECONDS` takes
//! that long, `POST /digest` answers with the SHA-256 of the body. A request beyond
//! `MOST` at a time is answered with 500.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use sha2::{Digest, Sha256};

/// A request, as far as it matters here.
struct Request {
    path: String,
    body: Vec<u8>,
    is_last: bool,
}

fn main() -> io::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let path = arguments.next().expect("the path of a socket");
    let most = arguments.next().and_then(|most| most.parse().ok());
    let listener = UnixListener::bind(path)?;
    let busy = Arc::new(AtomicUsize::new(0));
    for stream in listener.incoming() {
        let (stream, busy) = (stream?, Arc::clone(&busy));
        let most = most.unwrap_or(usize::MAX);
        // How a connection ends is its client's affair.
        std::thread::spawn(move || drop(serve(stream, &busy, most)));
    }
    Ok(())
}

fn serve(stream: UnixStream, busy: &AtomicUsize, most: usize) -> io::Result<()> {
    let mut stream = BufReader::new(stream);
    while let Some(request) = read(&mut stream)? {
        let status = match busy.fetch_add(1, Ordering::SeqCst) < most {
            true => "200 OK",
            false => "500 Too Many",
        };
        let answer = answer(&request);
        busy.fetch_sub(1, Ordering::SeqCst);
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
    loop {
        line.clear();
        stream.read_line(&mut line)?;
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
        body,
        is_last,
    }))
}
