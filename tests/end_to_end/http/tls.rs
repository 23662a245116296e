//! TLS, from the files to the clients: what is served, what a reload changes,
//! what an upgrade and a death of the supervisor leave, and sessions that any
//! worker takes up.

use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use nix::sys::signal::Signal;
use rustls::version::{TLS12, TLS13};

use crate::harness::deadline::{PATIENCE, eventually};
use crate::harness::http::Connection;
use crate::harness::load::mixed::Mixed;
use crate::harness::load::{Kind, Load};
use crate::harness::tls::{Issued, NAME, Trust};
use crate::harness::{Pool, Prefork, cli, directory, processes};

/// A listener with the certificate in `www.pem`, which the test has to install.
const LISTEN: &str =
    "[{ address = \"127.0.0.1:0\", tls = { cert = \"www.pem\", key = \"www.key\" } }]";

/// A supervisor whose pool of services has this certificate.
fn serving(issued: &Issued, workers: u32) -> Prefork {
    let pool = Pool::service("web", workers).set("listen", LISTEN);
    let prefork = Prefork::launch_in(|dir| issued.install(dir, "www"), &[pool]);
    prefork.wait_until_ready();
    prefork
}

/// The process that answers on a new connection, and whether that took up a
/// session of another one.
fn asked(trust: &Trust, address: SocketAddr) -> (i32, bool) {
    let secured = trust.connect(address).expect("a handshake");
    let resumed = secured.is_resumed();
    let page = Connection::over(secured).get("/").expect("an answer").body;
    let pid = page
        .split("pid ")
        .nth(1)
        .and_then(|it| it.split(' ').next());
    let pid = pid.and_then(|pid| pid.parse().ok());
    (pid.unwrap_or_else(|| panic!("no pid in {page}")), resumed)
}

/// Asks until every one of these processes has answered; panics where one did
/// not take up the session that the client has.
#[track_caller]
fn all_take_it_up(trust: &Trust, address: SocketAddr, pids: &[i32]) {
    let mut waited_for: BTreeSet<i32> = pids.iter().copied().collect();
    eventually("every worker takes up the session", PATIENCE, || {
        let (pid, resumed) = asked(trust, address);
        assert!(resumed, "{pid} did not take up the session");
        waited_for.remove(&pid);
        waited_for.is_empty()
    });
}

#[test]
fn both_protocols_and_both_kinds_of_socket_speak_tls() {
    let [first, second] = [Issued::new(), Issued::for_names(&["*.shop.example"])];
    let install = |dir: &Path| {
        first.install(dir, "www");
        second.install(dir, "shop");
    };
    let listen = "[{ address = \"127.0.0.1:0\", tls = { certificates = [\
                  { cert = \"www.pem\", key = \"www.key\" }, \
                  { cert = \"shop.pem\", key = \"shop.key\" }] } }, \
                  { address = \"unix:web.sock\", tls = { cert = \"www.pem\", key = \"www.key\" } }, \
                  \"127.0.0.2:0\"]";
    let pool = Pool::service("web", 2).set("listen", listen);
    let prefork = Prefork::launch_in(install, &[pool]);
    prefork.wait_until_ready();
    let address = prefork.address("web");
    let trust = Trust::of(&[&first, &second]);
    for kind in [Kind::Digest, Kind::Http2] {
        let load = Load::secured(kind, address, &trust, 2);
        load.serves(50);
        load.stop_flawless();
    }
    assert_eq!(trust.sees(address, "api.shop.example"), second.der);
    assert_eq!(trust.sees(address, NAME), first.der);
    let secured = trust.connect_unix(&prefork.dir().join("web.sock"));
    let answer = Connection::over(secured.unwrap()).get("/").unwrap();
    assert_eq!(answer.status, 200);
    let listeners = prefork.pool("web").listeners;
    let names = listeners[0].tls.as_ref().map(|tls| tls.certificates.len());
    assert_eq!((names, listeners[2].tls.is_none()), (Some(2), true));
    assert!(prefork.done(&["status"]).contains("shared tls"));
    let expiry = "prefork_listener_certificate_expiry_timestamp_seconds";
    for name in [NAME, "*.shop.example"] {
        let labels = [("name", name), ("listener", "127.0.0.1:0")];
        assert!(prefork.metric(expiry, &labels) > 4e9);
    }
    let plain = Load::start(listeners[2].address.parse().unwrap(), 1);
    plain.serves(10);
    plain.stop_flawless();
}

#[test]
fn a_certificate_is_replaced_under_load_by_the_same_processes() {
    let [old, new] = [Issued::new(), Issued::new()];
    let prefork = serving(&old, 2);
    let (address, workers) = (prefork.address("web"), prefork.ready_pids("web"));
    let trust = Trust::of(&[&old, &new]);
    let load = Mixed::secured(address, &trust, 2);
    load.serves(20);
    let mut kept = Connection::over(trust.connect(address).unwrap());
    assert_eq!(kept.get("/").unwrap().status, 200);
    for issued in [&new, &old, &new] {
        issued.install(prefork.dir(), "www");
        let told = prefork.done(&["reload", "--dry-run"]);
        assert!(told.contains("take the new settings in place"), "{told}");
        assert!(told.contains("tls 1.2+ www.example.org until"), "{told}");
        prefork.done(&["reload"]);
        assert_eq!(trust.sees(address, NAME), issued.der);
        load.serves(20);
    }
    load.stop_flawless();
    assert_eq!(kept.get("/").unwrap().status, 200);
    assert_eq!(prefork.ready_pids("web"), workers);
    let told = prefork.pool("web").listeners[0].tls.clone().unwrap();
    assert_eq!(told.certificates[0].names, [NAME]);
}

#[test]
fn a_handshake_that_comes_to_nothing_stays_counted_whoever_is_killed() {
    let issued = Issued::new();
    let mut prefork = serving(&issued, 1);
    let address = prefork.address("web");
    let failed = |prefork: &Prefork, reason| {
        let labels = [("pool", "web"), ("reason", reason)];
        prefork.metric("prefork_tls_handshake_failures_total", &labels)
    };
    for reason in ["timeout", "closed", "protocol", "incompatible", "rejected"] {
        assert_eq!(failed(&prefork, reason), 0.0, "{reason}");
    }
    let strange = Trust::of(&[&Issued::new()]);
    let fails = |times: usize| {
        for _ in 0..times {
            assert!(strange.connect(address).is_err());
        }
    };
    fails(3);
    eventually("three are counted", PATIENCE, || {
        failed(&prefork, "rejected") == 3.0
    });
    let worker = prefork.ready_pid("web", 0);
    processes::send(worker, Signal::SIGKILL);
    let worker = prefork.replaced("web", 0, worker);
    assert_eq!(failed(&prefork, "rejected"), 3.0);
    fails(2);
    eventually("two more are counted", PATIENCE, || {
        failed(&prefork, "rejected") == 5.0
    });
    prefork.signal(Signal::SIGKILL);
    prefork.ended();
    // Counted while nobody looks.
    fails(1);
    prefork.start_again();
    prefork.wait_until_ready();
    assert_eq!(prefork.ready_pid("web", 0), worker);
    eventually("all are there", PATIENCE, || {
        failed(&prefork, "rejected") == 6.0
    });
}

#[test]
fn a_check_warns_of_a_certificate_that_has_expired() {
    let issued = Issued::expired();
    let prefork = serving(&issued, 1);
    let warning = "the certificate in www.pem for www.example.org has expired on 2001-02-03";
    let config = prefork.dir().join("prefork.toml");
    let config = config.to_str().expect("the path is text");
    let checked = prefork.cli(&["check", "--config", config]);
    assert_eq!(checked.code, 0, "{checked:?}");
    let told = checked
        .stderr
        .replace(&format!("{}/", prefork.dir().display()), "");
    assert!(told.starts_with("warning: listener"), "{told}");
    assert!(told.contains(warning), "{told}");
    let json = prefork.done(&["check", "--config", config, "--output", "json"]);
    let json: serde_json::Value = serde_json::from_str(&json).expect("it is JSON");
    let warnings = json["warnings"].as_array().expect("there are some");
    // As root there is one more, of that.
    let ours = |it: &&serde_json::Value| it.as_str().is_some_and(|it| it.contains("listener"));
    assert_eq!(warnings.iter().filter(ours).count(), 1, "{json}");
}

#[test]
fn a_certificate_and_settings_are_taken_at_once() {
    let [old, new] = [Issued::new(), Issued::new()];
    let prefork = serving(&old, 2);
    let (address, workers) = (prefork.address("web"), prefork.ready_pids("web"));
    let trust = Trust::of(&[&old, &new]);
    new.install(prefork.dir(), "www");
    let pool = Pool::service("web", 2).set("listen", LISTEN);
    prefork.configure(&[pool.set("app", "{ version = 7 }")]);
    prefork.done(&["reload"]);
    assert_eq!(trust.sees(address, NAME), new.der);
    let page = Connection::over(trust.connect(address).unwrap()).get("/");
    let page = page.unwrap().body;
    assert!(page.contains("version 7"), "{page}");
    assert_eq!(prefork.ready_pids("web"), workers);
    // What can't be taken in place still comes by a new process.
    let without = Pool::service("web", 2).set("listen", "[\"127.0.0.1:0\"]");
    prefork.configure(&[without]);
    prefork.done(&["reload"]);
    let load = Load::start(prefork.address("web"), 1);
    load.serves(10);
    load.stop_flawless();
    assert_ne!(prefork.ready_pids("web"), workers);
}

#[test]
fn a_broken_certificate_changes_nothing_and_a_crash_brings_back_what_was_served() {
    let [old, other] = [Issued::new(), Issued::new()];
    let prefork = serving(&old, 2);
    let (address, workers) = (prefork.address("web"), prefork.ready_pids("web"));
    let trust = Trust::of(&[&old]);
    fs::write(prefork.dir().join("www.key"), &other.key).unwrap();
    let refused = prefork.cli(&["reload"]);
    assert_eq!(refused.code, 78, "{refused:?}");
    assert!(
        refused.stderr.contains("is not the one of the certificate"),
        "{refused:?}"
    );
    assert!(refused.stderr.contains("prefork.toml:"), "{refused:?}");
    assert_eq!(prefork.ready_pids("web"), workers);
    // Neither file is what it was; what serves is pinned.
    fs::remove_file(prefork.dir().join("www.pem")).unwrap();
    for (slot, pid) in workers.into_iter().enumerate() {
        processes::send(pid, Signal::SIGKILL);
        prefork.replaced("web", u32::try_from(slot).unwrap(), pid);
        assert_eq!(trust.sees(address, NAME), old.der);
    }
}

#[test]
fn a_session_is_taken_up_by_every_worker_whatever_has_become_of_them() {
    let [issued, next] = [Issued::new(), Issued::new()];
    let mut prefork = serving(&issued, 2);
    let address = prefork.address("web");
    let trusts = [&TLS12, &TLS13].map(|version| {
        let trust = Trust::speaking(&[&issued, &next], &[version], "http/1.1");
        assert!(!asked(&trust, address).1, "a first connection");
        trust
    });
    let all = |prefork: &Prefork| {
        for trust in &trusts {
            all_take_it_up(trust, address, &prefork.ready_pids("web"));
        }
    };
    all(&prefork);
    // In place, by new processes, under another supervisor.
    next.install(prefork.dir(), "www");
    prefork.done(&["reload"]);
    all(&prefork);
    prefork.done(&["restart", "web"]);
    all(&prefork);
    prefork.done(&["upgrade"]);
    let before = prefork.ready_pids("web");
    all(&prefork);
    prefork.done(&["restart", "web"]);
    all(&prefork);
    prefork.signal(Signal::SIGKILL);
    prefork.ended();
    prefork.start_again();
    prefork.wait_until_ready();
    all(&prefork);
    prefork.done(&["restart", "web"]);
    all(&prefork);
    assert!(
        prefork
            .ready_pids("web")
            .iter()
            .all(|pid| !before.contains(pid))
    );
}

#[test]
fn pools_share_no_sessions() {
    let issued = Issued::new();
    let listen = |address: &str| LISTEN.replace("127.0.0.1:0", address);
    let pools = [
        Pool::service("web", 1).set("listen", listen("127.0.0.1:0")),
        Pool::service("api", 1).set("listen", listen("127.0.0.2:0")),
    ];
    let prefork = Prefork::launch_in(|dir| issued.install(dir, "www"), &pools);
    prefork.wait_until_ready();
    let trust = Trust::of(&[&issued]);
    assert!(!asked(&trust, prefork.address("web")).1);
    assert!(asked(&trust, prefork.address("web")).1);
    assert!(!asked(&trust, prefork.address("api")).1);
}

#[test]
fn what_was_served_is_served_after_an_upgrade_and_after_the_supervisors_death() {
    let [old, new] = [Issued::new(), Issued::new()];
    let mut prefork = serving(&old, 2);
    let (address, workers) = (prefork.address("web"), prefork.ready_pids("web"));
    let trust = Trust::of(&[&old, &new]);
    let load = Load::secured(Kind::KeepAlive, address, &trust, 4);
    load.serves(20);
    // The files are others by now, but nobody has asked for a reload.
    new.install(prefork.dir(), "www");
    prefork.done(&["upgrade"]);
    load.serves(20);
    prefork.signal(Signal::SIGKILL);
    prefork.ended();
    load.serves(20);
    prefork.start_again();
    prefork.wait_until_ready();
    load.serves(20);
    prefork.done(&["upgrade"]);
    load.stop_flawless();
    assert_eq!(prefork.ready_pids("web"), workers);
    processes::send(workers[0], Signal::SIGKILL);
    prefork.replaced("web", 0, workers[0]);
    for _ in 0..8 {
        assert_eq!(trust.sees(address, NAME), old.der);
    }
    prefork.done(&["reload"]);
    assert_eq!(trust.sees(address, NAME), new.der);
}

#[test]
fn private_keys_are_where_only_the_supervisor_may_look_and_go_with_it() {
    let [old, new] = [Issued::new(), Issued::new()];
    let mut prefork = serving(&old, 1);
    let address = prefork.address("web");
    let secrets = prefork.runtime_dir().join("secrets");
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let kept = || {
        let files = fs::read_dir(&secrets).unwrap();
        let mut files: Vec<_> = files.map(|entry| entry.unwrap().path()).collect();
        files.sort();
        files
    };
    eventually(
        "the certificate and the ticket keys are kept",
        PATIENCE,
        || secrets.exists() && kept().len() == 2,
    );
    assert_eq!(mode(&secrets), 0o700);
    assert!(kept().iter().all(|file| mode(file) == 0o600));
    let before = kept();
    new.install(prefork.dir(), "www");
    prefork.done(&["reload"]);
    assert_eq!(Trust::of(&[&new]).sees(address, NAME), new.der);
    eventually("another certificate is kept in its place", PATIENCE, || {
        kept().len() == 2 && kept() != before
    });
    let state = fs::read_to_string(prefork.runtime_dir().join("state.json")).unwrap();
    assert!(state.contains(NAME) && !state.contains("PRIVATE KEY"));
    let line = new.key.lines().nth(1).unwrap();
    assert!(!state.contains(line) && !prefork.log().contains(line));
    prefork.done(&["stop"]);
    assert_eq!(prefork.exit_code(), 0);
    assert!(!secrets.exists());
}

#[test]
fn the_queue_of_a_slot_that_accepts_nothing_is_served_with_tls_by_another() {
    let issued = Issued::new();
    let listen = LISTEN.replace("tls =", "mode = \"per-slot\", tls =");
    let pool = Pool::service("web", 2).set("listen", listen);
    let prefork = Prefork::launch_in(|dir| issued.install(dir, "www"), &[pool]);
    prefork.wait_until_ready();
    let address = prefork.address("web");
    prefork.done(&["pause", "web/0"]);
    let trust = Trust::of(&[&issued]);
    // The kernel gives each socket its share of so many.
    for _ in 0..24 {
        assert_eq!(asked(&trust, address).0, prefork.ready_pid("web", 1));
    }
    assert!(prefork.metric("prefork_channel_messages_sent_total", &[("kind", "rescue")]) > 0.0);
}

#[test]
fn a_worker_that_does_not_speak_tls_does_not_come_up() {
    let issued = Issued::new();
    let pool = Pool::test_worker("web", 1).set("listen", LISTEN);
    let mut prefork = Prefork::launch_in(|dir| issued.install(dir, "www"), &[pool]);
    assert_eq!(prefork.exit_code(), 1);
    let log = prefork.log();
    assert!(log.contains("lacks the capability `tls`"), "{log}");
    assert!(log.contains("listener 127.0.0.1:0 is for TLS"), "{log}");
}

#[test]
fn check_shows_certificates_and_tries_out_a_worker_that_speaks_tls() {
    let dir = directory();
    Issued::new().install(dir.path(), "www");
    let config = dir.path().join("prefork.toml");
    fs::write(&config, format!("[pool.web]\nlisten = {LISTEN}\n")).unwrap();
    let config = config.to_str().unwrap();
    let check = cli::run_alone(dir.path(), &["check", "--boot", "--config", config]);
    assert_eq!(check.code, 0, "{check:?}");
    assert!(
        check.stdout.contains("www.example.org until 4096-01-01"),
        "{check:?}"
    );
    assert!(check.stdout.contains("200"), "{check:?}");
}

/// Whether a tool is there; says so where it is not.
fn have(tool: &str) -> bool {
    let found = Command::new(tool)
        .arg(if tool == "openssl" {
            "version"
        } else {
            "--version"
        })
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    let there = found.is_ok_and(|status| status.success());
    if !there {
        eprintln!("SKIPPED: TLS by {tool}, which is not installed");
    }
    there
}

#[test]
fn openssl_takes_up_its_session_with_another_process() {
    if !have("openssl") {
        return;
    }
    let issued = Issued::new();
    let prefork = serving(&issued, 2);
    let address = prefork.address("web");
    let session = prefork.dir().join("session.pem");
    for version in ["-tls1_2", "-tls1_3"] {
        let _ = fs::remove_file(&session);
        let ask = |flag: &str| {
            let script = format!(
                "printf 'GET / HTTP/1.1\\r\\nHost: a\\r\\nConnection: close\\r\\n\\r\\n' | \
                 openssl s_client -connect {address} -servername {NAME} {version} \
                 -ign_eof {flag} {} 2>&1",
                session.display()
            );
            let said = Command::new("sh").args(["-c", &script]).output().unwrap();
            let said = String::from_utf8_lossy(&said.stdout).into_owned();
            let pid = said
                .split("pid ")
                .nth(1)
                .and_then(|it| it.split(' ').next());
            let pid: i32 = pid
                .and_then(|pid| pid.parse().ok())
                .unwrap_or_else(|| panic!("{said}"));
            (pid, said)
        };
        let (first, said) = ask("-sess_out");
        assert!(said.contains("\nNew, "), "{said}");
        eventually("another process takes it up", PATIENCE, || {
            let (pid, said) = ask("-sess_in");
            assert!(said.contains("\nReused, "), "{said}");
            pid != first
        });
    }
}

#[test]
fn curl_speaks_http_2_over_tls() {
    if !have("curl") {
        return;
    }
    let issued = Issued::new();
    let prefork = serving(&issued, 1);
    let port = prefork.address("web").port();
    for (flag, version) in [("--http2", "2"), ("--http1.1", "1.1")] {
        let asked = Command::new("curl")
            .args(["-sS", "-m", "20", flag, "--cacert"])
            .arg(prefork.dir().join("www.pem"))
            .args(["--resolve", &format!("{NAME}:{port}:127.0.0.1")])
            .args(["-o", "/dev/null", "-w", "%{http_code} %{http_version}"])
            .arg(format!("https://{NAME}:{port}/"))
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&asked.stdout).into_owned();
        assert_eq!(said, format!("200 {version}"), "{asked:?}");
    }
}
