//! The loop of a ready worker: reports, obeys, drains, leaves.

mod orders;
mod reports;

use std::rc::Rc;
use std::time::Duration;

use prefork_proto::message::{Reply, ToSupervisor, Welcome};
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::accept::Serve;
use crate::accept::accept_state::{Gate, State};
use crate::app::context::Context;
use crate::app::handlers::{Application, Drain};
use crate::channel::handshake::unknown;
use crate::channel::link::{Heard, Link};
use crate::channel::metrics_reporter::Reporter;
use crate::channel::rejoin::{Answer, Papers};
use crate::channel::signals::Signals;
use crate::channel::uplink::{Above, Uplink};
use crate::limits::Limits;
use crate::output::{Keeper, say};
use crate::process::Serving;
use crate::transport::force_close::cut;
use crate::transport::tls::Tls;

/// The drain's deadline where nobody names one.
pub(crate) const DRAIN: Duration = Duration::from_secs(30);

/// How a worker that was ready left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Leave {
    /// Nothing was left in flight.
    Drained,
    /// Something was cut off; the text says why and what.
    Cut(String),
    /// The supervisor broke the protocol; the text says how.
    Broken(String),
}

/// A ready worker.
pub(crate) struct Session {
    pub(crate) uplink: Uplink,
    /// What goes to the next supervisor; none where there is not to be one.
    pub(crate) papers: Option<Box<Papers>>,
    /// Of the reading ends of what it prints to, if it has them.
    pub(crate) keeper: Option<&'static Keeper>,
    pub(crate) context: Context,
    pub(crate) application: Application,
    pub(crate) serving: &'static Serving,
    /// The application's own, under which the operator's come.
    pub(crate) limits: Limits,
    pub(crate) gate: Rc<Gate>,
    pub(crate) serve: Serve,
    pub(crate) signals: Signals,
    pub(crate) pace: Pace,
    pub(crate) metrics: Reporter,
    pub(crate) tls: Tls,
}

/// The times that a session keeps.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    /// Between two `health` reports.
    pub(crate) heartbeat: Duration,
    /// How long an idle connection stays open in a drain.
    pub(crate) idle_grace: Duration,
}

impl Pace {
    pub(crate) fn of(welcome: &Welcome) -> Self {
        Self {
            heartbeat: Duration::from_millis(welcome.heartbeat_ms.max(1)),
            idle_grace: Duration::from_millis(welcome.idle_grace_ms),
        }
    }
}

/// What a session changes as it goes.
struct Course {
    /// By the system's clock: how late a report is says how late the loop was.
    next_report: Instant,
    seq: u64,
    /// When the drain that has begun may cut what is left, by the timer's clock.
    deadline: Option<Instant>,
    /// Whether a signal has asked for the drain.
    asked_by_signal: bool,
    /// Replies of handlers that run beside the loop, for this supervisor.
    replies: mpsc::UnboundedSender<Reply>,
    done: mpsc::UnboundedReceiver<Reply>,
    /// Requests that are done when the gate has settled, in a turn of the loop.
    settling: Vec<u64>,
}

/// What the loop does next.
enum Next {
    Above(Above),
    Reply(Reply),
    Report,
    Terminate,
    Settled,
    Emptied,
    Deadline,
}

impl Session {
    /// Runs until the worker has left; what it says last is sent.
    pub(crate) async fn run(mut self) -> Leave {
        let (replies, done) = mpsc::unbounded_channel();
        let mut course = Course {
            next_report: Instant::now() + self.pace.heartbeat,
            seq: 0,
            deadline: None,
            asked_by_signal: false,
            replies,
            done,
            settling: Vec::new(),
        };
        // A successor's gauges are there before its predecessor's go.
        self.report_metrics(&mut course);
        let leave = loop {
            let next = self.next(&mut course).await;
            if let Some(leave) = self.act(next, &mut course) {
                break leave;
            }
        };
        self.leave(&leave, &mut course).await;
        leave
    }

    async fn next(&mut self, course: &mut Course) -> Next {
        let linked = self.uplink.is_linked();
        let timer = self.serving.timer;
        let above = self.uplink.next(timer);
        let emptied = async {
            let background = &self.serving.background;
            while !(self.gate.has_nothing_left()
                && self.serving.open() == 0
                && background.open() == 0)
            {
                self.gate.nothing_left().await;
                self.serving.emptied().await;
                background.ended().await;
            }
        };
        tokio::select! {
            above = above => Next::Above(above),
            Some(reply) = course.done.recv() => Next::Reply(reply),
            () = timer.sleep_until(timer.shown(course.next_report)), if linked => Next::Report,
            () = self.signals.terminate() => Next::Terminate,
            () = self.gate.settled(), if !course.settling.is_empty() => Next::Settled,
            () = emptied, if course.deadline.is_some() && course.settling.is_empty() => Next::Emptied,
            () = timer.sleep_until(course.deadline.unwrap_or(course.next_report)),
                if course.deadline.is_some() => Next::Deadline,
        }
    }

    fn act(&mut self, next: Next, course: &mut Course) -> Option<Leave> {
        match next {
            Next::Above(above) => return self.attend(above, course),
            Next::Reply(reply) => self.say(&ToSupervisor::Reply(reply), course),
            Next::Report => self.report(course),
            Next::Terminate if course.asked_by_signal => {
                return Some(Leave::Cut(self.left("a second signal")));
            }
            Next::Terminate => {
                course.asked_by_signal = true;
                // Where a supervisor is, it sees to it that somebody accepts.
                self.drain(DRAIN, !self.uplink.is_linked(), course);
            }
            Next::Settled => {
                for id in std::mem::take(&mut course.settling) {
                    self.say(&ToSupervisor::Reply(Reply::done(id, Value::Null)), course);
                }
            }
            Next::Emptied => return Some(Leave::Drained),
            Next::Deadline => return Some(Leave::Cut(self.left("the drain's deadline"))),
        }
        None
    }

    fn attend(&mut self, above: Above, course: &mut Course) -> Option<Leave> {
        match above {
            Above::Heard(Ok(Heard::Message(message, fd))) => {
                return self.obey(message, fd, course);
            }
            Above::Heard(Ok(Heard::Unknown { kind, id })) => {
                if let Some(reply) = unknown(&kind, id) {
                    self.say(&reply, course);
                }
            }
            Above::Heard(Ok(Heard::Closed)) => self.lose("it was closed", course),
            Above::Heard(Err(error)) => self.lose(&error.to_string(), course),
            Above::Found(papers, Answer::Welcome(link, welcome)) => {
                self.rejoin(papers, link, *welcome, course);
            }
            Above::Found(_, Answer::Refused(reason)) => {
                let why = format!("the next supervisor refused it ({reason})");
                self.give_up(&why, false, course);
            }
            Above::NobodyCame => self.give_up("no supervisor came", true, course),
        }
        None
    }

    /// Begins the drain, or brings the deadline of the one that has begun closer.
    fn drain(&mut self, within: Duration, sweep: bool, course: &mut Course) {
        if !self.context.is_supervised() {
            self.gate.retire();
        } else if sweep {
            self.gate.sweep();
        } else if self.gate.state() != State::Sweeping {
            self.gate.shut();
        }
        let now = self.serving.timer.now();
        self.serving.drain.begin(now, self.pace.idle_grace);
        if course.deadline.is_none()
            && let Some(on_drain) = self.application.on_drain.clone()
        {
            let context = self.context.clone();
            let farewell = async move { on_drain(Drain { context, within }).await };
            self.serving.background.spawn(farewell);
        }
        let deadline = now + within;
        course.deadline = Some(course.deadline.map_or(deadline, |set| set.min(deadline)));
    }

    /// Goes on without a supervisor: as before until the next one comes, if one
    /// is to come, else as far as finishing what is in flight.
    fn lose(&mut self, why: &str, course: &mut Course) {
        if let Some(keeper) = self.keeper {
            keeper.let_go();
        }
        // Who would take connections may be gone as well, and nobody sees to it.
        self.serving.handoffs.stay();
        // What it asked for is nobody's concern any more.
        (course.replies, course.done) = mpsc::unbounded_channel();
        course.settling.clear();
        let lost = format!("lost the channel to the supervisor ({why})");
        let Some(papers) = self.papers.take() else {
            self.give_up(&lost, true, course);
            return;
        };
        let timeout = Duration::from_millis(papers.offer.orphan_timeout_ms);
        self.remark(&format!("{lost}: going on for {timeout:?} without one"));
        let until = self.serving.timer.now() + timeout;
        self.uplink = Uplink::orphan(papers, until);
    }

    /// Goes on under a new supervisor, as it says.
    fn rejoin(
        &mut self,
        mut papers: Box<Papers>,
        link: Box<Link>,
        welcome: Welcome,
        course: &mut Course,
    ) {
        self.uplink = Uplink::Link(link);
        self.metrics.begin_anew();
        self.pace = Pace::of(&welcome);
        self.serving.hold_to(self.limits.under(&welcome.http));
        self.papers = welcome.rejoin.map(|offer| {
            papers.offer = offer;
            papers
        });
        course.next_report = Instant::now();
        self.remark("rejoined a supervisor");
        let dropped = self.keeper.map_or(0, Keeper::take_dropped);
        if dropped > 0 {
            self.remark(&format!(
                "{dropped} bytes of what was printed without a supervisor were dropped: \
                 they were the oldest of more than the pipes hold"
            ));
        }
    }

    /// Finishes what is in flight, with no supervisor to come; `sweep` says
    /// whether the others who accept from the listeners may do the same.
    fn give_up(&mut self, why: &str, sweep: bool, course: &mut Course) {
        self.uplink = Uplink::None;
        self.remark(&format!("{why}: finishing what is in flight"));
        self.drain(DRAIN, sweep, course);
    }

    fn remark(&self, remark: &str) {
        let (pool, slot) = (self.context.pool(), self.context.slot());
        say(format_args!("{pool}/{slot}: {remark}"));
    }

    fn say(&mut self, message: &ToSupervisor, course: &mut Course) {
        if let Err(error) = self.uplink.say(message) {
            self.lose(&error.to_string(), course);
        }
    }

    /// Says why something is cut off, and what.
    fn left(&self, why: &str) -> String {
        let connections = self.serving.open();
        let requests = self.serving.tally.in_flight();
        let cut =
            format!("{why}: cut {connections} connections with {requests} requests in flight");
        match self.serving.background.open() {
            0 => cut,
            tasks => format!("{cut}, and {tasks} background tasks"),
        }
    }

    /// Cuts what is left, reports the last totals and says goodbye.
    async fn leave(&mut self, leave: &Leave, course: &mut Course) {
        self.gate.shut();
        if let Leave::Cut(reason) | Leave::Broken(reason) = leave {
            self.remark(reason);
            cut(self.serving).await;
        }
        self.serving.access_log.flush().await;
        self.report_last_metrics(course).await;
        let health = self.health(Duration::ZERO, course);
        self.say(&ToSupervisor::Health(health), course);
        let goodbye = match leave {
            Leave::Drained => ToSupervisor::Drained,
            Leave::Cut(reason) | Leave::Broken(reason) => ToSupervisor::Bye {
                reason: reason.clone(),
            },
        };
        self.say(&goodbye, course);
        self.uplink.finish().await;
    }
}
