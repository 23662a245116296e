//! The least that answers HTTP at all: what the kernel takes for a request, and
//! next to nothing more.

use std::io::{ErrorKind, Read, Write};
use std::os::fd::OwnedFd;

use anyhow::Result;
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use nix::sys::socket::{setsockopt, sockopt};

use crate::load::BODY;

/// The token of the listener; those of the connections begin after it.
const LISTENER: Token = Token(0);

/// Where a request ends that has no body.
const END: &[u8] = b"\r\n\r\n";

/// What a client sends that wants one answer only.
const LAST: &[u8] = b"Connection: close\r\n\r\n";

/// Answers whatever comes, for ever. It trusts that a request comes whole, and
/// reads no more of it than whether it is the last.
pub(super) fn serve(listener: OwnedFd) -> Result<()> {
    // Accepted sockets inherit it.
    setsockopt(&listener, sockopt::TcpNoDelay, &true)?;
    let listener = std::net::TcpListener::from(listener);
    listener.set_nonblocking(true)?;
    let mut listener = TcpListener::from_std(listener);
    let mut poll = Poll::new()?;
    poll.registry()
        .register(&mut listener, LISTENER, Interest::READABLE)?;
    let answer = format!(
        "HTTP/1.1 200 OK\r\ncontent-length: {}\r\ndate: Thu, 01 Jan 1970 00:00:00 GMT\r\n\r\n{BODY}",
        BODY.len()
    );
    let mut connections: Vec<Option<TcpStream>> = Vec::new();
    let mut events = Events::with_capacity(1024);
    loop {
        poll.poll(&mut events, None)?;
        for event in &events {
            if event.token() == LISTENER {
                accept(&listener, &poll, &mut connections)?;
                continue;
            }
            let place = &mut connections[event.token().0 - 1];
            let ends = place
                .as_mut()
                .is_some_and(|stream| !reply(stream, answer.as_bytes()));
            if ends {
                *place = None;
            }
        }
    }
}

fn accept(
    listener: &TcpListener,
    poll: &Poll,
    connections: &mut Vec<Option<TcpStream>>,
) -> Result<()> {
    loop {
        let mut stream = match listener.accept() {
            Ok((stream, _)) => stream,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let free = connections.iter().position(Option::is_none);
        let place = free.unwrap_or(connections.len());
        poll.registry()
            .register(&mut stream, Token(place + 1), Interest::READABLE)?;
        if place == connections.len() {
            connections.push(None);
        }
        connections[place] = Some(stream);
    }
}

/// Answers one request; `false` where the connection is to be closed.
fn reply(stream: &mut TcpStream, answer: &[u8]) -> bool {
    let mut request = [0; 1024];
    match stream.read(&mut request) {
        Ok(length) if request[..length].ends_with(END) => {
            stream.write_all(answer).is_ok() && !request[..length].ends_with(LAST)
        }
        Err(error) => error.kind() == ErrorKind::WouldBlock,
        Ok(_) => false,
    }
}
