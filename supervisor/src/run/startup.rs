//! How a supervisor begins: anew, where one was killed, or where the program
//! before this one left off.

use std::os::fd::{AsRawFd, RawFd};
use std::path::PathBuf;
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime};

use prefork_fleet::Snapshot;
use tokio::net::UnixListener;
use tokio::sync::mpsc;
use tokio::task::spawn_local;
use tracing::{info, warn};

use crate::control::Gate;
use crate::kernel::sys;
use crate::reactor::{Inbox, Keep, Reactor, Setup};
use crate::recovery::rejoin_socket::{Door, Returned};
use crate::recovery::state::{self, Document, Found, StateFile};
use crate::recovery::survivors::Remains;
use crate::run::runtime_dir::RuntimeDir;
use crate::run::supervise::RunError;
use crate::tls::{SavedTickets, Tickets, Vault};
use crate::upgrade::{Fixtures, Handover};

/// How long workers of a supervisor that is not believed get to hear that they
/// are not awaited, and to let go of their listeners.
const TURN_AWAY: Duration = Duration::from_millis(500);

/// Makes the reactor: with the fleet that a killed supervisor left, where one of
/// its workers lives, and with a new one where none does.
pub(crate) async fn begin(
    mut setup: Setup,
    runtime_dir: &RuntimeDir,
    begin: Beginning,
) -> Result<(Reactor, Inbox), RunError> {
    let begun = Instant::now();
    let found = state::read(runtime_dir.path());
    let secret = match &found {
        Found::State(document) => document.secret.clone(),
        _ => state::new_secret().map_err(io("draw a secret"))?,
    };
    let orphan_timeout = setup.config.supervisor.orphan_timeout;
    let (door, mut returned) = Door::new(&runtime_dir.rejoin_socket(), secret, orphan_timeout);
    let socket = runtime_dir.bind_rejoin(has_own_users(&setup, &found))?;
    let fixtures = Fixtures {
        lock: runtime_dir.lock_number(),
        own: runtime_dir.own_number(),
        control: begin.control,
        rejoin: socket.as_raw_fd(),
        admin: begin.admin,
    };
    serve_at(&door, socket)?;
    setup.keep = Some(keep(
        &door,
        runtime_dir,
        begin.program,
        fixtures,
        begin.gate,
    )?);
    setup.tickets = tickets(match &found {
        Found::State(_) => Vault::new(runtime_dir.path()).tickets(),
        _ => None,
    });
    match found {
        Found::State(document) => go_on(setup, document, &door, &mut returned, begun).await,
        Found::Nothing => Ok(Reactor::new(setup)?),
        Found::OtherBoot => {
            info!("the state in the runtime directory is of another boot: nothing of it lives");
            Ok(Reactor::new(setup)?)
        }
        Found::Unusable(why) => {
            state::set_aside(runtime_dir.path(), &why);
            // Whoever serves by it would keep the addresses.
            tokio::time::sleep(TURN_AWAY).await;
            Ok(Reactor::new(setup)?)
        }
    }
}

/// What the supervisor has before it begins.
#[derive(Debug)]
pub(crate) struct Beginning {
    /// Where this program was found.
    pub(crate) program: PathBuf,
    /// The control socket, if there is one.
    pub(crate) control: Option<RawFd>,
    /// The admin address's socket.
    pub(crate) admin: Option<RawFd>,
    /// What the servers wait at.
    pub(crate) gate: Gate,
}

/// Makes the reactor where the program before this one left off.
pub(crate) fn take_over(
    mut setup: Setup,
    runtime_dir: &RuntimeDir,
    handover: Handover<Snapshot>,
    gate: Gate,
) -> Result<(Reactor, Inbox), RunError> {
    let fixtures = handover.fixtures;
    let secret = handover.state.secret.clone();
    // Nobody is awaited: who comes back lost its channel, and is told to drain.
    let orphan_timeout = setup.config.supervisor.orphan_timeout;
    let (door, _) = Door::new(&runtime_dir.rejoin_socket(), secret, orphan_timeout);
    let socket = std::os::unix::net::UnixListener::from(sys::claim(fixtures.rejoin));
    serve_at(&door, socket)?;
    let program = handover.program.clone();
    setup.keep = Some(keep(&door, runtime_dir, program, fixtures, gate)?);
    setup.tickets = tickets(handover.tickets.clone());
    Ok(Reactor::take_over(setup, handover)?)
}

fn serve_at(door: &Rc<Door>, socket: std::os::unix::net::UnixListener) -> Result<(), RunError> {
    let socket = UnixListener::from_std(socket).map_err(io("watch rejoin.sock"))?;
    spawn_local(Rc::clone(door).serve(socket));
    Ok(())
}

/// The ticket keys of the supervisor before, as far as they are good, or new ones.
fn tickets(kept: Option<SavedTickets>) -> Option<Tickets> {
    let now = SystemTime::now();
    let tickets = match kept {
        Some(kept) => Tickets::go_on(kept, now),
        None => Tickets::new(now),
    };
    tickets
        .map_err(|error| warn!("{error}: sessions are not taken up"))
        .ok()
}

fn keep(
    door: &Rc<Door>,
    runtime_dir: &RuntimeDir,
    program: PathBuf,
    fixtures: Fixtures,
    gate: Gate,
) -> Result<Keep, RunError> {
    let pid = nix::unistd::Pid::this().as_raw();
    Ok(Keep {
        door: Rc::clone(door),
        file: Some(StateFile::new(runtime_dir.path())),
        counted: None,
        vault: Vault::new(runtime_dir.path()),
        boot_id: state::boot_id().map_err(io("read the boot's id"))?,
        pid,
        start_ticks: state::start_ticks(pid).map_err(io("read /proc/self/stat"))?,
        program,
        fixtures,
        gate,
    })
}

async fn go_on(
    mut setup: Setup,
    document: Box<Document<Snapshot>>,
    door: &std::rc::Rc<Door>,
    returned: &mut mpsc::UnboundedReceiver<Returned>,
    begun: Instant,
) -> Result<(Reactor, Inbox), RunError> {
    let mut remains = Remains::of(document);
    if remains.living.is_empty() {
        info!("no worker of the supervisor before lives; its counters go on");
        let (mut reactor, inbox) = Reactor::new(setup)?;
        reactor.go_on_counting(&remains.document.metrics);
        reactor.end_trees_of(remains.departed());
        return Ok((reactor, inbox));
    }
    warn!(
        "the supervisor before (pid {}) was killed; {} of its workers live",
        remains.document.pid,
        remains.living.len()
    );
    // Where its file has gone meanwhile, the embedded default is not what a
    // reload is to put in its place.
    setup.options.settle(&remains.document.config);
    if remains.document.config.pools != setup.config.pools {
        info!("the configuration has changed since: a reload puts the new one in force");
    }
    remains.collect(door, returned).await;
    Ok(Reactor::recover(setup, remains, begun)?)
}

/// Whether a worker runs as a user that is not ours.
fn has_own_users(setup: &Setup, found: &Found) -> bool {
    let before = match found {
        Found::State(document) => document.editions.as_slice(),
        _ => &[],
    };
    let before = before.iter().map(|edition| &edition.config);
    let mut pools = setup.config.pools.iter().chain(before);
    pools.any(|pool| pool.run_as.is_some())
}

fn io(step: &'static str) -> impl Fn(std::io::Error) -> RunError {
    move |source| RunError::Io { step, source }
}
