//! The service manager: the sockets that it passes, what it is told, and the descriptors that it keeps.

pub(crate) mod activation;
pub(crate) mod fdstore;
pub mod notify;
