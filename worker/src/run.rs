//! What a worker runs: the handshake and the session under a supervisor, or a program
//! that listens by itself.

use std::process::ExitCode;
use std::rc::{Rc, Weak};
use std::time::Duration;

use prefork_proto::channel::WorkerEnd;
use prefork_proto::message::{Hello, PROTOCOL, ToSupervisor};
use prefork_proto::scoreboard::Tally;
use tokio::runtime::{Builder, Handle, LocalOptions};

use crate::accept::accept_state::Gate;
use crate::accept::listener::Listener;
use crate::accept::{Serve, accept};
use crate::access_log::AccessLog;
use crate::app::context::Context;
use crate::app::handlers::LocalFuture;
use crate::app::standalone::{self, Wish};
use crate::channel::handshake::{Boot, Orders, handshake, start_up};
use crate::channel::link::Link;
use crate::channel::metrics_reporter::Reporter;
use crate::channel::rejoin::Papers;
use crate::channel::session::{Leave, Pace, Session};
use crate::channel::signals::Signals;
use crate::channel::uplink::Uplink;
use crate::error::{StartError, WorkerError};
use crate::limits::Limits;
use crate::output::{Keeper, say};
use crate::process::Serving;
use crate::runtime::task;
use crate::sys;
use crate::transport::tls::Tls;
use crate::worker::Worker;

/// Makes what takes connections: the application's start-up.
pub(crate) type Start =
    Box<dyn FnOnce(Context, &'static Serving) -> LocalFuture<Result<Serve, StartError>>>;

impl Worker {
    pub(crate) fn run_to_end(self, start: Start) -> Result<ExitCode, WorkerError> {
        // The runtime would panic, and name neither `main` nor its attribute.
        if Handle::try_current().is_ok() {
            return Err(WorkerError::InsideRuntime);
        }
        let runtime = Builder::new_current_thread()
            .enable_all()
            .build_local(LocalOptions::default())
            .map_err(WorkerError::Runtime)?;
        let code = runtime.block_on(async {
            match WorkerEnd::from_env()? {
                Some(channel) => self.supervised(Link::new(channel)?, start).await,
                None => self.by_itself(start).await,
            }
        });
        // Not waiting for blocking work that was left: the process ends.
        runtime.shutdown_background();
        code
    }

    async fn supervised(self, mut link: Link, start: Start) -> Result<ExitCode, WorkerError> {
        let mut signals = Signals::take(true)?;
        let hello = self.hello();
        let access_log: &AccessLog = Box::leak(Box::default());
        let boot = async {
            let Boot::Done(orders) =
                handshake(&mut link, hello.clone(), access_log, &self.application).await?
            else {
                return Ok(None);
            };
            let Orders {
                welcome,
                tally,
                request_table,
                listeners,
                tls,
                outputs,
            } = orders;
            access_log.introduce(&welcome.pool, welcome.slot);
            let limits = self.limits.under(&welcome.http);
            let serving = Serving::new(tally, request_table, limits, access_log, self.tells_peer)
                .map_err(WorkerError::Runtime)?;
            let context = Context::supervised(&welcome, serving);
            let starting = start(context.clone(), serving);
            match start_up(&mut link, access_log, &self.application, starting).await? {
                Boot::Done(Ok(serve)) => {
                    let booted = (welcome, listeners, tls, outputs, context, serving, serve);
                    Ok(Some(booted))
                }
                Boot::Done(Err(error)) => Err(WorkerError::Start(error)),
                Boot::Dismissed => Ok(None),
            }
        };
        let booted = tokio::select! {
            booted = boot => booted,
            () = signals.terminate() => Ok(None),
        };
        let (welcome, listeners, tls, outputs, context, serving, serve) = match booted {
            Ok(Some(booted)) => booted,
            Ok(None) => {
                link.farewell("asked to leave before it was ready".to_owned())
                    .await;
                return Ok(ExitCode::SUCCESS);
            }
            Err(error) => {
                link.farewell(error.to_string()).await;
                return Err(error);
            }
        };
        let gate = Rc::<Gate>::default();
        if welcome.paused {
            gate.shut();
        }
        // Its thread begins when the process has given up the rights that it does not
        // need: one that was there before would have kept them.
        let keeper = match Keeper::start(outputs, link.channel()) {
            Ok(keeper) => keeper,
            Err(error) => {
                let error = WorkerError::Output(error);
                link.farewell(error.to_string()).await;
                return Err(error);
            }
        };
        sys::end_with_parent(false).map_err(WorkerError::Output)?;
        link.say(&ToSupervisor::Ready)?;
        let listeners = accept_from(listeners, &gate, serving, &serve);
        let session = Session {
            uplink: Uplink::Link(Box::new(link)),
            pace: Pace::of(&welcome),
            papers: welcome.rejoin.map(|offer| {
                Box::new(Papers {
                    offer,
                    hello,
                    context: context.clone(),
                    gate: Rc::clone(&gate),
                    serving,
                    listeners,
                    keeper,
                })
            }),
            keeper,
            context,
            application: self.application,
            metrics: Reporter::new(self.metrics),
            serving,
            limits: self.limits,
            gate,
            serve,
            signals,
            tls,
        };
        Ok(run(session).await)
    }

    async fn by_itself(self, start: Start) -> Result<ExitCode, WorkerError> {
        let arguments = std::env::args().skip(1);
        let named = match standalone::read(arguments, self.alone.has_arguments)? {
            Wish::Serve(named) => named,
            Wish::Help => {
                println!("{}", standalone::usage(&self.program, &self.alone.listen));
                return Ok(ExitCode::SUCCESS);
            }
        };
        let signals = Signals::take(false)?;
        let mut listeners = Vec::new();
        for address in standalone::addresses(named, self.alone.listen) {
            listeners.push(Listener::bind(&address)?);
        }
        let access_log = Box::leak(Box::default());
        let tally = Tally::private();
        let serving = Serving::new(tally, None, self.limits, access_log, self.tells_peer)
            .map_err(WorkerError::Runtime)?;
        let context = Context::alone(&self.program, self.alone.app, serving);
        let serve = start(context.clone(), serving)
            .await
            .map_err(WorkerError::Start)?;
        for listener in &listeners {
            say(format_args!(
                "{}: listening on {}",
                self.program, listener.name
            ));
        }
        let gate = Rc::<Gate>::default();
        accept_from(listeners, &gate, serving, &serve);
        let session = Session {
            uplink: Uplink::None,
            papers: None,
            keeper: None,
            context,
            application: self.application,
            metrics: Reporter::new(self.metrics),
            serving,
            limits: Limits::default(),
            gate,
            serve,
            signals,
            tls: Tls::default(),
            pace: Pace {
                heartbeat: Duration::from_secs(1),
                idle_grace: self.alone.idle_grace,
            },
        };
        Ok(run(session).await)
    }

    fn hello(&self) -> Hello {
        Hello {
            protocol: PROTOCOL,
            pid: i32::try_from(std::process::id()).expect("process ids fit pid_t"),
            program: self.program.clone(),
            version: self.version.clone(),
            capabilities: self.application.capabilities(),
        }
    }
}

/// Begins to take connections, and to see to those that rest; the listeners last until the gate closes them.
fn accept_from(
    listeners: Vec<Listener>,
    gate: &Rc<Gate>,
    serving: &'static Serving,
    serve: &Serve,
) -> Vec<Weak<Listener>> {
    task::spawn(serving.lot.attend(serving, Rc::clone(serve)));
    let begin = |listener| {
        let listener = Rc::new(listener);
        let held = Rc::downgrade(&listener);
        let accepting = accept(listener, Rc::clone(gate), serving, Rc::clone(serve));
        task::spawn(accepting);
        held
    };
    listeners.into_iter().map(begin).collect()
}

async fn run(session: Session) -> ExitCode {
    // A front's connections to the pools behind it are tasks that end with it.
    let is_front = session.application.forwards.is_some();
    // What the start-up has begun lasts as long as the process does.
    let lasting = task::unknown();
    let leave = session.run().await;
    let lost = task::unknown().saturating_sub(lasting);
    if lost > 0 && !is_front {
        say(format_args!(
            "leaving with unfinished tasks of the application: {lost}. \
             A drain waits for those of `Context::spawn`, and not for those of `tokio::spawn`"
        ));
    }
    match leave {
        Leave::Drained | Leave::Cut(_) => ExitCode::SUCCESS,
        Leave::Broken(_) => ExitCode::FAILURE,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inside_another_runtime_it_says_what_to_do() {
        let runtime = Builder::new_current_thread().build().unwrap();
        let start: Start = Box::new(|_, _| Box::pin(async { Err("it began".into()) }));
        let ended = runtime.block_on(async { Worker::new("shop", "1").run_to_end(start) });
        let said = ended.unwrap_err().to_string();
        assert!(said.contains("without #[tokio::main]"), "{said}");
    }
}
