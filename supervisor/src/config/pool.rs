//! `[pool.NAME]`.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use prefork_fleet::{Policy, Quorum};
use prefork_proto::message::CHANNEL_FD_ENV;
use serde_json::{Map, Value};
use toml::de::DeValue;

use super::checked::{Listen, Pool, Program, RunAs};
use super::error::Fault;
use super::host::Host;
use super::section::{Section, Setting, boolean, duration, expected, integer, string, within};
use super::{
    access_log, adapter, app, canary, check, defaults, execution, http, listen, program, units, web,
};
use crate::kernel::procfs::kin::MARK_ENV;

const NONE: Duration = Duration::ZERO;
const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);

/// The most workers a pool can have.
const MOST_WORKERS: u64 = 10_000;

/// TOML's integers end here.
const MOST_REQUESTS: u64 = i64::MAX as u64;

const WORKERS: &str = "a number of workers or \"auto\"";

/// A pool, and where its listeners and the pools that it names stand in the file.
pub(super) struct Read {
    pub(super) pool: Pool,
    pub(super) listen: Vec<Setting<Listen>>,
    /// The pools that it forwards to.
    pub(super) forward: Vec<Setting<String>>,
}

/// Reads one pool. Problems are reported; what is returned is only as sound as
/// the absence of problems.
pub(super) fn read(name: &str, mut section: Section<'_>, host: &Host) -> Read {
    let defaults = defaults::pool(name, host.cpus);
    let interval = 10 * MS..=HOUR;
    let heartbeat_interval =
        section.duration("heartbeat_interval", defaults.heartbeat_interval, interval);
    let policy = read_policy(&mut section, &defaults.policy, &heartbeat_interval);
    let program = read_program(&mut section, host);
    let listen = listen::read_list(&mut section, host);
    if !section.has("program") && !section.has("listen") {
        let fault = Fault::new(format!("{} has no `listen`", section.name));
        let help = "listen = [\"0.0.0.0:8080\"]";
        section.fault(section.span.clone(), fault.help(help));
    }
    let env = read_env(&mut section);
    let (app, forward) = read_app(&mut section, &program, host);
    let workers = policy.workers;
    let adapter = adapter::read(&mut section, &program, &env, &listen);
    let pool = Pool {
        policy,
        check: check::read(&mut section, adapter.as_ref()),
        canary: canary::read(
            &mut section,
            workers,
            adapter.is_none() || listen.is_empty(),
        ),
        adapter,
        env,
        run_as: read_run_as(&mut section, host),
        execution: execution::read(&mut section, host),
        heartbeat_interval: heartbeat_interval.value,
        idle_grace: section
            .duration("idle_grace", defaults.idle_grace, NONE..=HOUR)
            .value,
        http: http::read(&mut section),
        access_log: access_log::read(&mut section, host),
        app,
        listen: listen.iter().map(|listen| listen.value.clone()).collect(),
        program,
    };
    section.finish();
    Read {
        pool,
        listen,
        forward,
    }
}

fn read_policy(
    section: &mut Section<'_>,
    defaults: &Policy,
    heartbeat_interval: &Setting<Duration>,
) -> Policy {
    let heartbeat_timeout = section.duration(
        "heartbeat_timeout",
        defaults.heartbeat_timeout,
        10 * MS..=HOUR,
    );
    let backoff_initial =
        section.duration("backoff_initial", defaults.backoff_initial, 10 * MS..=HOUR);
    let backoff_max = section.duration("backoff_max", defaults.backoff_max, 10 * MS..=HOUR);
    if heartbeat_interval.value >= heartbeat_timeout.value {
        let rule = "`heartbeat_timeout` must be longer than `heartbeat_interval`";
        contradiction(section, rule, heartbeat_interval, &heartbeat_timeout);
    }
    if backoff_initial.value > backoff_max.value {
        let rule = "`backoff_max` must not be shorter than `backoff_initial`";
        contradiction(section, rule, &backoff_initial, &backoff_max);
    }
    Policy {
        name: defaults.name.clone(),
        workers: section
            .take_or("workers", defaults.workers, |value| match value {
                DeValue::String(text) => workers(text, defaults.workers),
                DeValue::Integer(_) => as_u32(integer(value, &(1..=MOST_WORKERS))?),
                other => Err(expected(WORKERS, other)),
            })
            .value,
        boot_timeout: section
            .duration("boot_timeout", defaults.boot_timeout, 10 * MS..=DAY)
            .value,
        heartbeat_timeout: heartbeat_timeout.value,
        drain_timeout: section
            .duration("drain_timeout", defaults.drain_timeout, NONE..=7 * DAY)
            .value,
        kill_timeout: section
            .duration("kill_timeout", defaults.kill_timeout, 10 * MS..=HOUR)
            .value,
        backoff_initial: backoff_initial.value,
        backoff_max: backoff_max.value,
        backoff_reset: section
            .duration("backoff_reset", defaults.backoff_reset, NONE..=DAY)
            .value,
        max_requests: section
            .integer("max_requests", defaults.max_requests, 0..=MOST_REQUESTS)
            .value,
        max_requests_jitter: section
            .take_or(
                "max_requests_jitter",
                defaults.max_requests_jitter,
                |value| units::percentage(string(value, "a percentage such as \"10%\"")?),
            )
            .value,
        max_rss: section.take("max_rss", max_rss).value,
        max_age: section
            .take("max_age", |value| {
                within(
                    duration(value)?,
                    &(SECOND..=3650 * DAY),
                    units::show_duration,
                )
            })
            .value,
        min_ready: section
            .duration("min_ready", defaults.min_ready, NONE..=HOUR)
            .value,
        max_surge: section
            .take_or("max_surge", defaults.max_surge, |value| {
                as_u32(integer(value, &(1..=MOST_WORKERS))?)
            })
            .value,
        dump_on_hang: section
            .take_or("dump_on_hang", defaults.dump_on_hang, boolean)
            .value,
        ready: section.take_or("ready", defaults.ready, quorum).value,
    }
}

/// Reports two settings that exclude each other, at the one that stands later
/// in the file; a default has the header's place, which is before both.
fn contradiction(
    section: &Section<'_>,
    rule: &str,
    one: &Setting<Duration>,
    other: &Setting<Duration>,
) {
    if one.sound && other.sound {
        let later = if one.span.start > other.span.start {
            one
        } else {
            other
        };
        let values = format!(
            "{} and {}",
            units::show_duration(other.value),
            units::show_duration(one.value)
        );
        section.fault(
            later.span.clone(),
            Fault::new(rule).help(format!("they are {values}")),
        );
    }
}

/// `auto` or a number, as the command line has it.
pub(super) fn workers(text: &str, auto: u32) -> Result<u32, Fault> {
    if text == "auto" {
        return Ok(auto);
    }
    let unsigned = |text: &&str| !text.starts_with('+');
    Some(text)
        .filter(unsigned)
        .and_then(|text| text.parse::<u32>().ok())
        .filter(|workers| (1..=MOST_WORKERS).contains(&u64::from(*workers)))
        .ok_or_else(|| {
            let found = text.escape_debug();
            Fault::new(format!("expected {WORKERS}, found \"{found}\""))
                .help(format!("from 1 to {MOST_WORKERS}"))
        })
}

/// For integers whose range lies within u32.
fn as_u32(number: u64) -> Result<u32, Fault> {
    u32::try_from(number).map_err(|_| Fault::new(format!("{number} is out of range")))
}

fn quorum(value: &DeValue<'_>) -> Result<Quorum, Fault> {
    const WHAT: &str = "\"any\", \"all\" or a whole percentage from \"1%\" to \"100%\"";
    match string(value, WHAT)? {
        "any" => Ok(Quorum::Any),
        "all" => Ok(Quorum::All),
        text => units::whole_percentage(text)
            .filter(|percent| (1..=100).contains(percent))
            .map(Quorum::Percent)
            .ok_or_else(|| {
                let found = text.escape_debug();
                Fault::new(format!("expected {WHAT}, found \"{found}\""))
            }),
    }
}

fn max_rss(value: &DeValue<'_>) -> Result<u64, Fault> {
    let size = units::size(string(value, "a size such as \"512MiB\"")?)?;
    within(size, &(1 << 20..=1 << 50), units::show_size)
}

fn read_program(section: &mut Section<'_>, host: &Host) -> Program {
    const WHAT: &str = "an array such as [\"/usr/bin/shop\", \"--quiet\"]";
    let words = section.list("program", WHAT, |element| {
        match string(element.get_ref(), "a string")? {
            word if word.contains('\0') => Err(Fault::new("an argument cannot contain a NUL")),
            word => Ok(word.to_owned()),
        }
    });
    let Some(words) = words else {
        return Program::Bundled;
    };
    let mut path = PathBuf::new();
    let mut rest = words.value.into_iter();
    match rest.next() {
        Some(word) if words.sound => match program::find(&word.value, host) {
            Ok(found) => path = found,
            Err(fault) => section.fault(word.span, fault),
        },
        None if words.sound => {
            let fault = Fault::new("`program` is empty");
            section.fault(
                words.span,
                fault.help("leave it out for the bundled web server"),
            );
        }
        _ => {}
    }
    let args = rest.map(|word| word.value).collect();
    Program::Command { path, args }
}

fn read_env(section: &mut Section<'_>) -> BTreeMap<String, String> {
    let Some(table) = section.section("env", format!("`env` of {}", section.name)) else {
        return BTreeMap::new();
    };
    let mut env = BTreeMap::new();
    for (name, span, value) in table.entries() {
        if let Err(fault) = env_name(name) {
            table.fault(span, fault);
        }
        match string(value.get_ref(), "a string") {
            Ok(text) if text.contains('\0') => {
                table.fault(
                    value.span(),
                    Fault::new("a value cannot contain a NUL").of_key(name),
                );
            }
            Ok(text) => {
                env.insert(name.to_owned(), text.to_owned());
            }
            Err(fault) => table.fault(value.span(), fault.of_key(name)),
        }
    }
    env
}

fn env_name(name: &str) -> Result<(), Fault> {
    if [CHANNEL_FD_ENV, MARK_ENV].contains(&name) {
        return Err(Fault::new(format!("`{name}` is prefork's own")));
    }
    if name.is_empty() || name.contains(['=', '\0']) {
        return Err(Fault::new(format!(
            "\"{}\" is not a variable's name: it is empty or contains `=` or NUL",
            name.escape_debug()
        )));
    }
    Ok(())
}

pub(super) fn read_run_as(section: &mut Section<'_>, host: &Host) -> Option<RunAs> {
    let user = section.take("user", |value| program::user(value, host));
    let group = section.take("group", program::group);
    if user.sound && user.value.is_none() && group.value.is_some() {
        let fault = Fault::new("`group` needs `user`");
        section.fault(group.span, fault.help("add user = \"www-data\""));
        return None;
    }
    program::run_as(user.value?, group.value)
        .map_err(|fault| section.fault(user.span, fault))
        .ok()
}

fn read_app(
    section: &mut Section<'_>,
    program: &Program,
    host: &Host,
) -> (Value, Vec<Setting<String>>) {
    let Some(table) = section.section("app", format!("`app` of {}", section.name)) else {
        return (Value::Object(Map::new()), Vec::new());
    };
    let mut json = app::to_json(table.table, table.problems);
    let span = table.span.clone();
    let forward = match program {
        Program::Bundled => web::check(table, &mut json, host),
        Program::Command { .. } => Vec::new(),
    };
    let json = Value::Object(json);
    if let Err(fault) = app::fits(&json) {
        section.fault(span, fault);
    }
    (json, forward)
}
