//! An interrupted run leaves nothing behind, either.

use anyhow::{Context, Result};
use nix::sys::signal::{SigSet, Signal};

use crate::{process, scratch};

/// Has SIGINT, SIGTERM and SIGHUP end this process after all that it has
/// started. To be called before any other thread begins.
pub(crate) fn clean_up_when_it_comes() -> Result<()> {
    let signals: SigSet = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP]
        .into_iter()
        .collect();
    // Every thread inherits it; a child has its signals back when it executes.
    signals.thread_block().context("cannot block signals")?;
    std::thread::spawn(move || {
        // It fails for signals that cannot be waited for, and these can.
        let Ok(signal) = signals.wait() else { return };
        process::end_all();
        scratch::remove();
        eprintln!("prefork-bench: interrupted");
        std::process::exit(128 + signal as i32);
    });
    Ok(())
}
