//! One change that a reload would make, in words.

use std::fmt;

use prefork_fleet::{Canary, Fate};

use super::checked::{Detail, Listen};
use super::requests::Requests;
use super::steps::Steps;
use super::{canary, tls, units};

/// The one key of `[supervisor]` that a reload takes.
pub(super) const LOG_LEVEL: &str = "log_level";

/// One thing that differs between the configuration in force and another. Its
/// `Display` is a sentence for people; values of `env` and `app` are left out
/// of it, since they may be secrets.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// A key of `[supervisor]`. A reload cannot take it, unless it is `log_level`.
    Supervisor {
        /// The key.
        key: &'static str,
        /// The value in force.
        from: String,
        /// The value that takes a new supervisor.
        to: String,
    },
    /// The metrics of workers come in other series.
    Metrics {
        /// How they are told apart.
        from: Detail,
        /// How they are to be.
        to: Detail,
    },
    /// A pool may have another number of samples of its application's own.
    MaxSeries {
        /// How many they may be.
        from: u32,
        /// How many they may be then.
        to: u32,
    },
    /// Workers that start then note something else of their requests.
    Requests {
        /// What they note.
        from: Requests,
        /// What they are to note.
        to: Requests,
    },
    /// Other commands are run around a reload.
    Steps {
        /// Those that are run.
        from: Box<Steps>,
        /// Those that are to be, already with this reload.
        to: Box<Steps>,
    },
    /// A pool comes.
    PoolAdded {
        /// Its name.
        pool: String,
    },
    /// A pool goes.
    PoolRemoved {
        /// Its name.
        pool: String,
    },
    /// A key of a pool has another value.
    Setting {
        /// The pool's name.
        pool: String,
        /// The key.
        key: &'static str,
        /// The value in force.
        from: String,
        /// The new value.
        to: String,
    },
    /// Keys of a pool's `env` or `app` come, go or have another value.
    Entries {
        /// The pool's name.
        pool: String,
        /// `env` or `app`.
        table: &'static str,
        /// The keys, sorted.
        keys: Vec<String>,
    },
    /// An address that no pool was bound to.
    ListenerAdded {
        /// The pool that it is for.
        pool: String,
        /// What is to be bound.
        listen: Listen,
    },
    /// An address that no pool is to be bound to any more.
    ListenerRemoved {
        /// The pool that had it.
        pool: String,
        /// What is bound.
        listen: Listen,
    },
    /// A listener that stays at its address, with another pool or other options.
    ListenerChanged {
        /// The pool that had it and the one that it is for: often the same.
        pools: [String; 2],
        /// As it is.
        from: Listen,
        /// As it is to be.
        to: Listen,
    },
    /// What becomes of a pool's workers.
    Workers {
        /// The pool's name.
        pool: String,
        /// Slots that the pool has before and after.
        kept: u32,
        /// What becomes of the processes in those.
        fate: Fate,
        /// Why they are replaced, where the other changes do not say it.
        why: Option<String>,
        /// How the first that are replaced are judged, if they are.
        canary: Option<Canary>,
        /// Slots that the pool gains.
        started: u32,
        /// Slots that the pool loses.
        drained: u32,
    },
}

impl Change {
    /// What it is about, as a job's line has it: `setting`, `listener`, `pool`
    /// or `workers`.
    pub fn what(&self) -> &'static str {
        match self {
            Self::Supervisor { .. }
            | Self::Metrics { .. }
            | Self::MaxSeries { .. }
            | Self::Requests { .. }
            | Self::Steps { .. }
            | Self::Setting { .. }
            | Self::Entries { .. } => "setting",
            Self::PoolAdded { .. } | Self::PoolRemoved { .. } => "pool",
            Self::ListenerAdded { .. }
            | Self::ListenerRemoved { .. }
            | Self::ListenerChanged { .. } => "listener",
            Self::Workers { .. } => "workers",
        }
    }

    /// Whether it changes anything: it doesn't where it says that workers stay.
    pub fn is_news(&self) -> bool {
        !matches!(
            self,
            Self::Workers {
                fate: Fate::Kept,
                started: 0,
                drained: 0,
                ..
            }
        )
    }

    /// Whether a reload leaves it as it is, so that whoever asks for one has to
    /// be warned.
    pub fn needs_restart(&self) -> bool {
        matches!(self, Self::Supervisor { key, .. } if *key != LOG_LEVEL)
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Supervisor { key, from, to } if *key == LOG_LEVEL => {
                write!(f, "[supervisor] {key} {from} → {to}")
            }
            Self::Supervisor { key, from, to } => write!(
                f,
                "[supervisor] {key} {from} → {to}: a reload cannot take this, restart prefork for it"
            ),
            Self::Metrics { from, to } => {
                write!(f, "[metrics] detail {} → {}", from.as_str(), to.as_str())
            }
            Self::MaxSeries { from, to } => write!(f, "[metrics] max_series {from} → {to}"),
            Self::Requests { from, to } => write!(f, "[requests] {from} → {to}"),
            Self::Steps { from, to } => write!(f, "[reload] {from} → {to}"),
            Self::PoolAdded { pool } => write!(f, "pool {pool} would be added"),
            Self::PoolRemoved { pool } => write!(f, "pool {pool} would be removed"),
            Self::Setting {
                pool,
                key,
                from,
                to,
            } => write!(f, "pool {pool}: {key} {from} → {to}"),
            Self::Entries { pool, table, keys } => {
                write!(f, "pool {pool}: {table} changes: {}", keys.join(", "))
            }
            Self::ListenerAdded { listen, .. } => {
                write!(f, "listener {} would be bound", listen.name)
            }
            Self::ListenerRemoved { listen, .. } => {
                write!(f, "listener {} would be closed", listen.name)
            }
            Self::ListenerChanged { pools, from, to } => {
                let changes = listener_options(pools, from, to);
                write!(f, "listener {}: {}", from.name, changes.join(", "))
            }
            Self::Workers {
                pool,
                kept,
                fate,
                why,
                canary,
                started,
                drained,
            } => {
                let fate = match fate {
                    Fate::Kept => "stay",
                    Fate::InPlace => {
                        "take the new settings in place, or be replaced where they cannot"
                    }
                    Fate::Replaced => "be replaced",
                };
                let fates = [
                    (*kept, fate),
                    (*started, "be started"),
                    (*drained, "be drained"),
                ];
                let some = fates.iter().filter(|(count, _)| *count > 0);
                let parts: Vec<String> = some
                    .map(|(count, fate)| format!("{} would {fate}", workers_in_words(*count)))
                    .collect();
                write!(f, "pool {pool}: {}", parts.join(", "))?;
                if let Some(why) = why {
                    write!(f, ": {why}")?;
                }
                match canary {
                    Some(canary) => write!(f, "; canary: {}", canary::show(canary)),
                    None => Ok(()),
                }
            }
        }
    }
}

fn workers_in_words(count: u32) -> String {
    match count {
        1 => "1 worker".to_owned(),
        count => format!("{count} workers"),
    }
}

fn listener_options(pools: &[String; 2], from: &Listen, to: &Listen) -> Vec<String> {
    let bits = |listen: &Listen| {
        listen
            .permissions
            .map_or("unset".to_owned(), units::show_permissions)
    };
    let group = |listen: &Listen| {
        let group = listen.group.as_ref();
        group.map_or("unset".to_owned(), |group| group.name.clone())
    };
    let options = [
        ("name", from.name.clone(), to.name.clone()),
        ("pool", pools[0].clone(), pools[1].clone()),
        (
            "mode",
            from.mode.as_str().to_owned(),
            to.mode.as_str().to_owned(),
        ),
        ("backlog", from.backlog.to_string(), to.backlog.to_string()),
        ("permissions", bits(from), bits(to)),
        ("group", group(from), group(to)),
        (
            "ipv6_only",
            from.ipv6_only.to_string(),
            to.ipv6_only.to_string(),
        ),
        (
            "proxy_protocol",
            from.proxy_protocol.to_string(),
            to.proxy_protocol.to_string(),
        ),
        (
            "tls",
            tls::show(from.tls.as_ref()),
            tls::show(to.tls.as_ref()),
        ),
    ];
    let changed = options.into_iter().filter(|(_, from, to)| from != to);
    let mut changes: Vec<String> = changed
        .map(|(option, from, to)| format!("{option} {from} → {to}"))
        .collect();
    if changes.is_empty() {
        // The same certificate with another key file or chain.
        changes.push("tls: the files of its certificates are others".to_owned());
    }
    changes
}
