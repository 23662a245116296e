//! prefork itself, and the bare hyper loop that it is compared with.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::socket::{Backlog, listen};
use prefork_api::{SlotState, Status};

use crate::files;
use crate::load::HELLO;
use crate::role::{self, Role};
use crate::server::{Blueprint, Order, Orders, Server, Site};

/// prefork with workers of the SDK that serve what [`BARE`] serves.
pub(crate) static PREFORK: Blueprint = Blueprint {
    name: "prefork",
    threads: false,
    page: HELLO,
    command: |site| with_pool(site, &worker_program()?),
    orders,
    has_workers: |server| ready(server).is_ok_and(|ready| ready.len() == server.site().workers),
};

/// The same with a line in an access log for each request.
pub(crate) static LOGGING: Blueprint = Blueprint {
    name: "prefork, access log",
    threads: false,
    page: HELLO,
    command: |site| {
        let path = site.dir.join("access.log");
        let log = format!("[pool.web.access_log]\npath = {path:?}\n");
        with_pool(site, &format!("{}{log}", worker_program()?))
    },
    orders,
    has_workers: Server::has_children,
};

/// prefork with its own web server, which serves the site's files.
pub(crate) static FILES: Blueprint = Blueprint {
    name: "prefork",
    threads: false,
    page: files::SMALL,
    command: |site| {
        let root = files::write(site)?;
        with_pool(site, &format!("[pool.web.app]\nroot = {root:?}\n"))
    },
    orders,
    has_workers: Server::has_children,
};

/// As many bare hyper loops as workers, on one listener.
pub(crate) static BARE: Blueprint = Blueprint {
    name: "bare hyper",
    threads: false,
    page: HELLO,
    command: |site| loops(site, Role::BarePool),
    orders: |_| Orders::default(),
    has_workers: Server::has_children,
};

/// As many loops that do nothing but answer.
pub(crate) static EPOLL: Blueprint = Blueprint {
    name: "bare epoll",
    threads: false,
    page: HELLO,
    command: |site| loops(site, Role::EpollPool),
    orders: |_| Orders::default(),
    has_workers: Server::has_children,
};

/// This program as the parent of as many loops as workers.
fn loops(site: &Site, parent: Role) -> Result<Command> {
    let listener = OwnedFd::from(TcpListener::bind(site.address)?);
    listen(&listener, Backlog::new(4096)?)?;
    let mut command = role::command(parent, listener)?;
    command.arg(site.workers.to_string());
    Ok(command)
}

fn runtime_dir(site: &Site) -> PathBuf {
    site.dir.join("run")
}

/// The line that makes this program in the role of a worker the pool's.
fn worker_program() -> Result<String> {
    let mut program = vec![std::env::current_exe()?.display().to_string()];
    program.extend(role::arguments(Role::Worker));
    Ok(format!("program = {program:?}\n"))
}

/// With a pool that has these lines more.
fn with_pool(site: &Site, lines: &str) -> Result<Command> {
    let config = format!(
        "[supervisor]\nruntime_dir = {:?}\nadmin = \"127.0.0.1:0\"\n\
         [pool.web]\nworkers = {}\nlisten = [\"{}\"]\n{lines}{}\n",
        runtime_dir(site),
        site.workers,
        site.address,
        site.pool,
    );
    let path = site.dir.join("prefork.toml");
    fs::write(&path, config)?;
    let mut command = Command::new(&site.prefork);
    command.args(["run", "--config"]).arg(path);
    Ok(command)
}

fn orders(site: &Site) -> Orders {
    let scale = |workers: usize| client(site, &["scale", "web", &workers.to_string()]);
    Orders {
        reload: Some(Order::Command(client(site, &["reload", "--force"]))),
        upgrade: Some(Order::Command(client(site, &["upgrade"]))),
        grow: Some(Order::Command(scale(site.workers + 1))),
        shrink: Some(Order::Command(scale(site.workers))),
    }
}

fn client(site: &Site, arguments: &[&str]) -> Command {
    let mut command = Command::new(&site.prefork);
    command
        .arg("--runtime-dir")
        .arg(runtime_dir(site))
        .args(["--timeout", "300s"])
        .args(arguments);
    command
}

/// Runs prefork's command line against the server; how long that took.
pub(crate) fn run(server: &Server, arguments: &[&str]) -> Result<Duration> {
    let begun = Instant::now();
    let output = client(server.site(), arguments).output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "prefork {arguments:?}: {said}");
    Ok(begun.elapsed())
}

/// Asks the control socket.
pub(crate) fn control(server: &Server, path: &str) -> Result<String> {
    let socket = runtime_dir(server.site()).join("control.sock");
    ask(UnixStream::connect(&socket)?, path)
}

/// Asks the admin address.
pub(crate) fn admin(server: &Server, path: &str) -> Result<String> {
    const SAID: &str = "admin listening on ";
    let log = server.log();
    let address = log.lines().find_map(|line| line.split_once(SAID));
    let (_, address) = address.context("the log names no admin address")?;
    let address = address.split_whitespace().next().unwrap_or_default();
    ask(
        TcpStream::connect(address.trim_start_matches("http://"))?,
        path,
    )
}

/// One `GET` on a connection of its own; the body of the answer.
fn ask(mut stream: impl Read + Write, path: &str) -> Result<String> {
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").context("no whole answer")?;
    ensure!(head.starts_with("HTTP/1.1 200"), "{path}: {head}");
    Ok(body.to_owned())
}

/// The status document.
pub(crate) fn status(server: &Server) -> Result<Status> {
    Ok(serde_json::from_str(&control(server, "/v1/status")?)?)
}

/// The processes that are ready.
pub(crate) fn ready(server: &Server) -> Result<Vec<i32>> {
    let pools = status(server)?.pools.into_iter();
    let workers = pools.flat_map(|pool| pool.workers);
    let ready = workers.filter(|worker| worker.state == SlotState::Ready);
    Ok(ready.filter_map(|worker| worker.pid).collect())
}

/// Waits until every worker is ready.
pub(crate) fn all_ready(server: &Server) -> Result<()> {
    run(server, &["wait", "--for", "ready"]).map(drop)
}
