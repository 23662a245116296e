//! What one worker may say when: the order of the handshake, replies that
//! match requests, and a limit on how much is said. No I/O.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use prefork_proto::message::{Health, Hello, PROTOCOL, Reply, ReplyError, ToSupervisor};
use prefork_proto::metrics::Metrics;
use serde_json::Value;
use tokio::sync::oneshot;

use crate::upgrade::{HandedPhase, HandedTalk};

/// Messages a second that a worker may send for long.
const RATE: f64 = 1000.0;

/// Messages that it may send at once.
const BURST: f64 = 1000.0;

/// A message that the protocol does not allow at this point.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Breach {
    /// The metric's label: `out_of_order`, `bad_hello` or `bad_reply`.
    pub(crate) reason: &'static str,
    /// One sentence for people.
    pub(crate) rule: String,
}

/// The values of [`Breach::reason`], and the reasons that only the process's
/// task finds.
pub(crate) const BREACHES: [&str; 6] = [
    "out_of_order",
    "bad_hello",
    "bad_reply",
    FLOOD,
    UNKNOWN_TYPE,
    BAD_SCOREBOARD,
];

/// The reason under which a message of an unknown type is counted.
pub(crate) const UNKNOWN_TYPE: &str = "unknown_type";

/// The reason under which exceeding the rate is counted.
pub(crate) const FLOOD: &str = "flood";

/// The reason under which a scoreboard that can't be sealed is counted.
pub(crate) const BAD_SCOREBOARD: &str = "bad_scoreboard";

/// Why a call has no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum CallError {
    /// The worker said no; the code is for programs, and stands in the text as well.
    Refused { code: String, why: String },
    /// The worker's channel is full, closed, or not through its handshake.
    Unreachable(String),
}

/// The answer to a call: the reply's data.
pub(crate) type Answer = Result<Value, CallError>;

/// What a message means to the process's task.
#[derive(Debug, PartialEq)]
pub(crate) enum Heard {
    /// Answer with `welcome`, the listeners and `start`.
    Hello(Hello),
    /// It accepts connections.
    Ready,
    /// It reports.
    Health(Health),
    /// It reports the application's own metrics.
    Metrics(Metrics),
    /// A ping came back after this long.
    Pong(Duration),
    /// A call was answered, or a reply came that nobody waits for any more.
    Answered,
    /// It accepts nothing more.
    Shut,
    /// It has nothing left in flight.
    Drained,
    /// It leaves, and says why.
    Bye(String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Nothing but `hello` may come.
    Hello,
    /// Welcomed: `ready` or `bye` may come.
    Booting,
    /// Everything but `hello` and `ready` may come.
    Up,
}

/// A request on its way.
#[derive(Debug)]
enum Pending {
    Ping(Instant),
    Call(oneshot::Sender<Answer>),
    Drain,
    /// Its reply is of no interest (`stop`, `tls` before `start`).
    Order,
}

/// One worker's side of the talk.
#[derive(Debug)]
pub(crate) struct Conversation {
    pid: i32,
    phase: Phase,
    draining: bool,
    next_id: u64,
    pending: HashMap<u64, Pending>,
    tokens: f64,
    refilled: Instant,
    flooding: bool,
}

impl Conversation {
    /// A talk with the process `pid`, from its first byte.
    pub(crate) fn new(pid: i32, now: Instant) -> Self {
        Self {
            pid,
            phase: Phase::Hello,
            draining: false,
            next_id: 1,
            pending: HashMap::new(),
            tokens: BURST,
            refilled: now,
            flooding: false,
        }
    }

    /// A talk that another supervisor began: the handshake is over.
    pub(crate) fn resumed(pid: i32, draining: bool, now: Instant) -> Self {
        Self {
            phase: Phase::Up,
            draining,
            ..Self::new(pid, now)
        }
    }

    /// What the next program has to know of the talk. Calls are not in it: an
    /// upgrade waits for those who made them, and a reply that comes after all
    /// is one to a call that was given up.
    pub(crate) fn hand_over(&self, now: Instant) -> HandedTalk {
        let pings = self
            .pending
            .iter()
            .filter_map(|(id, pending)| match pending {
                Pending::Ping(sent) => Some((*id, now.saturating_duration_since(*sent))),
                Pending::Call(_) | Pending::Drain | Pending::Order => None,
            });
        HandedTalk {
            phase: match self.phase {
                Phase::Hello => HandedPhase::Hello,
                Phase::Booting => HandedPhase::Booting,
                Phase::Up => HandedPhase::Up,
            },
            draining: self.draining,
            next_id: self.next_id,
            pings: pings.collect(),
            tokens: self.tokens,
            flooding: self.flooding,
        }
    }

    /// Goes on with a talk that the program before this one handed over.
    pub(crate) fn go_on(pid: i32, talk: HandedTalk, now: Instant) -> Self {
        // A clock that began less than that ago has forgotten nothing.
        let sent = |ago| Pending::Ping(now.checked_sub(ago).unwrap_or(now));
        let pings = talk.pings.into_iter();
        Self {
            phase: match talk.phase {
                HandedPhase::Hello => Phase::Hello,
                HandedPhase::Booting => Phase::Booting,
                HandedPhase::Up => Phase::Up,
            },
            draining: talk.draining,
            next_id: talk.next_id,
            pending: pings.map(|(id, ago)| (id, sent(ago))).collect(),
            tokens: talk.tokens.clamp(0.0, BURST),
            flooding: talk.flooding,
            ..Self::new(pid, now)
        }
    }

    /// Whether the handshake is over.
    pub(crate) fn is_up(&self) -> bool {
        self.phase == Phase::Up
    }

    /// Whether it was told to start.
    pub(crate) fn has_begun(&self) -> bool {
        self.phase != Phase::Hello
    }

    /// The id of a new ping.
    pub(crate) fn ping(&mut self, now: Instant) -> u64 {
        self.ask(Pending::Ping(now))
    }

    /// The id of a new call whose answer goes to `answer`.
    pub(crate) fn call(&mut self, answer: oneshot::Sender<Answer>) -> u64 {
        // Calls that were given up, so that silence can't make the table grow.
        self.pending
            .retain(|_, pending| !matches!(pending, Pending::Call(answer) if answer.is_closed()));
        self.ask(Pending::Call(answer))
    }

    /// The id of a request whose reply is of no interest.
    pub(crate) fn order(&mut self) -> u64 {
        self.ask(Pending::Order)
    }

    /// The id of a new `stop`.
    pub(crate) fn stop(&mut self) -> u64 {
        self.ask(Pending::Order)
    }

    /// The id of a new `drain`; from here on `drained` may come.
    pub(crate) fn drain(&mut self) -> u64 {
        self.draining = true;
        self.ask(Pending::Drain)
    }

    fn ask(&mut self, pending: Pending) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        self.pending.insert(id, pending);
        id
    }

    /// How long ago the oldest ping that has no answer was sent.
    pub(crate) fn unanswered(&self, now: Instant) -> Option<Duration> {
        self.pending
            .values()
            .filter_map(|pending| match pending {
                Pending::Ping(sent) => Some(now.saturating_duration_since(*sent)),
                _ => None,
            })
            .max()
    }

    /// Takes one message's worth from the rate; otherwise says how long to
    /// wait before reading on.
    pub(crate) fn allowance(&mut self, now: Instant) -> Result<(), Duration> {
        let gained = now.saturating_duration_since(self.refilled).as_secs_f64() * RATE;
        self.tokens = (self.tokens + gained).min(BURST);
        self.refilled = now;
        if self.tokens >= BURST {
            self.flooding = false;
        }
        if self.tokens < 1.0 {
            // A tenth of a second's worth at a time, not message by message.
            return Err(Duration::from_millis(100));
        }
        self.tokens -= 1.0;
        Ok(())
    }

    /// Notes that the rate was exceeded; `true` if that is news.
    pub(crate) fn note_flood(&mut self) -> bool {
        !std::mem::replace(&mut self.flooding, true)
    }

    /// Answers a call that could not even be sent.
    pub(crate) fn give_up(&mut self, id: u64, why: CallError) {
        if let Some(Pending::Call(answer)) = self.pending.remove(&id) {
            let _ = answer.send(Err(why));
        }
    }

    /// Judges a message.
    pub(crate) fn hear(&mut self, message: ToSupervisor, now: Instant) -> Result<Heard, Breach> {
        match (self.phase, message) {
            (Phase::Hello, ToSupervisor::Hello(hello)) => {
                self.check_hello(&hello)?;
                self.phase = Phase::Booting;
                Ok(Heard::Hello(hello))
            }
            (Phase::Booting, ToSupervisor::Ready) => {
                self.phase = Phase::Up;
                Ok(Heard::Ready)
            }
            (Phase::Booting | Phase::Up, ToSupervisor::Bye { reason }) => Ok(Heard::Bye(reason)),
            (Phase::Booting | Phase::Up, ToSupervisor::Reply(reply)) => self.settle(reply, now),
            (Phase::Up, ToSupervisor::Health(health)) => Ok(Heard::Health(health)),
            (Phase::Up, ToSupervisor::Metrics(metrics)) => Ok(Heard::Metrics(metrics)),
            (Phase::Booting | Phase::Up, ToSupervisor::Drained) if self.draining => {
                Ok(Heard::Drained)
            }
            (phase, message) => Err(out_of_order(phase, &message)),
        }
    }

    fn check_hello(&self, hello: &Hello) -> Result<(), Breach> {
        let breach = |rule| {
            Err(Breach {
                reason: "bad_hello",
                rule,
            })
        };
        if hello.protocol != PROTOCOL {
            return breach(format!(
                "it speaks protocol {}, this supervisor {PROTOCOL}",
                hello.protocol
            ));
        }
        if hello.pid != self.pid {
            return breach(format!(
                "hello says pid {}, but the process started is {}",
                hello.pid, self.pid
            ));
        }
        Ok(())
    }

    fn settle(&mut self, reply: Reply, now: Instant) -> Result<Heard, Breach> {
        match self.pending.remove(&reply.id) {
            Some(Pending::Ping(sent)) => Ok(Heard::Pong(now.saturating_duration_since(sent))),
            Some(Pending::Call(answer)) => {
                let result = if reply.ok {
                    Ok(reply.data)
                } else {
                    let error = reply.error.unwrap_or_else(|| ReplyError {
                        code: "refused".to_owned(),
                        message: "it gave no reason".to_owned(),
                    });
                    Err(CallError::Refused {
                        why: format!("{}: {}", error.code, error.message),
                        code: error.code,
                    })
                };
                // The asker may have given up.
                let _ = answer.send(result);
                Ok(Heard::Answered)
            }
            Some(Pending::Drain) => Ok(Heard::Shut),
            Some(Pending::Order) => Ok(Heard::Answered),
            // The answer to a call that was given up.
            None if reply.id < self.next_id => Ok(Heard::Answered),
            None => Err(Breach {
                reason: "bad_reply",
                rule: format!("a reply to request {}, which was never made", reply.id),
            }),
        }
    }
}

fn out_of_order(phase: Phase, message: &ToSupervisor) -> Breach {
    use prefork_proto::message::Message;
    let expected = match phase {
        Phase::Hello => "hello must come first",
        Phase::Booting => "only ready or bye may follow hello",
        Phase::Up => "it may not come at this point",
    };
    Breach {
        reason: "out_of_order",
        rule: format!("{} out of order: {expected}", message.kind()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hello(pid: i32, protocol: u32) -> ToSupervisor {
        ToSupervisor::Hello(Hello {
            protocol,
            pid,
            program: "shop".to_owned(),
            version: "1".to_owned(),
            capabilities: vec![],
        })
    }

    fn up(now: Instant) -> Conversation {
        let mut talk = Conversation::new(7, now);
        talk.hear(hello(7, PROTOCOL), now).unwrap();
        talk.hear(ToSupervisor::Ready, now).unwrap();
        talk
    }

    #[test]
    fn only_hello_may_come_first() {
        let now = Instant::now();
        for message in [
            ToSupervisor::Ready,
            ToSupervisor::Drained,
            ToSupervisor::Health(Health::default()),
            ToSupervisor::Bye {
                reason: String::new(),
            },
            ToSupervisor::Reply(Reply::done(1, Value::Null)),
        ] {
            let breach = Conversation::new(7, now).hear(message, now).unwrap_err();
            assert_eq!(breach.reason, "out_of_order");
        }
    }

    #[test]
    fn a_hello_that_lies_is_refused() {
        let now = Instant::now();
        for lie in [hello(8, PROTOCOL), hello(7, 2)] {
            let breach = Conversation::new(7, now).hear(lie, now).unwrap_err();
            assert_eq!(breach.reason, "bad_hello");
        }
    }

    #[test]
    fn ready_comes_once_and_health_only_after_it() {
        let now = Instant::now();
        let mut talk = Conversation::new(7, now);
        talk.hear(hello(7, PROTOCOL), now).unwrap();
        let early = talk.hear(ToSupervisor::Health(Health::default()), now);
        assert_eq!(early.unwrap_err().reason, "out_of_order");
        assert_eq!(talk.hear(ToSupervisor::Ready, now), Ok(Heard::Ready));
        let twice = talk.hear(ToSupervisor::Ready, now);
        assert_eq!(twice.unwrap_err().reason, "out_of_order");
    }

    #[test]
    fn drained_comes_only_after_drain() {
        let now = Instant::now();
        let mut talk = up(now);
        assert!(talk.hear(ToSupervisor::Drained, now).is_err());
        talk.drain();
        assert_eq!(talk.hear(ToSupervisor::Drained, now), Ok(Heard::Drained));
    }

    #[test]
    fn a_reply_to_nothing_is_a_breach_and_a_late_one_is_not() {
        let now = Instant::now();
        let mut talk = up(now);
        let (answer, waiting) = oneshot::channel();
        let id = talk.call(answer);
        drop(waiting);
        let (answer, _waiting) = oneshot::channel();
        talk.call(answer);
        assert!(!talk.pending.contains_key(&id), "given up, so forgotten");
        let late = talk.hear(ToSupervisor::Reply(Reply::done(id, Value::Null)), now);
        assert_eq!(late, Ok(Heard::Answered));
        let invented = talk.hear(ToSupervisor::Reply(Reply::done(99, Value::Null)), now);
        assert_eq!(invented.unwrap_err().reason, "bad_reply");
    }

    #[test]
    fn a_flood_is_slowed_to_the_rate() {
        let start = Instant::now();
        let mut talk = up(start);
        let mut taken = 0;
        for millisecond in 0..2000 {
            let now = start + Duration::from_millis(millisecond);
            for _ in 0..10 {
                taken += u32::from(talk.allowance(now).is_ok());
            }
        }
        assert!((2900..=3000).contains(&taken), "{taken}");
    }
}
