//! What a supervisor opens and binds is what was meant, also where others can put
//! something in its place.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::Path;

use crate::harness::{Pool, Prefork, cli, directory};

/// The user of nobody.
const NOBODY: u32 = 65534;

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("it is ours");
}

/// Starts it with an access log that `prepare` has put there; what it says at its end.
fn says_of_log(prepare: impl FnOnce(&Path)) -> String {
    let pool = Pool::bundled("web", 1).set("access_log", "{ path = \"logs/access.log\" }");
    let install = |dir: &Path| {
        fs::create_dir(dir.join("logs")).expect("there is room");
        fs::write(dir.join("shadow"), "root:secret\n").expect("there is room");
        prepare(dir);
    };
    let mut prefork = Prefork::launch_in(install, &[pool]);
    assert_eq!(prefork.exit_code(), 1, "{}", prefork.log());
    let shadow = fs::read_to_string(prefork.dir().join("shadow")).expect("it is there");
    assert_eq!(shadow, "root:secret\n");
    prefork.log()
}

#[test]
fn an_access_log_is_no_link_to_another_file() {
    let said = says_of_log(|dir| {
        symlink("../shadow", dir.join("logs/access.log")).expect("there is room");
    });
    assert!(said.contains("symbolic link"), "{said}");
    let said = says_of_log(|dir| {
        fs::hard_link(dir.join("shadow"), dir.join("logs/access.log")).expect("there is room");
    });
    assert!(said.contains("2 names"), "{said}");
    let said = says_of_log(|dir| set_mode(&dir.join("logs"), 0o777));
    assert!(said.contains("everybody may write"), "{said}");
    if nix::unistd::geteuid().is_root() {
        let said = says_of_log(|dir| {
            let log = dir.join("logs/access.log");
            fs::write(&log, "").expect("there is room");
            chown(&log, Some(NOBODY), None).expect("root may");
        });
        assert!(said.contains("belongs to user id"), "{said}");
        let said = says_of_log(|dir| {
            let place = dir.join("theirs");
            symlink(dir, &place).expect("there is room");
            std::os::unix::fs::lchown(&place, Some(NOBODY), None).expect("root may");
            fs::remove_dir(dir.join("logs")).expect("it is empty");
            symlink("theirs", dir.join("logs")).expect("there is room");
        });
        assert!(said.contains("belongs to user id"), "{said}");
    }
}

#[test]
fn a_link_that_comes_later_is_not_followed_when_the_logs_are_opened_again() {
    let log = "{ path = \"access.log\" }";
    let prefork = Prefork::start(&[Pool::bundled("web", 1).set("access_log", log)]);
    let path = prefork.dir().join("access.log");
    fs::write(prefork.dir().join("shadow"), "").expect("there is room");
    fs::remove_file(&path).expect("it is there");
    symlink("shadow", &path).expect("there is room");
    let output = prefork.cli(&["reopen-logs"]);
    assert_eq!(output.code, 1, "{output:?}");
    assert!(output.stderr.contains("symbolic link"), "{output:?}");
}

#[test]
fn neither_the_log_nor_the_lock_is_a_link() {
    let dir = directory();
    let at = |name: &str| dir.path().join(name);
    fs::write(at("shadow"), "root:secret\n").expect("there is room");
    fs::create_dir(at("run")).expect("there is room");
    symlink("../shadow", at("run/lock")).expect("there is room");
    let runtime_dir = at("run");
    let runtime_dir = runtime_dir.to_str().expect("it is text");
    let args = ["--runtime-dir", runtime_dir, "run", "--admin", ""];
    let output = cli::run_alone(dir.path(), &args);
    assert_eq!(output.code, 77, "{output:?}");
    assert!(output.stderr.contains("symbolic link"), "{output:?}");

    fs::remove_file(at("run/lock")).expect("it is there");
    symlink("shadow", at("prefork.log")).expect("there is room");
    fs::write(
        at("prefork.toml"),
        "[supervisor]\nlog = \"prefork.log\"\n[pool.web]\nlisten = [\"127.0.0.1:0\"]\n",
    )
    .expect("there is room");
    let output = cli::run_alone(dir.path(), &args);
    assert_eq!(output.code, 1, "{output:?}");
    assert!(output.stderr.contains("symbolic link"), "{output:?}");
    let shadow = fs::read_to_string(at("shadow")).expect("it is there");
    assert_eq!(shadow, "root:secret\n");
}

#[test]
fn a_runtime_directory_that_others_may_write_to_is_refused() {
    let dir = directory();
    let run = dir.path().join("run");
    fs::create_dir(&run).expect("there is room");
    let path = run.to_str().expect("it is text");
    for mode in [0o777, 0o1777] {
        set_mode(&run, mode);
        let output = cli::run_alone(dir.path(), &["--runtime-dir", path, "run", "--admin", ""]);
        assert_eq!(output.code, 77, "{mode:o}: {output:?}");
        assert!(output.stderr.contains("others may write"), "{output:?}");
    }
}

#[test]
fn sockets_have_the_permissions_that_were_asked_for() {
    let pool = Pool::bundled("web", 1).set(
        "listen",
        "[\"127.0.0.1:0\", { address = \"unix:web.sock\", permissions = \"0606\" }]",
    );
    let prefork = Prefork::start(&[pool]);
    let mode = |name: &str| {
        let found = fs::metadata(prefork.dir().join(name)).expect("it is there");
        found.mode() & 0o7777
    };
    assert_eq!(mode("web.sock"), 0o606);
    assert_eq!(mode("run/control.sock"), 0o660);
    assert_eq!(mode("run/rejoin.sock"), 0o600);
}
