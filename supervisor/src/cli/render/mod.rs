//! The API's documents as people read them. Pure: the time and whether there
//! is colour come in as arguments.

mod boots;
mod changes;
mod channels;
mod describe;
mod events;
mod fleet;
mod in_force;
mod logs;
mod replies;
mod requests;
mod status;
mod thread_dump;
mod watch;

pub(super) use boots::boots;
pub(super) use changes::changes;
pub(super) use channels::channels;
pub(super) use describe::describe;
pub(super) use events::event;
pub(super) use fleet::fleet;
pub(super) use in_force::in_force;
pub(super) use logs::log_entry;
pub(super) use replies::replies;
pub(super) use requests::requests;
pub(super) use status::status;
pub(crate) use status::{canary_words, own_words};
pub(super) use watch::watch;

use nix::sys::signal::Signal;
use prefork_api::{Exit, SlotState};

use super::table::Style;
use super::units::seconds;

/// How a state looks.
fn state_style(state: SlotState) -> Style {
    match state {
        SlotState::Ready => Style::Good,
        SlotState::Starting | SlotState::Draining | SlotState::Stopping | SlotState::Paused => {
            Style::Busy
        }
        SlotState::Backoff => Style::Bad,
        SlotState::Empty => Style::Faint,
    }
}

/// How a process ended, in a few words: `crash, exit code 1`, `signal 9 (SIGKILL)`.
pub(crate) fn exit_words(exit: &Exit) -> String {
    let reason = exit.reason.as_str();
    match (exit.code, exit.signal) {
        (_, Some(number)) => {
            let name = Signal::try_from(number)
                .map_or_else(|_| String::new(), |signal| format!(" ({signal})"));
            if reason == "signal" {
                format!("signal {number}{name}")
            } else {
                format!("{reason}, signal {number}{name}")
            }
        }
        (Some(0) | None, None) => reason.to_owned(),
        (Some(code), None) => format!("{reason}, exit code {code}"),
    }
}

/// How long ago a time was; both in seconds since the Unix epoch.
fn ago(now: f64, at: f64) -> String {
    format!("{} ago", seconds((now - at).max(0.0)))
}
