//! uWSGI behind its own HTTP router, which keeps the connections.

use std::process::Command;

use anyhow::Result;
use nix::sys::signal::Signal;

use super::{Peer, write_python};
use crate::load::HELLO;
use crate::server::{Blueprint, Order, Orders, Server, Site};

pub(super) static PEER: Peer = Peer {
    program: "uwsgi",
    version: "--version",
    blueprint: Blueprint {
        name: "uWSGI",
        threads: false,
        page: HELLO,
        command,
        has_workers: Server::has_children,
        orders: |_| Orders {
            reload: Some(Order::Signal(Signal::SIGHUP)),
            ..Orders::default()
        },
    },
};

fn command(site: &Site) -> Result<Command> {
    write_python(site)?;
    let mut command = Command::new("uwsgi");
    command
        .args(["--master", "--die-on-term", "--disable-logging"])
        .args(["--http-keepalive=3600", "--listen", "128"])
        .args(["--processes", &site.workers.to_string()])
        .args(["--http", &site.address.to_string()])
        .args(["--wsgi-file", "app.py", "--callable", "app"]);
    Ok(command)
}
