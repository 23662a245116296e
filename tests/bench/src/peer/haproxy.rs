//! HAProxy, answering from its configuration. Its workers are threads of one
//! process.

use std::fs;
use std::process::Command;

use anyhow::Result;
use nix::sys::signal::Signal;

use super::Peer;
use crate::load::HELLO;
use crate::server::{Blueprint, Order, Orders, Server, Site};

pub(super) static PEER: Peer = Peer {
    program: "haproxy",
    version: "-v",
    blueprint: Blueprint {
        name: "haproxy",
        threads: true,
        page: HELLO,
        command,
        has_workers: Server::has_children,
        orders: |_| Orders {
            reload: Some(Order::Signal(Signal::SIGUSR2)),
            ..Orders::default()
        },
    },
};

fn command(site: &Site) -> Result<Command> {
    let config = format!(
        "global\n  nbthread {}\n  stats socket {}/sock expose-fd listeners\n\
         defaults\n  mode http\n  timeout client 1h\n  timeout connect 5s\n  timeout server 1h\n\
         frontend web\n  bind {} backlog 4096\n\
         \x20 http-request return status 200 content-type text/plain string \"hello, world\\n\"\n",
        site.workers,
        site.dir.display(),
        site.address,
    );
    let path = site.dir.join("haproxy.cfg");
    fs::write(&path, config)?;
    let mut command = Command::new("haproxy");
    command.args(["-W", "-db", "-f"]).arg(path);
    Ok(command)
}
