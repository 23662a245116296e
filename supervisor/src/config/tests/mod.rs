//! Text in, values or messages out.

mod differences;
mod execution;
mod forward;
mod messages;
mod proxies;
mod sources;
mod tls;
mod values;

use super::*;

/// A machine that is the same everywhere: four processors, and root.
fn host() -> Host {
    Host {
        directory: PathBuf::from("/"),
        search_path: "/usr/bin:/bin".into(),
        cpus: 4,
        root: true,
        capabilities: u64::MAX,
        cpu_list: vec![0, 1, 2, 3],
        least_nice: -20,
        most_descriptors: 1 << 20,
        runtime_dir: PathBuf::from("/run/prefork"),
        runtime_dir_flag: None,
        admin_flag: None,
    }
}

pub(super) fn valid(text: &str) -> Config {
    match parse(text, "prefork.toml", &host()) {
        Ok(config) => config,
        Err(error) => panic!("not valid:\n{error}"),
    }
}

fn problems(text: &str) -> Vec<Problem> {
    match parse(text, "prefork.toml", &host()) {
        Err(ConfigError::Invalid { problems, .. }) => problems,
        other => panic!("expected problems, found {other:?}"),
    }
}

/// What an operator reads.
fn message(text: &str) -> String {
    match parse(text, "prefork.toml", &host()) {
        Err(error @ ConfigError::Invalid { .. }) => error.to_string(),
        other => panic!("expected problems, found {other:?}"),
    }
}
