//! `prefork status --url`: one table for many supervisors.

use std::collections::BTreeMap;

use prefork_api::{PoolStatus, Status};

use super::status::{readiness_style, strength};
use crate::cli::fleet::Instance;
use crate::cli::table::{Align, Cell, Style, Table};
use crate::cli::units::seconds;
use crate::readiness;

/// A row for each pool of each instance, and what they come to.
pub(in crate::cli) fn fleet(instances: &[Instance], color: bool) -> String {
    let mut table = Table::new([
        ("INSTANCE", Align::Left),
        ("STATE", Align::Left),
        ("VERSION", Align::Left),
        ("GEN", Align::Right),
        ("UPTIME", Align::Right),
        ("POOL", Align::Left),
        ("READY", Align::Right),
        ("IN-FLIGHT", Align::Right),
        ("BACKLOG", Align::Right),
        ("REQUESTS", Align::Right),
        ("CRASHES", Align::Right),
        ("NOTE", Align::Left),
    ]);
    for instance in instances {
        match &instance.said {
            Ok((status, _)) if status.pools.is_empty() => {
                table.row(row(&instance.name, status, None));
            }
            Ok((status, _)) => {
                for pool in &status.pools {
                    table.row(row(&instance.name, status, Some(pool)));
                }
            }
            Err(trouble) => {
                let mut cells = std::array::from_fn(|_| Cell::from("-"));
                cells[0] = Cell::from(&instance.name);
                cells[1] = Cell::styled("unknown", Style::Bad);
                cells[11] = Cell::styled(trouble.to_string(), Style::Bad);
                table.row(cells);
            }
        }
    }
    format!("{}\n{}\n", table.render(color), summary(instances))
}

fn row(name: &str, status: &Status, pool: Option<&PoolStatus>) -> [Cell; 12] {
    let style = match status.stopping {
        true => Style::Busy,
        false => readiness_style(status.readiness()),
    };
    let requests = |pool: &PoolStatus| {
        let each = pool.workers.iter().filter_map(|worker| worker.requests);
        each.reduce(u64::saturating_add)
    };
    let crashes = |pool: &PoolStatus| {
        let each = pool.workers.iter().map(|worker| worker.crashes);
        each.fold(0, u64::saturating_add)
    };
    [
        Cell::from(name),
        Cell::styled(readiness::word(status), style),
        Cell::from(&status.version),
        Cell::from(status.generation),
        Cell::from(seconds(status.uptime_seconds)),
        Cell::or_dash(pool.map(|pool| &pool.name)),
        pool.map_or_else(
            || Cell::from("-"),
            |pool| {
                Cell::styled(
                    strength(pool),
                    readiness_style(readiness::readiness_of(pool)),
                )
            },
        ),
        Cell::or_dash(pool.map(PoolStatus::in_flight)),
        Cell::or_dash(pool.and_then(PoolStatus::queue)),
        Cell::or_dash(pool.and_then(requests)),
        Cell::or_dash(pool.map(crashes)),
        Cell::from(note(status)),
    ]
}

/// What else there is to know of an instance.
fn note(status: &Status) -> String {
    let drains = status
        .drains_in_seconds
        .map(|left| format!("drains in {}", seconds(left)));
    let reload = status
        .last_reload
        .as_ref()
        .and_then(|reload| reload.error.as_ref())
        .map(|error| format!("last reload failed: {error}"));
    let notes: Vec<String> = drains.into_iter().chain(reload).collect();
    notes.join("; ")
}

/// How many instances there are of each state and version: `3 instances: 2 ready, 1
/// unknown; version 0.1.0`.
fn summary(instances: &[Instance]) -> String {
    let mut states = BTreeMap::<&str, usize>::new();
    let mut versions = BTreeMap::<&str, usize>::new();
    for instance in instances {
        let state = match &instance.said {
            Ok((status, _)) => {
                *versions.entry(&status.version).or_default() += 1;
                readiness::word(status)
            }
            Err(_) => "unknown",
        };
        *states.entry(state).or_default() += 1;
    }
    let count = match instances.len() {
        1 => "1 instance".to_owned(),
        number => format!("{number} instances"),
    };
    let states: Vec<String> = states
        .iter()
        .map(|(state, number)| format!("{number} {state}"))
        .collect();
    let versions = match versions.len() {
        0 => String::new(),
        1 => format!("; version {}", versions.keys().copied().collect::<String>()),
        _ => {
            let each = versions.iter();
            let each: Vec<_> = each
                .map(|(it, number)| format!("{it} ({number})"))
                .collect();
            format!("; versions mixed: {}", each.join(", "))
        }
    };
    crate::sanitize::one_line(&format!("{count}: {}{versions}", states.join(", "))).into_owned()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::Value;

    use super::*;
    use crate::cli::fleet::Trouble;
    use crate::control::fake;

    fn instance(name: &str, version: &str, ready: u32) -> Instance {
        let mut status = fake::status(2, ready);
        status.ready = ready == 2;
        status.version = version.to_owned();
        Instance {
            name: name.to_owned(),
            said: Ok((status, Value::Null)),
        }
    }

    #[test]
    fn everybody_has_a_row_also_who_does_not_answer() {
        let silent = Instance {
            name: "10.0.0.9:9919".to_owned(),
            said: Err(Trouble::Silent(Duration::from_secs(10))),
        };
        let all = [
            instance("10.0.0.7:9919", "0.1.0", 2),
            instance("10.0.0.8:9919", "0.2.0\x1b[31m", 1),
            silent,
        ];
        let shown = fleet(&all, false);
        let lines: Vec<&str> = shown.lines().collect();
        assert!(
            lines[1].starts_with("10.0.0.7:9919  ready      0.1.0"),
            "{shown}"
        );
        assert!(lines[2].starts_with("10.0.0.8:9919  not ready"), "{shown}");
        assert!(lines[3].ends_with("no answer within 10s"), "{shown}");
        let summary = lines.last().unwrap();
        assert!(
            summary.starts_with(
                "3 instances: 1 not ready, 1 ready, 1 unknown; versions mixed: 0.1.0 (1), 0.2.0"
            ),
            "{summary}"
        );
        assert!(!shown.contains('\x1b'));
    }
}
