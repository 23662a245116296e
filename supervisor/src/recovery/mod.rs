//! Recovery: what the next supervisor needs should this one be killed, and how it finds it.

pub(crate) mod rejoin_socket;
pub(crate) mod state;
pub(crate) mod survivors;
