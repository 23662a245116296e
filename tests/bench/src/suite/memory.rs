//! Memory of idle workers and of idle connections.

use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::bench::Bench;
use crate::load::ask_once;
use crate::peer;
use crate::prefork::{BARE, PREFORK};
use crate::process;
use crate::report::{Cell, Report, Table};
use crate::server::Server;

const WORKERS: usize = 4;

pub(super) fn run(bench: &Bench) -> Result<Report> {
    let connections = bench.pick(1000, 50);
    let mut report = Report::default();
    let mut table = Table::new(
        format!("Proportional set size with {WORKERS} workers"),
        &[
            "server",
            "master KiB",
            "idle worker KiB",
            "KiB per idle connection",
        ],
    );
    let mut servers = vec![
        Server::start(&BARE, &bench.prefork, WORKERS, "")?,
        Server::start(&PREFORK, &bench.prefork, WORKERS, "")?,
    ];
    let (peers, missing) = peer::start_all(&bench.prefork, WORKERS);
    servers.extend(peers);
    for server in &mut servers {
        bench.doing(server.name());
        let master = process::proportional(server.master().pid());
        let workers = of_workers(server);
        let count = server.workers().len().max(1);
        let kib = |bytes: u64, parts: usize| Cell::Number(bytes as f64 / 1024.0 / parts as f64, 1);
        let per_connection = match open(server.site().address, connections) {
            // Looked at while they are open.
            Ok(_open) => kib(of_workers(server).saturating_sub(workers), connections),
            Err(error) if [BARE.name, PREFORK.name].contains(&server.name()) => return Err(error),
            Err(error) => {
                report.note(format!("{}: {error:#}", server.name()));
                "".into()
            }
        };
        table.row([
            server.name().into(),
            kib(master, 1),
            kib(workers, count),
            per_connection,
        ]);
    }
    report.tables.push(table);
    report.note(format!(
        "{connections} connections, each of which has had one answer; the kernel's own memory \
         for them is not in it. A page that several processes share counts for each in part."
    ));
    report.note("prefork's worker and the bare hyper loop are one program file.");
    for why in missing {
        report.note(why);
    }
    Ok(report)
}

fn of_workers(server: &Server) -> u64 {
    let workers = server.workers().into_iter();
    workers.map(process::proportional).sum()
}

/// Opens connections and has a request answered on each.
fn open(address: SocketAddr, count: usize) -> Result<Vec<TcpStream>> {
    let open = |number| used(address).with_context(|| format!("connection {number} of {count}"));
    (1..=count).map(open).collect()
}

fn used(address: SocketAddr) -> Result<TcpStream> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    ask_once(&mut stream)?;
    Ok(stream)
}
