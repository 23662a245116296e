//! A whole file: `[supervisor]`, `[metrics]`, `[requests]`, `[reload]` and every `[pool.NAME]`.

use std::net::SocketAddr;

use toml::de::DeTable;
use toml::map::Map;

use super::checked::{Address, Config, Listen};
use super::error::{ConfigError, Fault, Problems};
use super::host::Host;
use super::listen::{clash, overlap};
use super::section::{Section, Setting, expected};
use super::{defaults, forward, metrics, pool, requests, steps, supervisor};

/// The longest name of a pool, in bytes.
const LONGEST_NAME: usize = 64;

/// Reads a configuration's text. `path` names it in messages.
///
/// # Errors
///
/// `Invalid` with everything that is wrong.
pub fn parse(text: &str, path: &str, host: &Host) -> Result<Config, ConfigError> {
    let problems = Problems::new(path, text);
    let (root, errors) = DeTable::parse_recoverable(text);
    if !errors.is_empty() {
        for error in errors {
            // What is wrong with the file as a whole is shown at its end.
            let span = error.span().unwrap_or(text.len()..text.len());
            problems.at(span, Fault::new(error.message().trim()));
        }
        return Err(problems.into_error());
    }
    let config = read(root.get_ref(), path, host, &problems);
    problems.result(config)
}

fn read<'a>(table: &'a DeTable<'a>, path: &str, host: &Host, problems: &'a Problems<'a>) -> Config {
    let mut root = Section::new("the file", table, 0..0, problems);
    let supervisor = root.section("supervisor", "[supervisor]");
    let supervisor = supervisor::read(supervisor, host, problems);
    let metrics = root.section("metrics", "[metrics]");
    let requests = requests::read(root.section("requests", "[requests]"));
    let steps = steps::read(root.section("reload", "[reload]"), host);
    let pools = match root.section("pool", "[pool]") {
        Some(section) => read_pools(&section, host),
        None => Vec::new(),
    };
    root.finish();
    let pool = table.get("pool").map(|pool| pool.get_ref());
    if pool.is_none_or(|pool| pool.as_table().is_some_and(Map::is_empty)) {
        let fault = Fault::new("no pool is configured");
        problems.whole(fault.help("add [pool.web] with listen = [\"0.0.0.0:8080\"]"));
    }
    check_listeners(&pools, supervisor.admin, problems);
    forward::check(&pools, problems);
    let default = defaults::metrics(pools.iter().map(|read| &read.pool));
    let (metrics, max_series) = metrics::read(metrics, default);
    Config {
        supervisor,
        metrics,
        max_series,
        requests,
        steps,
        pools: pools.into_iter().map(|read| read.pool).collect(),
        source: path.to_owned(),
    }
}

fn read_pools(section: &Section<'_>, host: &Host) -> Vec<pool::Read> {
    let mut pools = Vec::new();
    for (name, span, value) in section.entries() {
        if let Err(fault) = pool_name(name) {
            section.fault(span, fault);
        } else if let Some(table) = value.get_ref().as_table() {
            let title = format!("[pool.{name}]");
            let pool = Section::new(title, table, value.span(), section.problems);
            pools.push(pool::read(name, pool, host));
        } else {
            let help = "the settings of a pool stand under its name, as in [pool.web]";
            let fault = expected("a table", value.get_ref()).of_key(name);
            section.fault(span, fault.help(help));
        }
    }
    pools
}

/// Pool names are part of metric labels, paths of the API and log lines.
fn pool_name(name: &str) -> Result<(), Fault> {
    let syntax = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-');
    if !name.is_empty() && name.len() <= LONGEST_NAME && name.bytes().all(syntax) {
        return Ok(());
    }
    let fault = Fault::new(format!("\"{}\" cannot name a pool", name.escape_debug()));
    Err(fault.help(format!(
        "a name has 1 to {LONGEST_NAME} of the characters a-z, 0-9, _ and -"
    )))
}

/// Reports listeners that cannot be bound beside those before them.
fn check_listeners(pools: &[pool::Read], admin: Option<SocketAddr>, problems: &Problems<'_>) {
    let mut seen: Vec<(&str, &Setting<Listen>)> = Vec::new();
    for read in pools {
        let name = read.pool.policy.name.as_str();
        for listen in &read.listen {
            let ours = &listen.value;
            if let Some((pool, first)) = seen.iter().find(|(_, seen)| clash(&seen.value, ours)) {
                let line = problems.line(&first.span);
                let other = &first.value.name;
                let fault = format!("{} clashes with {other} of [pool.{pool}]", ours.name);
                let help = format!("the other one is in line {line}");
                problems.at(listen.span.clone(), Fault::new(fault).help(help));
            } else if let (Address::Tcp(address), Some(admin)) = (&ours.address, admin)
                && overlap(address, &admin)
            {
                let fault = format!("{} clashes with the admin address {admin}", ours.name);
                let help = "set `admin` in [supervisor] to another address, or to \"\" for none";
                problems.at(listen.span.clone(), Fault::new(fault).help(help));
            }
            seen.push((name, listen));
        }
    }
}
