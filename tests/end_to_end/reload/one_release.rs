//! What a name means is settled when the generation begins: one generation is one
//! release, whatever a link says by then, and a reload takes the new one.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use nix::sys::signal::Signal;
use prefork_api::SlotState;

use crate::harness::deadline::{PATIENCE, eventually};
use crate::harness::{Pool, Prefork, cli, processes};
use crate::reload::given_paths::{served, switch};

/// Kills the worker in slot 0 and gives its successor.
fn crash(prefork: &Prefork) -> i32 {
    let old = prefork.ready_pid("web", 0);
    processes::send(old, Signal::SIGKILL);
    prefork.replaced("web", 0, old)
}

/// Two releases, each with a page, a script and a directory to work in.
fn releases(dir: &Path) {
    let service = cli::example("service");
    for name in ["one", "two"] {
        let release = dir.join(name);
        fs::create_dir_all(release.join("public")).expect("the directory is ours");
        fs::write(release.join("public/index.html"), name).expect("it is ours");
        let script = format!("#!/bin/sh\nRELEASE={name} exec {service:?}\n");
        write_program(&release.join("app"), &script);
    }
    switch(&dir.join("current"), "one");
}

/// Puts a script in its place whole.
pub(super) fn write_program(path: &Path, text: &str) {
    let draft = path.with_extension("draft");
    fs::write(&draft, text).expect("the directory is ours");
    fs::set_permissions(&draft, Permissions::from_mode(0o755)).expect("it is ours");
    fs::rename(draft, path).expect("the directory is ours");
}

#[test]
fn a_generation_serves_one_root_until_a_reload_takes_the_other() {
    let pool = || Pool::bundled("web", 2).text("app.root", "./current/public");
    let mut prefork = Prefork::launch_in(releases, &[pool()]);
    prefork.wait_until_ready();
    let current = prefork.dir().join("current");
    switch(&current, "two");
    let all_serve = |prefork: &Prefork, release: &str| {
        for _ in 0..8 {
            assert_eq!(served(prefork), release);
        }
    };
    crash(&prefork);
    all_serve(&prefork, "one");
    let told = prefork.done(&["restart", "web"]);
    assert!(told.contains("reload"), "{told}");
    all_serve(&prefork, "one");
    let described = prefork.done(&["describe", "web/0"]);
    assert!(
        described.contains("current/public is another directory"),
        "{described}"
    );

    prefork.done(&["upgrade"]);
    crash(&prefork);
    all_serve(&prefork, "one");
    prefork.killed();
    prefork.ready_again();
    crash(&prefork);
    all_serve(&prefork, "one");

    prefork.done(&["reload"]);
    all_serve(&prefork, "two");
    let told = prefork.done(&["restart", "web"]);
    assert!(!told.contains("reload"), "{told}");
}

#[test]
fn a_root_that_was_removed_is_named_and_a_reload_takes_what_is_there() {
    let pool = || Pool::bundled("web", 1).text("app.root", "./current/public");
    let prefork = Prefork::launch_in(releases, &[pool()]);
    prefork.wait_until_ready();
    switch(&prefork.dir().join("current"), "two");

    // Under another name it is the same.
    fs::rename(prefork.dir().join("one"), prefork.dir().join("before")).expect("it is ours");
    crash(&prefork);
    assert_eq!(served(&prefork), "one");

    fs::remove_dir_all(prefork.dir().join("before")).expect("it is ours");
    processes::send(prefork.ready_pid("web", 0), Signal::SIGKILL);
    prefork.logged(&[
        "current/public",
        "before/public",
        "has been removed",
        "a reload",
    ]);
    eventually("it waits", PATIENCE, || {
        prefork.worker("web", 0).state == SlotState::Backoff
    });
    prefork.done(&["reload"]);
    assert_eq!(served(&prefork), "two");
}

#[test]
fn a_generation_starts_its_workers_in_one_directory() {
    let pool = || Pool::service("web", 2).text("working_directory", "./current");
    let mut prefork = Prefork::launch_in(releases, &[pool()]);
    prefork.wait_until_ready();
    switch(&prefork.dir().join("current"), "two");
    let starts_in = |prefork: &Prefork, release: &str| {
        let directory = processes::directory_of(crash(prefork));
        assert!(directory.ends_with(release), "{directory:?}");
    };
    starts_in(&prefork, "one");
    prefork.done(&["upgrade"]);
    starts_in(&prefork, "one");
    prefork.killed();
    prefork.ready_again();
    starts_in(&prefork, "one");

    // Other settings come with the new directory, and not in place.
    let before = prefork.ready_pids("web");
    prefork.append_to_configuration("\n[pool.web.app]\nversion = 2\n");
    prefork.done(&["reload"]);
    let after = prefork.ready_pids("web");
    assert!(after.iter().all(|pid| !before.contains(pid)), "{after:?}");
    starts_in(&prefork, "two");
}

#[test]
fn a_generation_runs_one_script_by_whatever_link_it_was_named() {
    let pool = || Pool::command("web", &["./current/app"], 2).text("min_ready", "20ms");
    let mut prefork = Prefork::launch_in(releases, &[pool()]);
    prefork.wait_until_ready();
    switch(&prefork.dir().join("current"), "two");
    let runs = |prefork: &Prefork, release: &str| {
        let variable = processes::variable(crash(prefork), "RELEASE");
        assert_eq!(variable.as_deref(), Some(release));
    };
    runs(&prefork, "one");
    let told = prefork.done(&["restart", "web/0"]);
    assert!(
        told.contains("newer") && told.contains("prefork reload"),
        "{told}"
    );
    prefork.done(&["upgrade"]);
    runs(&prefork, "one");
    prefork.killed();
    prefork.ready_again();
    runs(&prefork, "one");
    prefork.done(&["reload"]);
    runs(&prefork, "two");
}

#[test]
fn who_has_new_code_is_replaced_whatever_its_file_is() {
    let service = cli::example("service");
    let wrapper = format!("#!/bin/sh\nexec {service:?} \"$@\"\n");
    let install = |dir: &Path| {
        write_program(&dir.join("wrapper"), &wrapper);
        cli::install(&service, &dir.join("shop"));
        write_program(&dir.join("run.sh"), "exec ./shop\n");
    };
    let pools = [
        Pool::command("wrapper", &["./wrapper"], 1),
        // An interpreter, and a wrapper that has become another program.
        Pool::command("script", &["/bin/sh", "run.sh"], 1).text("working_directory", "."),
        Pool::command("env", &["/usr/bin/env", "./shop"], 1).text("working_directory", "."),
    ];
    let prefork = Prefork::launch_in(install, &pools);
    prefork.wait_until_ready();
    let pids = || ["wrapper", "script", "env"].map(|pool| prefork.ready_pid(pool, 0));
    let settings = |version: u32| {
        prefork.configure(&pools);
        for pool in ["wrapper", "script", "env"] {
            let app = format!("\n[pool.{pool}.app]\nversion = {version}\n");
            prefork.append_to_configuration(&app);
        }
        prefork.done(&["reload"]);
    };
    let before = pids();
    settings(2);
    assert_eq!(pids(), before, "nothing but the settings is new");

    write_program(&prefork.dir().join("wrapper"), &format!("{wrapper}# new\n"));
    let draft = prefork.dir().join("draft");
    cli::install(&service, &draft);
    fs::rename(draft, prefork.dir().join("shop")).expect("the directory is ours");
    settings(3);
    let after = pids();
    assert!(
        after.iter().all(|pid| !before.contains(pid)),
        "{before:?} {after:?}"
    );
}

#[test]
fn whoever_starts_workers_is_told_that_the_program_on_disk_is_newer() {
    let install = |dir: &Path| cli::install(&cli::example("service"), &dir.join("shop"));
    let pool = Pool::command("web", &["./shop"], 2).text("min_ready", "20ms");
    let prefork = Prefork::launch_in(install, &[pool]);
    prefork.wait_until_ready();
    let orders: [&[&str]; 6] = [
        &["restart", "web"],
        &["restart", "web/0"],
        &["kill", "web/0"],
        &["drain", "web/0"],
        &["scale", "web", "3"],
        &["scale", "web", "-1"],
    ];
    for order in orders {
        let told = prefork.done(order);
        assert!(!told.contains("newer"), "{order:?}: {told}");
    }
    let draft = prefork.dir().join("draft");
    cli::install(&cli::example("service"), &draft);
    fs::rename(draft, prefork.dir().join("shop")).expect("the directory is ours");
    for order in [&[&["status"][..], &["describe", "web/0"]][..], &orders].concat() {
        let told = prefork.done(order);
        let says = told.contains("newer") && told.contains("prefork reload");
        assert!(says, "{order:?}: {told}");
    }
    prefork.done(&["reload"]);
    let told = prefork.done(&["status"]);
    assert!(!told.contains("newer"), "{told}");
}
