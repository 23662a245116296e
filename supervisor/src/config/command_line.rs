//! A configuration from the command line alone: one pool, or two where a program is
//! behind a front.

use std::net::SocketAddr;

use super::adapter::{self, SocketKind};
use super::checked::{Address, Config, Listen, Pool, Program};
use super::error::{ConfigError, Fault, Problems};
use super::host::Host;
use super::requests::Requests;
use super::steps::Steps;
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

/// The name of the pool behind the front, where the program binds a socket of its own.
const BEHIND: &str = "app";

/// The pool `web` as the flags describe it; without any, the embedded default.
pub(super) fn config(options: &Options, host: &Host) -> Result<Config, ConfigError> {
    let mut web = defaults::pool("web", host.cpus);
    if let Some(text) = &options.workers {
        web.policy.workers =
            pool::workers(text, host.cpus).map_err(|fault| fault.of_flag("--workers"))?;
    }
    let adapter = adapter::of_command_line(&options.program);
    web.adapter = adapter.map_err(|fault| fault.of_flag("-- PROGRAM"))?;
    if let Some((name, args)) = options.program.split_first() {
        let path = program::find(name, host).map_err(|fault| fault.of_flag("-- PROGRAM"))?;
        let args = args.to_vec();
        web.program = Program::Command { path, args };
    }
    let mut behind = take_behind(&mut web, host);
    if options.root.is_some() && web.program != Program::Bundled {
        return Err(ConfigError::Usage(
            "--root is for the bundled web server and cannot go with -- PROGRAM".to_owned(),
        ));
    }
    if let Some(root) = &options.root {
        let root = web::root(root.as_os_str(), host).map_err(|fault| fault.of_flag("--root"))?;
        web.app["root"] = root.into();
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
        metrics: defaults::metrics(behind.iter().chain([&web])),
        max_series: defaults::MAX_SERIES,
        requests: Requests::default(),
        steps: Steps::default(),
        pools: std::iter::once(web).chain(behind.take()).collect(),
        source: source.to_owned(),
    })
}

/// Where the program binds a socket of its own: makes the pool a front, and gives the
/// program's pool, which has the workers that were asked for.
fn take_behind(web: &mut Pool, host: &Host) -> Option<Pool> {
    let adapter = web.adapter.as_ref()?;
    if adapter.socket == SocketKind::Listeners {
        return None;
    }
    let mut front = defaults::pool(&web.policy.name, host.cpus);
    front.app = serde_json::json!({ "forward": BEHIND });
    let mut behind = std::mem::replace(web, front);
    behind.policy.name = BEHIND.to_owned();
    Some(behind)
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
