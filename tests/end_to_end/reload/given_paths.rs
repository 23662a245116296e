//! A path means what it was given as, each time that it is followed: what `run`
//! found is what a reload reads, and a link that a deploy switches is followed anew.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use nix::sys::signal::Signal;

use crate::harness::deadline::{PATIENCE, eventually};
use crate::harness::{Prefork, cli, http, processes};

const SITE: &str = "[supervisor]\nadmin = \"127.0.0.1:0\"\n\
    [pool.web]\nworkers = 1\nlisten = [\"127.0.0.1:0\"]\nmin_ready = \"20ms\"\n";

/// Makes `link` lead to `target`, whatever it led to before.
pub(crate) fn switch(link: &Path, target: &str) {
    let draft = link.with_extension("draft");
    symlink(target, &draft).expect("the directory is ours");
    fs::rename(draft, link).expect("the directory is ours");
}

/// A release with a page that names it and a configuration that serves it.
fn release(dir: &Path, name: &str) {
    let release = dir.join(name);
    fs::create_dir_all(release.join("public")).expect("the directory is ours");
    fs::write(release.join("public/index.html"), name).expect("the directory is ours");
    let config = format!("{SITE}app.root = \"./public\"\n");
    fs::write(release.join("prefork.toml"), config).expect("the directory is ours");
}

/// Two releases, and `current`, which leads to the first.
fn releases(dir: &Path) {
    release(dir, "one");
    release(dir, "two");
    switch(&dir.join("current"), "one");
}

/// The release that is served.
#[track_caller]
pub(crate) fn served(prefork: &Prefork) -> String {
    let answer = http::get(prefork.address("web"), "/").expect("it is served");
    answer.body
}

#[test]
fn what_run_found_is_what_a_reload_reads_also_when_it_is_gone() {
    for found in [
        "exec \"$0\" --runtime-dir \"$1\" run",
        "exec \"$0\" --runtime-dir \"$1\" run --config prefork.toml",
        "PREFORK_CONFIG=./prefork.toml exec \"$0\" --runtime-dir \"$1\" run",
    ] {
        let install = |dir: &Path| fs::write(dir.join("prefork.toml"), SITE).expect("it is ours");
        let prefork = Prefork::launch_by_shell(install, found);
        prefork.wait_until_ready();
        let file = prefork.dir().join("prefork.toml");
        let path = file.to_str().expect("the path is text");
        let serves = || (prefork.status().generation, prefork.ready_pids("web"));
        let before = serves();
        let refuses = || {
            let refused = prefork.cli(&["reload"]);
            assert_eq!(refused.code, 78, "{found}: {refused:?}");
            assert!(refused.stderr.contains(path), "{refused:?}");
            let rehearsed = prefork.cli(&["reload", "--dry-run"]);
            assert_eq!(rehearsed.code, 78, "{found}: {rehearsed:?}");
            assert_eq!(serves(), before, "{found}");
        };

        fs::remove_file(&file).expect("it is there");
        refuses();
        prefork.signal(Signal::SIGHUP);
        prefork.logged(&["asked to reload by SIGHUP"]);
        eventually("the signal's reload is refused", PATIENCE, || {
            let events = prefork.done(&["events"]);
            events.matches("stays in force").count() == 2
        });
        symlink("nowhere.toml", &file).expect("the directory is ours");
        refuses();

        // The program that comes by an upgrade reads the same.
        prefork.done(&["upgrade"]);
        refuses();

        fs::remove_file(&file).expect("it is there");
        fs::write(&file, SITE).expect("it is ours");
        prefork.done(&["reload"]);
        assert_eq!(prefork.status().generation, before.0 + 1, "{found}");
    }
}

#[test]
fn a_link_that_leads_nowhere_is_no_reason_to_run_something_else() {
    let install = |dir: &Path| {
        symlink("nowhere.toml", dir.join("prefork.toml")).expect("the directory is ours");
    };
    let mut prefork = Prefork::launch_by_shell(install, "exec \"$0\" --runtime-dir \"$1\" run");
    assert_eq!(prefork.exit_code(), 78);
    prefork.logged(&["prefork.toml", "a link to nowhere.toml"]);
}

#[test]
fn the_supervisor_after_one_that_was_killed_does_not_forget_its_file() {
    let install = |dir: &Path| fs::write(dir.join("prefork.toml"), SITE).expect("it is ours");
    let mut prefork = Prefork::launch_by_shell(install, "exec \"$0\" --runtime-dir \"$1\" run");
    prefork.wait_until_ready();
    let before = prefork.ready_pids("web");
    prefork.killed();
    fs::remove_file(prefork.dir().join("prefork.toml")).expect("it is there");
    prefork.start_again_as(&["run"]);
    prefork.wait_until_ready();
    assert_eq!(prefork.ready_pids("web"), before);
    let refused = prefork.cli(&["reload"]);
    assert_eq!(refused.code, 78, "{refused:?}");
    assert_eq!(prefork.ready_pids("web"), before);
}

#[test]
fn a_reload_follows_the_link_by_which_the_release_was_entered() {
    for script in [
        "cd current && exec \"$0\" --runtime-dir \"$1\" run",
        "cd current && exec \"$0\" --runtime-dir \"$1\" run --config prefork.toml",
        "exec \"$0\" --runtime-dir \"$1\" run --config current/prefork.toml",
    ] {
        let prefork = Prefork::launch_by_shell(releases, script);
        prefork.wait_until_ready();
        assert_eq!(served(&prefork), "one");
        switch(&prefork.dir().join("current"), "two");
        prefork.done(&["reload"]);
        assert_eq!(served(&prefork), "two", "{script}");
        if script.starts_with("cd") {
            let started_in = processes::directory_of(prefork.ready_pid("web", 0));
            assert!(started_in.ends_with("two"), "{script}: {started_in:?}");
        }

        // The old one may go then.
        fs::remove_dir_all(prefork.dir().join("one")).expect("it is ours");
        prefork.done(&["reload"]);
        release(prefork.dir(), "three");
        switch(&prefork.dir().join("current"), "three");
        prefork.done(&["upgrade"]);
        prefork.done(&["reload"]);
        assert_eq!(served(&prefork), "three", "{script}");
    }
}

#[test]
fn flags_follow_the_link_as_well() {
    let script = "cd current && exec \"$0\" --runtime-dir \"$1\" run --root ./public \
         --listen 127.0.0.1:0 --admin 127.0.0.1:0 --workers 1";
    let prefork = Prefork::launch_by_shell(releases, script);
    prefork.wait_until_ready();
    assert_eq!(served(&prefork), "one");
    switch(&prefork.dir().join("current"), "two");
    prefork.done(&["reload"]);
    assert_eq!(served(&prefork), "two");
}

#[test]
fn an_upgrade_follows_the_link_by_which_the_program_was_called() {
    let install = |dir: &Path| {
        for name in ["one", "two"] {
            fs::create_dir_all(dir.join(name).join("bin")).expect("the directory is ours");
            cli::install(&cli::binary(), &dir.join(name).join("bin/prefork"));
        }
        switch(&dir.join("current"), "one");
        fs::write(dir.join("prefork.toml"), SITE).expect("it is ours");
    };
    for script in [
        "exec ./current/bin/prefork --runtime-dir \"$1\" run",
        "PATH=\"$PWD/current/bin:$PATH\" exec prefork --runtime-dir \"$1\" run",
    ] {
        let prefork = Prefork::launch_by_shell(install, script);
        prefork.wait_until_ready();
        let runs = |release: &str| {
            let program = fs::read_link(format!("/proc/{}/exe", prefork.pid()));
            let program = program.expect("it lives");
            assert!(
                program.ends_with(format!("{release}/bin/prefork")),
                "{script}: {program:?}"
            );
        };
        let same = prefork.done(&["upgrade"]);
        assert!(same.contains("has not changed"), "{same}");
        runs("one");
        let current = prefork.dir().join("current");
        switch(&current, "two");
        let told = prefork.done(&["upgrade"]);
        assert!(!told.contains("has not changed"), "{told}");
        runs("two");

        fs::remove_file(&current).expect("it is there");
        let refused = prefork.cli(&["upgrade"]);
        assert_eq!(refused.code, 1, "{refused:?}");
        assert!(
            refused.stderr.contains("current/bin/prefork"),
            "{refused:?}"
        );
        runs("two");
    }
}
