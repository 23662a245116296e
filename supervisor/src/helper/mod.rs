//! Helper processes: what could block is done beside the loop, by the supervisor's own program.

pub(crate) mod process;
pub(crate) mod read_config;
pub(crate) mod reload_hooks;
pub(crate) mod thread_dump;
