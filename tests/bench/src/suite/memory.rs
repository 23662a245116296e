//! Memory of idle workers and of idle connections.

use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::bench::Bench;
use crate::figures::Spread;
use crate::load::ask_once;
use crate::peer;
use crate::prefork::{BARE, PREFORK};
use crate::process;
use crate::report::{Bound, Cell, Report, Table, Target};
use crate::server::Server;

const WORKERS: usize = 4;

/// How long connections have been idle when they are looked at: servers give up after a
/// moment what only a busy one needs.
const IDLE: Duration = Duration::from_secs(8);

/// Connections that are open before anything is counted.
const WARM_UP: usize = 100;

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
    let mut ours = None;
    for server in &mut servers {
        bench.doing(server.name());
        // What the first connections take for good is no part of what one more takes.
        let first = open(server.site().address, bench.pick(WARM_UP, 10));
        if first.is_ok() {
            std::thread::sleep(IDLE);
        }
        let master = process::proportional(server.master().pid());
        let workers = of_workers(server);
        let count = server.workers().len().max(1);
        let each = |bytes: u64, parts: usize| bytes as f64 / 1024.0 / parts as f64;
        let kib = |bytes: u64, parts: usize| Cell::Number(each(bytes, parts), 1);
        let per_connection = match open(server.site().address, connections) {
            // Looked at while they are open.
            Ok(_open) => {
                std::thread::sleep(IDLE);
                let more = of_workers(server).saturating_sub(workers);
                if server.name() == PREFORK.name {
                    ours = Spread::of([each(more, connections)]);
                }
                kib(more, connections)
            }
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
    report.targets.push(Target {
        what: "memory per idle connection, KiB",
        bound: Bound::AtMost(1.0),
        measured: ours,
    });
    report.note(format!(
        "{connections} connections more than some that are idle already, each of which has had one answer and has been idle for {} s; \
         the kernel's own memory for them is not in it. A page that several processes share counts for each in part.",
        IDLE.as_secs()
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
