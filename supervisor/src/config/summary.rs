//! A checked configuration for people and for programs: what `prefork check` shows.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::checked::{Address, Config, Listen, Mode, Pool, Program, Tls};
use super::{AccessLog, Adapter, Check, canary, defaults, http, tls, units};

/// What a configuration comes to, in lines for people: every pool's workers,
/// program and listeners, and each setting that is not its default. Values of
/// `env` and `app` are left out, since they may be secrets.
pub fn render_checked(config: &Config) -> String {
    let supervisor = &config.supervisor;
    let mut lines = vec![format!("{}: valid", config.source), "supervisor".to_owned()];
    let mut row = |name: &str, value: &str| lines.push(format!("  {name:<20} {value}"));
    row("runtime_dir", &supervisor.runtime_dir.to_string_lossy());
    row(
        "control_mode",
        &units::show_control_mode(supervisor.control_mode),
    );
    let admin = supervisor.admin.map(|admin| admin.to_string());
    row("admin", admin.as_deref().unwrap_or("none"));
    if !supervisor.admin_hosts.is_empty() {
        row("admin_hosts", &supervisor.admin_hosts.join(", "));
    }
    if let Some(log) = &supervisor.log {
        row("log", &log.to_string_lossy());
    }
    if let Some(format) = supervisor.log_format {
        row("log_format", format.as_str());
    }
    if let Some(level) = &supervisor.log_level {
        row("log_level", level);
    }
    if supervisor.orphan_timeout != defaults::orphan_timeout() {
        let timeout = units::show_duration(supervisor.orphan_timeout);
        row("orphan_timeout", &timeout);
    }
    if !supervisor.stop_delay.is_zero() {
        row("stop_delay", &units::show_duration(supervisor.stop_delay));
    }
    if supervisor.strict_boot {
        row("strict_boot", "true");
    }
    lines.push("metrics".to_owned());
    lines.push(format!("  {:<20} {}", "detail", config.metrics.as_str()));
    if config.max_series != defaults::MAX_SERIES {
        lines.push(format!("  {:<20} {}", "max_series", config.max_series));
    }
    if !config.requests.is_default() {
        lines.push("requests".to_owned());
        lines.push(format!("  {:<20} {}", "table", config.requests.table));
        lines.push(format!("  {:<20} {}", "query", config.requests.query));
    }
    if !config.steps.is_default() {
        lines.push("reload".to_owned());
        for (key, value) in config.steps.settings() {
            lines.push(format!("  {key:<20} {value}"));
        }
    }
    for pool in &config.pools {
        lines.push(format!("pool {}", pool.policy.name));
        let mut row = |name: &str, value: &str| lines.push(format!("  {name:<20} {value}"));
        row("workers", &pool.policy.workers.to_string());
        row("program", &words(pool).join(" "));
        for listen in &pool.listen {
            row("listen", &show_listen(listen));
            if let Some(tls) = &listen.tls {
                row("  tls", &tls::show(Some(tls)));
            }
        }
        for (name, value) in unusual(pool) {
            row(name, &value);
        }
    }
    lines.push(String::new());
    lines.join("\n")
}

/// The same as JSON; the shape only ever grows.
pub fn checked_json(config: &Config) -> Value {
    let supervisor = &config.supervisor;
    let pool = |pool: &Pool| {
        let listen = pool.listen.iter().map(|listen| {
            json!({
                "name": listen.name,
                "address": address(&listen.address),
                "mode": listen.mode.as_str(),
                "backlog": listen.backlog,
                "permissions": listen.permissions.map(units::show_permissions),
                "group": listen.group.as_ref().map(|group| &group.name),
                "ipv6_only": listen.ipv6_only,
                "proxy_protocol": listen.proxy_protocol,
                "tls": listen.tls.as_ref().map(tls_json),
            })
        });
        json!({
            "name": pool.policy.name,
            "workers": pool.policy.workers,
            "program": words(pool),
            "listeners": listen.collect::<Vec<_>>(),
            "settings": settings(pool).into_iter().collect::<BTreeMap<_, _>>(),
        })
    };
    json!({
        "schema": prefork_api::SCHEMA,
        "source": config.source,
        "runtime_dir": supervisor.runtime_dir.to_string_lossy(),
        "control_mode": units::show_control_mode(supervisor.control_mode),
        "admin": supervisor.admin.map(|admin| admin.to_string()),
        "admin_hosts": supervisor.admin_hosts,
        "log": supervisor.log.as_ref().map(|log| log.to_string_lossy()),
        "log_format": supervisor.log_format,
        "log_level": supervisor.log_level,
        "orphan_timeout": units::show_duration(supervisor.orphan_timeout),
        "stop_delay": units::show_duration(supervisor.stop_delay),
        "strict_boot": supervisor.strict_boot,
        "metrics": {
            "detail": config.metrics.as_str(),
            "max_series": config.max_series,
        },
        "requests": {
            "table": config.requests.table,
            "query": config.requests.query,
        },
        "reload": {
            "before": config.steps.before,
            "after": config.steps.after,
            "timeout": units::show_duration(config.steps.timeout),
            "user": config.steps.run_as.as_ref().map(|run_as| &run_as.user),
        },
        "pools": config.pools.iter().map(pool).collect::<Vec<_>>(),
    })
}

fn tls_json(tls: &Tls) -> Value {
    let certificates = tls.certificates.iter().map(|certificate| {
        json!({
            "cert": certificate.cert.to_string_lossy(),
            "key": certificate.key.to_string_lossy(),
            "names": certificate.names,
            "fingerprint": certificate.fingerprint,
            "not_before": certificate.not_before,
            "not_after": certificate.not_after,
        })
    });
    json!({
        "min_version": tls.min_version.as_str(),
        "certificates": certificates.collect::<Vec<_>>(),
        "clients": tls.clients.as_ref().map(|clients| json!({
            "ca": clients.file.to_string_lossy(),
            "auth": clients.asked(),
            "authorities": clients.count,
            "fingerprint": clients.fingerprint(),
        })),
    })
}

pub(super) fn words(pool: &Pool) -> Vec<String> {
    match &pool.program {
        Program::Command { path, args } => {
            let path = path.to_string_lossy().into_owned();
            std::iter::once(path).chain(args.iter().cloned()).collect()
        }
        Program::Bundled => match pool.app.get("root").and_then(Value::as_str) {
            Some(root) => vec![format!("(bundled web server, serves {root})")],
            None => vec!["(bundled web server)".to_owned()],
        },
    }
}

fn show_listen(listen: &Listen) -> String {
    let mut text = listen.name.clone();
    if listen.mode != Mode::Shared {
        text.push_str(&format!(", mode {}", listen.mode.as_str()));
    }
    if listen.backlog != defaults::BACKLOG {
        text.push_str(&format!(", backlog {}", listen.backlog));
    }
    if let Some(bits) = listen.permissions {
        text.push_str(&format!(", permissions {}", units::show_permissions(bits)));
    }
    if let Some(group) = &listen.group {
        text.push_str(&format!(", group {}", group.name));
    }
    text
}

fn address(address: &Address) -> String {
    match address {
        Address::Tcp(address) => address.to_string(),
        Address::Unix(path) => format!("unix:{}", path.display()),
        Address::Systemd(name) => format!("systemd:{name}"),
    }
}

/// The settings that differ from their defaults.
fn unusual(pool: &Pool) -> Vec<(&'static str, String)> {
    let defaults = settings(&defaults::pool(&pool.policy.name, pool.policy.workers));
    let pairs = settings(pool).into_iter().zip(defaults);
    pairs
        .filter(|(ours, default)| ours != default)
        .map(|(ours, _)| ours)
        .collect()
}

/// Every setting that has a default, as it would be written.
pub(super) fn settings(pool: &Pool) -> Vec<(&'static str, String)> {
    let policy = &pool.policy;
    let time = units::show_duration;
    let none = || "none".to_owned();
    let mut settings = vec![
        (
            "env",
            pool.env.keys().cloned().collect::<Vec<_>>().join(" "),
        ),
        (
            "user",
            pool.run_as.as_ref().map_or_else(none, |run_as| {
                format!("{} ({}:{})", run_as.user, run_as.uid, run_as.gid)
            }),
        ),
    ];
    settings.extend(pool.execution.settings());
    let access_log = pool.access_log.as_ref();
    settings.push(("access_log", access_log.map_or_else(none, AccessLog::show)));
    let check = pool.check.as_ref();
    settings.push(("check", check.map_or_else(none, Check::show)));
    let canary = pool.canary.as_ref();
    settings.push(("canary", canary.map_or_else(none, canary::show)));
    settings.extend([
        ("boot_timeout", time(policy.boot_timeout)),
        ("heartbeat_interval", time(pool.heartbeat_interval)),
        ("heartbeat_timeout", time(policy.heartbeat_timeout)),
        ("drain_timeout", time(policy.drain_timeout)),
        ("idle_grace", time(pool.idle_grace)),
        ("kill_timeout", time(policy.kill_timeout)),
        ("backoff_initial", time(policy.backoff_initial)),
        ("backoff_max", time(policy.backoff_max)),
        ("backoff_reset", time(policy.backoff_reset)),
        ("max_requests", policy.max_requests.to_string()),
        (
            "max_requests_jitter",
            units::show_percentage(policy.max_requests_jitter),
        ),
        (
            "max_rss",
            policy.max_rss.map_or_else(none, units::show_size),
        ),
        ("max_age", policy.max_age.map_or_else(none, time)),
        ("min_ready", time(policy.min_ready)),
        ("max_surge", policy.max_surge.to_string()),
        ("dump_on_hang", policy.dump_on_hang.to_string()),
        ("ready", policy.ready.to_string()),
    ]);
    settings.extend(Adapter::settings(pool.adapter.as_ref()));
    settings.extend(http::settings(&pool.http));
    settings
}
