//! gunicorn with threaded workers: its default ones keep no connection.

use std::process::Command;

use anyhow::Result;
use nix::sys::signal::Signal;

use super::{Peer, write_python};
use crate::load::HELLO;
use crate::server::{Blueprint, Order, Orders, Server, Site};

pub(super) static PEER: Peer = Peer {
    program: "gunicorn",
    version: "--version",
    blueprint: Blueprint {
        name: "gunicorn",
        threads: false,
        page: HELLO,
        command,
        has_workers: Server::has_children,
        orders: |_| Orders {
            reload: Some(Order::Signal(Signal::SIGHUP)),
            grow: Some(Order::Signal(Signal::SIGTTIN)),
            shrink: Some(Order::Signal(Signal::SIGTTOU)),
            ..Orders::default()
        },
    },
};

fn command(site: &Site) -> Result<Command> {
    write_python(site)?;
    let mut command = Command::new("gunicorn");
    command
        .args(["--worker-class", "gthread", "--threads", "16"])
        .args(["--keep-alive", "3600", "--backlog", "4096"])
        .args(["--workers", &site.workers.to_string()])
        .args(["--bind", &site.address.to_string()])
        .arg("app:app");
    Ok(command)
}
