//! What a new worker is asked before it counts as ready (`[pool.NAME.check]`).

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use prefork_api::ExitReason;

use crate::harness::deadline::{PATIENCE, eventually_some};
use crate::harness::load::Load;
use crate::harness::{Pool, Prefork, cli, directory, http, processes};

/// A release with these files, each with its name as its content.
fn release(directory: &Path, name: &str, files: &[&str]) -> String {
    let root = directory.join(name);
    fs::create_dir_all(root.join("moved")).expect("there is room");
    for file in files {
        fs::write(root.join(file), file).expect("there is room");
    }
    root.to_str().expect("the path is text").to_owned()
}

fn pool(root: &str, check: &str) -> Pool {
    Pool::bundled("web", 2)
        .set("app", format!("{{ root = {root:?} }}"))
        .set("check", check)
        .text("min_ready", "50ms")
}

/// Tries to reload to this pool: the one before goes on, and this is said.
#[track_caller]
fn is_refused(prefork: &Prefork, pool: Pool, why: &str) {
    let workers = prefork.ready_pids("web");
    let generation = prefork.status().generation;
    prefork.configure(&[pool]);
    let output = prefork.cli(&["reload"]);
    assert_eq!(output.code, 1, "{why}: {output:?}");
    assert!(output.stderr.contains(why), "{why}: {output:?}");
    assert_eq!(prefork.ready_pids("web"), workers, "{why}");
    assert_eq!(prefork.status().generation, generation, "{why}");
    let exit = eventually_some("its certificate", PATIENCE, || {
        let mut exits = prefork.describe("web", 0).exits.into_iter();
        exits.find(|exit| exit.detail.contains(why))
    });
    assert_eq!(exit.reason, ExitReason::CheckFailed, "{exit:?}");
}

#[test]
fn a_release_whose_workers_answer_wrongly_is_undone_before_anybody_sees_it() {
    let releases = tempfile::tempdir().expect("there is room");
    let good = release(releases.path(), "good", &["healthz", "page"]);
    let bad = release(releases.path(), "bad", &["page"]);
    let check = "{ path = \"/healthz\", body = \"health\" }";
    let prefork = Prefork::start(&[pool(&good, check)]);
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let client = scope.spawn(|| {
            let healthz = || http::get(prefork.address("web"), "/healthz");
            let mut answers = 0;
            while !over.load(Ordering::Relaxed) {
                assert_eq!(healthz().expect("it is answered").status, 200);
                answers += 1;
                // The machine is for the workers.
                thread::sleep(Duration::from_millis(2));
            }
            answers
        });
        is_refused(
            &prefork,
            pool(&bad, check),
            "GET /healthz was answered with 404 Not Found, not 2xx",
        );
        is_refused(
            &prefork,
            pool(&good, "{ path = \"/moved\" }"),
            "GET /moved was answered with 307 Temporary Redirect, not 2xx",
        );
        is_refused(
            &prefork,
            pool(&good, "{ path = \"/healthz\", body = \"well\" }"),
            "\"well\" is not in the 7 bytes that GET /healthz was answered with",
        );
        over.store(true, Ordering::Relaxed);
        assert!(client.join().expect("it is always answered well") > 0);
    });
    let failed = prefork.metric("prefork_worker_exits_total", &[("reason", "check_failed")]);
    assert!(failed >= 3.0, "{failed}");
    // One that does well is put in force; a status may be the right one, whichever it is.
    let before = prefork.ready_pids("web");
    prefork.configure(&[pool(&bad, "{ path = \"/healthz\", status = 404 }")]);
    prefork.done(&["reload"]);
    assert!(
        before
            .iter()
            .all(|pid| !prefork.ready_pids("web").contains(pid))
    );
}

#[test]
fn a_worker_that_does_not_answer_its_check_in_time_is_replaced_by_none() {
    let prefork = Prefork::start(&[Pool::service("web", 1)]);
    let load = Load::start(prefork.address("web"), 2);
    let check = "{ path = \"/slow/60000\", timeout = \"200ms\" }";
    is_refused(
        &prefork,
        Pool::service("web", 1).set("check", check),
        "GET /slow/60000 was not answered within 200ms",
    );
    load.stop_flawless();
}

#[test]
fn a_worker_that_can_be_asked_nothing_alone_does_not_pass() {
    let hello = r#"{"type":"hello","protocol":1,"pid":%d,"program":"sh","version":"1"}\n"#;
    let mute = format!(
        "printf '{hello}' $$ >&3; \
         while read -r line <&3; do case $line in *'\"start\"'*) break;; esac; done; \
         echo '{{\"type\":\"ready\"}}' >&3; exec sleep 600"
    );
    let prefork = Prefork::start(&[Pool::bundled("web", 1)]);
    let pool = Pool::command("web", &["/bin/sh", "-c", &mute], 1);
    is_refused(
        &prefork,
        pool.set("check", "{ path = \"/\" }"),
        "it cannot be asked: its hello lacks the capability `rescue`",
    );
}

#[test]
fn a_program_behind_an_adapter_is_asked_at_its_own_socket() {
    let program = cli::example("plain_http");
    let program = program.to_str().expect("the path is text");
    let app = |check: &str| {
        Pool::command("web", &[program, "--uds", "{socket}"], 1)
            .set("adapter", "{}")
            .set("check", check)
            .text("min_ready", "50ms")
            .without_listeners()
    };
    let prefork = Prefork::start(&[app("{ path = \"/\", body = \"pid=\" }")]);
    is_refused(
        &prefork,
        app("{ path = \"/\", body = \"pid=none\" }"),
        "\"pid=none\" is not in the ",
    );
    is_refused(
        &prefork,
        app("{ path = \"/\", status = 204 }"),
        "GET / was answered with 200 OK, not 204",
    );
}

#[test]
fn a_check_in_progress_goes_on_after_an_upgrade() {
    let prefork = Prefork::start(&[Pool::service("web", 1)]);
    let old = prefork.ready_pid("web", 0);
    processes::send(old, nix::sys::signal::Signal::SIGKILL);
    let old = prefork.replaced("web", 0, old);
    let slow = "{ path = \"/slow/1500\", timeout = \"20s\" }";
    prefork.configure(&[Pool::service("web", 1).set("check", slow)]);
    prefork.done(&["reload"]);
    let now = prefork.ready_pid("web", 0);
    assert_ne!(now, old);
    // Its successor is being asked when the next program takes over.
    processes::send(now, nix::sys::signal::Signal::SIGKILL);
    eventually_some("its successor starts", PATIENCE, || {
        let pid = prefork.worker("web", 0).pid;
        pid.filter(|pid| *pid != now)
    });
    prefork.done(&["upgrade"]);
    prefork.replaced("web", 0, now);
}

#[test]
fn what_does_not_pass_its_check_neither_starts_nor_passes_the_boot_check() {
    let dir = directory();
    let path = dir.path().join("prefork.toml");
    let config = |app: &str| {
        let runtime_dir = dir.path().join("run");
        let text = format!(
            "[supervisor]\nruntime_dir = {runtime_dir:?}\n[pool.web]\nworkers = 1\n\
             listen = [\"127.0.0.1:0\"]\n{app}\n"
        );
        fs::write(&path, text).expect("it is ours");
        path.to_str().expect("the path is text").to_owned()
    };
    let release = release(dir.path(), "release", &["page"]);
    let failing = config(&format!(
        "app = {{ root = {release:?} }}\ncheck = {{ path = \"/healthz\" }}"
    ));
    for command in [
        &["check", "--boot", "--config", &failing][..],
        &["run", "--config", &failing],
    ] {
        let output = cli::run_alone(dir.path(), command);
        assert_eq!(output.code, 1, "{output:?}");
        let why = "GET /healthz was answered with 404 Not Found, not 2xx";
        assert!(output.stderr.contains(why), "{output:?}");
    }
    let program = cli::example("plain_http");
    let failing = config(&format!(
        "program = [{program:?}, \"--fd\", \"{{fd}}\", \"--status\", \"503\"]\nadapter = {{ ready = \"50ms\" }}"
    ));
    let output = cli::run_alone(dir.path(), &["check", "--boot", "--config", &failing]);
    assert_eq!(output.code, 1, "{output:?}");
    assert!(
        output.stderr.contains("answered GET / with 503"),
        "{output:?}"
    );
    let unasked = config(&format!(
        "program = [{program:?}, \"--fd\", \"{{fd}}\"]\nadapter = {{}}\ncheck = {{ path = \"/\" }}"
    ));
    let output = cli::run_alone(dir.path(), &["check", "--config", &unasked]);
    assert_eq!(output.code, 78, "{output:?}");
    assert!(
        output.stderr.contains("cannot be asked alone"),
        "{output:?}"
    );
    let passing = config(&format!(
        "app = {{ root = {release:?} }}\ncheck = {{ path = \"/page\" }}"
    ));
    let output = cli::run_alone(dir.path(), &["check", "--boot", "--config", &passing]);
    assert_eq!(output.code, 0, "{output:?}");
}
