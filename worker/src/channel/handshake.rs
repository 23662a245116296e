//! From the first word to `ready`: the handshake and the application's start-up.

use std::os::fd::OwnedFd;

use prefork_proto::message::{
    AccessLogOffer, Hello, PROTOCOL, Reply, ToSupervisor, ToWorker, Upstreams, Vacate, Welcome,
};
use prefork_proto::request_table::Writer;
use prefork_proto::scoreboard::Tally;
use serde_json::Value;

use crate::accept::listener::Listener;
use crate::access_log::AccessLog;
use crate::app::handlers::Application;
use crate::channel::link::{Heard, Link};
use crate::error::WorkerError;
use crate::output::{End, say};
use crate::sys;
use crate::transport::tls::Tls;

/// What the handshake brings.
#[derive(Debug)]
pub(crate) struct Orders {
    pub(crate) welcome: Welcome,
    /// Where to count; the scoreboard, if the supervisor has offered one.
    pub(crate) tally: Tally,
    /// Where to note requests, if the supervisor has offered a table for them.
    pub(crate) request_table: Option<Writer>,
    pub(crate) listeners: Vec<Listener>,
    /// What those of them speak TLS with that do.
    pub(crate) tls: Tls,
    /// The reading ends of what this process prints to.
    pub(crate) outputs: Vec<End>,
}

/// How far a worker came towards being ready.
#[derive(Debug)]
pub(crate) enum Boot<T> {
    /// As far as it was to come.
    Done(T),
    /// The supervisor wants it to leave instead.
    Dismissed,
}

/// Says who this is and takes the orders, up to `start`.
pub(crate) async fn handshake(
    link: &mut Link,
    hello: Hello,
    access_log: &AccessLog,
    application: &Application,
) -> Result<Boot<Orders>, WorkerError> {
    link.say(&ToSupervisor::Hello(hello))?;
    let Boot::Done(welcome) = welcome(link).await? else {
        return Ok(Boot::Dismissed);
    };
    let mut tally = None;
    let mut request_table = None;
    let mut listeners = Vec::new();
    let mut outputs = Vec::new();
    let tls = Tls::default();
    loop {
        match hear(link).await? {
            (ToWorker::Scoreboard(offer), Some(memory))
                if tally.is_none() && listeners.is_empty() =>
            {
                tally = Some(Tally::map(&offer, memory)?);
            }
            (ToWorker::Requests(offer), Some(memory))
                if request_table.is_none() && listeners.is_empty() =>
            {
                request_table = Some(Writer::map(&offer, memory)?);
            }
            (ToWorker::Tls(offer), Some(memory)) if listeners.is_empty() => {
                tls.adopt(tls.preparation(&offer, memory)()?);
                let reply = Reply::done(offer.id, Value::Null);
                link.say(&ToSupervisor::Reply(reply))?;
            }
            (ToWorker::Tickets { keys }, _) => tls.set_tickets(&keys)?,
            (ToWorker::Listener(offer), Some(fd)) => {
                let endpoint = tls.endpoint(&offer.name).filter(|_| offer.tls);
                if offer.tls && endpoint.is_none() {
                    return Err(WorkerError::Listener {
                        name: offer.name,
                        problem: "it is for TLS, and no certificate came for it".to_owned(),
                    });
                }
                let proxy_protocol = offer.proxy_protocol;
                let listener =
                    Listener::from_fd(offer.name, offer.address, fd, endpoint, proxy_protocol)?;
                listeners.push(listener);
            }
            (ToWorker::Output(offer), Some(pipe)) => {
                // From here on no write fails when the supervisor goes, so one might
                // wait for ever: nobody makes room before this worker is ready.
                sys::end_with_parent(true).map_err(WorkerError::Output)?;
                let stream = offer.stream;
                outputs.push(End { stream, pipe });
            }
            (ToWorker::Start, _) => {
                link.close_inherited();
                return Ok(Boot::Done(Orders {
                    welcome,
                    tally: tally.unwrap_or_else(Tally::private),
                    request_table,
                    listeners,
                    tls,
                    outputs,
                }));
            }
            (ToWorker::AccessLog(offer), Some(file)) => take_log(link, access_log, &offer, file)?,
            (ToWorker::Places(offer), memory) => application.count_in(&offer, memory)?,
            (ToWorker::UpstreamCounts(offer), memory) => {
                application.count_answers_in(&offer, memory)?;
            }
            (ToWorker::Upstreams(table), _) => learn(link, application, table)?,
            (message, _) => match aside(link, message, "`listener` or `start`")? {
                Aside::GoOn => {}
                Aside::Leave => return Ok(Boot::Dismissed),
            },
        }
    }
}

async fn welcome(link: &mut Link) -> Result<Boot<Welcome>, WorkerError> {
    loop {
        match hear(link).await? {
            (ToWorker::Welcome(welcome), _) if welcome.protocol == PROTOCOL => {
                return Ok(Boot::Done(welcome));
            }
            (ToWorker::Welcome(welcome), _) => {
                return Err(WorkerError::Protocol {
                    theirs: welcome.protocol,
                    ours: PROTOCOL,
                });
            }
            (message, _) => match aside(link, message, "`welcome`")? {
                Aside::GoOn => {}
                Aside::Leave => return Ok(Boot::Dismissed),
            },
        }
    }
}

/// Runs the application's start-up, and goes on listening meanwhile.
pub(crate) async fn start_up<T>(
    link: &mut Link,
    access_log: &AccessLog,
    application: &Application,
    starting: impl Future<Output = T>,
) -> Result<Boot<T>, WorkerError> {
    let mut starting = std::pin::pin!(starting);
    loop {
        let (message, fd) = tokio::select! {
            started = &mut starting => return Ok(Boot::Done(started)),
            heard = hear(link) => heard?,
        };
        let message = match (message, fd) {
            (ToWorker::AccessLog(offer), Some(file)) => {
                take_log(link, access_log, &offer, file)?;
                continue;
            }
            (ToWorker::Places(offer), memory) => {
                application.count_in(&offer, memory)?;
                continue;
            }
            (ToWorker::UpstreamCounts(offer), memory) => {
                application.count_answers_in(&offer, memory)?;
                continue;
            }
            (ToWorker::Upstreams(table), _) => {
                learn(link, application, table)?;
                continue;
            }
            (message, _) => message,
        };
        match aside(link, message, "nothing before `ready`")? {
            Aside::GoOn => {}
            Aside::Leave => return Ok(Boot::Dismissed),
        }
    }
}

/// Logs requests to this file from now on. No request has come so far, so
/// nothing is on its way to another.
fn take_log(
    link: &mut Link,
    access_log: &AccessLog,
    offer: &AccessLogOffer,
    file: OwnedFd,
) -> Result<(), WorkerError> {
    let reply = match access_log.install(offer.format, file.into()) {
        Ok(_) => Reply::done(offer.id, Value::Null),
        Err(error) => {
            say(format_args!("no access log: {error}"));
            Reply::failed(offer.id, "unusable_access_log", error.to_string())
        }
    };
    Ok(link.say(&ToSupervisor::Reply(reply))?)
}

/// Forwards to these from the first request on.
fn learn(link: &mut Link, application: &Application, table: Upstreams) -> Result<(), WorkerError> {
    let reply = Reply::done(table.id, Value::Null);
    application.learn(table);
    Ok(link.say(&ToSupervisor::Reply(reply))?)
}

enum Aside {
    GoOn,
    Leave,
}

/// Takes what a supervisor may say at any time: a ping, whether something is left in
/// flight before anything was begun, or that it has thought
/// better of this worker. All else is out of order.
fn aside(link: &mut Link, message: ToWorker, expected: &'static str) -> Result<Aside, WorkerError> {
    let (id, next) = match message {
        ToWorker::Ping { id } | ToWorker::Vacate(Vacate { id, .. }) => (id, Aside::GoOn),
        ToWorker::Stop { id } | ToWorker::Drain { id, .. } => (id, Aside::Leave),
        message => return Err(WorkerError::out_of_order(expected, &message)),
    };
    link.say(&ToSupervisor::Reply(Reply::done(id, Value::Null)))?;
    Ok(next)
}

async fn hear(link: &mut Link) -> Result<(ToWorker, Option<OwnedFd>), WorkerError> {
    loop {
        match link.hear().await? {
            Heard::Message(message, fd) => return Ok((message, fd)),
            Heard::Unknown { kind, id } => {
                if let Some(reply) = unknown(&kind, id) {
                    link.say(&reply)?;
                }
            }
            Heard::Closed => return Err(WorkerError::ClosedEarly),
        }
    }
}

/// The answer to a message of a type that this version does not know, if it wants one.
pub(crate) fn unknown(kind: &str, id: Option<u64>) -> Option<ToSupervisor> {
    let message = format!("this worker does not know {kind:?}");
    id.map(|id| ToSupervisor::Reply(Reply::failed(id, "unknown_type", message)))
}
