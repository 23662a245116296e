//! What a reload would change: the difference between two configurations.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use prefork_fleet::Fate;
use serde_json::Value;

use super::change::{Change, LOG_LEVEL};
use super::checked::{Config, Listen, Pool, RunAs, Supervisor};
use super::{summary, units};

/// Everything that a reload from one configuration to another would change, in
/// the order of the new one's pools, pools that go last. To account for a pool
/// that has been scaled, give it its present number of workers in `old`.
pub fn diff(old: &Config, new: &Config) -> Vec<Change> {
    let mut changes = of_supervisor(&old.supervisor, &new.supervisor);
    if old.metrics != new.metrics {
        changes.push(Change::Metrics {
            from: old.metrics,
            to: new.metrics,
        });
    }
    if old.max_series != new.max_series {
        changes.push(Change::MaxSeries {
            from: old.max_series,
            to: new.max_series,
        });
    }
    if old.requests != new.requests {
        changes.push(Change::Requests {
            from: old.requests,
            to: new.requests,
        });
    }
    if old.steps != new.steps {
        changes.push(Change::Steps {
            from: Box::new(old.steps.clone()),
            to: Box::new(new.steps.clone()),
        });
    }
    for pool in &new.pools {
        let before = old.pool(&pool.policy.name);
        changes.extend(match before {
            Some(before) => settings(before, pool),
            None => vec![Change::PoolAdded { pool: name(pool) }],
        });
        changes.extend(listeners_to_be(old, pool));
        changes.extend(
            before
                .into_iter()
                .flat_map(|pool| listeners_lost(pool, new)),
        );
        changes.push(workers(before, Some(pool)));
    }
    let removed = |pool: &&Pool| new.pool(&pool.policy.name).is_none();
    for pool in old.pools.iter().filter(removed) {
        changes.push(Change::PoolRemoved { pool: name(pool) });
        changes.extend(listeners_lost(pool, new));
        changes.push(workers(Some(pool), None));
    }
    changes
}

/// What of a pool's settings is another, where workers that can do so may take
/// all of it without being replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InPlace {
    /// `app`.
    pub app: bool,
    /// `tls` of listeners that speak TLS before and after.
    pub tls: bool,
}

/// What workers that can do so may take in place; `None` where they have to be
/// replaced, as they have where nothing is another. What lies on the disk in the
/// program's place is for the caller to compare.
pub fn taken_in_place(old: &Pool, new: &Pool) -> Option<InPlace> {
    let mut listen = old.listen.clone();
    for (ours, theirs) in listen.iter_mut().zip(&new.listen) {
        // A worker that is first asked to ask clients for certificates may not be able to.
        if let (Some(old), Some(new)) = (&ours.tls, &theirs.tls)
            && (old.asks_clients() || !new.asks_clients())
        {
            ours.tls.clone_from(&theirs.tls);
        }
    }
    let taken = InPlace {
        app: old.app != new.app,
        tls: old.listen != listen,
    };
    // Only a new worker is asked whether it does well with the new settings.
    let is_to_be_checked = taken.app && new.check.is_some();
    let with_new = Pool {
        app: new.app.clone(),
        listen,
        ..old.clone()
    };
    ((taken.app || taken.tls) && !is_to_be_checked && with_new == *new).then_some(taken)
}

/// Whether a worker of the one would be the same as a worker of the other, as far as the
/// settings say: nothing else differs than how many there are, how many it takes, and how
/// those after them are judged.
pub fn would_be_same(old: &Pool, new: &Pool) -> bool {
    let mut as_many = new.clone();
    as_many.policy.workers = old.policy.workers;
    as_many.policy.ready = old.policy.ready;
    as_many.canary.clone_from(&old.canary);
    as_many == *old
}

fn name(pool: &Pool) -> String {
    pool.policy.name.clone()
}

fn of_supervisor(old: &Supervisor, new: &Supervisor) -> Vec<Change> {
    let before = supervisor_keys(old);
    let pairs = before.into_iter().zip(supervisor_keys(new));
    let changed = pairs.filter(|((_, from), (_, to))| from != to);
    changed
        .map(|((key, from), (_, to))| Change::Supervisor { key, from, to })
        .collect()
}

/// Every key of `[supervisor]`, as it would be written.
pub(super) fn supervisor_keys(supervisor: &Supervisor) -> [(&'static str, String); 11] {
    // Taken apart in full, so that a new key does not go unnoticed.
    let Supervisor {
        runtime_dir,
        control_mode,
        admin,
        admin_ipv6_only,
        log,
        admin_hosts,
        log_format,
        log_level,
        orphan_timeout,
        stop_delay,
        strict_boot,
    } = supervisor;
    let show = |path: &PathBuf| path.display().to_string();
    let none = || "none".to_owned();
    [
        ("runtime_dir", show(runtime_dir)),
        ("control_mode", units::show_control_mode(*control_mode)),
        ("admin", admin.map_or_else(none, |admin| admin.to_string())),
        ("admin_hosts", admin_hosts.join(", ")),
        ("admin_ipv6_only", admin_ipv6_only.to_string()),
        ("log", log.as_ref().map_or("stderr".to_owned(), show)),
        (
            "log_format",
            log_format.map_or("unset".to_owned(), |it| it.as_str().to_owned()),
        ),
        (LOG_LEVEL, log_level.clone().unwrap_or("unset".to_owned())),
        ("orphan_timeout", units::show_duration(*orphan_timeout)),
        ("stop_delay", units::show_duration(*stop_delay)),
        ("strict_boot", strict_boot.to_string()),
    ]
}

fn settings(old: &Pool, new: &Pool) -> Vec<Change> {
    let pool = name(new);
    let setting = |key, from, to| Change::Setting {
        pool: pool.clone(),
        key,
        from,
        to,
    };
    let mut changes = Vec::new();
    if old.program != new.program {
        let [from, to] = [old, new].map(|pool| summary::words(pool).join(" "));
        changes.push(setting("program", from, to));
    }
    let [before, after] = [old, new].map(summary::settings);
    for ((key, from), (_, to)) in before.into_iter().zip(after) {
        // The keys of `env` alone do not tell whether it is the same.
        if from != to && key != "env" {
            changes.push(setting(key, from, to));
        }
    }
    // Beside its name and numbers, which are settings.
    let rest = |run_as: &RunAs| {
        let ids: Vec<String> = run_as.groups.iter().map(u32::to_string).collect();
        let path = |path: &Option<PathBuf>| {
            let path = path.as_ref().map(|path| path.display().to_string());
            path.unwrap_or_else(|| "unknown".to_owned())
        };
        let (home, shell) = (path(&run_as.home), path(&run_as.shell));
        format!("groups {}, home {home}, shell {shell}", ids.join(" "))
    };
    if let (Some(old), Some(new)) = (&old.run_as, &new.run_as) {
        let (old, new) = (rest(old), rest(new));
        if old != new {
            changes.push(setting("user", old, new));
        }
    }
    let env = changed_keys(&old.env, &new.env);
    let app = changed_keys(&top_level(&old.app), &top_level(&new.app));
    for (table, keys) in [("env", env), ("app", app)] {
        if !keys.is_empty() {
            changes.push(Change::Entries {
                pool: pool.clone(),
                table,
                keys,
            });
        }
    }
    changes
}

/// The settings of the application by key; they are always an object.
fn top_level(app: &Value) -> BTreeMap<String, &Value> {
    let entries = app.as_object().into_iter().flatten();
    entries.map(|(key, value)| (key.clone(), value)).collect()
}

/// The keys that only one of the two has, or whose values differ.
fn changed_keys<V: PartialEq>(old: &BTreeMap<String, V>, new: &BTreeMap<String, V>) -> Vec<String> {
    let keys: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    let differs = |key: &&&String| old.get(**key) != new.get(**key);
    keys.iter().filter(differs).copied().cloned().collect()
}

fn listeners_to_be(old: &Config, pool: &Pool) -> Vec<Change> {
    let mut changes = Vec::new();
    for listen in &pool.listen {
        match old.listener(&listen.address) {
            None => changes.push(Change::ListenerAdded {
                pool: name(pool),
                listen: listen.clone(),
            }),
            Some((owner, before)) => {
                let pools = [name(owner), name(pool)];
                if pools[0] != pools[1] || before != listen {
                    changes.push(Change::ListenerChanged {
                        pools,
                        from: before.clone(),
                        to: listen.clone(),
                    });
                }
            }
        }
    }
    changes
}

fn listeners_lost(pool: &Pool, new: &Config) -> Vec<Change> {
    let lost = |listen: &&Listen| new.listener(&listen.address).is_none();
    let lost = pool.listen.iter().filter(lost);
    lost.map(|listen| Change::ListenerRemoved {
        pool: name(pool),
        listen: listen.clone(),
    })
    .collect()
}

/// What becomes of a pool's workers, as far as the settings say.
fn fate((old, new): (&Pool, &Pool)) -> Fate {
    if would_be_same(old, new) {
        Fate::Kept
    } else if taken_in_place(old, new).is_some() {
        Fate::InPlace
    } else {
        Fate::Replaced
    }
}

/// At least one of the two is there.
fn workers(old: Option<&Pool>, new: Option<&Pool>) -> Change {
    let count = |pool: Option<&Pool>| pool.map_or(0, |pool| pool.policy.workers);
    let [before, after] = [old, new].map(count);
    Change::Workers {
        pool: new.or(old).map(name).unwrap_or_default(),
        kept: before.min(after),
        fate: old.zip(new).map_or(Fate::Replaced, fate),
        why: None,
        canary: None,
        started: after.saturating_sub(before),
        drained: before.saturating_sub(after),
    }
}
