//! nginx, answering from its configuration.

use std::fs;
use std::process::Command;

use anyhow::Result;
use nix::sys::signal::Signal;

use super::Peer;
use crate::files;
use crate::load::HELLO;
use crate::server::{Blueprint, Order, Orders, Server, Site};

pub(crate) static PEER: Peer = Peer {
    program: "nginx",
    version: "-v",
    blueprint: Blueprint {
        name: "nginx",
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

/// nginx, serving the site's files.
pub(crate) static FILES: Blueprint = Blueprint {
    name: "nginx",
    threads: false,
    page: files::SMALL,
    command: |site| {
        let root = files::write(site)?;
        let root = root.display();
        let serve = format!("root {root}; sendfile on; tcp_nopush on; open_file_cache max=100;");
        with_location(site, &serve)
    },
    orders: |_| Orders::default(),
    has_workers: Server::has_children,
};

fn command(site: &Site) -> Result<Command> {
    let answer = "default_type text/plain; return 200 \"hello, world\\n\";";
    with_location(site, answer)
}

/// With one location, which does this.
fn with_location(site: &Site, location: &str) -> Result<Command> {
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
             location / {{ {location} }}\n\
           }}\n\
         }}\n"
    );
    let path = site.dir.join("nginx.conf");
    fs::write(&path, config)?;
    let mut command = Command::new("nginx");
    command.arg("-p").arg(&site.dir).arg("-c").arg(path);
    Ok(command)
}
