//! What the kernel lets workers do and have, as `/proc` tells it.

use std::collections::BTreeMap;
use std::fs;

use nix::sys::signal::Signal;

use crate::harness::deadline::{PATIENCE, eventually_some};
use crate::harness::{Pool, Prefork, processes};
use crate::http::serving::pid_on_page;

/// `CAP_NET_BIND_SERVICE` as `/proc` writes sets.
const NET_BIND_SERVICE: &str = "0000000000000400";
const NO_CAPABILITY: &str = "0000000000000000";

/// The fields of `/proc/PID/status`, white space made single.
fn status(pid: i32) -> BTreeMap<String, String> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).expect("it lives");
    let fields = text.lines().filter_map(|line| line.split_once(':'));
    let tidy = |value: &str| value.split_whitespace().collect::<Vec<_>>().join(" ");
    fields
        .map(|(name, value)| (name.to_owned(), tidy(value)))
        .collect()
}

/// The soft and hard limit that `/proc/PID/limits` has under this title.
fn limit(pid: i32, title: &str) -> (String, String) {
    let text = fs::read_to_string(format!("/proc/{pid}/limits")).expect("it lives");
    let line = text.lines().find_map(|line| line.strip_prefix(title));
    let line = line.unwrap_or_else(|| panic!("no {title} in {text}"));
    let mut words = line.split_whitespace().map(str::to_owned);
    let mut word = || words.next().expect("a soft and a hard one");
    (word(), word())
}

/// The nice value of proc_pid_stat(5), its 19th field.
fn nice(pid: i32) -> i32 {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).expect("it lives");
    let (_, rest) = text.rsplit_once(')').expect("its name is in brackets");
    let field = rest.split_whitespace().nth(19 - 3).expect("it has as many");
    field.parse().expect("it is a number")
}

/// The processors that this test may use.
fn cpus() -> Vec<u32> {
    let list = &status(nix::unistd::getpid().as_raw())["Cpus_allowed_list"];
    let runs = list.split(',').map(|run| {
        let (first, last) = run.split_once('-').unwrap_or((run, run));
        let [first, last] = [first, last].map(|cpu| cpu.parse::<u32>().expect("a number"));
        first..=last
    });
    runs.flatten().collect()
}

fn is_root(what: &str) -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        eprintln!("SKIPPED: only root can {what}");
    }
    root
}

/// A pool with everything set that can be.
fn confined(workers: u32) -> Pool {
    Pool::bundled("web", workers)
        .text("user", "nobody")
        .set(
            "rlimits",
            r#"{ nofile = 4096, core = { soft = 0, hard = "0B" }, fsize = "64MiB" }"#,
        )
        .set("nice", 7)
        .text("cpu_affinity", "slot")
        .text("umask", "0027")
        .text("working_directory", "/usr")
}

#[track_caller]
fn is_confined(pid: i32, slot: usize) {
    let status = status(pid);
    let field = |name: &str| status[name].as_str();
    assert_eq!(field("Uid"), "65534 65534 65534 65534");
    let nobody = nix::unistd::User::from_name("nobody").expect("the users can be read");
    let gid = nobody.expect("there is nobody").gid.to_string();
    assert_eq!(field("Gid"), [gid.as_str(); 4].join(" "));
    assert_eq!(
        field("Groups"),
        gid,
        "initgroups(3) gives nobody only its own"
    );
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(field(set), NO_CAPABILITY, "{set}");
    }
    assert_eq!(field("NoNewPrivs"), "1");
    assert_eq!(field("Umask"), "0027");
    let cpus = cpus();
    assert_eq!(
        field("Cpus_allowed_list"),
        cpus[slot % cpus.len()].to_string()
    );

    let both = |number: &str| (number.to_owned(), number.to_owned());
    assert_eq!(limit(pid, "Max open files"), both("4096"));
    assert_eq!(limit(pid, "Max core file size"), both("0"));
    assert_eq!(limit(pid, "Max file size"), both("67108864"));
    assert_eq!(nice(pid), 7);
    let directory = fs::read_link(format!("/proc/{pid}/cwd")).expect("it lives");
    assert_eq!(directory.to_str(), Some("/usr"));
}

#[test]
fn workers_have_what_the_pool_gives_them_and_no_more() {
    if !is_root("start workers as another user") {
        return;
    }
    let prefork = Prefork::start(&[confined(3)]);
    for slot in 0..3 {
        is_confined(prefork.ready_pid("web", slot), slot as usize);
    }
    pid_on_page(prefork.address("web"));
    // The supervisor itself gives up nothing.
    assert_eq!(status(prefork.pid())["NoNewPrivs"], "0");
}

#[test]
fn successors_have_the_same_whoever_supervises_them() {
    if !is_root("start workers as another user") {
        return;
    }
    let mut prefork = Prefork::start(&[confined(1)]);
    let killed = || {
        let pid = prefork.ready_pid("web", 0);
        processes::send(pid, Signal::SIGKILL);
        prefork.replaced("web", 0, pid)
    };
    is_confined(killed(), 0);
    prefork.done(&["upgrade"]);
    is_confined(killed(), 0);

    let survivor = prefork.ready_pid("web", 0);
    // What has been scraped is written down for the next supervisor.
    prefork.scrape();
    prefork.signal(Signal::SIGKILL);
    prefork.ended();
    prefork.start_again();
    prefork.wait_until_ready();
    assert_eq!(prefork.ready_pid("web", 0), survivor, "it is adopted");
    prefork.logged(&["without one", &format!("pid={survivor} ")]);
    prefork.logged(&["rejoined a supervisor", &format!("pid={survivor} ")]);
    processes::send(survivor, Signal::SIGKILL);
    is_confined(prefork.replaced("web", 0, survivor), 0);
}

#[test]
fn a_capability_that_is_named_is_kept() {
    if !is_root("start workers as another user") {
        return;
    }
    let pool = Pool::bundled("web", 1)
        .text("user", "nobody")
        .set("capabilities", r#"["net_bind_service"]"#);
    let prefork = Prefork::start(&[pool]);
    let status = status(prefork.ready_pid("web", 0));
    assert!(status["Uid"].starts_with("65534 "), "{status:?}");
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(status[set], NET_BIND_SERVICE, "{set}");
    }
}

#[test]
fn root_keeps_its_capabilities_unless_told_otherwise() {
    if !is_root("have capabilities to drop") {
        return;
    }
    let ours = status(nix::unistd::getpid().as_raw());
    // To confine itself would take away the right to new privileges, too.
    let open = |name| Pool::bundled(name, 1).set("app", "{ confine = false }");
    let pools = [
        open("all").set("no_new_privs", false),
        open("none").set("capabilities", "[]"),
        open("none_again")
            .set("capabilities", "[]")
            .set("no_new_privs", false),
    ];
    let prefork = Prefork::start(&pools);
    let all = status(prefork.ready_pid("all", 0));
    assert_eq!(all["CapEff"], ours["CapEff"]);
    assert_eq!(all["CapBnd"], ours["CapBnd"]);
    assert_eq!(all["NoNewPrivs"], "0");
    for (pool, no_new_privs) in [("none", "1"), ("none_again", "0")] {
        let none = status(prefork.ready_pid(pool, 0));
        assert!(none["Uid"].starts_with("0 "), "{none:?}");
        for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
            assert_eq!(none[set], NO_CAPABILITY, "{pool} {set}");
        }
        assert_eq!(none["NoNewPrivs"], no_new_privs);
    }
}

#[test]
fn workers_of_any_user_get_no_new_privileges_and_their_limits() {
    let cpus = cpus();
    let last = cpus.last().expect("there is a processor");
    let pool = Pool::bundled("web", 2)
        .set("cpu_affinity", format!("[{last}, \"{}\"]", cpus[0]))
        .set("rlimits", "{ nofile = { soft = 512, hard = 600 } }");
    let prefork = Prefork::start(&[pool]);
    for (slot, cpu) in [(0, *last), (1, cpus[0])] {
        let pid = prefork.ready_pid("web", slot);
        let status = status(pid);
        assert_eq!(status["NoNewPrivs"], "1");
        assert_eq!(status["Cpus_allowed_list"], cpu.to_string());
        assert_eq!(
            limit(pid, "Max open files"),
            ("512".to_owned(), "600".to_owned())
        );
    }
}

#[test]
fn a_directory_that_the_user_cannot_enter_is_said_on_the_workers_stderr() {
    if !is_root("start workers as another user") {
        return;
    }
    let directory = tempfile::tempdir().expect("there is room");
    let ours = directory.path().join("ours");
    fs::create_dir(&ours).expect("there is room");
    let pool = Pool::bundled("web", 1)
        .text("user", "nobody")
        .text("working_directory", ours.to_str().expect("text"));
    fs::set_permissions(&ours, std::os::unix::fs::PermissionsExt::from_mode(0o700))
        .expect("it is ours");
    let mut prefork = Prefork::launch(&[pool]);
    assert_eq!(prefork.exit_code(), 1);
    prefork.logged(&["entering its directory: Permission denied"]);
}

#[test]
fn a_reload_gives_new_workers_the_new_terms() {
    let prefork = Prefork::start(&[Pool::bundled("web", 1).set("nice", 1)]);
    assert_eq!(nice(prefork.ready_pid("web", 0)), 1);
    prefork.configure(&[Pool::bundled("web", 1).set("nice", 2)]);
    let preview = prefork.done(&["reload", "--dry-run"]);
    assert!(preview.contains("nice 1 → 2"), "{preview}");
    prefork.done(&["reload"]);
    let pid = eventually_some("it is ready", PATIENCE, || prefork.worker("web", 0).pid);
    assert_eq!(nice(pid), 2);
}

/// The environment that a process began with.
fn environment(pid: i32) -> BTreeMap<String, String> {
    let text = fs::read(format!("/proc/{pid}/environ")).expect("it lives");
    let text = String::from_utf8_lossy(&text).into_owned();
    let variables = text.split('\0').filter_map(|line| line.split_once('='));
    variables
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

#[test]
fn what_the_environment_says_of_the_user_is_true() {
    if !is_root("start workers as another user") {
        return;
    }
    let nobody = nix::unistd::User::from_name("nobody").expect("the users can be read");
    let nobody = nobody.expect("there is nobody");
    let number = nobody.uid.to_string();
    let prefork = Prefork::launch_by_script(
        "HOME=/root USER=root LOGNAME=root SHELL=/bin/bash exec \"$@\"",
        "",
        &[
            Pool::bundled("named", 1).text("user", "nobody"),
            Pool::bundled("number", 1).set("user", &number),
            Pool::bundled("set", 1)
                .text("user", "nobody")
                .set("env", "{ HOME = \"/srv\" }"),
            Pool::bundled("nameless", 1)
                .set("user", 4_242_424_242_u32)
                .text("group", "4242424242"),
            Pool::bundled("own", 1),
        ],
    );
    prefork.wait_until_ready();
    let of = |pool: &str| {
        let environment = environment(prefork.ready_pid(pool, 0));
        ["HOME", "USER", "LOGNAME", "SHELL"].map(|name| environment.get(name).cloned())
    };
    let text = |path: &std::path::Path| Some(path.to_str().expect("it is text").to_owned());
    let (home, shell) = (text(&nobody.dir), text(&nobody.shell));
    let name = Some("nobody".to_owned());
    let expected = [home, name.clone(), name.clone(), shell.clone()];
    assert_eq!(of("named"), expected);
    assert_eq!(of("number"), expected);
    assert_eq!(
        of("set"),
        [Some("/srv".to_owned()), name.clone(), name, shell]
    );
    assert_eq!(of("nameless"), [None, None, None, None]);
    assert_eq!(of("own")[0].as_deref(), Some("/root"));
    let status = status(prefork.ready_pid("nameless", 0));
    assert_eq!(status["Uid"], ["4242424242"; 4].join(" "));
    assert_eq!(status["Groups"], "4242424242");
}

#[test]
fn an_access_log_has_its_permissions_whatever_the_umask_is() {
    let pool = Pool::bundled("web", 1).set("access_log", "{ path = \"access.log\" }");
    let prefork = Prefork::launch_by_script("umask 077; exec \"$@\"", "", &[pool]);
    prefork.wait_until_ready();
    let log = prefork.dir().join("access.log");
    let mode = || {
        use std::os::unix::fs::PermissionsExt;
        let found = fs::metadata(&log).expect("it is there");
        format!("{:o}", found.permissions().mode() & 0o777)
    };
    assert_eq!(mode(), "640");
    // One that somebody has made stays as it is.
    let mut only_us = fs::metadata(&log).expect("it is there").permissions();
    std::os::unix::fs::PermissionsExt::set_mode(&mut only_us, 0o600);
    fs::set_permissions(&log, only_us).expect("it is ours");
    prefork.done(&["reopen-logs"]);
    assert_eq!(mode(), "600");
}

#[test]
fn workers_that_run_as_root_without_being_told_to_are_warned_of() {
    if !is_root("run workers as root") {
        return;
    }
    let as_user = Pool::bundled("api", 1).text("user", "nobody");
    let prefork = Prefork::start(&[Pool::bundled("web", 1), as_user]);
    let warning = "the workers of web run as root";
    prefork.logged(&[warning, "`user` in [pool.web]"]);
    let config = prefork.dir().join("prefork.toml");
    let config = config.to_str().expect("the path is text");
    let checked = prefork.cli(&["check", "--config", config]);
    assert_eq!(checked.code, 0, "{checked:?}");
    assert!(checked.stderr.contains(warning), "{checked:?}");
}
