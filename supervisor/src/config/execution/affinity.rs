//! Which processors a slot's workers run on.

use nix::sched::{CpuSet, sched_getaffinity};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use toml::de::DeValue;

use super::super::error::Fault;
use super::super::host::Host;
use super::super::section::{Section, expected, integer};

const WHAT: &str = "\"slot\" or an array such as [0, 1] or [\"0-3\", \"4-7\"]";

/// How slots share out the processors.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Affinity {
    /// Slot i has the i-th of those that the supervisor may use, round and round.
    Slot,
    /// Slot i has the i-th of these sets, round and round.
    Sets(Vec<Vec<u32>>),
}

impl Affinity {
    /// The processors of a slot, of those that are there.
    pub fn of_slot(&self, slot: u32, there: &[u32]) -> Vec<u32> {
        let slot = slot as usize;
        match self {
            Self::Slot if there.is_empty() => Vec::new(),
            Self::Slot => vec![there[slot % there.len()]],
            Self::Sets(sets) if sets.is_empty() => Vec::new(),
            Self::Sets(sets) => sets[slot % sets.len()].clone(),
        }
    }

    pub(super) fn show(&self) -> String {
        match self {
            Self::Slot => "slot".to_owned(),
            Self::Sets(sets) => {
                let sets: Vec<String> = sets.iter().map(|set| show(set)).collect();
                sets.join(" ")
            }
        }
    }
}

/// The processors that this process may use; none where the kernel does not say.
pub(crate) fn own_cpus() -> Vec<u32> {
    let Ok(set) = sched_getaffinity(Pid::from_raw(0)) else {
        return Vec::new();
    };
    let count = CpuSet::count();
    let there = (0..count).filter(|cpu| set.is_set(*cpu).unwrap_or(false));
    there.filter_map(|cpu| u32::try_from(cpu).ok()).collect()
}

pub(super) fn read(section: &mut Section<'_>, host: &Host) -> Option<Affinity> {
    let value = section
        .table
        .get("cpu_affinity")
        .map(|value| value.get_ref());
    if !matches!(value, Some(DeValue::Array(_))) {
        let word = section.take("cpu_affinity", |value| match value.as_str() {
            Some("slot") => Ok(Affinity::Slot),
            _ => Err(expected(WHAT, value)),
        });
        return word.value;
    }
    let sets = section.list("cpu_affinity", WHAT, |element| {
        set(element.get_ref(), &host.cpu_list)
    })?;
    if sets.sound && sets.value.is_empty() {
        let fault = Fault::new("`cpu_affinity` is empty").help("\"slot\"");
        section.fault(sets.span, fault);
        return None;
    }
    Some(Affinity::Sets(
        sets.value.into_iter().map(|set| set.value).collect(),
    ))
}

/// One processor, or several as in `0-3,8`, all of which have to be there.
fn set(value: &DeValue<'_>, there: &[u32]) -> Result<Vec<u32>, Fault> {
    let mut set = match value {
        DeValue::Integer(_) => vec![integer(value, &(0..=u64::from(u16::MAX)))? as u32],
        DeValue::String(text) => parse(text).ok_or_else(|| {
            let text = text.escape_debug();
            Fault::new(format!("\"{text}\" is no list of processors")).help("\"0-3,8\"")
        })?,
        other => {
            return Err(expected(
                "a processor's number or a list like \"0-3,8\"",
                other,
            ));
        }
    };
    set.sort_unstable();
    set.dedup();
    match set.iter().find(|cpu| !there.contains(cpu)) {
        Some(cpu) => Err(
            Fault::new(format!("processor {cpu} is not among this process's"))
                .help(format!("they are {}", show(there))),
        ),
        None => Ok(set),
    }
}

fn parse(text: &str) -> Option<Vec<u32>> {
    let mut set = Vec::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let [first, last] = [first, last].map(|cpu| cpu.trim().parse::<u16>().ok());
        let (first, last) = (first?, last?);
        if first > last {
            return None;
        }
        set.extend((first..=last).map(u32::from));
    }
    Some(set)
}

/// As proc_pid_status(5) writes a list: `0-3,8`.
fn show(set: &[u32]) -> String {
    let mut runs: Vec<(u32, u32)> = Vec::new();
    for cpu in set {
        match runs.last_mut() {
            Some((_, last)) if *last + 1 == *cpu => *last = *cpu,
            _ => runs.push((*cpu, *cpu)),
        }
    }
    let runs: Vec<String> = runs
        .iter()
        .map(|(first, last)| match first == last {
            true => first.to_string(),
            false => format!("{first}-{last}"),
        })
        .collect();
    runs.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_share_the_processors_round_and_round() {
        let there = [0, 2, 3];
        let of = |affinity: &Affinity, slot| affinity.of_slot(slot, &there);
        assert_eq!(
            [0, 1, 2, 3].map(|slot| of(&Affinity::Slot, slot)[0]),
            [0, 2, 3, 0]
        );
        let sets = Affinity::Sets(vec![vec![0, 1], vec![3]]);
        assert_eq!(of(&sets, 4), [0, 1]);
        assert_eq!(of(&sets, 7), [3]);
    }

    #[test]
    fn lists_are_written_as_they_are_read() {
        for text in ["0", "0-3", "0-1,4,6-7"] {
            assert_eq!(show(&parse(text).unwrap()), text);
        }
        for text in ["", "3-1", "a", "0,,1", "-1", "70000"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
