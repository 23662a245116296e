//! The load generator: one thread, one epoll, clients that never retry.
//!
//! A client asks, waits for the whole answer, checks it, and asks again. It is
//! small so that it takes less of the machine than what it measures, and it
//! says how much processor time it took itself.

mod answer;
mod client;
mod outcome;

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use mio::{Events, Poll};

use crate::process;
use client::{Ask, Client, Next};
pub(crate) use outcome::{Outcome, SLICE};

/// What every server under test answers, where it serves no files.
pub(crate) const BODY: &str = "hello, world\n";

/// Asks for [`HELLO`] on an open connection, which stays open, and reads the
/// whole answer.
pub(crate) fn ask_once(stream: &mut TcpStream) -> Result<()> {
    stream.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\nAccept: */*\r\n\r\n")?;
    let mut answer = Vec::new();
    while !answer.ends_with(BODY.as_bytes()) {
        let mut buffer = [0; 1024];
        let length = stream.read(&mut buffer)?;
        ensure!(length > 0, "closed before the answer");
        answer.extend_from_slice(&buffer[..length]);
    }
    Ok(())
}

/// What is asked for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Page {
    /// Its path.
    pub(crate) path: &'static str,
    /// What it consists of.
    pub(crate) body: &'static [u8],
}

/// The page that answers with [`BODY`].
pub(crate) const HELLO: Page = Page {
    path: "/",
    body: BODY.as_bytes(),
};

/// A request without an answer for this long is broken.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long a client waits after a failure. A refusal comes at once: without
/// the wait, the same one would be counted a million times.
const AFTER_FAILURE: Duration = Duration::from_millis(5);

/// How often the loop looks at the clock when nothing happens.
const LOOK: Duration = Duration::from_millis(20);

/// Who asks, and how.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clients {
    /// Whom they ask.
    pub(crate) address: SocketAddr,
    /// How many there are, each with one connection.
    pub(crate) count: usize,
    /// Whether a connection is kept for the next request.
    pub(crate) keep_alive: bool,
    /// How long each waits between an answer and its next request.
    pub(crate) pause: Duration,
    /// What they ask for.
    pub(crate) page: Page,
}

impl Clients {
    /// Clients that keep their connections and ask without a pause.
    pub(crate) fn eager(address: SocketAddr, count: usize) -> Self {
        Self {
            address,
            count,
            keep_alive: true,
            pause: Duration::ZERO,
            page: HELLO,
        }
    }

    /// Clients that leave the machine air to do something else meanwhile.
    pub(crate) fn calm(address: SocketAddr, count: usize) -> Self {
        Self {
            pause: Duration::from_millis(2),
            ..Self::eager(address, count)
        }
    }

    /// Asks for this long.
    pub(crate) fn ask_for(self, duration: Duration) -> io::Result<Outcome> {
        let begun = Instant::now();
        run(self, || begun.elapsed() >= duration)
    }

    /// Asks on a thread of its own until stopped.
    pub(crate) fn start(self) -> Running {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || run(self, || stopped.load(Ordering::Relaxed)));
        Running {
            stop,
            thread: Some(thread),
        }
    }
}

/// Clients that ask meanwhile.
#[derive(Debug)]
pub(crate) struct Running {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<io::Result<Outcome>>>,
}

impl Running {
    /// Ends them and says what came of their requests.
    pub(crate) fn stop(mut self) -> io::Result<Outcome> {
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().expect("taken only here");
        thread.join().expect("the clients don't panic")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn run(clients: Clients, enough: impl Fn() -> bool) -> io::Result<Outcome> {
    let mut poll = Poll::new()?;
    let mut events = Events::with_capacity(1024);
    let mut outcome = Outcome::new(process::thread_cpu()?);
    let mut all: Vec<Client> = (0..clients.count).map(Client::new).collect();
    let mut ask = Ask::new(clients);
    let mut due = VecDeque::new();
    for client in &mut all {
        let next = client.begin(&mut ask, &poll, &mut outcome)?;
        put_off(&mut due, next, client.index);
    }
    while !enough() {
        poll.poll(&mut events, Some(until_next(&due)))?;
        for event in &events {
            let client = &mut all[event.token().0];
            let next = client.react(event, &mut ask, &poll, &mut outcome)?;
            put_off(&mut due, next, client.index);
        }
        while let Some((at, index)) = due.front().copied()
            && at <= Instant::now()
        {
            due.pop_front();
            let next = all[index].begin(&mut ask, &poll, &mut outcome)?;
            put_off(&mut due, next, index);
        }
        for client in all.iter_mut().filter(|client| client.overdue()) {
            let next = client.give_up(&mut outcome);
            put_off(&mut due, next, client.index);
        }
    }
    outcome.end(process::thread_cpu()?);
    Ok(outcome)
}

/// Two waits are in use, so the queue stays nearly in order, and a client that
/// is late by the longer of the two does no harm.
fn put_off(due: &mut VecDeque<(Instant, usize)>, next: Next, index: usize) {
    if let Next::After(wait) = next {
        due.push_back((Instant::now() + wait, index));
    }
}

fn until_next(due: &VecDeque<(Instant, usize)>) -> Duration {
    due.front().map_or(LOOK, |(at, _)| {
        at.saturating_duration_since(Instant::now()).min(LOOK)
    })
}
