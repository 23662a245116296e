//! An HTTP program that has never heard of prefork: one thread, one request at a time,
//! no signal handler, the standard library alone.
//!
//! `--uds PATH`, `--port [HOST:]PORT` or `--fd NUMBER` say what it accepts from. With
//! `--notify-after FILE` it says READY=1 as soon as the file is there, and with `--deaf`
//! it never listens. `GET /exit/N` ends it with that exit code; every other path is, with 200 or by `--status N`,
//! answered with what it was started with.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::os::fd::FromRawFd;
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::path::Path;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

fn main() {
    let mut words = std::env::args().skip(1);
    let mut accept: Option<Box<dyn FnMut()>> = None;
    while let Some(word) = words.next() {
        let mut value = || words.next().expect("an option has a value");
        match word.as_str() {
            "--uds" => {
                let listener = UnixListener::bind(value()).expect("the path is free");
                accept = Some(Box::new(move || {
                    serve(listener.accept().expect("accept").0);
                }));
            }
            "--port" => {
                let at = value();
                let at = if at.contains(':') {
                    at
                } else {
                    format!("127.0.0.1:{at}")
                };
                let listener = TcpListener::bind(at).expect("the port is free");
                accept = Some(Box::new(move || {
                    serve(listener.accept().expect("accept").0);
                }));
            }
            "--fd" => {
                let number = value().parse().expect("a number");
                // SAFETY: whoever started this program has passed it, and nothing else
                // owns it.
                #[allow(unsafe_code)]
                let listener = unsafe { TcpListener::from_raw_fd(number) };
                listener.set_nonblocking(false).expect("it is a socket");
                accept = Some(Box::new(move || {
                    serve(listener.accept().expect("accept").0);
                }));
            }
            "--status" => STATUS.store(value().parse().expect("a status"), Ordering::Relaxed),
            "--notify-after" => notify_after(&value()),
            "--deaf" => std::thread::sleep(Duration::from_secs(3600)),
            other => panic!("unknown option {other}"),
        }
    }
    let mut accept = accept.expect("one of --uds, --port and --fd");
    loop {
        accept();
    }
}

/// What every request is answered with.
static STATUS: AtomicU16 = AtomicU16::new(200);

fn notify_after(file: &str) {
    while !Path::new(file).exists() {
        std::thread::sleep(Duration::from_millis(10));
    }
    let to = std::env::var("NOTIFY_SOCKET").expect("NOTIFY_SOCKET is set");
    let socket = UnixDatagram::unbound().expect("a socket");
    socket
        .send_to(b"READY=1\nSTATUS=warm", to)
        .expect("it is heard");
}

fn serve<S: Read + Write>(mut stream: S) {
    let Some(path) = read_head(&mut stream) else {
        return;
    };
    if let Some(code) = path.strip_prefix("/exit/") {
        std::process::exit(code.parse().expect("an exit code"));
    }
    let body = facts();
    let (status, length) = (STATUS.load(Ordering::Relaxed), body.len());
    let head =
        format!("HTTP/1.1 {status} -\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
    // A client that has gone is no concern of ours.
    let _ = stream.write_all((head + &body).as_bytes());
}

/// The path of a request; nothing where the client says nothing.
fn read_head(stream: &mut impl Read) -> Option<String> {
    let mut lines = BufReader::new(stream).lines();
    let first = lines.next()?.ok()?;
    while !lines.next()?.ok()?.is_empty() {}
    first.split(' ').nth(1).map(str::to_owned)
}

/// Its process, its descriptors and what of its environment is about sockets.
fn facts() -> String {
    let mut facts = format!("pid={}\n", std::process::id());
    for (name, value) in std::env::vars() {
        if name.starts_with("LISTEN_") || name.starts_with("PREFORK_") || name == "WHERE" {
            facts += &format!("{name}={value}\n");
        }
    }
    let mut fds: Vec<u32> = std::fs::read_dir("/proc/self/fd")
        .expect("there is /proc")
        .filter_map(|entry| {
            let entry = entry.ok()?;
            // Not the one by which this is read.
            let target = std::fs::read_link(entry.path()).ok()?;
            let own = target.to_string_lossy().ends_with("/fd");
            entry.file_name().to_str()?.parse().ok().filter(|_| !own)
        })
        .collect();
    fds.sort_unstable();
    facts + &format!("fds={fds:?}\n")
}
