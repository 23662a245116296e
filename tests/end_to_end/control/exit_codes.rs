//! Every exit code of the command line, got the way an operator gets it.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::harness::deadline::{PATIENCE, eventually_some};
use crate::harness::{Pool, Prefork, cli, directory, processes};

#[test]
fn done_is_0() {
    let prefork = Prefork::start(&[Pool::bundled("web", 1)]);
    let commands: &[&[&str]] = &[
        &["status"],
        &["status", "--exit-code"],
        &["describe", "web/0"],
        &["channels"],
        &["requests"],
        &["events"],
        &["metrics"],
        &["health", "--live"],
        &["health", "--ready"],
        &["wait", "--for", "ready"],
        &["wait", "--for", "drained"],
        &["log-level", "debug"],
        &["reopen-logs"],
        &["completions", "bash"],
        &["man"],
        &["--help"],
        &["--version"],
    ];
    for command in commands {
        let output = prefork.cli(command);
        assert_eq!(output.code, 0, "{command:?}: {output:?}");
    }
    for command in [&["status"][..], &["metrics"], &["completions", "zsh"]] {
        let output = prefork.cli(command);
        assert!(!output.stdout.is_empty(), "{command:?}: {output:?}");
        assert_eq!(output.stderr, "", "{command:?}");
    }
}

#[test]
fn refused_is_1() {
    let prefork = Prefork::start(&[Pool::bundled("web", 1)]);
    let refused = prefork.cli(&["scale", "web", "0"]);
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(refused.stderr.contains("stop"), "{refused:?}");
    let said = prefork.done(&["resume", "web/0"]);
    assert_eq!(said, "web/0 is not paused\n");
    prefork.done(&["pause", "web/0"]);
    prefork.done(&["pause", "web/0"]);
    let unready = prefork.cli(&["health", "--ready"]);
    assert_eq!(unready.code, 1, "{unready:?}");
    prefork.done(&["resume", "web/0"]);
}

#[test]
fn an_empty_variable_is_none() {
    let dir = directory();
    for (command, code) in [("check", 0), ("status", 3)] {
        let mut prefork = Command::new(cli::binary());
        prefork
            .arg(command)
            .current_dir(dir.path())
            .env("PREFORK_CONFIG", "")
            .env("PREFORK_RUNTIME_DIR", "")
            .env("RUNTIME_DIRECTORY", dir.path());
        let output = cli::finish(&mut prefork, Duration::from_secs(30));
        assert_eq!(output.code, code, "{command}: {output:?}");
    }
}

/// What `prefork run` says that ends with 1.
#[track_caller]
fn run_fails(dir: &std::path::Path, args: &[&str]) -> String {
    let rest = ["run", "--admin", "", "--workers", "1"];
    let output = cli::run_alone(dir, &[&rest, args].concat());
    assert_eq!(output.code, 1, "{output:?}");
    output.stderr
}

#[test]
fn what_stands_where_a_socket_has_to_go_is_named_and_left_alone() {
    let dir = directory();
    let text = |path: &std::path::Path| path.to_str().expect("it is text").to_owned();
    let (taken, runtime) = (dir.path().join("taken"), dir.path().join("runtime"));
    std::fs::create_dir(&runtime).expect("it is ours");
    let precious = [taken.clone(), runtime.join("control.sock")];
    for path in &precious {
        std::fs::write(path, "precious").expect("it is ours");
    }
    let (at, other) = (
        format!("unix:{}", text(&taken)),
        text(&dir.path().join("rt")),
    );
    let said = run_fails(dir.path(), &["--listen", &at, "--runtime-dir", &other]);
    assert!(said.contains("what is there is no socket"), "{said}");
    let nowhere = format!("unix:{}", text(&dir.path().join("nowhere/app.sock")));
    let said = run_fails(dir.path(), &["--listen", &nowhere, "--runtime-dir", &other]);
    assert!(said.contains("its directory does not exist"), "{said}");
    let free = ["--listen", "127.0.0.1:0", "--runtime-dir", &text(&runtime)];
    let said = run_fails(dir.path(), &free);
    assert!(said.contains("what is no socket at"), "{said}");
    for path in &precious {
        let left = std::fs::read_to_string(path).expect("it is still there");
        assert_eq!(left, "precious");
    }
}

#[test]
fn a_script_that_cannot_be_run_says_what_it_lacks() {
    let dir = directory();
    let cases = [
        ("echo hi\n", "does not begin with `#!`"),
        ("#!/nonexistent/sh\n", "a script's interpreter"),
    ];
    for (script, lacks) in cases {
        let path = dir.path().join("script");
        std::fs::write(&path, script).expect("it is ours");
        let executable = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(&path, executable).expect("it is ours");
        let said = run_fails(
            dir.path(),
            &[
                "--listen",
                "127.0.0.1:0",
                "--runtime-dir",
                "rt",
                "--",
                "./script",
            ],
        );
        assert!(said.contains(lacks), "{said}");
    }
}

#[test]
fn more_workers_than_a_pool_can_have_is_1_with_the_most_it_can() {
    let prefork = Prefork::start(&[Pool::bundled("web", 1)]);
    let refused = prefork.cli(&["scale", "web", "10001"]);
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(refused.stderr.contains("10001"), "{refused:?}");
    assert!(refused.stderr.contains("10000 at most"), "{refused:?}");
    assert_eq!(prefork.pool("web").desired, 1);
}

#[test]
fn failed_is_1_and_says_why() {
    let prefork = Prefork::start(&[Pool::test_worker("app", 1)]);
    prefork.order_boot("app", "exit 4 out of luck");
    let failed = prefork.cli(&["scale", "app", "2"]);
    assert_eq!(failed.code, 1, "{failed:?}");
    assert!(failed.stderr.contains("out of luck"), "{failed:?}");
    let failed = prefork.cli(&["restart", "app/0"]);
    assert_eq!(failed.code, 1, "{failed:?}");
    assert!(failed.stderr.contains("out of luck"), "{failed:?}");
}

#[test]
fn an_address_in_use_is_1_and_named() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let address = taken.local_addr().expect("it is bound").to_string();
    for flag in ["--listen", "--admin"] {
        let other = if flag == "--listen" {
            "--admin"
        } else {
            "--listen"
        };
        let mut prefork = Prefork::launch_args(&[flag, &address, other, "127.0.0.1:0"]);
        assert_eq!(prefork.exit_code(), 1, "{flag}");
        prefork.logged(&[&address]);
        assert_eq!(prefork.processes(), Vec::<i32>::new());
    }
}

#[test]
fn usage_is_2() {
    let dir = directory();
    let wrong: &[&[&str]] = &[
        &["dance"],
        &["status", "--no-such-flag"],
        &["describe", "web/x"],
        &["describe", "web"],
        &["scale", "web", "many"],
        &["wait", "--for", "christmas"],
        &["tell", "web", "echo", "{not json"],
        &["--timeout", "10", "status"],
        &["--output", "yaml", "status"],
    ];
    for command in wrong {
        let output = cli::run_alone(dir.path(), command);
        assert_eq!(output.code, 2, "{command:?}: {output:?}");
        assert!(!output.stderr.is_empty(), "{command:?} says nothing");
        assert_eq!(output.stdout, "", "{command:?}");
    }
}

#[test]
fn no_supervisor_is_3() {
    let dir = directory();
    let empty = dir.path().join("nobody-here");
    let runtime_dir = empty.to_str().expect("the path is text");
    let commands: &[&[&str]] = &[&["status"], &["stop"], &["scale", "web", "2"], &["metrics"]];
    for command in commands {
        let mut args = vec!["--runtime-dir", runtime_dir];
        args.extend(*command);
        let output = cli::run_alone(dir.path(), &args);
        assert_eq!(output.code, 3, "{command:?}: {output:?}");
        assert!(output.stderr.contains(runtime_dir), "{output:?}");
    }
}

#[test]
fn no_supervisor_is_3_also_where_a_dead_one_left_its_socket() {
    let mut prefork = Prefork::start(&[Pool::bundled("web", 1)]);
    prefork.signal(Signal::SIGKILL);
    prefork.ended();
    assert!(prefork.control_socket().exists());
    let output = prefork.cli(&["status"]);
    assert_eq!(output.code, 3, "{output:?}");
}

#[test]
fn no_such_pool_or_slot_is_4() {
    let prefork = Prefork::start(&[Pool::bundled("web", 1)]);
    let unknown: &[&[&str]] = &[
        &["describe", "nope/0"],
        &["describe", "web/99"],
        &["scale", "nope", "2"],
        &["restart", "nope"],
        &["restart", "web/99"],
        &["pause", "web/99"],
        &["resume", "web/99"],
        &["drain", "nope/0"],
        &["kill", "web/99"],
        &["tell", "nope", "echo"],
        &["tell", "web/99", "echo"],
    ];
    for command in unknown {
        let output = prefork.cli(command);
        assert_eq!(output.code, 4, "{command:?}: {output:?}");
        assert!(
            output.stderr.contains("web"),
            "says what there is: {output:?}"
        );
    }
}

#[test]
fn timed_out_is_5() {
    let prefork = Prefork::start(&[Pool::test_worker("app", 1)]);
    let waited = prefork.cli(&["--timeout", "300ms", "wait", "--for", "generation=99"]);
    assert_eq!(waited.code, 5, "{waited:?}");

    // It never comes up, until the next one does.
    prefork.order_boot("app", "unready");
    let scaled = prefork.cli(&["--timeout", "300ms", "scale", "app", "2"]);
    assert_eq!(scaled.code, 5, "{scaled:?}");
    prefork.clear_boot("app");
    let boots = eventually_some("it boots", PATIENCE, || prefork.worker("app", 1).pid);
    processes::send(boots, Signal::SIGKILL);
    prefork.done(&["wait", "--for", "ready"]);
    assert_eq!(prefork.pool("app").ready, 2, "the job went on");
}

#[test]
fn a_supervisor_that_hangs_is_5_within_the_timeout() {
    let prefork = Prefork::start(&[Pool::bundled("web", 1)]);
    prefork.signal(Signal::SIGSTOP);
    for command in [&["status"][..], &["scale", "web", "2"], &["metrics"]] {
        let mut args = vec!["--timeout", "500ms"];
        args.extend(command);
        let output = prefork.cli(&args);
        assert_eq!(output.code, 5, "{command:?}: {output:?}");
    }
    prefork.signal(Signal::SIGCONT);
}

/// Runs the command line as the user `nobody`, from a place it may enter.
fn as_nobody(prefork: &Prefork, args: &[&str]) -> cli::Output {
    let binary = prefork.dir().join("prefork-for-nobody");
    if !binary.exists() {
        cli::install(&cli::binary(), &binary);
    }
    let mut command = Command::new(binary);
    command
        .arg("--runtime-dir")
        .arg(prefork.runtime_dir())
        .args(args)
        .current_dir("/")
        .uid(65534)
        .gid(65534);
    cli::finish(&mut command, Duration::from_secs(30))
}

#[test]
fn not_permitted_is_77() {
    if !nix::unistd::geteuid().is_root() {
        // Without another user at hand: a directory that may not be entered.
        let prefork = Prefork::start(&[Pool::bundled("web", 1)]);
        let mode = |mode| {
            let permissions = std::fs::Permissions::from_mode(mode);
            std::fs::set_permissions(prefork.runtime_dir(), permissions).expect("it is ours");
        };
        mode(0o000);
        let output = prefork.cli(&["status"]);
        mode(0o700);
        assert_eq!(output.code, 77, "{output:?}");
        return;
    }
    let prefork = Prefork::start(&[Pool::bundled("web", 1)]);
    let stranger = as_nobody(&prefork, &["status"]);
    assert_eq!(stranger.code, 77, "{stranger:?}");
}

#[test]
fn not_permitted_is_77_also_where_only_the_peer_check_stands() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("SKIPPED: only root can come as another user");
        return;
    }
    let prefork = Prefork::launch_with("control_mode = \"0666\"", &[Pool::bundled("web", 1)]);
    prefork.wait_until_ready();
    let open = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(prefork.runtime_dir(), open).expect("it is ours");
    for command in [&["status"][..], &["stop"], &["kill", "web/0"]] {
        let stranger = as_nobody(&prefork, command);
        assert_eq!(stranger.code, 77, "{command:?}: {stranger:?}");
    }
    prefork.logged(&["65534"]);
    assert!(processes::alive(prefork.pid()));
    assert_eq!(prefork.worker("web", 0).incarnation, 1);
}

#[test]
fn a_runtime_directory_that_may_not_be_used_is_77() {
    let dir = directory();
    let foreign = dir.path().join("foreign");
    std::fs::create_dir(&foreign).expect("the directory is ours");
    if nix::unistd::geteuid().is_root() {
        std::os::unix::fs::chown(&foreign, Some(65534), None).expect("root may");
    } else {
        let closed = std::fs::Permissions::from_mode(0o500);
        std::fs::set_permissions(&foreign, closed).expect("it is ours");
    }
    let foreign = foreign.to_str().expect("the path is text");
    let args = [
        "--runtime-dir",
        foreign,
        "run",
        "--listen",
        "127.0.0.1:0",
        "--admin",
        "",
    ];
    let output = cli::run_alone(dir.path(), &args);
    assert_eq!(output.code, 77, "{output:?}");
    assert!(output.stderr.contains(foreign), "{output:?}");
    assert!(output.stderr.contains("--runtime-dir"), "{output:?}");
}

#[test]
fn an_invalid_configuration_is_78() {
    let dir = directory();
    let path = dir.path().join("prefork.toml");
    std::fs::write(&path, "[pool.web]\nworkers = \"lots\"\n").expect("it is ours");
    let path = path.to_str().expect("the path is text");
    for command in [["check", "--config", path], ["run", "--config", path]] {
        let output = cli::run_alone(dir.path(), &command);
        assert_eq!(output.code, 78, "{command:?}: {output:?}");
    }
    let missing = dir.path().join("missing.toml");
    let missing = missing.to_str().expect("the path is text");
    let output = cli::run_alone(dir.path(), &["check", "--config", missing]);
    assert_eq!(output.code, 78, "{output:?}");
    assert!(output.stderr.contains("missing.toml"), "{output:?}");
}
