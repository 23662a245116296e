//! Every setting of a configuration, and where its value comes from: what
//! `prefork check --all` shows.

use std::ffi::OsString;
use std::fmt;

use serde::Serialize;

use super::checked::{Address, Config, Listen, Mode, Pool, Program};
use super::host::variable_of_runtime_dir;
use super::places::Places;
use super::{Options, defaults, diff, summary, tls, units};

/// What stands in the place of a value that may be a secret.
const NOT_SHOWN: &str = "(not shown)";

/// One setting.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct InForce {
    /// As it is found in the file: `pool.web.http.max_uri_size`.
    pub setting: String,
    /// As it would be written.
    pub value: String,
    /// Where it comes from.
    #[serde(flatten)]
    pub origin: Origin,
}

/// Where the value of a setting comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "from", rename_all = "snake_case")]
pub enum Origin {
    /// Nobody has said anything.
    Default,
    /// The configuration file says it.
    File {
        /// The file, as messages name it.
        file: String,
        /// Its line, from 1.
        line: usize,
    },
    /// A flag of the command line says it.
    Flag {
        /// The flag.
        name: &'static str,
    },
    /// A variable of the environment says it.
    Environment {
        /// The variable.
        name: &'static str,
    },
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { file, line } => write!(f, "{file}:{line}"),
            Self::Flag { name } => f.write_str(name),
            Self::Environment { name } => write!(f, "${name}"),
        }
    }
}

/// Every setting of `config`, which was read from `text` as the command line says.
/// `variable` reads the environment. Values of `env` and `app` are left out, since they
/// may be secrets.
pub(super) fn settings(
    config: &Config,
    text: &str,
    options: &Options,
    variable: impl Fn(&str) -> Option<OsString>,
) -> Vec<InForce> {
    let mut list = List {
        settings: Vec::new(),
        places: Places::of(text),
        file: &config.source,
    };
    of_supervisor(&mut list, config, options, variable);
    list.add("metrics.detail", config.metrics.as_str());
    list.add("metrics.max_series", config.max_series);
    list.add("requests.table", config.requests.table);
    list.add("requests.query", config.requests.query);
    for (key, value) in config.steps.settings() {
        list.add(&format!("reload.{key}"), value);
    }
    for pool in &config.pools {
        of_pool(&mut list, pool, options);
    }
    list.settings
}

/// The settings so far, and what is known of where they stand.
struct List<'a> {
    settings: Vec<InForce>,
    places: Places,
    file: &'a str,
}

impl List<'_> {
    /// A setting of the file, or the default.
    fn add(&mut self, setting: &str, value: impl ToString) {
        let origin = self.origin(setting);
        self.add_from(setting, value, origin.unwrap_or(Origin::Default));
    }

    fn add_from(&mut self, setting: &str, value: impl ToString, origin: Origin) {
        self.settings.push(InForce {
            setting: setting.to_owned(),
            value: value.to_string(),
            origin,
        });
    }

    /// The place in the file, if it is there.
    fn origin(&self, setting: &str) -> Option<Origin> {
        let line = self.places.line(setting)?;
        let file = self.file.to_owned();
        Some(Origin::File { file, line })
    }
}

/// The flag, where it was given.
fn flag(name: &'static str, is_given: bool) -> Option<Origin> {
    is_given.then_some(Origin::Flag { name })
}

fn of_supervisor(
    list: &mut List<'_>,
    config: &Config,
    options: &Options,
    variable: impl Fn(&str) -> Option<OsString>,
) {
    let environment = |name| Origin::Environment { name };
    for (key, mut value) in diff::supervisor_keys(&config.supervisor) {
        let setting = format!("supervisor.{key}");
        let in_file = list.origin(&setting);
        let origin = match key {
            "runtime_dir" => match &options.runtime_dir {
                // A flag and its variable are one value by now.
                Some(path) if variable("PREFORK_RUNTIME_DIR").as_deref() == Some(path.as_ref()) => {
                    Some(environment("PREFORK_RUNTIME_DIR"))
                }
                Some(_) => flag("--runtime-dir", true),
                None => in_file.or(variable_of_runtime_dir(&variable).map(environment)),
            },
            "admin" => flag("--admin", options.admin.is_some()).or(in_file),
            "log_level" if in_file.is_none() => {
                let said = variable("RUST_LOG").filter(|it| !it.is_empty());
                said.map(|said| {
                    value = said.to_string_lossy().into_owned();
                    environment("RUST_LOG")
                })
            }
            _ => in_file,
        };
        list.add_from(&setting, value, origin.unwrap_or(Origin::Default));
    }
}

fn of_pool(list: &mut List<'_>, pool: &Pool, options: &Options) {
    let table = format!("pool.{}", pool.policy.name);
    let key = |key: &str| format!("{table}.{key}");
    // Where a program is behind a front, the flags are about one of the two.
    let has_program = pool.program != Program::Bundled;
    let is_theirs = has_program || options.program.is_empty();
    let of_command_line = [
        (
            "workers",
            pool.policy.workers.to_string(),
            flag("--workers", options.workers.is_some() && is_theirs),
        ),
        (
            "program",
            summary::words(pool).join(" "),
            flag("-- PROGRAM", is_theirs && !options.program.is_empty()),
        ),
    ];
    for (name, value, origin) in of_command_line {
        let setting = key(name);
        let origin = origin.or_else(|| list.origin(&setting));
        list.add_from(&setting, value, origin.unwrap_or(Origin::Default));
    }
    for (index, listen) in pool.listen.iter().enumerate() {
        of_listener(list, &key(&format!("listen[{index}]")), listen, options);
    }
    for name in pool.env.keys() {
        list.add(&key(&format!("env.{name}")), NOT_SHOWN);
    }
    for (name, value) in summary::settings(pool) {
        if name != "env" {
            list.add(&key(name), value);
        }
    }
    for name in pool.app.as_object().into_iter().flat_map(|app| app.keys()) {
        let setting = key(&format!("app.{name}"));
        let origin = flag("--root", name == "root" && options.root.is_some());
        let origin = origin.or_else(|| list.origin(&setting));
        list.add_from(&setting, NOT_SHOWN, origin.unwrap_or(Origin::Default));
    }
}

/// A listener's address, and the options that one of its kind can have.
fn of_listener(list: &mut List<'_>, setting: &str, listen: &Listen, options: &Options) {
    let key = |key: &str| format!("{setting}.{key}");
    let origin = flag("--listen", !options.listen.is_empty())
        .or_else(|| list.origin(&key("address")))
        // A text alone is the address.
        .or_else(|| list.origin(setting));
    let origin = origin.unwrap_or(Origin::Default);
    list.add_from(&key("address"), &listen.name, origin);
    if !matches!(listen.address, Address::Systemd(_)) {
        list.add(&key("backlog"), listen.backlog);
    }
    match &listen.address {
        Address::Tcp(address) => {
            list.add(&key("mode"), Mode::as_str(listen.mode));
            if address.is_ipv6() && address.ip().is_unspecified() {
                list.add(&key("ipv6_only"), listen.ipv6_only);
            }
        }
        Address::Unix(_) => {
            let bits = listen.permissions.unwrap_or(defaults::SOCKET_PERMISSIONS);
            list.add(&key("permissions"), units::show_permissions(bits));
            let group = listen.group.as_ref().map(|group| group.name.as_str());
            list.add(&key("group"), group.unwrap_or("the supervisor's"));
        }
        Address::Systemd(_) => {}
    }
    list.add(&key("proxy_protocol"), listen.proxy_protocol);
    list.add(&key("tls"), tls::show(listen.tls.as_ref()));
}

#[cfg(test)]
mod tests {
    use super::super::tests::valid;
    use super::*;

    /// Nothing of it is a default.
    const EVERYWHERE: &str = r#"
[supervisor]
runtime_dir = "/run/shop"
control_mode = "0600"
log_level = "warn"
[metrics]
detail = "pool"
[requests]
table = 8
[reload]
timeout = "5s"
[pool.web]
workers = 3
program = ["/bin/sh"]
listen = [
    "127.0.0.1:8080",
    { address = "unix:/run/a.sock",
      backlog = 12 },
]
drain_timeout = "90s"
max_rss = "1G"
check = { path = "/healthz" }
canary.duration = "5s"
env = { TOKEN = "of nobody's business" }
[pool.web.http]
max_uri_size = "1K"
[pool.web.app]
greeting = "nobody's business either"
"#;

    fn of(
        config: &Config,
        text: &str,
        options: &Options,
        variables: &[(&str, &str)],
    ) -> Vec<String> {
        let variable = |name: &str| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| OsString::from(value))
        };
        let settings = settings(config, text, options, variable);
        let settings = settings.iter();
        let line = |it: &InForce| format!("{} = {} from {}", it.setting, it.value, it.origin);
        settings.map(line).collect()
    }

    #[test]
    fn every_line_of_a_file_is_where_a_setting_comes_from() {
        let shown = of(&valid(EVERYWHERE), EVERYWHERE, &Options::default(), &[]);
        for (index, line) in EVERYWHERE.lines().enumerate() {
            let is_setting = line.contains(['=', '"']) && !line.ends_with('[');
            let origin = format!(" from prefork.toml:{}", index + 1);
            let found = shown.iter().any(|it| it.ends_with(&origin));
            assert_eq!(found, is_setting, "{line}\n{shown:#?}");
        }
        for line in [
            "supervisor.runtime_dir = /run/shop from prefork.toml:3",
            "supervisor.strict_boot = false from default",
            "pool.web.listen[0].address = 127.0.0.1:8080 from prefork.toml:16",
            "pool.web.listen[0].backlog = 4096 from default",
            "pool.web.listen[1].backlog = 12 from prefork.toml:18",
            "pool.web.listen[1].permissions = 0666 from default",
            "pool.web.http.max_uri_size = 1KiB from prefork.toml:26",
            "pool.web.kill_timeout = 5s from default",
        ] {
            assert!(shown.iter().any(|it| it == line), "{line}: {shown:#?}");
        }
        assert!(!shown.iter().any(|it| it.contains("business")), "{shown:?}");
    }

    #[test]
    fn flags_and_variables_are_named() {
        let options = Options {
            runtime_dir: Some("/run/shop".into()),
            listen: vec!["127.0.0.1:0".to_owned()],
            admin: Some(String::new()),
            ..Options::default()
        };
        let config = valid("[pool.web]\nlisten = [\"127.0.0.1:0\"]");
        let has = |shown: &[String], wanted: &str| {
            assert!(
                shown.iter().any(|it| it.ends_with(wanted)),
                "{wanted}: {shown:#?}"
            );
        };
        let shown = of(&config, "", &options, &[("RUST_LOG", "debug")]);
        has(&shown, "from --listen");
        has(&shown, "from --admin");
        has(&shown, "from --runtime-dir");
        has(&shown, "log_level = debug from $RUST_LOG");
        let shown = of(
            &config,
            "",
            &options,
            &[("PREFORK_RUNTIME_DIR", "/run/shop")],
        );
        has(&shown, "from $PREFORK_RUNTIME_DIR");
        let systemd = [("RUNTIME_DIRECTORY", "/run/shop")];
        has(
            &of(&config, "", &Options::default(), &systemd),
            "from $RUNTIME_DIRECTORY",
        );
    }
}
