//! nginx, answering from its configuration.

use std::fs;
use std::process::Command;

use anyhow::Result;
use nix::sys::signal::Signal;

use super::Peer;
use crate::server::{Blueprint, Order, Orders, Site};

pub(super) static PEER: Peer = Peer {
    program: "nginx",
    version: "-v",
    blueprint: Blueprint {
        name: "nginx",
        threads: false,
        command,
        orders: |_| Orders {
            reload: Some(Order::Signal(Signal::SIGHUP)),
            ..Orders::default()
        },
    },
};

fn command(site: &Site) -> Result<Command> {
    let Site {
        dir,
        address,
        workers,
        ..
    } = site;
    let dir = dir.display();
    let config = format!(
        "daemon off; worker_processes {workers}; pid {dir}/pid; error_log {dir}/log;\n\
         events {{ worker_connections 4096; }}\n\
         http {{\n\
           access_log off; keepalive_requests 1000000000; keepalive_timeout 1h;\n\
           client_body_temp_path {dir}/body; proxy_temp_path {dir}/proxy;\n\
           fastcgi_temp_path {dir}/fastcgi; uwsgi_temp_path {dir}/uwsgi; scgi_temp_path {dir}/scgi;\n\
           server {{\n\
             listen {address} backlog=4096;\n\
             location / {{ default_type text/plain; return 200 \"hello, world\\n\"; }}\n\
           }}\n\
         }}\n"
    );
    let path = site.dir.join("nginx.conf");
    fs::write(&path, config)?;
    let mut command = Command::new("nginx");
    command.arg("-p").arg(&site.dir).arg("-c").arg(path);
    Ok(command)
}
