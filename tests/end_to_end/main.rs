//! End-to-end tests: the real binary, real processes, real signals.
//!
//! Each file is one theme and its tests read as sentences. `harness` starts a
//! supervisor in a directory of its own on ports that the kernel chooses, and
//! kills everything that came of it when a test ends, however it ends.

#[path = "../fresh.rs"]
mod fresh;
mod harness;

mod access_log;
mod adapter;
mod application_metrics;
mod backlog;
mod boot_check;
mod broken_reload;
mod checks;
mod closed_control;
mod closed_files;
mod closed_memory;
mod closed_output;
mod config_errors;
mod confinement;
mod control;
mod crash_loop;
mod crowded_descriptors;
mod crowds;
mod deaf_listener;
mod death;
mod descriptors;
mod exact_counters;
mod examples;
mod exit_codes;
mod families;
mod fronts;
mod full_disk;
mod given_paths;
mod held_output;
mod hidden_processes;
mod hostile;
mod http_limits;
mod hung_worker;
mod lifecycle;
mod limits;
mod listener_changes;
mod listener_handover;
mod load_client;
mod logs;
mod long_work;
mod metrics;
mod neighbours;
mod one_release;
mod only_what_changed;
mod operations;
mod operators_view;
mod partial_boot;
mod pinned_program;
mod privileges;
mod process_trees;
mod programs;
mod readiness;
mod recovery;
mod recovery_door;
mod recovery_listeners;
mod recovery_moments;
mod recovery_nobody;
mod recovery_output;
mod recovery_state;
mod reload;
mod reload_command;
mod reload_steps;
mod requests;
mod scoreboard;
mod service_manager;
mod serving;
mod signals;
mod slow_directory;
mod slow_disk;
mod starved_worker;
mod stop;
mod terminals;
mod tls;
mod true_numbers;
mod unheard;
mod upgrade;
mod worker_lines;
