//! What this program is when it starts itself as a server or child under test.
//!
//! One program for all of them, so that they are built alike and differ only
//! in what is compared. What a role needs comes as descriptor 0.

mod bare;
mod codec;
mod echo;
mod epoll;
mod hello;
mod noted;
mod nursery;
mod report;
mod reporter;
mod tally;
mod worker;

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, Command, ExitCode, Stdio};

use anyhow::{Context, Result};
use clap::ValueEnum;

pub(crate) use echo::Socket;

use crate::sys;

/// The first argument of a role.
const ARGUMENT: &str = "role";

/// What to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Role {
    /// A hyper loop on the listener at descriptor 0, and nothing else.
    Bare,
    /// The parent of several of those, which only waits.
    BarePool,
    /// An epoll loop on the listener at descriptor 0, which answers unseen.
    Epoll,
    /// The parent of several of those, which only waits.
    EpollPool,
    /// The same service as a worker of the SDK.
    Worker,
    /// That worker, except that its requests don't tell who asks.
    Peerless,
    /// Says hello on the socket at descriptor 0 and waits for its end.
    Hello,
    /// Starts and kills one `hello` after the other.
    Nursery,
    /// Sends back what comes on the socket at descriptor 0, as it is.
    EchoBytes,
    /// Answers every `ping` on the channel at descriptor 0.
    EchoChannel,
    /// Counts descriptors that come over the channel at descriptor 0.
    CountDescriptors,
    /// Encodes and parses `health` messages over a channel.
    CodecChannel,
    /// Encodes and parses the same messages with serde alone.
    CodecBare,
    /// Counts requests in a scoreboard.
    Tally,
    /// Notes requests in a request table.
    Noted,
    /// Sends a health report all the way to the fleet.
    Report,
    /// Says over the socket at descriptor 0 what a worker says when idle.
    Reporter,
    /// The parent of several of those, which reads what they say.
    ReporterPool,
}

/// Plays a role if the arguments ask for one.
pub(crate) fn from_arguments() -> Option<ExitCode> {
    let mut arguments = std::env::args().skip(1);
    if arguments.next()? != ARGUMENT {
        return None;
    }
    let role = Role::from_str(&arguments.next()?, false).ok()?;
    let number = arguments.next().and_then(|text| text.parse().ok());
    Some(match play(role, number.unwrap_or(1)) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("{role:?}: {error:#}");
            ExitCode::FAILURE
        }
    })
}

fn play(role: Role, number: usize) -> Result<ExitCode> {
    match role {
        Role::Worker => return Ok(worker::run()),
        Role::Peerless => return Ok(worker::run_peerless()),
        Role::Bare => bare::serve(stdin()?)?,
        Role::BarePool => pool(Role::Bare, number)?,
        Role::Epoll => epoll::serve(stdin()?)?,
        Role::EpollPool => pool(Role::Epoll, number)?,
        Role::Hello => hello::say(stdin()?)?,
        Role::Nursery => nursery::raise(number)?,
        Role::EchoBytes => echo::bytes(stdin()?)?,
        Role::EchoChannel => echo::channel(stdin()?)?,
        Role::CountDescriptors => echo::descriptors(stdin()?)?,
        Role::CodecChannel => codec::channel(number)?,
        Role::CodecBare => codec::bare(number)?,
        Role::Tally => tally::count(number),
        Role::Noted => noted::note(number)?,
        Role::Report => report::send(number)?,
        Role::Reporter => reporter::report(stdin()?)?,
        Role::ReporterPool => reporter::hear(number)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Several of one role on one listener, under a parent that does nothing.
fn pool(role: Role, workers: usize) -> Result<()> {
    let children: Result<Vec<Child>> = (0..workers).map(|_| start(role, stdin()?)).collect();
    for mut child in children? {
        child.wait()?;
    }
    Ok(())
}

/// Starts this program as a role, with this descriptor 0; it ends with its parent.
fn start(role: Role, stdin: OwnedFd) -> Result<Child> {
    let mut command = command(role, stdin)?;
    sys::tie_to_parent(&mut command);
    command.spawn().context("no child")
}

fn stdin() -> io::Result<OwnedFd> {
    io::stdin().as_fd().try_clone_to_owned()
}

/// The arguments that make this program a role.
pub(crate) fn arguments(role: Role) -> Vec<String> {
    let value = role.to_possible_value().expect("no role is hidden");
    vec![ARGUMENT.to_owned(), value.get_name().to_owned()]
}

/// This program as a role, with this descriptor 0.
pub(crate) fn command(role: Role, stdin: impl Into<Stdio>) -> Result<Command> {
    let this = std::env::current_exe().context("this program has no path")?;
    let mut command = Command::new(this);
    command.args(arguments(role)).stdin(stdin);
    Ok(command)
}
