//! One throwaway worker under a reactor of its own, from its start to its end.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use nix::sys::resource::{Resource, getrlimit};
use prefork_api::{Event, Exit};
use prefork_fleet::Command;
use tokio::sync::{broadcast, mpsc};

use super::probe::{Spoken, probe};
use super::{Boot, BootError, SetUpError, set_up};
use crate::cli::client::Deadline;
use crate::config::{self, Address, Config, Options};
use crate::control::answer::Rejection;
use crate::control::ask;
use crate::handle::{Handle, Request};
use crate::kernel::fd_reserve::{DEFAULT_SIZE, Reserve};
use crate::log::Log;
use crate::reactor::event_batching::Rest;
use crate::reactor::{Outcome, Reactor, Setup, Signals};
use crate::tls::Tickets;

/// How long the worker may take to leave: nobody depends on it.
const FAREWELL: Duration = Duration::from_secs(5);

/// Requests that may wait for the reactor.
const REQUESTS: usize = 16;

/// What a worker is asked over HTTP for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Probe {
    /// An error of its own fails it.
    Judges,
    /// It has a check of its own and passed it, so the answer is only shown.
    Shows,
    /// It is a front. What it is asked goes to workers that are not here, and it would wait for them.
    Missing,
}

impl Probe {
    fn of(pool: &config::Pool) -> Self {
        match (pool.is_front(), &pool.check) {
            (true, _) => Self::Missing,
            (false, Some(_)) => Self::Shows,
            (false, None) => Self::Judges,
        }
    }
}

/// Where pools are tried out.
pub(super) struct Bench<'a> {
    /// What the pools are part of.
    pub(super) config: &'a Config,
    /// For unix sockets that nobody else can reach.
    pub(super) scratch: &'a Path,
    pub(super) log: Log,
    pub(super) deadline: Option<Deadline>,
}

impl Bench<'_> {
    /// Starts a worker of the pool, examines it, and stops it.
    pub(super) async fn try_out(
        &self,
        pool: config::Pool,
    ) -> Result<Result<Boot, BootError>, SetUpError> {
        let asked = Probe::of(&pool);
        let (nofile, _) = getrlimit(Resource::RLIMIT_NOFILE)
            .map_err(|errno| set_up("look up RLIMIT_NOFILE")(errno.into()))?;
        let reserve = Reserve::new(DEFAULT_SIZE).map_err(set_up("keep spare descriptors"))?;
        let signals = Signals::take().map_err(set_up("listen to signals"))?;
        let (requests, mut received) = mpsc::channel(REQUESTS);
        let handle = Handle(requests);
        let setup = Setup {
            options: Options::default(),
            config: Config {
                supervisor: config::Supervisor {
                    runtime_dir: self.scratch.to_owned(),
                    ..self.config.supervisor.clone()
                },
                pools: vec![throwaway(pool, self.scratch)],
                ..self.config.clone()
            },
            nofile,
            log: self.log.clone(),
            reserve: Rc::new(reserve),
            rest: Rest::default(),
            keep: None,
            tickets: Tickets::new(SystemTime::now()).ok(),
        };
        let (reactor, inbox) = match Reactor::new(setup) {
            Ok(made) => made,
            Err(error) => return Ok(Err(error.into())),
        };
        let mut running = std::pin::pin!(reactor.run(inbox, &mut received, signals));

        let mut watch = Watch::default();
        let examined = tokio::select! {
            biased;
            outcome = &mut running => return Ok(Err(early_end(outcome))),
            examined = self.bound(examine(&handle, &mut watch, asked)) => examined,
        };
        // Once it has failed there is nothing that it should finish.
        stop(&handle, examined.is_err()).await;
        let ended = match self.deadline {
            Some(deadline) => deadline.bound(&mut running).await,
            None => Some((&mut running).await),
        };
        if ended.is_none() {
            stop(&handle, true).await;
            running.await;
        }
        Ok(examined.map_err(|error| watch.with_last_words(error)))
    }

    /// What the work comes to, within the time that is left.
    async fn bound(
        &self,
        work: impl Future<Output = Result<Boot, BootError>>,
    ) -> Result<Boot, BootError> {
        let Some(deadline) = self.deadline else {
            return work.await;
        };
        deadline.bound(work).await.unwrap_or_else(|| {
            Err(BootError::TimedOut {
                after: deadline.given,
                stderr: String::new(),
            })
        })
    }
}

/// The pool with one worker, and with listeners that have the same names and
/// that nobody knows.
fn throwaway(mut pool: config::Pool, scratch: &Path) -> config::Pool {
    let policy = &mut pool.policy;
    policy.workers = 1;
    policy.drain_timeout = policy.drain_timeout.min(FAREWELL);
    policy.kill_timeout = policy.kill_timeout.min(FAREWELL);
    // It is asked from here, as by a proxy that is believed.
    pool.http.trusted_proxies = None;
    for (index, listen) in pool.listen.iter_mut().enumerate() {
        // Nobody has issued a certificate for whoever asks here.
        if let Some(tls) = &mut listen.tls {
            tls.clients = None;
        }
        listen.address = match listen.address {
            Address::Tcp(_) | Address::Systemd(_) => {
                Address::Tcp(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))
            }
            Address::Unix(_) => Address::Unix(scratch.join(format!("{index}.sock"))),
        };
    }
    pool
}

/// Why the reactor ended before it was told to.
fn early_end(outcome: Outcome) -> BootError {
    match outcome {
        Outcome::Stopped => BootError::Interrupted,
        Outcome::BootFailed(failures) => {
            let stderr = |exit: &Exit| exit.stderr.clone();
            // It has one pool.
            let failure = failures.last();
            BootError::NotReady {
                why: failure.map_or_else(String::new, |it| it.why.clone()),
                stderr: failure
                    .and_then(|it| it.exit.as_ref().map(stderr))
                    .unwrap_or_default(),
            }
        }
    }
}

/// Waits until the worker is ready, and asks it something.
async fn examine(handle: &Handle, watch: &mut Watch, asked: Probe) -> Result<Boot, BootError> {
    watch.begin(handle).await?;
    let started = watch.until("starting").await?;
    let ready = watch.until("ready").await?;
    let before = ask::status(handle).await.map_err(blind)?;
    let listener = before.pools.first().and_then(|pool| pool.listeners.first());
    let status = match listener.filter(|_| asked != Probe::Missing) {
        None => None,
        Some(listener) => {
            let spoken = Spoken {
                tls: listener.tls.is_some(),
                proxy_protocol: listener.proxy_protocol,
            };
            let status = answer(&listener.address, spoken, watch).await?;
            if asked == Probe::Judges && status >= 500 {
                return Err(BootError::Fails { status });
            }
            Some(status)
        }
    };
    let after = ask::status(handle).await.map_err(blind)?;
    let worker = after.pools.first().and_then(|pool| pool.workers.first());
    Ok(Boot {
        seconds: (ready.at - started.at).max(0.0),
        resident_bytes: worker.and_then(|worker| worker.resident_bytes),
        status,
    })
}

/// The HTTP status of the worker's answer; a worker that dies gives none, and
/// its successor's doesn't count.
async fn answer(address: &str, spoken: Spoken, watch: &mut Watch) -> Result<u16, BootError> {
    let no_answer = |why, stderr| BootError::NoAnswer {
        address: address.to_owned(),
        why,
        stderr,
    };
    tokio::select! {
        biased;
        died = watch.until("exit") => {
            let died = died?;
            let stderr = died.exit.map_or_else(String::new, |exit| exit.stderr);
            Err(no_answer(format!("it {}", died.message), stderr))
        }
        answer = probe(address, spoken) => {
            answer.map_err(|error| no_answer(error.to_string(), String::new()))
        }
    }
}

async fn stop(handle: &Handle, now: bool) {
    // What the job says of itself is of no interest: the reactor's end is.
    let (lines, _) = mpsc::unbounded_channel();
    let command = Command::Stop { now };
    // It fails where the reactor has ended already.
    let _ = handle.0.send(Request::Command { command, lines }).await;
}

fn blind(rejection: Rejection) -> BootError {
    BootError::Blind(rejection.error.message)
}

/// What happens on the bench.
#[derive(Default)]
struct Watch {
    /// What has happened and was not looked at yet, newest first.
    past: Vec<Event>,
    future: Option<broadcast::Receiver<Event>>,
}

impl Watch {
    async fn begin(&mut self, handle: &Handle) -> Result<(), BootError> {
        let (mut past, future) = ask::events(handle, 0).await.map_err(blind)?;
        past.reverse();
        self.past = past;
        self.future = Some(future);
        Ok(())
    }

    /// The next event of a kind.
    async fn until(&mut self, kind: &str) -> Result<Event, BootError> {
        loop {
            let event = match (self.past.pop(), &mut self.future) {
                (Some(event), _) => event,
                (None, Some(future)) => future
                    .recv()
                    .await
                    .map_err(|error| BootError::Blind(error.to_string()))?,
                (None, None) => return Err(BootError::Blind("nobody tells".to_owned())),
            };
            if event.kind == kind {
                return Ok(event);
            }
        }
    }

    /// The error with the stderr of the first worker's end. The reactor has
    /// ended, so that every end has been told.
    fn with_last_words(mut self, mut error: BootError) -> BootError {
        let (BootError::NoAnswer { stderr, .. } | BootError::TimedOut { stderr, .. }) = &mut error
        else {
            return error;
        };
        if stderr.is_empty() {
            let told = std::iter::from_fn(|| self.future.as_mut()?.try_recv().ok());
            if let Some(exit) = told.filter_map(|event| event.exit).next() {
                *stderr = exit.stderr;
            }
        }
        error
    }
}
