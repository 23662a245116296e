//! A reload from the reactor's side: its scope, its transaction and the commands around it.

pub(in crate::reactor) mod hooks;
pub(in crate::reactor) mod scope;
pub(in crate::reactor) mod transaction;
