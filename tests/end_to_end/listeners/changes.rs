//! What may change on a listener that stays: its address from one interface to
//! all and back, the permissions and the group of its file, and the file itself.

use std::fs::{self, Permissions};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;

use crate::harness::cli::{binary, finish};
use crate::harness::deadline::{PATIENCE, eventually};
use crate::harness::http;
use crate::harness::load::mixed::Mixed;
use crate::harness::{Mode, Pool, Prefork, directory};

/// A port that is free on every address of the family, with this as its host.
fn free_port(any: &str) -> Option<u16> {
    let free = TcpListener::bind((any, 0)).ok()?;
    Some(free.local_addr().expect("it is bound").port())
}

fn at(pool: Pool, mode: Mode, address: SocketAddr) -> Pool {
    let mode = mode.as_str();
    pool.set(
        "listen",
        format!("[{{ address = \"{address}\", mode = {mode:?} }}]"),
    )
}

fn widens_and_narrows(mode: Mode, one: &str, any: &str) {
    let Some(port) = free_port(any) else {
        eprintln!("SKIPPED: this machine has no {any}");
        return;
    };
    let address = |host: &str| SocketAddr::new(host.parse().expect("an address"), port);
    let (one, any) = (address(one), address(any));
    let web = |address| at(Pool::service("web", 2), mode, address);
    let prefork = Prefork::start(&[web(one)]);
    let load = Mixed::start(one, 1);
    load.serves(10);
    for (generation, next) in [(2, any), (3, one), (4, any)] {
        // One that fails goes back to where it was.
        let broken = Pool::service_with("web", &["--fail-in-slot", "1"], 2);
        prefork.configure(&[at(broken, mode, next)]);
        assert_eq!(prefork.cli(&["reload"]).code, 1);
        load.serves(10);

        prefork.configure(&[web(next)]);
        let said = prefork.done(&["reload"]);
        assert!(said.contains("is in force"), "{said}");
        assert_eq!(prefork.address("web"), next);
        load.serves(10);
        let words = format!("generation {}", prefork.status().generation);
        eventually("the new ones answer alone", PATIENCE, || {
            let answer = http::get(one, "/").expect("it is answered");
            answer.body.contains(&words)
        });
        let _ = generation;
    }
    load.stop_flawless();
}

#[test]
fn an_address_becomes_every_address_of_the_port_and_one_again() {
    for mode in Mode::ALL {
        widens_and_narrows(mode, "127.0.0.1", "0.0.0.0");
    }
}

#[test]
fn the_same_holds_for_ipv6() {
    widens_and_narrows(Mode::Shared, "::1", "::");
}

#[test]
fn a_port_that_the_kernel_chose_may_be_written_down() {
    let prefork = Prefork::start(&[Pool::service("web", 1)]);
    let address = prefork.address("web");
    let load = Mixed::start(address, 1);
    load.serves(10);
    prefork.configure(&[at(Pool::service("web", 1), Mode::Shared, address)]);
    prefork.done(&["reload"]);
    assert_eq!(prefork.address("web"), address);
    load.serves(10);
    load.stop_flawless();
}

fn unix(permissions: Option<&str>) -> Pool {
    let permissions =
        permissions.map_or_else(String::new, |bits| format!(", permissions = {bits:?}"));
    let listen = format!("[{{ address = \"unix:./web.sock\"{permissions} }}]");
    Pool::service("web", 1).set("listen", listen)
}

fn mode_of(path: &Path) -> u32 {
    fs::metadata(path)
        .expect("it is there")
        .permissions()
        .mode()
        & 0o777
}

#[test]
fn permissions_change_by_reload_and_go_back_with_it() {
    let prefork = Prefork::start(&[unix(None)]);
    let path = prefork.dir().join("web.sock");
    let unset = mode_of(&path);
    for (bits, mode) in [(Some("0600"), 0o600), (Some("0666"), 0o666), (None, unset)] {
        prefork.configure(&[unix(bits)]);
        prefork.done(&["reload"]);
        assert_eq!(mode_of(&path), mode, "{bits:?}");
        let answer = http::get_unix(&path, "/").expect("it is answered");
        assert_eq!(answer.status, 200);
    }
    let broken = Pool::service_with("web", &["--fail-in-slot", "0"], 1).set(
        "listen",
        "[{ address = \"unix:./web.sock\", permissions = \"0600\" }]",
    );
    prefork.configure(&[broken]);
    assert_eq!(prefork.cli(&["reload"]).code, 1);
    eventually("its permissions are as before", PATIENCE, || {
        mode_of(&path) == unset
    });
}

#[test]
fn whoever_reaches_a_unix_socket_may_connect_whatever_the_umask_is() {
    for umask in ["077", "022", "000"] {
        let script = format!("umask {umask}; exec \"$@\"");
        let prefork = Prefork::launch_by_script(&script, "", &[unix(None)]);
        prefork.wait_until_ready();
        assert_eq!(mode_of(&prefork.dir().join("web.sock")), 0o666, "{umask}");
    }
}

/// A listener whose file belongs to this group, if any.
fn of_group(group: Option<u32>, arguments: &[&str]) -> Pool {
    let group = group.map_or_else(String::new, |group| {
        format!(", permissions = \"0660\", group = {group}")
    });
    let listen = format!("[{{ address = \"unix:./web.sock\"{group} }}]");
    Pool::service_with("web", arguments, 1).set("listen", listen)
}

#[test]
fn a_group_is_there_from_the_start_changes_by_reload_and_goes_back_with_it() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("SKIPPED: only root gives files to groups that it is not in");
        return;
    }
    let prefork = Prefork::start(&[of_group(Some(4711), &[])]);
    let path = prefork.dir().join("web.sock");
    let group = || fs::metadata(&path).expect("it is there").gid();
    assert_eq!((group(), mode_of(&path)), (4711, 0o660));
    let status = prefork.status();
    let listener = &status.pools[0].listeners[0];
    assert_eq!(listener.group.as_deref(), Some("4711"));
    assert_eq!(listener.permissions.as_deref(), Some("0660"));
    assert!(prefork.done(&["status"]).contains("shared 0660 group 4711"));

    prefork.configure(&[of_group(Some(4712), &["--fail-in-slot", "0"])]);
    assert_eq!(prefork.cli(&["reload"]).code, 1);
    eventually("its group is as before", PATIENCE, || group() == 4711);

    prefork.configure(&[of_group(Some(4712), &[])]);
    let said = prefork.done(&["reload", "--dry-run"]);
    assert!(said.contains("group 4711 → 4712"), "{said}");
    prefork.done(&["reload"]);
    assert_eq!(group(), 4712);

    let usual = nix::unistd::getegid().as_raw();
    prefork.configure(&[of_group(None, &[])]);
    prefork.done(&["reload"]);
    assert_eq!((group(), mode_of(&path)), (usual, 0o666));
    let answer = http::get_unix(&path, "/").expect("it is answered");
    assert_eq!(answer.status, 200);
}

#[test]
fn a_group_that_cannot_be_given_is_an_error_that_names_it() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("SKIPPED: only root can start prefork as another user");
        return;
    }
    let dir = directory();
    let text = "[supervisor]\nadmin = \"\"\nruntime_dir = \"run\"\n[pool.web]\n\
        listen = [{ address = \"unix:./web.sock\", group = 0 }]\n";
    fs::write(dir.path().join("prefork.toml"), text).expect("it is ours");
    chown(dir.path(), Some(65534), Some(65534)).expect("we are root");
    let mut command = Command::new("setpriv");
    command
        .args(["--reuid", "65534", "--regid", "65534", "--clear-groups"])
        .arg(binary())
        .arg("run")
        .current_dir(dir.path());
    let said = finish(&mut command, PATIENCE);
    assert_eq!(said.code, 1, "{said:?}");
    let words = "cannot change the group of unix:./web.sock: Operation not permitted (os error 1); \
        a socket is given to a group by root, or by a member of it";
    assert!(said.stderr.contains(words), "{said:?}");
    assert!(!dir.path().join("web.sock").exists());
}

/// What status says of the first listener, as a table and as a document.
#[track_caller]
fn said_of_listener(prefork: &Prefork) -> (String, serde_json::Value) {
    let table = prefork.done(&["status"]);
    let document = prefork.done(&["--output", "json", "status"]);
    let document: serde_json::Value = serde_json::from_str(&document).expect("it is JSON");
    (
        table,
        document["pools"][0]["listeners"][0]["problem"].clone(),
    )
}

#[test]
fn a_file_that_was_removed_is_missed_and_a_reload_brings_it_back() {
    let prefork = Prefork::start(&[unix(Some("0640"))]);
    let path = prefork.dir().join("web.sock");
    assert_eq!(said_of_listener(&prefork).1, serde_json::Value::Null);
    fs::remove_file(&path).expect("it is there");
    let (table, problem) = said_of_listener(&prefork);
    let problem = problem.as_str().expect("there is a problem").to_owned();
    assert!(
        problem.contains("web.sock") && problem.contains("reload"),
        "{problem}"
    );
    assert!(table.contains(&problem), "{table}");
    prefork.logged(&["web.sock", "removed"]);

    prefork.done(&["reload"]);
    assert_eq!(mode_of(&path), 0o640);
    let answer = http::get_unix(&path, "/").expect("it is answered");
    assert!(answer.body.contains("generation 2"), "{answer:?}");
    assert_eq!(said_of_listener(&prefork).1, serde_json::Value::Null);
}

#[test]
fn a_directory_that_was_moved_away_takes_nothing_with_it_for_good() {
    let pool = || Pool::service("web", 1).set("listen", "[\"unix:./sockets/web.sock\"]");
    let prefork = Prefork::launch_in(
        |dir| fs::create_dir(dir.join("sockets")).expect("it is ours"),
        &[pool()],
    );
    prefork.wait_until_ready();
    let (here, there) = (prefork.dir().join("sockets"), prefork.dir().join("moved"));
    fs::rename(&here, &there).expect("it is ours");
    let refused = prefork.cli(&["reload"]);
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(
        refused.stderr.contains("its directory does not exist"),
        "{refused:?}"
    );
    fs::create_dir(&here).expect("it is ours");
    fs::set_permissions(&here, Permissions::from_mode(0o755)).expect("it is ours");
    prefork.done(&["reload"]);
    let answer = http::get_unix(&here.join("web.sock"), "/").expect("it is answered");
    assert_eq!(answer.status, 200);
}

#[test]
fn a_file_that_is_another_servers_by_now_makes_the_reload_fail_with_words() {
    let prefork = Prefork::start(&[unix(Some("0640"))]);
    let path = prefork.dir().join("web.sock");
    fs::remove_file(&path).expect("it is there");
    let _other = UnixListener::bind(&path).expect("the path is free");
    let foreign = mode_of(&path);
    prefork.configure(&[unix(Some("0600"))]);
    let refused = prefork.cli(&["reload"]);
    assert_eq!(refused.code, 1, "{refused:?}");
    let pid = format!("pid {}", std::process::id());
    assert!(
        refused.stderr.contains("web.sock") && refused.stderr.contains(&pid),
        "{refused:?}"
    );
    assert_eq!(mode_of(&path), foreign, "it is not ours to change");
}
