//! Listeners: the sockets, who accepts from them, and what waits in their queues.

pub(in crate::reactor) mod accept_queue;
pub(in crate::reactor) mod acceptors;
pub(in crate::reactor) mod passages;
pub(in crate::reactor) mod sockets;
