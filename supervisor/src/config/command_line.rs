//! A one-pool configuration from the command line alone.

use std::net::SocketAddr;

use super::checked::{Address, Config, Listen, Program};
use super::error::{ConfigError, Fault, Problems};
use super::host::Host;
use super::{Options, defaults, listen, pool, program, supervisor, web};

/// What a configuration is said to come from that is no file's.
pub(super) const EMBEDDED: &str = "embedded default";
/// The same for one that the flags describe.
pub(super) const COMMAND_LINE: &str = "command line";

impl Options {
    /// The flags among them that describe a pool and so exclude a file.
    pub(super) fn pool_flags(&self) -> Vec<&'static str> {
        let flags = [
            ("--listen", !self.listen.is_empty()),
            ("--workers", self.workers.is_some()),
            ("--root", self.root.is_some()),
            ("-- PROGRAM", !self.program.is_empty()),
        ];
        let given = flags.into_iter().filter(|(_, given)| *given);
        given.map(|(flag, _)| flag).collect()
    }
}

/// The pool `web` as the flags describe it; without any, the embedded default.
pub(super) fn config(options: &Options, host: &Host) -> Result<Config, ConfigError> {
    let mut web = defaults::pool("web", host.cpus);
    if let Some(text) = &options.workers {
        web.policy.workers =
            pool::workers(text, host.cpus).map_err(|fault| fault.of_flag("--workers"))?;
    }
    if let Some((name, args)) = options.program.split_first() {
        if options.root.is_some() {
            return Err(ConfigError::Usage(
                "--root is for the bundled web server and cannot go with -- PROGRAM".to_owned(),
            ));
        }
        let path = program::find(name, host).map_err(|fault| fault.of_flag("-- PROGRAM"))?;
        let args = args.to_vec();
        web.program = Program::Command { path, args };
    }
    if let Some(root) = &options.root {
        let root = web::root(root.as_os_str(), host).map_err(|fault| fault.of_flag("--root"))?;
        web.app = serde_json::json!({ "root": root });
    }
    for text in &options.listen {
        let listen = listen::parse(text, host).map_err(|fault| fault.of_flag("--listen"))?;
        if let Some(first) = web
            .listen
            .iter()
            .find(|first| listen::clash(first, &listen))
        {
            let fault = Fault::new(format!("{text} clashes with {}", first.name));
            return Err(fault.of_flag("--listen"));
        }
        web.listen.push(listen);
    }
    if web.listen.is_empty() {
        web.listen.push(defaults::listen());
    }
    let source = match options.pool_flags().as_slice() {
        [] => EMBEDDED,
        _ => COMMAND_LINE,
    };
    let problems = Problems::new(source, "");
    let supervisor = supervisor::read(None, host, &problems);
    check_admin(&web.listen, supervisor.admin)?;
    problems.result(Config {
        supervisor,
        metrics: defaults::metrics([&web]),
        max_series: defaults::MAX_SERIES,
        pools: vec![web],
        source: source.to_owned(),
    })
}

fn check_admin(listen: &[Listen], admin: Option<SocketAddr>) -> Result<(), ConfigError> {
    for listen in listen {
        if let (Address::Tcp(address), Some(admin)) = (&listen.address, admin)
            && listen::overlap(address, &admin)
        {
            let fault = format!("{} clashes with the admin address {admin}", listen.name);
            let help = "give another one with --admin, or \"\" for none";
            return Err(Fault::new(fault).help(help).of_flag("--listen"));
        }
    }
    Ok(())
}
