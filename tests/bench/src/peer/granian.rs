//! granian.

use std::process::Command;

use anyhow::Result;
use nix::sys::signal::Signal;

use super::{Peer, write_python};
use crate::load::HELLO;
use crate::server::{Blueprint, Order, Orders, Server, Site};

pub(super) static PEER: Peer = Peer {
    program: "granian",
    version: "--version",
    blueprint: Blueprint {
        name: "granian",
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
    let mut command = Command::new("granian");
    command
        .args(["--interface", "wsgi", "--no-ws"])
        .args(["--workers", &site.workers.to_string()])
        .args(["--host", &site.address.ip().to_string()])
        .args(["--port", &site.address.port().to_string()])
        .arg("app:app");
    Ok(command)
}
