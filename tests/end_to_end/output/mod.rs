//! Output: the log, and what workers print.

mod bounded;
mod held;
mod logs;
mod worker_lines;
