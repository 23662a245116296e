//! Resource limits: `rlimits = { nofile = 65536, core = 0 }`.

use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit};
use serde::{Deserialize, Serialize};
use toml::Spanned;
use toml::de::DeValue;

use super::super::error::Fault;
use super::super::host::Host;
use super::super::section::{Section, expected, integer, nearest};
use super::super::units;
use super::capabilities::SYS_RESOURCE;

/// No limit at all.
const UNLIMITED: u64 = RLIM_INFINITY;

/// What a limit's number counts.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Unit {
    Bytes,
    /// Seconds, microseconds, or just how many.
    Number,
}

/// Every limit of getrlimit(2), by its name in limits.conf(5).
const LIMITS: [(&str, Resource, Unit); 16] = [
    ("as", Resource::RLIMIT_AS, Unit::Bytes),
    ("core", Resource::RLIMIT_CORE, Unit::Bytes),
    ("cpu", Resource::RLIMIT_CPU, Unit::Number),
    ("data", Resource::RLIMIT_DATA, Unit::Bytes),
    ("fsize", Resource::RLIMIT_FSIZE, Unit::Bytes),
    ("locks", Resource::RLIMIT_LOCKS, Unit::Number),
    ("memlock", Resource::RLIMIT_MEMLOCK, Unit::Bytes),
    ("msgqueue", Resource::RLIMIT_MSGQUEUE, Unit::Bytes),
    ("nice", Resource::RLIMIT_NICE, Unit::Number),
    ("nofile", Resource::RLIMIT_NOFILE, Unit::Number),
    ("nproc", Resource::RLIMIT_NPROC, Unit::Number),
    ("rss", Resource::RLIMIT_RSS, Unit::Bytes),
    ("rtprio", Resource::RLIMIT_RTPRIO, Unit::Number),
    ("rttime", Resource::RLIMIT_RTTIME, Unit::Number),
    ("sigpending", Resource::RLIMIT_SIGPENDING, Unit::Number),
    ("stack", Resource::RLIMIT_STACK, Unit::Bytes),
];

/// One limit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limit {
    name: String,
    /// What holds.
    pub soft: u64,
    /// How far the worker may raise it by itself.
    pub hard: u64,
}

impl Limit {
    /// Which one; `None` for one that only a later version knows.
    pub fn resource(&self) -> Option<Resource> {
        known(&self.name).map(|(_, resource, _)| resource)
    }

    /// `nofile 65536`, or with both where they differ.
    pub(super) fn show(&self) -> String {
        let Self { name, soft, hard } = self;
        let show = |number| show(name, number);
        if soft == hard {
            format!("{name} {}", show(*soft))
        } else {
            format!("{name} {} to {}", show(*soft), show(*hard))
        }
    }
}

fn known(name: &str) -> Option<(&'static str, Resource, Unit)> {
    LIMITS.into_iter().find(|(known, ..)| *known == name)
}

fn show(name: &str, number: u64) -> String {
    match known(name) {
        _ if number == UNLIMITED => "unlimited".to_owned(),
        Some((_, _, Unit::Bytes)) if number > 0 => units::show_size(number),
        _ => number.to_string(),
    }
}

pub(super) fn read(section: &mut Section<'_>, host: &Host) -> Vec<Limit> {
    let name = format!("`rlimits` of {}", section.name);
    let Some(table) = section.section("rlimits", name) else {
        return Vec::new();
    };
    let names: Vec<&'static str> = LIMITS.iter().map(|(name, ..)| *name).collect();
    let mut limits = Vec::new();
    for (key, span, value) in table.entries() {
        let Some((name, resource, unit)) = known(key) else {
            let fault = Fault::new(format!("no limit `{key}`"));
            table.fault(span, fault.help(nearest(key, &names)));
            continue;
        };
        let Some((soft, hard)) = pair(&table, name, unit, value) else {
            continue;
        };
        if let Err(fault) = possible(name, resource, soft, hard, host) {
            table.fault(value.span(), fault.of_key(name));
        }
        limits.push(Limit {
            name: name.to_owned(),
            soft,
            hard,
        });
    }
    limits.sort_by(|one, other| one.name.cmp(&other.name));
    limits
}

/// The soft and the hard limit: one value for both, or a table.
fn pair(
    section: &Section<'_>,
    name: &'static str,
    unit: Unit,
    value: &Spanned<DeValue<'_>>,
) -> Option<(u64, u64)> {
    if let DeValue::Table(table) = value.get_ref() {
        let title = format!("`{name}`");
        let mut table = Section::new(title, table, value.span(), section.problems);
        let soft = table.take("soft", |value| number(value, unit));
        let hard = table.take("hard", |value| number(value, unit));
        if (soft.sound && soft.value.is_none()) || (hard.sound && hard.value.is_none()) {
            let fault = Fault::new("a limit in two parts has both `soft` and `hard`");
            let help = format!("{name} = {{ soft = 1024, hard = 65536 }}");
            table.fault(value.span(), fault.of_key(name).help(help));
        }
        table.finish();
        return soft.value.zip(hard.value);
    }
    let both = number(value.get_ref(), unit);
    let both = both.map_err(|fault| section.fault(value.span(), fault.of_key(name)));
    both.ok().map(|both| (both, both))
}

fn number(value: &DeValue<'_>, unit: Unit) -> Result<u64, Fault> {
    match value {
        DeValue::String(text) if text == "unlimited" => Ok(UNLIMITED),
        DeValue::String(text) if unit == Unit::Bytes => units::size(text),
        DeValue::Integer(_) => integer(value, &(0..=i64::MAX as u64)),
        other if unit == Unit::Bytes => Err(expected(
            "a size such as \"64MiB\", a number of bytes or \"unlimited\"",
            other,
        )),
        other => Err(expected("a number or \"unlimited\"", other)),
    }
}

/// Whether this process can give its children that limit.
fn possible(
    name: &str,
    resource: Resource,
    soft: u64,
    hard: u64,
    host: &Host,
) -> Result<(), Fault> {
    let [soft_text, hard_text] = [soft, hard].map(|number| show(name, number));
    if soft > hard {
        return Err(Fault::new(format!(
            "the soft limit, {soft_text}, is over the hard one, {hard_text}"
        )));
    }
    if resource == Resource::RLIMIT_NOFILE && hard > host.most_descriptors {
        let most = host.most_descriptors;
        return Err(Fault::new(format!(
            "{hard_text} is more than the kernel allows, {most}"
        ))
        .help("raise it by sysctl fs.nr_open"));
    }
    let ours = getrlimit(resource).map_or(UNLIMITED, |(_, hard)| hard);
    if host.capabilities & SYS_RESOURCE == 0 && hard > ours {
        let ours = show(name, ours);
        return Err(Fault::new(format!(
            "{hard_text} is over the hard limit of this process, {ours}, and it has not \
             CAP_SYS_RESOURCE"
        ))
        .help(format!(
            "start prefork with a higher one, by Limit{}= of its unit or ulimit",
            name.to_ascii_uppercase()
        )));
    }
    Ok(())
}
