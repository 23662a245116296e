//! In a sandbox that has taken something it starts, or says what it misses. It never hangs.

use std::process::Command;

use nix::libc;

use crate::harness::deadline::{PATIENCE, eventually};
use crate::harness::{Pool, Prefork, cli, http};

/// A supervisor of one worker without these system calls.
fn launch_without(action: &str, calls: &[libc::c_long]) -> Prefork {
    let without = cli::example("without");
    let numbers: Vec<String> = calls.iter().map(ToString::to_string).collect();
    let numbers = numbers.join(",");
    let script = format!("exec '{}' {action} {numbers} \"$@\"", without.display());
    Prefork::launch_by_script(&script, "", &[Pool::bundled("web", 1)])
}

/// The refusal of a supervisor that has ended because of it.
fn refusal(prefork: &mut Prefork) -> String {
    assert_eq!(prefork.exit_code(), 1);
    let log = prefork.log();
    let found = log.lines().find(|line| line.starts_with("prefork: "));
    let found = found.unwrap_or_else(|| panic!("no refusal in {log}"));
    found.to_owned()
}

#[track_caller]
fn serves(prefork: &Prefork) {
    prefork.wait_until_ready();
    let answer = http::get(prefork.address("web"), "/").expect("it serves");
    assert_eq!(answer.status, 200);
}

#[test]
fn without_system_calls_that_it_needs_it_names_them_and_what_to_do() {
    let calls = [
        ("tee", libc::SYS_tee),
        ("close_range", libc::SYS_close_range),
        ("memfd_create", libc::SYS_memfd_create),
        ("timerfd_create", libc::SYS_timerfd_create),
        ("pidfd_open", libc::SYS_pidfd_open),
        ("pidfd_send_signal", libc::SYS_pidfd_send_signal),
        ("socketpair", libc::SYS_socketpair),
        ("recvfrom", libc::SYS_recvfrom),
        ("sendmsg", libc::SYS_sendmsg),
    ];
    let numbers = calls.map(|(_, number)| number);
    for (action, how) in [
        (libc::ENOSYS.to_string(), "ENOSYS"),
        (libc::EPERM.to_string(), "EPERM"),
        ("kill".to_owned(), "it ends the process"),
    ] {
        let said = refusal(&mut launch_without(&action, &numbers));
        for (name, _) in calls {
            assert!(
                said.contains(&format!("{name} ({how}; to ")),
                "{name}: {said}"
            );
        }
        assert!(said.contains("SystemCallFilter="), "{said}");
    }
}

#[test]
fn each_system_call_that_is_missing_is_named_alone() {
    for (name, number) in [
        ("tee", libc::SYS_tee),
        ("timerfd_create", libc::SYS_timerfd_create),
    ] {
        let enosys = libc::ENOSYS.to_string();
        let said = refusal(&mut launch_without(&enosys, &[number]));
        let wanted = format!("keeps prefork from {name} (ENOSYS; to ");
        assert!(said.contains(&wanted), "{said}");
        assert!(said.contains("): allow it (in a unit"), "{said}");
    }
}

#[test]
fn without_pidfd_getfd_it_serves_and_says_once_what_it_lacks() {
    let enosys = libc::ENOSYS.to_string();
    let prefork = launch_without(&enosys, &[libc::SYS_pidfd_getfd]);
    serves(&prefork);
    assert_eq!(prefork.log().matches("no pidfd_getfd (ENOSYS)").count(), 1);
}

#[test]
fn without_landlock_it_serves_unless_confinement_is_required() {
    let enosys = libc::ENOSYS.to_string();
    let prefork = launch_without(&enosys, &[libc::SYS_landlock_create_ruleset]);
    serves(&prefork);
    eventually("its status says so", PATIENCE, || {
        prefork.worker("web", 0).status.contains("not confined: ")
    });
    prefork.configure(&[Pool::bundled("web", 1).set("app", "{ confine = \"required\" }")]);
    let output = prefork.cli(&["reload"]);
    assert_eq!(output.code, 1, "{output:?}");
    assert!(output.stderr.contains("confine"), "{output:?}");
    serves(&prefork);
}

/// A supervisor that sees another `/proc`, which this command mounts; nothing where that
/// is not permitted.
fn launch_with_proc(mount: &str) -> Option<Prefork> {
    let tried = Command::new("unshare")
        .args(["--mount", "sh", "-c", mount])
        .output();
    match tried {
        Ok(tried) if tried.status.success() => {}
        tried => {
            eprintln!("SKIPPED: a /proc of its own for a supervisor: {tried:?}");
            return None;
        }
    }
    let script = format!("exec unshare --mount sh -c '{mount} && exec \"$@\"' sh \"$@\"");
    Some(Prefork::launch_by_script(
        &script,
        "",
        &[Pool::bundled("web", 1)],
    ))
}

#[test]
fn without_proc_it_says_so_and_what_to_do() {
    if let Some(mut prefork) = launch_with_proc("mount -t tmpfs none /proc") {
        let said = refusal(&mut prefork);
        assert!(said.contains("/proc is not there"), "{said}");
        assert!(said.contains("mount it"), "{said}");
    }
}

#[test]
fn where_proc_has_processes_only_it_serves_and_says_what_it_lacks() {
    let mount = "mount -t proc -o subset=pid proc /proc";
    if let Some(prefork) = launch_with_proc(mount) {
        serves(&prefork);
        let log = prefork.log();
        assert_eq!(log.matches("ProcSubset=pid").count(), 1, "{log}");
        prefork.done(&["reload", "--force"]);
        serves(&prefork);
    }
}
