//! One request at one worker, from the moment it has a place there.

use std::rc::Rc;

use hyper::body::Incoming;
use hyper::{Request, Response, StatusCode};
use tokio::task::spawn_local;

use super::Patience;
use super::body::{Progress, Upload};
use super::connection::{Connection, IDLE};
use super::failure::Failure;
use super::metrics::Measured;
use super::pool::{Member, Place};
use prefork_worker::Timer;

/// A request's place at a worker and the connection that it is on. Dropped before its
/// end, it takes the connection with it, by which the worker learns that nobody waits.
#[derive(Debug)]
pub(super) struct Exchange {
    pub(super) place: Place,
    connection: Connection,
    /// Whether the connection may be used again.
    keeps: bool,
    measured: Measured,
    timer: &'static Timer,
}

/// What became of a request that was to be sent.
pub(super) enum Outcome {
    Answered(Response<Incoming>),
    /// Nothing of it was sent: here it is again.
    Unsent(Request<Upload>),
    /// It was sent, and there is no answer.
    Failed(Failed),
}

/// How a request failed that was sent.
#[derive(Debug)]
pub(super) struct Failed {
    pub(super) why: Failure,
    /// Whether the worker has said nothing at all.
    pub(super) is_silent: bool,
}

impl Exchange {
    /// Takes a connection to the place's worker: one that is there, or a new one. The
    /// error gives the place back.
    pub(super) async fn begin(
        place: Place,
        is_fresh: bool,
        measured: Measured,
        timer: &'static Timer,
    ) -> Result<Box<Self>, Place> {
        let keeps = !place.pool.is_serial();
        let known = match is_fresh {
            true => None,
            false => usable(&place.member),
        };
        let connection = match known {
            Some(connection) => connection,
            None => {
                measured.connects();
                match Connection::open(&place.member.address).await {
                    Ok(connection) => connection,
                    Err(_) => return Err(place),
                }
            }
        };
        Ok(Box::new(Self {
            place,
            connection,
            keeps,
            measured,
            timer,
        }))
    }

    /// Whether the connection is to end with the response.
    pub(super) fn is_last(&self) -> bool {
        !self.keeps
    }

    /// Sends the request and waits for the head of the answer.
    pub(super) async fn send(&mut self, request: Request<Upload>) -> Outcome {
        let before = self.connection.received();
        self.connection.await_head();
        match self.connection.sender.try_send_request(request).await {
            Ok(response) => {
                self.connection.await_body();
                Outcome::Answered(response)
            }
            Err(mut error) => {
                let is_silent = self.connection.received() == before;
                match error.take_message() {
                    Some(request) => Outcome::Unsent(request),
                    None => {
                        let is_parse = error.error().is_parse() || error.error().is_parse_status();
                        let why = match is_parse || self.connection.has_too_much() {
                            true => Failure::BadResponse,
                            false => Failure::Closed,
                        };
                        Outcome::Failed(Failed { why, is_silent })
                    }
                }
            }
        }
    }

    /// Waits for the answer as long as it may take.
    pub(super) async fn ask(
        &mut self,
        request: Request<Upload>,
        progress: &Progress,
        patience: &Patience,
    ) -> Outcome {
        progress.begin();
        let mut sending = std::pin::pin!(self.send(request));
        loop {
            let since = progress.since();
            tokio::select! {
                biased;
                outcome = &mut sending => return outcome,
                () = patience.timer.sleep_until(since + patience.upstream_timeout) => {}
            }
            // A body that goes on coming is no silence.
            if progress.since() == since {
                return Outcome::Failed(Failed {
                    why: Failure::Timeout,
                    is_silent: false,
                });
            }
        }
    }

    /// The head of the answer is there.
    pub(super) fn answers(&self, status: StatusCode) {
        let failed = status.is_server_error();
        self.place.answered(failed, self.measured.took());
        // What follows may last for days.
        if status == StatusCode::SWITCHING_PROTOCOLS {
            self.place.settle();
        }
    }

    /// There is no answer, or none that can be passed on.
    pub(super) fn lacks_answer(&self) {
        self.place.answered(true, self.measured.took());
    }

    /// The worker has said everything.
    pub(super) fn end(self) {
        let Self {
            place,
            mut connection,
            keeps,
            measured,
            timer,
        } = self;
        measured.ends();
        if keeps && place.member.stays() {
            connection.rest();
            keep(&place.member, connection, timer);
        }
    }

    /// It was a tunnel, and has ended.
    pub(super) fn end_tunnel(self) {
        self.measured.ends();
    }

    /// The worker did not say everything.
    pub(super) fn fail(self, why: Failure) {
        self.place.broke_off();
        self.measured.fails(why);
    }
}

/// A connection that is there already, if one can be used.
fn usable(member: &Member) -> Option<Connection> {
    let mut idle = member.idle.borrow_mut();
    while let Some(connection) = idle.pop() {
        if connection.is_usable() {
            return Some(connection);
        }
    }
    None
}

/// Keeps a connection for another request, for a while.
fn keep(member: &Rc<Member>, connection: Connection, timer: &'static Timer) {
    let mut idle = member.idle.borrow_mut();
    idle.push(connection);
    if idle.len() == 1 {
        let member = Rc::downgrade(member);
        spawn_local(async move {
            loop {
                timer.sleep_until(timer.now() + IDLE).await;
                let Some(member) = member.upgrade() else {
                    return;
                };
                let mut idle = member.idle.borrow_mut();
                idle.retain(|connection| !connection.is_stale());
                if idle.is_empty() {
                    return;
                }
            }
        });
    }
}
