//! An HTTP/1.1 client that sees every byte, over TLS those that are said.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use super::supervisor::DEADLINE;

/// What a connection's bytes go through.
pub trait Stream: Read + Write + Send {
    /// The socket under it.
    fn socket(&self) -> &TcpStream;
}

impl Stream for TcpStream {
    fn socket(&self) -> &TcpStream {
        self
    }
}

/// A connection.
pub struct Client {
    stream: Box<dyn Stream>,
    unread: Vec<u8>,
}

/// A response.
#[derive(Debug)]
pub struct Response {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Response {
    /// A header's value, by its name in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (found, value) = line.split_once(':')?;
            (found.to_lowercase() == name).then(|| value.trim())
        })
    }

    pub fn says_close(&self) -> bool {
        self.header("connection") == Some("close")
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }
}

impl Client {
    pub fn connect(address: SocketAddr) -> Self {
        Self::over(connected(address))
    }

    /// A client on a connection that is there.
    pub fn over(stream: impl Stream + 'static) -> Self {
        Self {
            stream: Box::new(stream),
            unread: Vec::new(),
        }
    }

    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).unwrap();
    }

    /// Sends to one who may have gone.
    pub fn try_send(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = self.stream.write_all(bytes.as_ref());
    }

    /// Sends beside what else is done, as far as it is taken.
    pub fn sends_beside(&self, bytes: String) -> std::thread::JoinHandle<()> {
        let mut socket = self.stream.socket().try_clone().unwrap();
        std::thread::spawn(move || {
            let _ = socket.write_all(bytes.as_bytes());
        })
    }

    /// Sends a GET without waiting for what comes back.
    pub fn ask(&mut self, path: &str) {
        self.send(format!("GET {path} HTTP/1.1\r\nhost: test\r\n\r\n"));
    }

    pub fn get(&mut self, path: &str) -> Response {
        self.ask(path);
        self.response()
    }

    fn read(&mut self) -> usize {
        let mut buffer = [0; 64 * 1024];
        let read = self.stream.read(&mut buffer).expect("no reset, no silence");
        self.unread.extend_from_slice(&buffer[..read]);
        read
    }

    /// Reads up to and with this text.
    pub fn until(&mut self, text: &str) -> String {
        loop {
            let found = self.unread.windows(text.len());
            if let Some(at) = found.into_iter().position(|part| part == text.as_bytes()) {
                let taken: Vec<u8> = self.unread.drain(..at + text.len()).collect();
                return String::from_utf8_lossy(&taken).into_owned();
            }
            assert!(self.read() > 0, "ended before {text:?}: {:?}", self.unread);
        }
    }

    pub fn response(&mut self) -> Response {
        let head = self.until("\r\n\r\n");
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let mut response = Response {
            status,
            head,
            body: Vec::new(),
        };
        if let Some(length) = response.header("content-length") {
            let length = length.parse().unwrap();
            while self.unread.len() < length {
                assert!(self.read() > 0, "ended inside a body");
            }
            response.body = self.unread.drain(..length).collect();
        } else if response.header("transfer-encoding").is_some() {
            response.body = self.chunks();
        }
        response
    }

    fn chunks(&mut self) -> Vec<u8> {
        let mut body = Vec::new();
        loop {
            let line = self.until("\r\n");
            let length = usize::from_str_radix(line.trim(), 16).unwrap();
            while self.unread.len() < length + 2 {
                assert!(self.read() > 0, "ended inside a chunk");
            }
            body.extend(self.unread.drain(..length + 2).take(length));
            if length == 0 {
                return body;
            }
        }
    }

    /// Whether the server has closed by now, cleanly: no byte more, no reset.
    pub fn is_closed(&mut self) -> bool {
        self.stream.socket().set_nonblocking(true).unwrap();
        let read = self.stream.read(&mut [0]);
        self.stream.socket().set_nonblocking(false).unwrap();
        match read {
            Ok(0) => true,
            Ok(_) => panic!("bytes that nobody asked for"),
            Err(error) if error.kind() == ErrorKind::WouldBlock => false,
            Err(error) => panic!("{error}"),
        }
    }

    /// Waits for the server's clean close.
    pub fn until_closed(&mut self) {
        assert!(self.unread.is_empty(), "{:?}", self.unread);
        assert_eq!(self.read(), 0, "{:?}", self.unread);
    }

    /// Reads to the end, however much that is.
    pub fn rest(&mut self) -> Vec<u8> {
        while self.read() > 0 {}
        std::mem::take(&mut self.unread)
    }

    /// Reads some bytes of a body and forgets them; how many.
    pub fn take(&mut self, most: usize) -> usize {
        if self.unread.is_empty() {
            self.read();
        }
        if let Some(end) = self.unread.windows(4).position(|part| part == b"\r\n\r\n") {
            self.unread.drain(..end + 4);
        }
        while self.unread.len() < most && self.hears_within(Duration::from_millis(1)) {
            self.read();
        }
        let taken = self.unread.len();
        self.unread.clear();
        taken
    }

    pub fn close_sending(&mut self) {
        self.stream.socket().shutdown(Shutdown::Write).unwrap();
    }

    /// Whether something comes within this time.
    pub fn hears_within(&mut self, time: Duration) -> bool {
        let socket = self.stream.socket();
        socket.set_read_timeout(Some(time)).unwrap();
        let peeked = socket.peek(&mut [0]);
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        peeked.is_ok()
    }
}

/// A connection on which nothing takes for ever.
pub fn connected(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect_timeout(&address, DEADLINE).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream.set_write_timeout(Some(DEADLINE)).unwrap();
    stream
}
