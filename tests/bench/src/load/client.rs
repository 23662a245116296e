//! One client and its connection.

use std::io::{self, ErrorKind, Read, Write};
use std::time::{Duration, Instant};

use mio::event::Event;
use mio::net::TcpStream;
use mio::{Interest, Poll, Token};

use super::answer::{Answer, Judge};
use super::{AFTER_FAILURE, Clients, Outcome, PATIENCE};

/// Read at once: with large answers, each call is to count.
const CHUNK: usize = 128 * 1024;

/// What all clients of a run have in common.
#[derive(Debug)]
pub(super) struct Ask {
    clients: Clients,
    request: String,
    buffer: Vec<u8>,
}

impl Ask {
    pub(super) fn new(clients: Clients) -> Self {
        let path = clients.page.path;
        let last = if clients.keep_alive {
            ""
        } else {
            "Connection: close\r\n"
        };
        Self {
            request: format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nAccept: */*\r\n{last}\r\n"),
            buffer: vec![0; CHUNK],
            clients,
        }
    }
}

/// One client.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) index: usize,
    stream: Option<TcpStream>,
    connected: bool,
    /// When the request was begun that waits for its answer.
    asked: Option<Instant>,
    judge: Judge,
}

/// When a client has to be called next without an event.
#[derive(Debug, Clone, Copy)]
pub(super) enum Next {
    /// An event will come.
    OnEvent,
    /// To begin another request.
    After(Duration),
}

impl Client {
    pub(super) fn new(index: usize) -> Self {
        Self {
            index,
            stream: None,
            connected: false,
            asked: None,
            judge: Judge::default(),
        }
    }

    /// Begins a request, on the open connection if there is one.
    pub(super) fn begin(
        &mut self,
        ask: &mut Ask,
        poll: &Poll,
        outcome: &mut Outcome,
    ) -> io::Result<Next> {
        self.asked = Some(Instant::now());
        self.judge.begin_anew();
        if self.stream.is_some() {
            return Ok(self.send(ask, outcome));
        }
        let mut stream = match TcpStream::connect(ask.clients.address) {
            Ok(stream) => stream,
            Err(error) => return Ok(self.fail(&error, outcome)),
        };
        let interest = Interest::READABLE | Interest::WRITABLE;
        poll.registry()
            .register(&mut stream, Token(self.index), interest)?;
        self.stream = Some(stream);
        self.connected = false;
        Ok(Next::OnEvent)
    }

    fn send(&mut self, ask: &Ask, outcome: &mut Outcome) -> Next {
        let stream = self.stream.as_mut().expect("checked by the caller");
        // So few bytes always fit into an empty socket buffer.
        match stream.write_all(ask.request.as_bytes()) {
            Ok(()) => Next::OnEvent,
            Err(error) => self.fail(&error, outcome),
        }
    }

    /// Something happened to the connection.
    pub(super) fn react(
        &mut self,
        event: &Event,
        ask: &mut Ask,
        poll: &Poll,
        outcome: &mut Outcome,
    ) -> io::Result<Next> {
        let Some(stream) = &self.stream else {
            return Ok(Next::OnEvent);
        };
        if !self.connected {
            if let Some(error) = stream.take_error()? {
                return Ok(self.fail(&error, outcome));
            }
            if stream.peer_addr().is_err() {
                return Ok(Next::OnEvent);
            }
            self.connected = true;
            return Ok(self.send(ask, outcome));
        }
        if !event.is_readable() && !event.is_read_closed() {
            return Ok(Next::OnEvent);
        }
        let next = self.receive(event.is_read_closed(), ask, outcome);
        match next {
            Next::After(Duration::ZERO) => self.begin(ask, poll, outcome),
            later => Ok(later),
        }
    }

    fn receive(&mut self, closed: bool, ask: &mut Ask, outcome: &mut Outcome) -> Next {
        let Ask {
            clients, buffer, ..
        } = ask;
        loop {
            let stream = self.stream.as_mut().expect("checked by the caller");
            let length = match (stream.read(buffer), self.asked) {
                // Between two requests a server may close.
                (Ok(0) | Err(_), None) => {
                    self.stream = None;
                    return Next::OnEvent;
                }
                (Ok(0), Some(_)) => return self.fail(&ErrorKind::UnexpectedEof.into(), outcome),
                (Err(error), _) if error.kind() == ErrorKind::WouldBlock => return Next::OnEvent,
                (Err(error), _) => return self.fail(&error, outcome),
                (Ok(length), _) => length,
            };
            let answer = self.judge.take(&buffer[..length], clients.page.body);
            match (answer, self.asked) {
                (Answer::Partial, _) => {}
                (Answer::Right { closes }, Some(asked)) => {
                    outcome.answered(asked);
                    self.asked = None;
                    if closes || closed || !clients.keep_alive {
                        self.stream = None;
                    }
                    return Next::After(clients.pause);
                }
                (Answer::Right { .. }, None) => return self.break_off("unasked", outcome),
                (Answer::Wrong(why), _) => return self.break_off(why, outcome),
            }
        }
    }

    /// Whether it has waited too long for its answer.
    pub(super) fn overdue(&self) -> bool {
        self.asked.is_some_and(|asked| asked.elapsed() > PATIENCE)
    }

    /// Waits no longer.
    pub(super) fn give_up(&mut self, outcome: &mut Outcome) -> Next {
        self.break_off("no answer in time", outcome)
    }

    fn fail(&mut self, error: &io::Error, outcome: &mut Outcome) -> Next {
        let why = match error.kind() {
            ErrorKind::ConnectionRefused => "refused",
            ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => "reset",
            ErrorKind::UnexpectedEof => "closed before the answer",
            _ => "another error",
        };
        self.break_off(why, outcome)
    }

    fn break_off(&mut self, why: &'static str, outcome: &mut Outcome) -> Next {
        outcome.broke(why);
        self.stream = None;
        self.asked = None;
        Next::After(AFTER_FAILURE)
    }
}
