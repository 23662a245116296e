//! puma in cluster mode.

use std::fs;
use std::process::Command;

use anyhow::Result;
use nix::sys::signal::Signal;

use super::Peer;
use crate::load::HELLO;
use crate::server::{Blueprint, Order, Orders, Server, Site};

pub(super) static PEER: Peer = Peer {
    program: "puma",
    version: "--version",
    blueprint: Blueprint {
        name: "puma",
        threads: false,
        page: HELLO,
        command,
        has_workers: Server::has_children,
        orders: |_| Orders {
            // The phased restart: one worker after the other.
            reload: Some(Order::Signal(Signal::SIGUSR1)),
            upgrade: Some(Order::Signal(Signal::SIGUSR2)),
            grow: Some(Order::Signal(Signal::SIGTTIN)),
            shrink: Some(Order::Signal(Signal::SIGTTOU)),
        },
    },
};

fn command(site: &Site) -> Result<Command> {
    let text = "run ->(_) { [200, { 'content-type' => 'text/plain', 'content-length' => '13' }, \
                [\"hello, world\\n\"]] }\n";
    let path = site.dir.join("config.ru");
    fs::write(&path, text)?;
    let mut command = Command::new("puma");
    command
        .args(["--environment", "production", "--threads", "16:16"])
        .args(["--workers", &site.workers.to_string()])
        .args(["--bind", &format!("tcp://{}", site.address)])
        .arg(path);
    Ok(command)
}
