//! Certificates and session tickets of the workers that speak TLS.
//!
//! - `certificate` reads and checks the files when a configuration is read: the
//!   supervisor may be root, and its workers are not.
//! - `clients` reads and checks whose certificates clients prove with who they are.
//! - `sealed_bundle` is what a generation's workers are handed of them.
//! - `secret_store` keeps the certificates in force for a supervisor after this one,
//!   since the files may be others by then.
//! - `tickets` makes and replaces the keys of session tickets.
//!
//! No private key is ever in `state.json`, in a line of the channel or in a log:
//! a [`Certificate`] is written down by what names it, and shown without its key.

mod certificate;
mod clients;
mod sealed_bundle;
mod secret_store;
mod tickets;

pub(crate) use certificate::read;
pub use certificate::{Certificate, Kind};
pub use clients::ClientAuthorities;
pub(crate) use clients::read as read_authorities;
pub(crate) use sealed_bundle::{Copy, Material};
pub(crate) use secret_store::{Secret, Vault};
pub(crate) use tickets::{SavedTickets, Tickets};
