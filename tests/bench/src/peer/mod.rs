//! The servers of the field, where they are installed.

mod granian;
mod gunicorn;
mod haproxy;
pub(crate) mod nginx;
mod puma;
mod uwsgi;

use std::path::Path;
use std::process::Command;

use anyhow::Result;

use crate::server::{Blueprint, Server, Site};

/// A server of the field.
pub(crate) struct Peer {
    /// The program that has to be in `PATH`.
    pub(crate) program: &'static str,
    /// The argument that makes it say its version.
    version: &'static str,
    /// How it is started and ordered about.
    pub(crate) blueprint: Blueprint,
}

/// All that are known.
pub(crate) static ALL: [&Peer; 6] = [
    &nginx::PEER,
    &haproxy::PEER,
    &gunicorn::PEER,
    &granian::PEER,
    &puma::PEER,
    &uwsgi::PEER,
];

impl Peer {
    /// What it says of its version; `None` if it is not installed.
    pub(crate) fn installed(&self) -> Option<String> {
        let output = Command::new(self.program).arg(self.version).output().ok()?;
        let said = if output.stdout.is_empty() {
            output.stderr
        } else {
            output.stdout
        };
        let said = String::from_utf8_lossy(&said);
        Some(said.lines().next().unwrap_or_default().trim().to_owned())
    }

    fn is_missing(&self) -> String {
        format!("{}: not installed", self.blueprint.name)
    }
}

/// prefork, so served, and every peer that is installed; and a sentence for each other.
pub(crate) fn beside(
    prefork: &'static Blueprint,
) -> (impl Iterator<Item = &'static Blueprint>, Vec<String>) {
    let (installed, missing): (Vec<&Peer>, Vec<&Peer>) =
        ALL.into_iter().partition(|peer| peer.installed().is_some());
    let peers = installed.into_iter().map(|peer| &peer.blueprint);
    let missing = missing.iter().map(|peer| peer.is_missing());
    ([prefork].into_iter().chain(peers), missing.collect())
}

/// Every peer that is installed and serves, and a sentence for each other.
pub(crate) fn start_all(prefork: &Path, workers: usize) -> (Vec<Server>, Vec<String>) {
    let mut servers = Vec::new();
    let mut missing = Vec::new();
    for peer in ALL {
        if peer.installed().is_none() {
            missing.push(peer.is_missing());
            continue;
        }
        match Server::start(&peer.blueprint, prefork, workers, "") {
            Ok(server) => servers.push(server),
            Err(error) => missing.push(format!("{}: {error:#}", peer.blueprint.name)),
        }
    }
    (servers, missing)
}

/// Writes the WSGI application that the Python servers run.
fn write_python(site: &Site) -> Result<()> {
    let text = "def app(environ, start_response):\n\
        \x20   body = b'hello, world\\n'\n\
        \x20   headers = [('Content-Type', 'text/plain'), ('Content-Length', str(len(body)))]\n\
        \x20   start_response('200 OK', headers)\n\
        \x20   return [body]\n";
    Ok(std::fs::write(site.dir.join("app.py"), text)?)
}
