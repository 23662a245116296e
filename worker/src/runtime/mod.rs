//! What the runtime does otherwise, or at another price: times, wakers, and who is woken
//! for a connection.

pub(crate) mod clock;
pub(crate) mod exclusive_epoll;
pub(crate) mod moment;
pub(crate) mod own_waker;
pub(crate) mod task;
#[cfg(test)]
pub(crate) mod test_waker;
pub(crate) mod timer;
