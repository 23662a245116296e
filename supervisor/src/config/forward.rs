//! `forward` in `[pool.NAME.app]`: which pools answer what the bundled web server does
//! not answer itself, and how long a request may wait for them.

use std::time::Duration;

use serde_json::{Map, Value};
use toml::de::DeValue;

use super::checked::Program;
use super::error::{Fault, Problems};
use super::pool::Read;
use super::section::{Section, Setting, duration, expected, string, within};
use super::units;

const WHAT: &str = "the name of a pool, or a table of them by path";
const EXAMPLE: &str = "forward = \"shop\", or { \"/api/\" = \"api\", \"/\" = \"shop\" }";

/// What may be set beside it.
const WAITS: [&str; 2] = ["queue_timeout", "upstream_timeout"];

/// The longest that a request may wait.
const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// The most requests that may wait.
const MOST_WAITING: u64 = 1_000_000;

/// Reads the settings; the pools that they name, each where it stands. Times become
/// milliseconds in `json`, which has all settings.
pub(super) fn read(table: &mut Section<'_>, json: &mut Map<String, Value>) -> Vec<Setting<String>> {
    let mut targets = Vec::new();
    let forward = table.take("forward", |value| {
        match value {
            DeValue::String(pool) if !pool.is_empty() => targets.push((pool.to_string(), None)),
            DeValue::Table(routes) if !routes.is_empty() => {
                for (path, pool) in routes {
                    let path = path.get_ref();
                    if !path.starts_with('/') {
                        let fault = Fault::new(format!("\"{}\" is no path", path.escape_debug()));
                        return Err(fault.help("a path begins with a slash: \"/api/\""));
                    }
                    let name = string(pool.get_ref(), "the name of a pool")?;
                    targets.push((name.to_owned(), Some(pool.span())));
                }
            }
            other => return Err(expected(WHAT, other).help(EXAMPLE)),
        }
        Ok(())
    });
    let mut waits = Vec::new();
    for key in WAITS {
        let shortest = Duration::from_millis(1);
        let wait = table.take(key, |value| {
            within(
                duration(value)?,
                &(shortest..=LONGEST),
                units::show_duration,
            )
        });
        if let Some(time) = wait.value {
            json.insert(key.to_owned(), format!("{}ms", time.as_millis()).into());
        }
        waits.push((key, wait.value.is_some(), wait.span));
    }
    let max_queue = table.take("max_queue", |value| {
        super::section::integer(value, &(0..=MOST_WAITING))
    });
    waits.push(("max_queue", max_queue.value.is_some(), max_queue.span));
    for (key, is_set, span) in waits {
        if is_set && forward.sound && forward.value.is_none() {
            let fault = Fault::new(format!("`{key}` needs `forward`"));
            table.fault(span, fault.help(format!("add {EXAMPLE}")));
        }
    }
    if !forward.sound {
        return Vec::new();
    }
    let setting = |(value, span): (String, Option<_>)| Setting {
        value,
        span: span.unwrap_or_else(|| forward.span.clone()),
        sound: true,
    };
    targets.into_iter().map(setting).collect()
}

/// Reports pools that nothing can be forwarded to. No pool that forwards is one of
/// those to which something can be forwarded, so there are no circles.
pub(super) fn check(pools: &[Read], problems: &Problems<'_>) {
    for read in pools {
        for target in &read.forward {
            if let Err(fault) = takes_requests(&target.value, read, pools) {
                problems.at(target.span.clone(), fault.of_key("forward"));
            }
        }
    }
}

fn takes_requests(name: &str, from: &Read, pools: &[Read]) -> Result<(), Fault> {
    if from.pool.policy.name == name {
        let fault = Fault::new(format!("[pool.{name}] cannot forward to itself"));
        return Err(fault.help("name a pool that has an `adapter`"));
    }
    let Some(target) = pools.iter().find(|read| read.pool.policy.name == name) else {
        let names: Vec<&str> = pools
            .iter()
            .map(|it| it.pool.policy.name.as_str())
            .collect();
        let fault = Fault::new(format!("there is no pool \"{}\"", name.escape_debug()));
        return Err(fault.help(format!("pools: {}", names.join(", "))));
    };
    if target.pool.adapter.is_none() {
        let fault = Fault::new(format!("[pool.{name}] takes no requests from another pool"));
        return Err(fault.help(match target.pool.program {
            Program::Bundled => "it is the bundled web server; name a pool that has an `adapter`",
            Program::Command { .. } => {
                "its program takes connections itself; one that does not speak the channel has \
                 an `adapter`"
            }
        }));
    }
    if !target.pool.listen.is_empty() {
        let fault = Fault::new(format!("[pool.{name}] takes its clients itself"));
        return Err(fault.help("leave its `listen` out, and give its program {socket} or {port}"));
    }
    Ok(())
}

/// Whether these settings of the bundled web server forward anything to a pool.
pub(super) fn forwards_to(app: &Value, pool: &str) -> bool {
    targets(app).any(|target| target == pool)
}

/// The pools that these settings of the bundled web server forward to.
pub(super) fn targets(app: &Value) -> impl Iterator<Item = &str> {
    let forward = app.get("forward");
    let routes = forward.and_then(Value::as_object).into_iter();
    let by_path = routes.flat_map(|routes| routes.values());
    let one = forward.filter(|it| it.is_string());
    by_path.chain(one).filter_map(Value::as_str)
}
