//! A reload from the reactor's side: its scope, its transaction, the commands around it, and the
//! way back.

pub(in crate::reactor) mod hooks;
pub(in crate::reactor) mod preview;
pub(in crate::reactor) mod rollback;
pub(in crate::reactor) mod scope;
pub(in crate::reactor) mod transaction;
