//! An HTTP/2 client that does what no library would: it sends the frames that it
//! is told to, takes as much as it is told to, and sees what comes (RFC 9113).

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::client::connected;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const WINDOW_UPDATE: u8 = 8;

const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;

/// `SETTINGS_INITIAL_WINDOW_SIZE`
const INITIAL_WINDOW: u16 = 4;

/// A connection.
pub struct Raw {
    pub stream: TcpStream,
}

/// What a frame of the server's says.
#[derive(Debug, PartialEq, Eq)]
pub enum Said {
    /// A response's head on this stream; whether it is a 200, and whether it is all.
    Head(u32, bool, bool),
    /// So many bytes of a body on this stream, and whether they end it.
    Data(u32, Vec<u8>, bool),
    Reset(u32),
    /// Of the connection, or of no interest.
    Else,
    /// The connection has ended.
    Closed,
}

impl Raw {
    /// A client that asks for so many bytes of each stream and of all together,
    /// before it asks for more.
    pub fn connect(address: SocketAddr, stream_window: u32, more_of_all: u32) -> Self {
        let mut raw = Self {
            stream: connected(address),
        };
        let window = [
            &INITIAL_WINDOW.to_be_bytes()[..],
            &stream_window.to_be_bytes(),
        ]
        .concat();
        raw.stream
            .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
            .unwrap();
        raw.frame(SETTINGS, 0, 0, &window);
        if more_of_all > 0 {
            raw.want(0, more_of_all);
        }
        raw
    }

    /// Sends a frame to one who may have gone.
    fn frame(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let _ = self.stream.write_all(&frame(kind, flags, stream, payload));
    }

    pub fn ask(&mut self, stream: u32, path: &str) {
        let head = head(0x82, path);
        self.frame(HEADERS, END_STREAM | END_HEADERS, stream, &head);
    }

    /// Begins a request with a body.
    pub fn post(&mut self, stream: u32, path: &str) {
        self.frame(HEADERS, END_HEADERS, stream, &head(0x83, path));
    }

    /// Begins a request whose body waits until it is asked for.
    pub fn post_if_wanted(&mut self, stream: u32, path: &str) {
        let expect = b"\x0f\x14\x0c100-continue"; // `expect` is number 35.
        let head = [&head(0x83, path)[..], expect].concat();
        self.frame(HEADERS, END_HEADERS, stream, &head);
    }

    /// Begins so many at once, on the odd streams from 1 on.
    pub fn post_at_once(&mut self, requests: u32, path: &str) {
        let head = head(0x83, path);
        let frames = (0..requests).map(|at| frame(HEADERS, END_HEADERS, 2 * at + 1, &head));
        let frames = frames.collect::<Vec<_>>().concat();
        self.stream.write_all(&frames).unwrap();
    }

    pub fn data(&mut self, stream: u32, bytes: &[u8], ends: bool) {
        let flags = if ends { END_STREAM } else { 0 };
        self.frame(DATA, flags, stream, bytes);
    }

    pub fn ping(&mut self) {
        self.frame(PING, 0, 0, &[7; 8]);
    }

    pub fn settings(&mut self) {
        self.frame(SETTINGS, 0, 0, &[]);
    }

    /// Asks for so many bytes more, of a stream or of all.
    pub fn want(&mut self, stream: u32, bytes: u32) {
        self.frame(WINDOW_UPDATE, 0, stream, &bytes.to_be_bytes());
    }

    /// Whether something comes within this time.
    pub fn hears_within(&mut self, time: Duration) -> bool {
        let patience = self.stream.read_timeout().unwrap();
        self.stream.set_read_timeout(Some(time)).unwrap();
        let peeked = self.stream.peek(&mut [0]);
        self.stream.set_read_timeout(patience).unwrap();
        peeked.is_ok()
    }

    /// The next frame.
    pub fn hear(&mut self) -> Said {
        let mut header = [0; 9];
        if self.stream.read_exact(&mut header).is_err() {
            return Said::Closed;
        }
        let [a, b, c, kind, flags, id @ ..] = header;
        let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
        if self.stream.read_exact(&mut payload).is_err() {
            return Said::Closed;
        }
        let (stream, ends) = (u32::from_be_bytes(id), flags & END_STREAM != 0);
        match kind {
            HEADERS => Said::Head(stream, payload.first() == Some(&0x88), ends),
            DATA => Said::Data(stream, payload, ends),
            RST_STREAM => Said::Reset(stream),
            SETTINGS if flags & ACK == 0 => {
                self.frame(SETTINGS, ACK, 0, &[]);
                Said::Else
            }
            _ => Said::Else,
        }
    }

    /// Hears until something fits; fails when the connection ends before.
    pub fn until<T>(&mut self, mut fits: impl FnMut(Said) -> Option<T>) -> T {
        loop {
            let said = self.hear();
            assert_ne!(said, Said::Closed, "the connection has ended");
            if let Some(found) = fits(said) {
                return found;
            }
        }
    }

    /// The rest of a response of which so much is there; `None` if it was reset.
    pub fn rest(&mut self, stream: u32, mut body: Vec<u8>) -> Option<Vec<u8>> {
        self.until(|said| match said {
            Said::Data(id, more, ends) if id == stream => {
                body.extend(more);
                ends.then(|| Some(std::mem::take(&mut body)))
            }
            Said::Head(id, _, true) if id == stream => Some(Some(std::mem::take(&mut body))),
            Said::Reset(id) if id == stream => Some(None),
            _ => None,
        })
    }
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let [_, a, b, c] = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let [d, e, f, g] = stream.to_be_bytes();
    [&[a, b, c, kind, flags, d, e, f, g], payload].concat()
}

/// A head in HPACK, every field as a literal that is not indexed (RFC 7541, 6.2.2).
fn head(method: u8, path: &str) -> Vec<u8> {
    let path_length = u8::try_from(path.len()).unwrap();
    let begin = [method, 0x86, 0x01, 4, b't', b'e', b's', b't', 0x04];
    [&begin[..], &[path_length], path.as_bytes()].concat()
}
