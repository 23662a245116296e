//! An HTTP/2 client that writes its frames by hand, so that it can say what no
//! library lets it say.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use crate::client::connected;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// What has happened to a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    Status(u16),
    Data(Vec<u8>),
    End,
    Reset,
}

/// A connection.
pub struct Frames {
    stream: TcpStream,
    seen: BTreeMap<u32, Vec<Event>>,
    next: u32,
}

impl Frames {
    pub fn connect(address: SocketAddr) -> Self {
        let mut stream = connected(address);
        stream.write_all(PREFACE).unwrap();
        let mut frames = Self {
            stream,
            seen: BTreeMap::new(),
            next: 1,
        };
        frames.write(SETTINGS, 0, 0, &[]);
        frames
    }

    fn write(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let frame = frame(kind, flags, stream, payload);
        self.stream.write_all(&frame).unwrap();
    }

    /// Sends a request's head; gives back its stream.
    pub fn ask(&mut self, fields: &[(&str, &str)], ends: bool) -> u32 {
        let (stream, head) = self.head(fields, ends);
        self.stream.write_all(&head).unwrap();
        stream
    }

    /// Sends a request's head with some of its body; gives back its stream.
    pub fn ask_with(&mut self, fields: &[(&str, &str)], body: &[u8]) -> u32 {
        let (stream, mut frames) = self.head(fields, false);
        frames.extend(frame(DATA, 0, stream, body));
        self.stream.write_all(&frames).unwrap();
        stream
    }

    /// Sends more of a request's body.
    pub fn data(&mut self, stream: u32, bytes: &[u8], ends: bool) {
        self.write(DATA, if ends { END_STREAM } else { 0 }, stream, bytes);
    }

    /// A request's head, and the stream that is its.
    fn head(&mut self, fields: &[(&str, &str)], ends: bool) -> (u32, Vec<u8>) {
        let stream = self.next;
        self.next += 2;
        let mut block = Vec::new();
        for (name, value) in fields {
            // A literal that nobody remembers, with its name (RFC 7541, 6.2.2).
            block.push(0);
            for text in [name, value] {
                block.push(u8::try_from(text.len()).unwrap());
                block.extend(text.as_bytes());
            }
        }
        let flags = END_HEADERS | if ends { END_STREAM } else { 0 };
        (stream, frame(HEADERS, flags, stream, &block))
    }

    /// Reads on until something has happened to this stream that was not told yet.
    pub fn next_of(&mut self, stream: u32) -> Event {
        loop {
            let seen = self.seen.entry(stream).or_default();
            if !seen.is_empty() {
                return seen.remove(0);
            }
            self.read_frame();
        }
    }

    fn read_frame(&mut self) {
        let mut head = [0; 9];
        self.stream.read_exact(&mut head).unwrap();
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; length as usize];
        self.stream.read_exact(&mut payload).unwrap();
        let (kind, flags) = (head[3], head[4]);
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        let seen = self.seen.entry(stream).or_default();
        match kind {
            HEADERS => seen.push(Event::Status(status(&payload))),
            DATA if !payload.is_empty() => seen.push(Event::Data(payload)),
            RST_STREAM => seen.push(Event::Reset),
            GOAWAY => panic!("the connection is ended: {payload:?}"),
            SETTINGS if flags == 0 => return self.write(SETTINGS, 1, 0, &[]),
            _ => {}
        }
        if matches!(kind, HEADERS | DATA) && flags & END_STREAM != 0 {
            self.seen.entry(stream).or_default().push(Event::End);
        }
    }
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = length[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// The status in a response's first field (RFC 7541, 6.1, and appendix A).
fn status(block: &[u8]) -> u16 {
    match block {
        [0x88, ..] => 200,
        [0x89, ..] => 204,
        [0x8a, ..] => 206,
        [0x8b, ..] => 304,
        [0x8c, ..] => 400,
        [0x8d, ..] => 404,
        [0x8e, ..] => 500,
        [0x08 | 0x48, 3, digits @ ..] => {
            let digits = std::str::from_utf8(&digits[..3]).unwrap();
            digits.parse().unwrap()
        }
        [0x08 | 0x48, length, coded @ ..] if length & 0x80 != 0 => {
            unpacked(&coded[..usize::from(length & 0x7f)])
        }
        // A change of the table's size comes first.
        [size, rest @ ..] if size >> 5 == 1 => status(rest),
        _ => panic!("no status in {block:?}"),
    }
}

/// Three digits in the code of RFC 7541, appendix B.
fn unpacked(coded: &[u8]) -> u16 {
    let bits: Vec<u16> = coded
        .iter()
        .flat_map(|byte| (0..8).rev().map(move |at| u16::from(byte >> at & 1)))
        .collect();
    let value = |bits: &[u16]| bits.iter().fold(0, |value, bit| value << 1 | bit);
    let (mut at, mut number) = (0, 0);
    for _ in 0..3 {
        let short = value(&bits[at..at + 5]);
        let (digit, length) = match short {
            0..=2 => (short, 5),
            _ => (value(&bits[at..at + 6]) - 0b01_1001 + 3, 6),
        };
        number = number * 10 + digit;
        at += length;
    }
    number
}
