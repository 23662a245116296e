//! One client and its connection.

use std::io::{self, ErrorKind, Read, Write};
use std::time::{Duration, Instant};

use mio::event::Event;
use mio::net::TcpStream;
use mio::{Interest, Poll, Token};

use super::answer::{Answer, judge};
use super::{AFTER_FAILURE, Clients, Outcome, PATIENCE};

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: localhost\r\nAccept: */*\r\n\r\n";
const LAST_REQUEST: &[u8] =
    b"GET / HTTP/1.1\r\nHost: localhost\r\nAccept: */*\r\nConnection: close\r\n\r\n";

/// One client.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) index: usize,
    stream: Option<TcpStream>,
    connected: bool,
    /// When the request was begun that waits for its answer.
    asked: Option<Instant>,
    input: Vec<u8>,
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
            input: Vec::with_capacity(1024),
        }
    }

    /// Begins a request, on the open connection if there is one.
    pub(super) fn begin(
        &mut self,
        clients: &Clients,
        poll: &Poll,
        outcome: &mut Outcome,
    ) -> io::Result<Next> {
        self.asked = Some(Instant::now());
        self.input.clear();
        if self.stream.is_some() {
            return Ok(self.send(clients, outcome));
        }
        let mut stream = match TcpStream::connect(clients.address) {
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

    fn send(&mut self, clients: &Clients, outcome: &mut Outcome) -> Next {
        let request = if clients.keep_alive {
            REQUEST
        } else {
            LAST_REQUEST
        };
        let stream = self.stream.as_mut().expect("checked by the caller");
        // So few bytes always fit into an empty socket buffer.
        match stream.write_all(request) {
            Ok(()) => Next::OnEvent,
            Err(error) => self.fail(&error, outcome),
        }
    }

    /// Something happened to the connection.
    pub(super) fn react(
        &mut self,
        event: &Event,
        clients: &Clients,
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
            return Ok(self.send(clients, outcome));
        }
        if !event.is_readable() && !event.is_read_closed() {
            return Ok(Next::OnEvent);
        }
        let next = self.receive(event.is_read_closed(), clients, outcome);
        match next {
            Next::After(Duration::ZERO) => self.begin(clients, poll, outcome),
            later => Ok(later),
        }
    }

    fn receive(&mut self, closed: bool, clients: &Clients, outcome: &mut Outcome) -> Next {
        let mut buffer = [0; 2048];
        loop {
            let stream = self.stream.as_mut().expect("checked by the caller");
            match (stream.read(&mut buffer), self.asked) {
                // Between two requests a server may close.
                (Ok(0) | Err(_), None) => {
                    self.stream = None;
                    return Next::OnEvent;
                }
                (Ok(0), Some(_)) => return self.fail(&ErrorKind::UnexpectedEof.into(), outcome),
                (Err(error), _) if error.kind() == ErrorKind::WouldBlock => return Next::OnEvent,
                (Err(error), _) => return self.fail(&error, outcome),
                (Ok(length), _) => self.input.extend_from_slice(&buffer[..length]),
            }
            match (judge(&self.input), self.asked) {
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
