//! Recovery: a supervisor that is killed, or replaced by another program.

mod exact_counters;
mod killed;
mod listeners;
mod moments;
mod nobody_left;
mod output;
mod rejoin_socket;
mod state_file;
mod upgrade;
