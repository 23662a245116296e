//! The loop of an adapter whose program is ready: reports, obeys, drains, ends.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use prefork_proto::adapter::{self, Brief};
use prefork_proto::message::{Health, NEEDS_RESTART, Reply, ToSupervisor, ToWorker};
use serde_json::Value;
use tokio::time::Instant;

use super::probe;
use super::program::{Ended, News, Program};
use crate::accept::accept_state::Gate;
use crate::accept::listener::Listener;
use crate::app::context::Context;
use crate::app::handlers::LocalFuture;
use crate::channel::handshake::unknown;
use crate::channel::link::{Heard, at};
use crate::channel::rejoin::{Answer, Papers};
use crate::channel::session::{DRAIN, Pace};
use crate::channel::signals::Signals;
use crate::channel::uplink::{Above, Uplink};
use crate::output::{Keeper, say};
use crate::process::Serving;

/// An adapter with a program that is ready.
pub(super) struct Session {
    pub(super) uplink: Uplink,
    /// What goes to the next supervisor; none where there is not to be one.
    pub(super) papers: Option<Box<Papers>>,
    pub(super) keeper: Option<&'static Keeper>,
    pub(super) context: Context,
    pub(super) serving: &'static Serving,
    pub(super) gate: Rc<Gate>,
    pub(super) signals: Signals,
    pub(super) pace: Pace,
    pub(super) brief: Brief,
    pub(super) program: Program,
    /// What the next supervisor is handed.
    pub(super) _listeners: Vec<Rc<Listener>>,
}

/// What a session changes as it goes.
struct Course {
    next_check: Instant,
    /// How late the loop came to the check that is in progress.
    late: Duration,
    /// The check that is in progress.
    check: Option<LocalFuture<Result<(), String>>>,
    /// Whether a connection that says nothing waits to be taken by the program.
    waits: Rc<Cell<bool>>,
    /// What was wrong, as it was last said.
    trouble: Option<String>,
    seq: u64,
    /// When the drain that has begun is over.
    deadline: Option<Instant>,
}

enum Next {
    Above(Above),
    News(News),
    Check,
    Checked(Result<(), String>),
    Terminate,
    Deadline,
}

impl Session {
    /// Runs until the program has ended.
    pub(super) async fn run(mut self) -> Ended {
        let mut course = Course {
            next_check: Instant::now(),
            late: Duration::ZERO,
            check: None,
            waits: Rc::default(),
            trouble: None,
            seq: 0,
            deadline: None,
        };
        let ended = loop {
            let next = self.next(&mut course).await;
            if let Some(ended) = self.act(next, &mut course).await {
                break ended;
            }
        };
        let farewell = match course.deadline {
            Some(_) => ToSupervisor::Drained,
            None => ToSupervisor::Bye {
                reason: format!("its program {ended}"),
            },
        };
        self.say(&farewell, &mut course);
        self.uplink.finish().await;
        ended
    }

    async fn next(&mut self, course: &mut Course) -> Next {
        let above = self.uplink.next(self.serving.timer);
        tokio::select! {
            above = above => Next::Above(above),
            news = self.program.next() => Next::News(news),
            () = self.signals.terminate() => Next::Terminate,
            checked = pending(&mut course.check) => Next::Checked(checked),
            () = tokio::time::sleep_until(course.next_check) => Next::Check,
            () = at(course.deadline) => Next::Deadline,
        }
    }

    async fn act(&mut self, next: Next, course: &mut Course) -> Option<Ended> {
        match next {
            Next::News(News::Ended(ended)) => return Some(ended),
            Next::News(News::Said(said)) => {
                if said.watchdog && self.brief.health == adapter::Health::Notify {
                    self.report(course);
                }
            }
            Next::Above(above) => self.attend(above, course),
            Next::Check => self.begin_check(course),
            Next::Checked(checked) => {
                course.check = None;
                self.conclude_check(checked, course);
            }
            Next::Terminate => self.drain(DRAIN, course),
            Next::Deadline => {
                self.remark("its program has not ended by the drain's deadline: killed");
                return Some(self.program.kill().await);
            }
        }
        None
    }

    /// Looks whether the program is well, where that is not for it to say. A check that
    /// has not come to an end is the one that counts.
    fn begin_check(&mut self, course: &mut Course) {
        let now = Instant::now();
        course.late = now.saturating_duration_since(course.next_check);
        course.next_check = now + self.pace.heartbeat;
        if course.check.is_some() {
            return;
        }
        // One that leaves need not listen any more.
        let leaves = course.deadline.is_some();
        let address = self.brief.socket.address().cloned().filter(|_| !leaves);
        course.check = match (&self.brief.health, address) {
            (adapter::Health::Notify, _) if !leaves => None,
            (adapter::Health::Listening, Some(address)) if !course.waits.get() => {
                let waits = Rc::clone(&course.waits);
                Some(Box::pin(async move { listens(address, waits).await }))
            }
            (adapter::Health::Http(path), Some(address)) => {
                let path = path.clone();
                let patience = Duration::from_millis(self.brief.heartbeat_timeout_ms);
                Some(Box::pin(async move {
                    probe::get(&address, &path, patience).await
                }))
            }
            _ => Some(Box::pin(std::future::ready(Ok(())))),
        };
    }

    /// Reports what is good; of what is not the log is told, and the supervisor finds
    /// that no report comes.
    fn conclude_check(&mut self, checked: Result<(), String>, course: &mut Course) {
        let checked = match checked {
            Ok(()) if self.program.is_stopped() => Err("it was stopped by a signal".to_owned()),
            checked => checked,
        };
        match checked {
            Ok(()) => {
                if course.trouble.take().is_some() {
                    self.remark("its program is well again");
                }
                self.report(course);
            }
            Err(trouble) => {
                if course.trouble.as_ref() != Some(&trouble) {
                    self.remark(&format!("its program is not well: {trouble}"));
                }
                course.trouble = Some(trouble);
            }
        }
    }

    fn report(&mut self, course: &mut Course) {
        if !self.uplink.is_clear() {
            return;
        }
        course.seq += 1;
        let health = Health {
            seq: course.seq,
            loop_lag_us: u64::try_from(course.late.as_micros()).unwrap_or(u64::MAX),
            status: self.program.status.clone(),
            ..Health::default()
        };
        self.say(&ToSupervisor::Health(health), course);
    }

    fn attend(&mut self, above: Above, course: &mut Course) {
        match above {
            Above::Heard(Ok(Heard::Message(message, _))) => self.obey(&message, course),
            Above::Heard(Ok(Heard::Unknown { kind, id })) => {
                if let Some(reply) = unknown(&kind, id) {
                    self.say(&reply, course);
                }
            }
            Above::Heard(Ok(Heard::Closed)) => self.lose("it was closed", course),
            Above::Heard(Err(error)) => self.lose(&error.to_string(), course),
            Above::Found(mut papers, Answer::Welcome(link, welcome)) => {
                self.uplink = Uplink::Link(link);
                self.pace = Pace::of(&welcome);
                self.papers = welcome.rejoin.map(|offer| {
                    papers.offer = offer;
                    papers
                });
                course.next_check = Instant::now();
                self.remark("rejoined a supervisor");
            }
            Above::Found(_, Answer::Refused(reason)) => {
                let why = format!("the next supervisor refused it ({reason})");
                self.give_up(&why, course);
            }
            Above::NobodyCame => self.give_up("no supervisor came", course),
        }
    }

    /// Does what the supervisor asks for, as far as a program can that knows nothing of it.
    fn obey(&mut self, message: &ToWorker, course: &mut Course) {
        let reply = match message {
            ToWorker::Ping { id } => Reply::done(*id, Value::Null),
            ToWorker::Drain {
                id, deadline_ms, ..
            } => {
                self.drain(Duration::from_millis(*deadline_ms), course);
                Reply::done(*id, Value::Null)
            }
            ToWorker::Stop { id } => {
                self.program.signal(libc::SIGTERM);
                Reply::done(*id, Value::Null)
            }
            ToWorker::Reload { id, .. } => {
                let why = "a program behind an adapter takes new settings as a new process";
                Reply::failed(*id, NEEDS_RESTART, why)
            }
            ToWorker::Tell { id, .. } | ToWorker::Pause { id } | ToWorker::Resume { id } => {
                let why = "a program behind an adapter takes no such order";
                Reply::failed(*id, "not_supported", why)
            }
            // What it has no capability for, or the handshake has ended.
            _ => return,
        };
        self.say(&ToSupervisor::Reply(reply), course);
    }

    /// Asks the program to leave, or brings the deadline closer by which it has to.
    fn drain(&mut self, within: Duration, course: &mut Course) {
        let deadline = Instant::now() + within;
        if course.deadline.is_none() {
            self.gate.shut();
            let now = self.serving.timer.now();
            self.serving.drain.begin(now, Duration::ZERO);
            self.program.signal(self.brief.stop_signal);
        }
        course.deadline = Some(course.deadline.map_or(deadline, |set| set.min(deadline)));
    }

    fn lose(&mut self, why: &str, course: &mut Course) {
        if let Some(keeper) = self.keeper {
            keeper.let_go();
        }
        let lost = format!("lost the channel to the supervisor ({why})");
        let Some(papers) = self.papers.take() else {
            self.give_up(&lost, course);
            return;
        };
        let timeout = Duration::from_millis(papers.offer.orphan_timeout_ms);
        self.remark(&format!("{lost}: going on for {timeout:?} without one"));
        let until = self.serving.timer.now() + timeout;
        self.uplink = Uplink::orphan(papers, until);
    }

    fn give_up(&mut self, why: &str, course: &mut Course) {
        self.uplink = Uplink::None;
        self.remark(&format!("{why}: its program is asked to leave"));
        self.drain(DRAIN, course);
    }

    fn say(&mut self, message: &ToSupervisor, course: &mut Course) {
        if let Err(error) = self.uplink.say(message) {
            self.lose(&error.to_string(), course);
        }
    }

    fn remark(&self, remark: &str) {
        let (pool, slot) = (self.context.pool(), self.context.slot());
        say(format_args!("{pool}/{slot}: {remark}"));
    }
}

/// Whether the program listens. The connection stays until it has taken it, and no
/// other is made meanwhile: one that serves a request at a time has a short queue.
async fn listens(address: adapter::UpstreamAddress, waits: Rc<Cell<bool>>) -> Result<(), String> {
    let stream = probe::connect(&address).await;
    let stream = stream.map_err(|error| format!("{address}: {error}"))?;
    waits.set(true);
    tokio::task::spawn_local(async move {
        let _ = probe::is_closed(stream).await;
        waits.set(false);
    });
    Ok(())
}

async fn pending(check: &mut Option<LocalFuture<Result<(), String>>>) -> Result<(), String> {
    match check {
        Some(check) => check.await,
        None => std::future::pending().await,
    }
}
