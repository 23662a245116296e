//! A rollback by hand: what was in force before is in force again, whatever has become of
//! the files.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::sys::signal::Signal;

use crate::harness::cli::Output;
use crate::harness::load::mixed::Mixed;
use crate::harness::tls::{Issued, NAME, Trust};
use crate::harness::{Pool, Prefork, cli, http, processes};
use crate::reload::given_paths::{served, switch};

/// Installs the service as a program of its own; the file that it is.
fn install(dir: &Path) -> u64 {
    let (draft, program) = (dir.join("shop.new"), dir.join("shop"));
    cli::install(&cli::example("service"), &draft);
    fs::rename(draft, &program).expect("the directory is ours");
    fs::metadata(program).expect("it is there").ino()
}

/// A pool that runs what is installed there.
fn shop(prefork: &Prefork, workers: u32) -> Pool {
    let program = prefork.dir().join("shop");
    let program = program.to_str().expect("the path is text");
    Pool::command("web", &[program], workers).text("min_ready", "50ms")
}

/// The files that the workers run.
fn running(prefork: &Prefork) -> Vec<u64> {
    let pids = prefork.ready_pids("web").into_iter();
    let file = |pid| fs::metadata(format!("/proc/{pid}/exe")).map(|exe| exe.ino());
    pids.map(|pid| file(pid).expect("it runs")).collect()
}

#[track_caller]
fn refused(output: &Output, why: &str) {
    assert_eq!(output.code, 1, "{output:?}");
    assert!(output.stderr.contains(why), "{output:?}");
}

#[test]
fn a_program_comes_back_after_a_reload_and_an_upgrade_although_its_file_is_gone() {
    let mut prefork = Prefork::start(&[Pool::bundled("web", 1)]);
    let first = install(prefork.dir());
    prefork.configure(&[shop(&prefork, 2)]);
    prefork.done(&["reload"]);
    assert_eq!(running(&prefork), [first; 2]);

    let second = install(prefork.dir());
    prefork.configure(&[shop(&prefork, 2).set("max_requests", 1_000_000)]);
    prefork.done(&["reload"]);
    assert_eq!(running(&prefork), [second; 2]);
    prefork.done(&["scale", "web", "3"]);
    fs::remove_file(prefork.dir().join("shop")).expect("it is there");
    prefork.done(&["upgrade"]);

    let told = prefork.done(&["rollback", "--dry-run"]);
    assert!(
        told.contains("3 workers would be replaced") && told.contains("max_requests"),
        "{told}"
    );
    assert_eq!(running(&prefork), [second; 3]);
    let load = Mixed::start(prefork.address("web"), 2);
    load.serves(20);
    let back = prefork.cli(&["rollback"]);
    assert_eq!(back.stdout, "generation 4 is in force\n", "{back:?}");
    assert!(
        back.stderr
            .contains("generation 4 begins, as generation 2 was\n")
    );
    assert_eq!(running(&prefork), [first; 3]);
    load.serves(20);
    // What a crash starts is the same.
    let old = prefork.ready_pid("web", 0);
    processes::send(old, Signal::SIGKILL);
    prefork.replaced("web", 0, old);
    assert_eq!(running(&prefork), [first; 3]);

    // The way back leads to where it came from, once more after an upgrade.
    prefork.done(&["upgrade"]);
    prefork.done(&["rollback"]);
    assert_eq!(running(&prefork), [second; 3]);
    prefork.done(&["rollback", "--to", "4"]);
    assert_eq!(running(&prefork), [first; 3]);
    drop(load);

    // A supervisor that was killed takes along what only it held, and says so.
    prefork.killed();
    prefork.ready_again();
    refused(&prefork.cli(&["rollback"]), "nothing is kept to go back to");
    assert_eq!(running(&prefork), [first; 3]);
}

#[test]
fn directories_and_listeners_come_back() {
    let releases = |dir: &Path| {
        for name in ["one", "two"] {
            fs::create_dir_all(dir.join(name)).expect("the directory is ours");
            fs::write(dir.join(name).join("index.html"), name).expect("it is ours");
        }
        switch(&dir.join("current"), "one");
    };
    let site = || Pool::bundled("web", 1).text("app.root", "current");
    let beside = Pool::service("beside", 1);
    let prefork = Prefork::launch_in(releases, &[site(), Pool::service("beside", 1)]);
    prefork.wait_until_ready();
    let other = prefork.address("beside");
    let beside = beside.set("listen", format!("[\"{other}\"]"));
    prefork.configure(&[site(), beside]);
    prefork.done(&["reload"]);

    switch(&prefork.dir().join("current"), "two");
    prefork.configure(&[site()]);
    prefork.done(&["reload"]);
    assert_eq!(served(&prefork), "two");
    assert!(http::get(other, "/").is_err(), "nobody listens there");

    prefork.done(&["rollback"]);
    assert_eq!(served(&prefork), "one");
    assert_eq!(
        http::get(other, "/").expect("it is there again").status,
        200
    );

    // What is in the way is found before anything is touched.
    prefork.done(&["rollback"]);
    assert_eq!(served(&prefork), "two");
    let squatter = std::net::TcpListener::bind(other).expect("it is free");
    refused(&prefork.cli(&["rollback"]), &other.to_string());
    drop(squatter);
    fs::remove_dir_all(prefork.dir().join("one")).expect("it is ours");
    refused(
        &prefork.cli(&["rollback"]),
        "that directory has been removed",
    );
    assert_eq!(served(&prefork), "two");
}

#[test]
fn after_a_reload_that_failed_there_is_nothing_to_undo() {
    let prefork = Prefork::start(&[Pool::test_worker("app", 2)]);
    refused(&prefork.cli(&["rollback"]), "nothing is kept to go back to");
    prefork.configure(&[Pool::test_worker("app", 2).set("max_requests", 1_000)]);
    prefork.done(&["reload"]);
    prefork.order_boot("app", "exit 7 no database");
    prefork.configure(&[Pool::test_worker("app", 2).set("max_requests", 2_000)]);
    assert_eq!(prefork.cli(&["reload"]).code, 1);
    let pids = prefork.ready_pids("app");
    refused(
        &prefork.cli(&["rollback"]),
        "generation 2, which served before",
    );
    refused(
        &prefork.cli(&["rollback", "--to", "9"]),
        "generation 9 is not kept; there is 1",
    );
    refused(
        &prefork.cli(&["rollback", "--to", "2"]),
        "generation 2 is in force",
    );

    // One that does not come up is undone as a reload is.
    refused(&prefork.cli(&["rollback", "--to", "1"]), "no database");
    assert_eq!(prefork.ready_pids("app"), pids);
    assert_eq!(prefork.status().generation, 2);
    prefork.clear_boot("app");
    let back = prefork.done(&["rollback", "--to", "1"]);
    assert_eq!(back, "generation 5 is in force\n");
    assert!(
        prefork
            .ready_pids("app")
            .iter()
            .all(|pid| !pids.contains(pid))
    );
}

#[test]
fn a_script_that_was_changed_is_not_taken_for_what_it_was() {
    let script = |dir: &Path, release: &str| {
        let service = cli::example("service");
        let text = format!("#!/bin/sh\nRELEASE={release} exec {service:?}\n");
        super::one_release::write_program(&dir.join("app"), &text);
    };
    let prefork = Prefork::start(&[Pool::bundled("web", 1)]);
    let path = prefork.dir().join("app");
    let program = path.to_str().expect("the path is text").to_owned();
    script(prefork.dir(), "one");
    prefork.configure(&[Pool::command("web", &[&program], 1)]);
    prefork.done(&["reload"]);
    script(prefork.dir(), "two");
    prefork.done(&["reload"]);
    let why = format!("{program} was changed or removed since");
    refused(&prefork.cli(&["rollback"]), &why);
    let release = processes::variable(prefork.ready_pid("web", 0), "RELEASE");
    assert_eq!(release.as_deref(), Some("two"));
}

#[test]
fn a_certificate_that_was_renewed_is_not_taken_back() {
    let [old, new] = [Issued::new(), Issued::new()];
    let pool = |requests: u32| {
        let listen =
            "[{ address = \"127.0.0.1:0\", tls = { cert = \"www.pem\", key = \"www.key\" } }]";
        let pool = Pool::service("web", 1).set("max_requests", requests);
        pool.set("listen", listen)
    };
    let prefork = Prefork::launch_in(|dir| old.install(dir, "www"), &[pool(1_000)]);
    prefork.wait_until_ready();
    let (address, trust) = (prefork.address("web"), Trust::of(&[&old, &new]));
    prefork.configure(&[pool(2_000)]);
    prefork.done(&["reload"]);
    new.install(prefork.dir(), "www");
    prefork.done(&["reload"]);
    prefork.done(&["upgrade"]);
    // The renewal is nothing to undo: the generation before it differs in nothing else.
    let told = prefork.cli(&["rollback"]);
    assert!(told.stderr.contains("as generation 1 was"), "{told:?}");
    assert_eq!(trust.sees(address, NAME), new.der);
}
