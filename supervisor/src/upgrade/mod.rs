//! Another program in place of this one: same process, same children, same
//! descriptors.
//!
//! - `document` is what the next program has to know, every descriptor by its
//!   number. It is written to memory that outlives `exec`.
//! - `descriptors` checks that each number is what the document says.
//! - `image` is the program that is to come, pinned.
//! - `preflight` has that program read the document before anything is changed;
//!   [`preflight()`] is what it does then.
//! - [`receive`] finds the document in the program that has come.

mod descriptors;
mod document;
mod image;
mod preflight;

use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::fd::OwnedFd;
use std::process::ExitCode;

use nix::sys::memfd::{MFdFlags, memfd_create};

use crate::kernel::sys;

pub(crate) use descriptors::Kind;
pub(crate) use document::{
    FileIdentity, Fixtures, HandedBoot, HandedGeneration, HandedListener, HandedOutput,
    HandedPhase, HandedProcess, HandedProgram, HandedSocket, HandedTable, HandedTalk, Handover,
    VERSION,
};
pub(crate) use image::NewProgram;
pub(crate) use preflight::rehearse;
use prefork_fleet::Snapshot;

/// The environment variable that holds the document's descriptor for the
/// program that has come.
pub(crate) const HANDOVER_FD_ENV: &str = "PREFORK_HANDOVER_FD";

/// The argument that makes the `prefork` binary read a document from stdin and
/// say whether it could go on from there.
pub const PREFLIGHT_ARGUMENT: &str = "preflight";

/// No document is larger; what is was not written by a supervisor.
const MOST_BYTES: u64 = 1 << 30;

/// Why a document can't be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HandoverError {
    /// The system refused.
    #[error("it cannot be read: {0}")]
    Io(#[from] io::Error),
    /// It is not what a supervisor writes.
    #[error("it is damaged: {0}")]
    Damaged(#[from] serde_json::Error),
    /// Another version of the program wrote it.
    #[error("it is of version {found}, and this program knows version {VERSION}")]
    Version {
        /// The version that it has.
        found: u32,
    },
    /// The fleet's part is of a later version.
    #[error("its fleet is of version {found}, and this program knows version {known}")]
    StateVersion {
        /// The version that it has.
        found: u32,
        /// The one that this program knows.
        known: u32,
    },
    /// A descriptor is not what it should be.
    #[error("descriptor {number} should be {wanted} and is {found}")]
    Descriptor {
        /// Its number.
        number: i32,
        /// What the document says.
        wanted: &'static str,
        /// What the kernel says.
        found: String,
    },
    /// One descriptor is named for two purposes.
    #[error("descriptor {number} is named twice")]
    Twice {
        /// Its number.
        number: i32,
    },
    /// A channel's parts don't fit together.
    #[error(transparent)]
    Channel(#[from] prefork_proto::channel::parts::PartsError),
}

/// Memory that holds the document, close-on-exec.
pub(crate) fn memory(text: &[u8]) -> io::Result<OwnedFd> {
    let memory = memfd_create(c"prefork-handover", MFdFlags::MFD_CLOEXEC)?;
    let mut file = File::from(memory);
    file.write_all(text)?;
    file.rewind()?;
    Ok(file.into())
}

/// The main function of a preflight: reads the document from stdin and checks
/// all of it against the process that wrote it, which is our parent.
pub fn preflight() -> ExitCode {
    let read = read(io::stdin().lock()).and_then(|handover| handover.check(handover.state.pid));
    let said = match read {
        Ok(()) => writeln!(io::stdout(), "ok {}", env!("CARGO_PKG_VERSION")),
        Err(error) => {
            let _ = writeln!(
                io::stderr(),
                "prefork {} cannot go on from the running supervisor's state: {error}",
                env!("CARGO_PKG_VERSION")
            );
            return ExitCode::FAILURE;
        }
    };
    if said.is_ok() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// The document that the program before this one has left in this process.
/// `None` where there was none. One that can't be used is let go of with every
/// descriptor that it came with: the workers then look for their next
/// supervisor, which this program becomes.
#[expect(
    unsafe_code,
    reason = "what the document names is known where it is checked"
)]
pub(crate) fn receive() -> Option<Handover<Snapshot>> {
    let number = std::env::var(HANDOVER_FD_ENV).ok()?.parse().ok()?;
    let us = nix::unistd::Pid::this().as_raw();
    // The variable may have strayed into another process.
    descriptors::check(us, &[(number, Kind::Memory)]).ok()?;
    // SAFETY: it was found open, and this program has just begun: it owns nothing yet.
    unsafe { sys::note_left([number]) };
    let mut document = File::from(sys::claim(number));
    let rewound = document.rewind().map_err(HandoverError::from);
    let read = rewound.and_then(|()| read(&document));
    drop(document);
    let checked = read.and_then(|handover| {
        if handover.state.pid != us {
            return Ok(None);
        }
        handover.check(us)?;
        // SAFETY: each was found open and is named once, and this program owns nothing yet.
        unsafe { sys::note_left(handover.numbers()) };
        Ok(Some(handover))
    });
    match checked {
        Ok(handover) => handover,
        Err(error) => {
            // A preflight has found nothing wrong with it: this is for whoever
            // looks for the reason. There is no log yet.
            let _ = writeln!(
                io::stderr(),
                "prefork: the state of the program before is not used: {error}"
            );
            // SAFETY: the document was let go of, and this program owns nothing else yet.
            let _ = unsafe { sys::close_from(3) };
            None
        }
    }
}

fn read(from: impl Read) -> Result<Handover<Snapshot>, HandoverError> {
    let mut text = Vec::new();
    from.take(MOST_BYTES).read_to_end(&mut text)?;
    document::parse(&text)
}
