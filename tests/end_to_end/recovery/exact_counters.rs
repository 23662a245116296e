//! Totals under load, kills and reloads, as scrapers and Prometheus see them.
//! `PREFORK_TEST_FULL=1` makes them as long as a release deserves.

use std::collections::BTreeMap;
use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime};

use nix::sys::signal::Signal;

use crate::harness::deadline::{PATIENCE, eventually};
use crate::harness::exposition::Exposition;
use crate::harness::load::{Failure, Load};
use crate::harness::{Pool, Prefork, http, processes};

fn full() -> bool {
    std::env::var_os("PREFORK_TEST_FULL").is_some()
}

const REQUESTS: &str = "prefork_http_requests_total";

/// Scrapes every 100 ms; panics when a total decreases.
struct Scraper {
    stop: mpsc::Sender<()>,
    thread: JoinHandle<Scraped>,
}

/// What a scraper has at its end.
struct Scraped {
    scrapes: u32,
    /// Of its last scrape.
    totals: BTreeMap<String, f64>,
}

impl Scraper {
    fn start(admin: SocketAddr) -> Self {
        let (stop, stopped) = mpsc::channel();
        let thread = thread::spawn(move || {
            let mut before = BTreeMap::new();
            for scrapes in 1.. {
                let now = totals(admin);
                for (series, value) in &before {
                    let now = now
                        .get(series)
                        .unwrap_or_else(|| panic!("{series} has gone"));
                    assert!(now >= value, "{series} was {value} and is {now}");
                }
                before = now;
                if stopped.recv_timeout(Duration::from_millis(100)).is_ok() {
                    let totals = totals(admin);
                    return Scraped { scrapes, totals };
                }
            }
            unreachable!("nobody scrapes that often")
        });
        Self { stop, thread }
    }

    /// Scrapes a last time.
    fn finish(self) -> Scraped {
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

/// Kills the worker in a slot; returns when its successor is ready.
fn kill(prefork: &Prefork, slot: u32) {
    let old = prefork.ready_pid("web", slot);
    processes::send(old, Signal::SIGKILL);
    prefork.replaced("web", slot, old);
}

/// Kills the workers in turn, reloads after a third of the kills and upgrades
/// after two, while at least so many requests are served.
fn disturb(prefork: &Prefork, load: &Load, requests: u64, kills: u32) {
    let share = requests.div_ceil(u64::from(kills) + 1);
    for done in 1..=kills {
        load.serves(share);
        kill(prefork, done % 2);
        if done == kills / 3 {
            prefork.done(&["reload", "--force"]);
        }
        if done == 2 * kills / 3 {
            prefork.done(&["upgrade"]);
        }
    }
    load.serves(share);
}

fn nothing_is_in_flight(prefork: &Prefork) {
    eventually("nothing is in flight", PATIENCE, || {
        prefork.metric("prefork_http_requests_in_flight", &[]) == 0.0
    });
}

#[test]
fn no_total_ever_decreases_and_every_answer_is_counted() {
    const CLIENTS: usize = 8;
    let (requests, kills) = if full() { (200_000, 20) } else { (20_000, 5) };
    let prefork = Prefork::start(&[Pool::bundled("web", 2).text("min_ready", "50ms")]);
    let scrapers = [(); 2].map(|()| Scraper::start(prefork.admin()));
    let load = Load::start(prefork.address("web"), CLIENTS);
    disturb(&prefork, &load, requests, kills);
    let outcomes = load.stop();
    assert!(outcomes.served >= requests, "{outcomes:?}");
    // A client loses at most the one request that a kill finds in flight.
    let broken: u64 = outcomes.failures.values().sum();
    assert!(broken <= u64::from(kills) * CLIENTS as u64, "{outcomes:?}");
    assert_eq!(outcomes.of(Failure::Refused), 0, "{outcomes:?}");
    nothing_is_in_flight(&prefork);
    let done = |name| prefork.metric(name, &[]);
    let killed = [("reason", "signal")];
    let killed = prefork.metric("prefork_worker_exits_total", &killed);
    assert_eq!(killed, f64::from(kills));
    assert_eq!(done("prefork_config_reloads_total"), 1.0);
    assert_eq!(done("prefork_upgrades_total"), 1.0);
    let [one, other] = scrapers.map(Scraper::finish);
    let of_requests = |scraped: Scraped| -> BTreeMap<String, f64> {
        let totals = scraped.totals.into_iter();
        totals
            .filter(|(series, _)| series.starts_with(REQUESTS))
            .collect()
    };
    let scrapes = [one.scrapes, other.scrapes];
    let (one, other) = (of_requests(one), of_requests(other));
    assert_eq!(one, other, "the scrapers agree");
    let (counted, served): (f64, f64) = (one.values().sum(), outcomes.served as f64);
    eprintln!("{served} served, {broken} broken, {counted} counted, {scrapes:?} scrapes");
    assert!(
        served <= counted && counted <= served + broken as f64,
        "{counted} counted; {outcomes:?}"
    );
}

/// How many times a Prometheus has its target. A scrape may not take longer than
/// the time between two: many that are slow and apart do for one that is fast.
const SCRAPERS: u32 = 40;

/// A Prometheus that scrapes a supervisor eight times a second, and waits five
/// seconds for an answer; killed when dropped.
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
        let mut config = "global: { scrape_interval: 5s, scrape_timeout: 5s }\n\
                          scrape_configs:\n- job_name: prefork\n  static_configs:\n"
            .to_owned();
        for scraper in 0..SCRAPERS {
            config +=
                &format!("  - {{ targets: ['{target}'], labels: {{ scraper: '{scraper}' }} }}\n");
        }
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
            prometheus.query("count(up == 1)") == Some(f64::from(SCRAPERS))
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

/// What the clients were served within a window of time.
struct Window {
    ended: SystemTime,
    long: Duration,
    served: u64,
}

impl Window {
    fn per_second(&self) -> f64 {
        self.served as f64 / self.long.as_secs_f64()
    }

    /// The rate of the same window as Prometheus has it.
    fn rate(&self, prometheus: &Prometheus) -> Option<f64> {
        let ended = self.ended.duration_since(SystemTime::UNIX_EPOCH);
        let ended = ended.expect("it is after 1970").as_secs_f64();
        let long = self.long.as_millis();
        // At each moment the scraper that was last has the largest count.
        let count = format!("max without (scraper) ({REQUESTS})");
        prometheus.query(&format!(
            "sum(rate(({count})[{long}ms:100ms] @ {ended:.3}))"
        ))
    }
}

/// Kills a worker and reloads so many times, spread over at least so long.
fn window(prefork: &Prefork, load: &Load, rounds: u32, long: Duration) -> Window {
    let (began, before) = (Instant::now(), load.served());
    for round in 0..=rounds {
        let part = long * (round + 1) / (rounds + 1);
        load.serves(2000);
        while began.elapsed() < part {
            load.serves(100);
        }
        if round < rounds {
            kill(prefork, round % 2);
            prefork.done(&["reload", "--force"]);
        }
    }
    Window {
        ended: SystemTime::now(),
        long: began.elapsed(),
        served: load.served() - before,
    }
}

#[test]
fn a_real_prometheus_sees_no_gap_and_no_reset() {
    let prefork = Prefork::start(&[Pool::bundled("web", 2).text("min_ready", "50ms")]);
    let Some(prometheus) = Prometheus::start(prefork.admin()) else {
        eprintln!("SKIPPED: prometheus cannot be run; Debian has it as a package");
        return;
    };
    let load = Load::start(prefork.address("web"), 4);
    // The window lies within the load, so that no edge of it shows in the rate.
    load.serves(2000);
    let (rounds, seconds) = if full() { (3, 60) } else { (1, 0) };
    let window = window(&prefork, &load, rounds, Duration::from_secs(seconds));
    load.serves(2000);
    let outcomes = load.stop();
    nothing_is_in_flight(&prefork);
    let counted = prefork.metric(REQUESTS, &[]);
    assert!(counted >= outcomes.served as f64, "{outcomes:?}");
    eventually("Prometheus has the last count", PATIENCE, || {
        let those = format!("count(sum by (scraper) ({REQUESTS}) == {counted})");
        prometheus.query(&those) == Some(f64::from(SCRAPERS))
    });
    let up = prometheus.query("min(min_over_time(up[5m]))");
    assert_eq!(up, Some(1.0), "every scrape was answered");
    let resets = prometheus.query(&format!("sum(resets({REQUESTS}[5m]))"));
    assert_eq!(resets, Some(0.0));
    if full() {
        // A shorter window holds too few scrapes for a rate this exact.
        let rate = window.rate(&prometheus).expect("it has the whole window");
        let per_second = window.per_second();
        eprintln!("{rate} requests a second by Prometheus, {per_second} by the clients");
        assert!(
            (rate / per_second - 1.0).abs() <= 0.01,
            "{rate} a second by Prometheus, {per_second} by the clients"
        );
    }
}
