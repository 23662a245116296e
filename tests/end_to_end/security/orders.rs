//! A worker gives no orders, however it comes to the control socket, and nobody has a
//! program run in the supervisor's place that others may write to.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::harness::deadline::{PATIENCE, eventually, eventually_some};
use crate::harness::{Pool, Prefork, cli, http, processes};

/// The user of nobody.
const NOBODY: u32 = 65534;

/// What the worker's shell says after the command line, whose words these are.
struct Asked {
    code: i32,
    said: String,
}

/// A shell's command that runs the command line, and where it writes what came of it.
fn command(prefork: &Prefork, args: &str) -> (String, std::path::PathBuf) {
    let out = prefork.dir().join(args.replace([' ', '/'], "-"));
    let (program, directory) = (cli::binary(), prefork.runtime_dir());
    let text = format!(
        "{} --runtime-dir {} {args} >{out}.said 2>&1; echo $? >{out}.new; mv {out}.new {out}",
        program.display(),
        directory.display(),
        out = out.display(),
    );
    (text, out)
}

#[track_caller]
fn answer(out: &Path) -> Asked {
    let code = eventually_some("the command has ended", PATIENCE, || {
        fs::read_to_string(out).ok()?.trim().parse().ok()
    });
    let said = fs::read_to_string(format!("{}.said", out.display())).expect("it wrote that");
    Asked { code, said }
}

/// Has the worker give the command line this order.
#[track_caller]
fn worker_asks(prefork: &Prefork, how: &str, args: &str) -> Asked {
    let (text, out) = command(prefork, args);
    prefork.order("app", 0, how.replace("COMMAND", &text));
    answer(&out)
}

#[track_caller]
fn refused(asked: &Asked, why: &str) {
    assert_eq!(asked.code, 77, "{}", asked.said);
    assert!(asked.said.contains(why), "{}", asked.said);
}

#[test]
fn neither_a_worker_nor_what_it_starts_gives_orders() {
    let prefork = Prefork::start(&[Pool::test_worker("app", 1), Pool::bundled("web", 1)]);
    let web = prefork.ready_pid("web", 0);
    refused(
        &worker_asks(&prefork, "start COMMAND", "kill web/0"),
        "may not",
    );
    // In a session of its own, and left by its parent.
    let detached = "start setsid sh -c '(COMMAND) &'";
    refused(&worker_asks(&prefork, detached, "restart web"), "may not");
    refused(
        &worker_asks(&prefork, "start COMMAND", "describe web/0"),
        "may not",
    );
    let upgrade = "upgrade --program /proc/self/exe";
    refused(&worker_asks(&prefork, "start COMMAND", upgrade), "may not");
    // What the admin address tells as well is no secret.
    assert_eq!(worker_asks(&prefork, "start COMMAND", "status").code, 0);
    // The worker itself: it ends as the command does.
    let (program, directory) = (cli::binary(), prefork.runtime_dir());
    let (program, directory) = (program.display(), directory.display());
    let stop = format!("become exec {program} --runtime-dir {directory} stop");
    prefork.order("app", 0, stop);
    prefork.logged(&["exited with code 77"]);

    for command in ["kill web/0", "restart web", "upgrade", "stop"] {
        prefork.logged(&["audit", command, "refused"]);
    }
    assert_eq!(prefork.ready_pid("web", 0), web);
}

#[test]
fn what_a_worker_of_another_supervisor_left_gives_no_orders_either() {
    let app = Pool::test_worker("app", 1).set("kill_tree", "false");
    let mut prefork = Prefork::start(&[app, Pool::bundled("web", 1)]);
    let web = prefork.ready_pid("web", 0);
    let (text, out) = command(&prefork, "stop");
    let go = prefork.dir().join("go");
    let waits = format!(
        "exec </dev/null; while ! [ -e {} ]; do sleep 0.02; done; {text}",
        go.display()
    );
    prefork.order("app", 0, format!("start {waits}"));
    prefork.scrape();
    // The worker goes with its supervisor, and its shell is init's.
    prefork.killed();
    prefork.ready_again();
    fs::write(go, "").expect("there is room");
    refused(&answer(&out), "may not");
    assert_eq!(prefork.ready_pid("web", 0), web);
}

#[test]
fn who_is_only_of_the_sockets_group_may_stop_and_not_upgrade() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("SKIPPED: only root can come as another user");
        return;
    }
    let prefork = Prefork::start(&[Pool::bundled("web", 1)]);
    let program = prefork.dir().join("prefork");
    cli::install(&cli::binary(), &program);
    let socket = prefork.control_socket();
    for path in [prefork.dir(), &prefork.runtime_dir()] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("it is ours");
    }
    let group = nix::unistd::getegid().as_raw();
    assert_eq!(
        fs::metadata(&socket)
            .expect("it is there")
            .permissions()
            .mode()
            & 0o777,
        0o660
    );
    let as_member = |args: &[&str]| {
        let mut command = Command::new(&program);
        command
            .arg("--runtime-dir")
            .arg(prefork.runtime_dir())
            .args(args)
            .current_dir("/")
            .uid(NOBODY)
            .gid(group);
        cli::finish(&mut command, Duration::from_secs(60))
    };
    let output = as_member(&["upgrade"]);
    assert_eq!(output.code, 77, "{output:?}");
    assert!(output.stderr.contains("may not upgrade"), "{output:?}");
    prefork.logged(&["audit", "upgrade", &format!("uid {NOBODY}"), "refused"]);
    let output = as_member(&["restart", "web/0"]);
    assert_eq!(output.code, 0, "{output:?}");
}

#[test]
fn no_program_is_run_that_others_may_write_to_or_that_has_no_place_of_its_own() {
    let prefork = Prefork::start(&[Pool::bundled("web", 1)]);
    let pid = prefork.pid();
    let refuses = |path: &Path, why: &str| {
        let path = path.to_str().expect("it is text");
        let output = prefork.cli(&["upgrade", "--program", path]);
        assert_ne!(output.code, 0, "{path}: {output:?}");
        assert!(output.stderr.contains(why), "{path}: {output:?}");
    };
    refuses(Path::new("/proc/self/exe"), "/proc");
    refuses(
        Path::new(&format!("/proc/{}/exe", std::process::id())),
        "/proc",
    );
    let program = prefork.dir().join("prefork");
    cli::install(&cli::binary(), &program);
    let set = |path: &Path, mode| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("it is ours");
    };
    set(&program, 0o777);
    refuses(&program, "everybody may write");
    set(&program, 0o755);
    let open = prefork.dir().join("open");
    fs::create_dir(&open).expect("there is room");
    set(&open, 0o777);
    symlink(&program, open.join("prefork")).expect("there is room");
    refuses(&open.join("prefork"), "everybody may write");
    if nix::unistd::geteuid().is_root() {
        std::os::unix::fs::chown(&program, Some(NOBODY), None).expect("root may");
        refuses(&program, "belongs to user id");
        std::os::unix::fs::chown(&program, Some(0), None).expect("root may");
    }
    let output = prefork.cli(&["upgrade", "--program", program.to_str().expect("text")]);
    assert_eq!(output.code, 0, "{output:?}");
    assert_eq!(prefork.pid(), pid);
}

#[test]
fn without_a_control_socket_signals_and_the_admin_address_are_what_there_is() {
    let mut prefork = Prefork::launch_with("control_mode = \"off\"", &[Pool::bundled("web", 1)]);
    let admin = prefork.admin();
    eventually("it is ready", PATIENCE, || {
        http::get(admin, "/readyz").is_ok_and(|answer| answer.status == 200)
    });
    assert!(!prefork.control_socket().exists());
    let output = prefork.cli(&["status"]);
    assert_eq!(output.code, 3, "{output:?}");
    prefork.signal(Signal::SIGUSR2);
    prefork.logged(&["passed its preflight"]);
    eventually("it is ready again", PATIENCE, || {
        http::get(admin, "/readyz").is_ok_and(|answer| answer.status == 200)
    });
    assert!(!prefork.control_socket().exists());
    assert!(processes::alive(prefork.pid()));
    prefork.signal(Signal::SIGTERM);
    assert_eq!(prefork.exit_code(), 0);
}
