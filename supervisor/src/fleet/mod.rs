//! The fleet: slots, generations, backoff, rollouts. A state machine without
//! I/O that the reactor drives with `step(now, Event) -> Vec<Action>`.

mod event;
mod policy;

pub use event::{Action, Ask, Command, Death, Event, JobId, PoolId, Refusal, Report, Time, Worker};
pub use policy::Policy;
