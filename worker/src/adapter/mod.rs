//! The adapter: a worker for a program that does not speak the channel.
//!
//! It is the program's parent. It hands the program its socket, learns when it is
//! ready and well, turns a drain into a signal, and ends as the program ended: by the
//! same exit code or signal. For the supervisor it is a worker like any other.
//!
//! `program` starts the process and sees it end, `notify` hears what it says by
//! sd_notify(3), `probe` asks it over its socket, `session` is the loop.

mod notify;
mod probe;
mod program;
mod session;

use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;

use prefork_proto::adapter::Brief;
use prefork_proto::capability;
use prefork_proto::channel::WorkerEnd;
use prefork_proto::message::{Hello, PROTOCOL, ToSupervisor, Welcome};
use prefork_proto::scoreboard::Tally;
use tokio::runtime::{Builder, LocalOptions};

use crate::accept::accept_state::Gate;
use crate::accept::listener::Listener;
use crate::access_log::AccessLog;
use crate::app::context::Context;
use crate::app::handlers::Application;
use crate::channel::handshake::{Boot, Orders, handshake, start_up};
use crate::channel::link::Link;
use crate::channel::rejoin::Papers;
use crate::channel::session::Pace;
use crate::channel::signals::Signals;
use crate::channel::uplink::Uplink;
use crate::error::{StartError, WorkerError};
use crate::limits::Limits;
use crate::output::{End, Keeper, say};
use crate::process::Serving;
use crate::sys;
use program::{Ended, Program};
use session::Session;

/// How long a program that is not to be started after all may take to leave.
const DISMISSAL: Duration = Duration::from_secs(5);

/// Runs the adapter until its program has ended.
pub fn main() -> ExitCode {
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build_local(LocalOptions::default());
    let ended = match runtime {
        Ok(runtime) => runtime.block_on(run()),
        Err(error) => Err(WorkerError::Runtime(error)),
    };
    match ended {
        Ok(Ended::Exited(code)) => std::process::exit(code),
        Ok(Ended::Killed(signal)) => sys::end_by(signal),
        Err(error) => {
            say(format_args!("adapter: {error}"));
            ExitCode::FAILURE
        }
    }
}

/// What a started program is looked after with.
struct Started {
    welcome: Welcome,
    brief: Brief,
    listeners: Vec<Listener>,
    outputs: Vec<End>,
    program: Program,
}

/// How far the start came.
enum Start {
    Ready(Box<Started>),
    Ended(Ended),
}

async fn run() -> Result<Ended, WorkerError> {
    let Some(channel) = WorkerEnd::from_env()? else {
        let alone = "it is started by a supervisor, for a pool with [pool.NAME.adapter]";
        return Err(WorkerError::Start(alone.into()));
    };
    let mut link = Link::new(channel)?;
    let mut signals = Signals::take(true)?;
    nix::sys::prctl::set_child_subreaper(true).map_err(|errno| start_error(errno.into()))?;
    let hello = hello();
    let started = match start(&mut link, &hello, &mut signals).await {
        Ok(Start::Ready(started)) => *started,
        Ok(Start::Ended(ended)) => {
            let reason = format!("its program {ended} before it was ready");
            link.farewell(reason).await;
            return Ok(ended);
        }
        Err(error) => {
            link.farewell(error.to_string()).await;
            return Err(error);
        }
    };
    let Started {
        welcome,
        brief,
        listeners,
        outputs,
        program,
    } = started;
    let keeper = Keeper::start(outputs, link.channel()).map_err(WorkerError::Output)?;
    sys::end_with_parent(false).map_err(WorkerError::Output)?;
    link.say(&ToSupervisor::Ready)?;
    let access_log: &AccessLog = Box::leak(Box::default());
    let serving = Serving::new(Tally::private(), None, Limits::default(), access_log, false)
        .map_err(WorkerError::Runtime)?;
    let context = Context::supervised(&welcome, serving);
    let gate = Rc::<Gate>::default();
    let listeners: Vec<_> = listeners.into_iter().map(Rc::new).collect();
    let pace = Pace::of(&welcome);
    let papers = welcome.rejoin.map(|offer| {
        Box::new(Papers {
            offer,
            hello,
            context: context.clone(),
            gate: Rc::clone(&gate),
            serving,
            listeners: listeners.iter().map(Rc::downgrade).collect(),
            keeper,
        })
    });
    let session = Session {
        uplink: Uplink::Link(Box::new(link)),
        papers,
        keeper,
        context,
        serving,
        gate,
        signals,
        pace,
        brief,
        program,
        _listeners: listeners,
    };
    Ok(session.run().await)
}

/// Takes the orders, starts the program and waits until it is ready.
async fn start(
    link: &mut Link,
    hello: &Hello,
    signals: &mut Signals,
) -> Result<Start, WorkerError> {
    let application = Application::default();
    let access_log = AccessLog::default();
    let orders = tokio::select! {
        orders = handshake(link, hello.clone(), &access_log, &application) => orders?,
        () = signals.terminate() => Boot::Dismissed,
    };
    let Boot::Done(Orders {
        mut welcome,
        listeners,
        outputs,
        ..
    }) = orders
    else {
        return Ok(Start::Ended(Ended::Exited(0)));
    };
    let brief: Brief =
        serde_json::from_value(welcome.app.take()).map_err(|error| start_error(error.into()))?;
    let mut program = Program::start(&brief, &listeners).map_err(start_error)?;
    let readiness = tokio::select! {
        readiness = start_up(link, &access_log, &application, program.become_ready(&brief)) => readiness?,
        () = signals.terminate() => Boot::Dismissed,
    };
    Ok(match readiness {
        Boot::Done(Ok(())) => Start::Ready(Box::new(Started {
            welcome,
            brief,
            listeners,
            outputs,
            program,
        })),
        Boot::Done(Err(ended)) => Start::Ended(ended),
        Boot::Dismissed => {
            program.signal(brief.stop_signal);
            let ended = tokio::time::timeout(DISMISSAL, program.end()).await;
            Start::Ended(match ended {
                Ok(ended) => ended,
                Err(_) => program.kill().await,
            })
        }
    })
}

fn start_error(error: StartError) -> WorkerError {
    WorkerError::Start(error)
}

/// It says whose adapter it is; of its program nothing more is known.
fn hello() -> Hello {
    let program = std::env::args().nth(2);
    Hello {
        protocol: PROTOCOL,
        pid: i32::try_from(std::process::id()).expect("process ids fit pid_t"),
        program: program.unwrap_or_else(|| "program".to_owned()),
        version: format!("(adapter {})", env!("CARGO_PKG_VERSION")),
        capabilities: [capability::REJOIN, capability::OUTPUT]
            .map(str::to_owned)
            .to_vec(),
    }
}
