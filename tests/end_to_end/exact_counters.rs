//! Totals under load, kills and reloads, as scrapers and Prometheus see them.
//! `PREFORK_TEST_FULL=1` makes them as long as a release deserves.

use std::collections::BTreeMap;
use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::harness::deadline::{PATIENCE, eventually};
use crate::harness::exposition::Exposition;
use crate::harness::load::Load;
use crate::harness::{Pool, Prefork, http, processes};

fn full() -> bool {
    std::env::var_os("PREFORK_TEST_FULL").is_some()
}

const REQUESTS: &str = "prefork_http_requests_total";

/// Scrapes every 100 ms; panics when a total decreases.
struct Scraper {
    stop: mpsc::Sender<()>,
    thread: JoinHandle<BTreeMap<String, f64>>,
}

impl Scraper {
    fn start(admin: SocketAddr) -> Self {
        let (stop, stopped) = mpsc::channel();
        let thread = thread::spawn(move || {
            let mut before = BTreeMap::new();
            loop {
                let now = totals(admin);
                for (series, value) in &before {
                    let now = now
                        .get(series)
                        .unwrap_or_else(|| panic!("{series} has gone"));
                    assert!(now >= value, "{series} was {value} and is {now}");
                }
                before = now;
                if stopped.recv_timeout(Duration::from_millis(100)).is_ok() {
                    return totals(admin);
                }
            }
        });
        Self { stop, thread }
    }

    /// Its last scrape.
    fn finish(self) -> BTreeMap<String, f64> {
        // It has ended already where it found something.
        let _ = self.stop.send(());
        self.thread.join().expect("no total decreases")
    }
}

/// Every sample of a counter or histogram, but sums.
fn totals(admin: SocketAddr) -> BTreeMap<String, f64> {
    let answer = http::get(admin, "/metrics").expect("it answers");
    let scrape = Exposition::parse(&answer.body);
    let total = ["_total", "_bucket", "_count"];
    let samples = scrape.samples().iter();
    samples
        .filter(|sample| total.iter().any(|end| sample.name.ends_with(end)))
        .map(|sample| (format!("{}{:?}", sample.name, sample.labels), sample.value))
        .collect()
}

/// Kills the workers in turn and reloads, while so many requests are served.
fn disturb(prefork: &Prefork, load: &Load, requests: u64, kills: u32) {
    for kill in 0..kills {
        load.serves(requests / u64::from(kills + 1));
        let slot = kill % 2;
        let old = prefork.ready_pid("web", slot);
        processes::send(old, Signal::SIGKILL);
        prefork.replaced("web", slot, old);
        if kill == kills / 2 {
            prefork.done(&["reload"]);
        }
    }
    load.serves(requests / u64::from(kills + 1));
}

#[test]
fn no_total_ever_decreases_and_every_answer_is_counted() {
    let (requests, kills) = if full() { (200_000, 20) } else { (20_000, 5) };
    let prefork = Prefork::start(&[Pool::bundled("web", 2).text("min_ready", "50ms")]);
    let scrapers = [(); 2].map(|()| Scraper::start(prefork.admin()));
    let load = Load::start(prefork.address("web"), 8);
    disturb(&prefork, &load, requests, kills);
    let outcomes = load.stop();
    let broken: u64 = outcomes.failures.values().sum();
    eventually("nothing is in flight", PATIENCE, || {
        prefork.metric("prefork_http_requests_in_flight", &[]) == 0.0
    });
    let [one, other] = scrapers.map(Scraper::finish);
    let of_requests = |totals: BTreeMap<String, f64>| -> BTreeMap<String, f64> {
        let requests = totals.into_iter();
        requests
            .filter(|(series, _)| series.starts_with(REQUESTS))
            .collect()
    };
    let (one, other) = (of_requests(one), of_requests(other));
    assert_eq!(one, other, "the scrapers agree");
    let (counted, served): (f64, f64) = (one.values().sum(), outcomes.served as f64);
    assert!(
        served <= counted && counted <= served + broken as f64,
        "{counted} counted; {outcomes:?}"
    );
}

/// A Prometheus that scrapes a supervisor; killed when dropped.
struct Prometheus {
    process: Child,
    address: SocketAddr,
    _directory: tempfile::TempDir,
}

impl Prometheus {
    /// None where it is not installed.
    fn start(target: SocketAddr) -> Option<Self> {
        let directory = tempfile::tempdir().expect("there is room");
        let file = directory.path().join("prometheus.yml");
        let config = format!(
            "global: {{ scrape_interval: 200ms, scrape_timeout: 200ms }}\n\
             scrape_configs:\n- job_name: prefork\n  static_configs: [{{ targets: ['{target}'] }}]\n"
        );
        fs::write(&file, config).expect("it is ours");
        let free = TcpListener::bind("127.0.0.1:0").and_then(|port| port.local_addr());
        let address = free.expect("there are ports");
        let process = Command::new("prometheus")
            .arg(format!("--config.file={}", file.display()))
            .arg(format!(
                "--storage.tsdb.path={}",
                directory.path().join("data").display()
            ))
            .arg(format!("--web.listen-address={address}"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .ok()?;
        let prometheus = Self {
            process,
            address,
            _directory: directory,
        };
        eventually("Prometheus has scraped", Duration::from_secs(60), || {
            prometheus.query("up") == Some(1.0)
        });
        Some(prometheus)
    }

    /// The one value that a query gives; none if it gives no or several.
    fn query(&self, query: &str) -> Option<f64> {
        let escaped: String = query.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let answer = http::get(self.address, &format!("/api/v1/query?query={escaped}")).ok()?;
        let answer: serde_json::Value = serde_json::from_str(&answer.body).ok()?;
        let [only] = answer["data"]["result"].as_array()?.as_slice() else {
            return None;
        };
        only["value"][1].as_str()?.parse().ok()
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn a_real_prometheus_sees_no_gap_and_no_reset() {
    let prefork = Prefork::start(&[Pool::bundled("web", 2).text("min_ready", "50ms")]);
    let Some(prometheus) = Prometheus::start(prefork.admin()) else {
        eprintln!("SKIPPED: prometheus cannot be run; Debian has it as a package");
        return;
    };
    let began = Instant::now();
    let load = Load::start(prefork.address("web"), 4);
    let rounds = if full() { 3 } else { 1 };
    for _ in 0..rounds {
        disturb(&prefork, &load, 2000, 1);
    }
    while full() && began.elapsed() < Duration::from_secs(60) {
        load.serves(100);
    }
    let outcomes = load.stop();
    eventually("nothing is in flight", PATIENCE, || {
        prefork.metric("prefork_http_requests_in_flight", &[]) == 0.0
    });
    let counted = prefork.metric(REQUESTS, &[]);
    assert!(counted >= outcomes.served as f64, "{outcomes:?}");
    eventually("Prometheus has the last count", PATIENCE, || {
        prometheus.query(&format!("sum({REQUESTS})")) == Some(counted)
    });
    assert_eq!(prometheus.query("min_over_time(up[5m])"), Some(1.0));
    let resets = prometheus.query(&format!("sum(resets({REQUESTS}[5m]))"));
    assert_eq!(resets, Some(0.0));
}
