//! An interrupted run leaves nothing behind, either.

use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::signal::{SigSet, Signal};

use crate::{process, scratch};

/// How often what has been started meanwhile is ended.
const TRIES: usize = 100;

/// Has SIGINT, SIGTERM and SIGHUP end this process after all that it has
/// started. To be called before any other thread begins.
pub(crate) fn clean_up_when_it_comes() -> Result<()> {
    let signals: SigSet = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP]
        .into_iter()
        .collect();
    // Every thread inherits it, and a child too: `sys` gives them back to it.
    signals.thread_block().context("cannot block signals")?;
    std::thread::spawn(move || {
        // It fails for signals that cannot be waited for, and these can.
        let Ok(signal) = signals.wait() else { return };
        // The main thread may be about to start one more.
        for _ in 0..TRIES {
            process::end_all();
            if scratch::remove() {
                break;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        process::end_all();
        eprintln!("prefork-bench: interrupted");
        std::process::exit(128 + signal as i32);
    });
    Ok(())
}
