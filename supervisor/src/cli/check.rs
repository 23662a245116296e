//! `prefork check`: the configuration, and with `--boot` whether its workers
//! come up.

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use super::address::PoolName;
use super::args;
use super::error::Error;
use super::render;
use super::terminal::Terminal;
use crate::boot_check::{self, BootError, Check};
use crate::config::{self, Config};
use crate::listener;

/// Checks the configuration and, where it is wanted, its workers.
pub(super) fn run(
    wanted: args::Check,
    runtime_dir: Option<PathBuf>,
    timeout: Option<Duration>,
    terminal: Terminal,
) -> Result<(), Error> {
    let (config, in_force) = config::load_with_origins(&wanted.run.into_options(runtime_dir))?;
    let mut warnings = config::warnings(&config, SystemTime::now());
    let root = nix::unistd::Uid::effective().is_root();
    warnings.extend(config::root_workers(&config, root));
    warnings.extend(listener::addresses_taken(&config));
    let grace = std::env::var(config::GRACE_PERIOD).ok();
    warnings.extend(config::outlasts_grace_period(&config, grace.as_deref()));
    let mut document = config::checked_json(&config);
    document["warnings"] = json!(warnings);
    let shown = match wanted.all {
        true => render::in_force(&config.source, &in_force, terminal.color),
        false => config::render_checked(&config),
    };
    if wanted.all {
        document["in_force"] = json!(in_force);
    }
    let pools = chosen(config.clone(), wanted.pool.as_ref())?;
    if !terminal.is_json() {
        terminal.data(format!("{}\n", shown.trim_end()))?;
        for warning in warnings {
            terminal.note(&format!("warning: {warning}"));
        }
    }
    let mut checks = Vec::new();
    if wanted.boot {
        checks = boot_check::run(&config, pools, timeout)?;
        document["boot"] = checks.iter().map(as_json).collect();
    }
    if terminal.is_json() {
        terminal.data(format!("{document}\n"))?;
    } else if wanted.boot {
        terminal.data(format!("\n{}", render::boots(&checks, terminal.color)))?;
    }
    judge(&checks, terminal)
}

/// The pools that are to be tried out.
fn chosen(config: Config, pool: Option<&PoolName>) -> Result<Vec<config::Pool>, Error> {
    let Some(pool) = pool.map(ToString::to_string) else {
        return Ok(config.pools);
    };
    let (chosen, others): (Vec<_>, Vec<_>) = config
        .pools
        .into_iter()
        .partition(|known| known.policy.name == pool);
    if chosen.is_empty() {
        let known: Vec<String> = others.into_iter().map(|other| other.policy.name).collect();
        return Err(Error::NoSuchPool {
            pool,
            known: known.join(", "),
        });
    }
    Ok(chosen)
}

/// Whether every worker came up; tells all there is to know of those that didn't.
fn judge(checks: &[Check], terminal: Terminal) -> Result<(), Error> {
    let mut failed = Vec::new();
    let mut timed_out = false;
    for check in checks {
        let Err(error) = &check.result else { continue };
        timed_out |= matches!(error, BootError::TimedOut { .. });
        terminal.note(&format!("pool {}: {error}", check.pool));
        for (heading, text) in [
            ("the worker's last words on stderr:", error.stderr()),
            ("the log:", &check.log),
        ] {
            if !text.trim().is_empty() {
                terminal.note(heading);
                terminal.note(text.trim_end());
            }
        }
        failed.push(check.pool.clone());
    }
    if failed.is_empty() {
        return Ok(());
    }
    Err(Error::NotBooted {
        pools: failed.join(", "),
        timed_out,
    })
}

fn as_json(check: &Check) -> Value {
    match &check.result {
        Ok(boot) => json!({
            "pool": check.pool,
            "ok": true,
            "boot_seconds": boot.seconds,
            "resident_bytes": boot.resident_bytes,
            "status": boot.status,
        }),
        Err(error) => json!({
            "pool": check.pool,
            "ok": false,
            "error": error.to_string(),
            "stderr": error.stderr(),
        }),
    }
}
