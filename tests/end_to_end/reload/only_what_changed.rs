//! A reload that leaves alone what has not changed, and one of some pools only.

use std::fs;

use nix::sys::signal::Signal;

use crate::harness::http::{self, Connection};
use crate::harness::load::mixed::Mixed;
use crate::harness::{Pool, Prefork, cli, directory, processes};
use crate::http::serving::pid_on_page;

const STAYS: &str =
    "its workers stay, since those after them would be the same (--force replaces them)";

fn pids(prefork: &Prefork, pools: &[&str]) -> Vec<Vec<i32>> {
    pools.iter().map(|pool| prefork.ready_pids(pool)).collect()
}

#[test]
fn of_four_pools_three_keep_their_processes_and_their_connections() {
    let pools = |changed: u32| {
        let changed = Pool::service("changed", 2).set("max_requests", changed);
        let others = ["one", "two"].map(|name| Pool::service(name, 2));
        let bundled = Pool::bundled("files", 1);
        [changed]
            .into_iter()
            .chain(others)
            .chain([bundled])
            .collect::<Vec<_>>()
    };
    let mut prefork = Prefork::start(&pools(1_000_000));
    let names = ["one", "two", "files"];
    let (kept, changed) = (pids(&prefork, &names), prefork.ready_pids("changed"));
    let mut connection = Connection::open(prefork.address("one")).expect("it is served");
    let first = connection.get("/").expect("it is served").body;

    prefork.configure(&pools(2_000_000));
    let rehearsed = prefork.done(&["reload", "--dry-run"]);
    assert!(
        rehearsed.contains("pool changed: 2 workers would be replaced\n"),
        "{rehearsed}"
    );
    for name in ["one", "two"] {
        assert!(
            rehearsed.contains(&format!("pool {name}: 2 workers would stay\n")),
            "{rehearsed}"
        );
    }
    let output = prefork.cli(&["reload"]);
    assert_eq!(output.stdout, "generation 2 is in force\n", "{output:?}");
    for name in names {
        assert!(
            output.stderr.contains(&format!("{name}: {STAYS}\n")),
            "{output:?}"
        );
        let status = prefork.status();
        let pool = status
            .pools
            .iter()
            .find(|pool| pool.name == name)
            .expect("it is there");
        assert!(
            pool.workers.iter().all(|it| it.generation == Some(2)),
            "{pool:?}"
        );
    }
    assert_eq!(pids(&prefork, &names), kept);
    assert!(
        prefork
            .ready_pids("changed")
            .iter()
            .all(|pid| !changed.contains(pid))
    );
    // Nobody has noticed anything.
    assert_eq!(connection.get("/").expect("it is as before").body, first);

    // Who crashes has a successor of the same code in the new generation.
    processes::send(kept[0][1], Signal::SIGKILL);
    let successor = prefork.replaced("one", 1, kept[0][1]);
    assert_eq!(prefork.describe("one", 1).worker.generation, Some(2));

    // Whoever supervises next knows as much.
    let kept = pids(&prefork, &names);
    assert!(kept[0].contains(&successor));
    prefork.killed();
    prefork.start_again();
    prefork.wait_until_ready();
    prefork.done(&["upgrade"]);
    prefork.done(&["reload"]);
    assert_eq!(pids(&prefork, &names), kept);

    prefork.done(&["reload", "--force"]);
    for (pool, before) in names.into_iter().zip(kept) {
        let now = prefork.ready_pids(pool);
        assert!(
            now.iter().all(|pid| !before.contains(pid)),
            "{pool}: {now:?}"
        );
    }
}

#[test]
fn more_workers_come_beside_those_that_stay_and_fewer_go() {
    let prefork = Prefork::start(&[Pool::service("web", 2)]);
    let before = prefork.ready_pids("web");
    let load = Mixed::start(prefork.address("web"), 2);
    load.serves(10);
    prefork.configure(&[Pool::service("web", 3)]);
    let told = prefork.done(&["reload", "--dry-run"]);
    assert!(
        told.contains("pool web: 2 workers would stay, 1 worker would be started\n"),
        "{told}"
    );
    prefork.done(&["reload"]);
    let more = prefork.ready_pids("web");
    assert_eq!((more.len(), &more[..2]), (3, &before[..]));
    load.serves(10);
    prefork.configure(&[Pool::service("web", 1)]);
    prefork.done(&["reload"]);
    assert_eq!(prefork.ready_pids("web"), before[..1]);
    load.serves(10);
    load.stop_flawless();
}

#[test]
fn another_program_is_a_change_and_so_is_a_file_that_it_may_have_read() {
    let dir = directory();
    let install = |name: &str| {
        let draft = dir.path().join("draft");
        cli::install(&cli::example("service"), &draft);
        fs::rename(draft, dir.path().join(name)).expect("the directory is ours");
    };
    let settings = dir.path().join("settings");
    fs::write(&settings, "").expect("the directory is ours");
    ["a", "b", "c"].into_iter().for_each(install);
    let program = |name: &'static str| {
        let path = dir.path().join(name);
        Pool::command(name, &[path.to_str().expect("the path is text")], 1)
    };
    let reads = format!("{{ SETTINGS = {settings:?} }}");
    let prefork = Prefork::start(&[program("a"), program("b"), program("c").set("env", reads)]);
    let before = pids(&prefork, &["a", "b", "c"]);
    install("b");
    let told = prefork.done(&["reload", "--dry-run"]);
    let why = "pool b: 1 worker would be replaced: its program was changed\n";
    assert!(told.contains(why), "{told}");
    let why = format!(
        "pool c: 1 worker would be replaced: it may have read {}, which its settings name\n",
        settings.display()
    );
    assert!(told.contains(&why), "{told}");
    prefork.signal(Signal::SIGHUP);
    prefork.done(&["wait", "--for", "generation=2"]);
    let after = pids(&prefork, &["a", "b", "c"]);
    assert_eq!(after[0], before[0]);
    assert!(after[1] != before[1] && after[2] != before[2]);

    // What has come in its place since is no matter for a reload of another pool.
    install("a");
    prefork.done(&["reload", "b"]);
    assert_eq!(pids(&prefork, &["a", "b"]), after[..2]);
    prefork.done(&["reload"]);
    assert_ne!(prefork.ready_pids("a"), after[0]);
}

#[test]
fn a_reload_of_some_pools_takes_these_and_leaves_everything_else_as_it_is() {
    let pool = |name: &'static str, hello: &str| {
        Pool::service(name, 1).set("env", format!("{{ HELLO = {hello:?} }}"))
    };
    let prefork = Prefork::start(&[pool("web", "1"), pool("api", "1"), pool("old", "1")]);
    let before = pids(&prefork, &["web", "api", "old"]);
    prefork.configure(&[pool("web", "2"), pool("api", "2"), pool("new", "2")]);

    let unknown = prefork.cli(&["reload", "wbe"]);
    assert_eq!(unknown.code, 4, "{unknown:?}");
    assert!(
        unknown.stderr.contains("there is no pool wbe"),
        "{unknown:?}"
    );
    assert!(
        unknown.stderr.contains("pools: web, api, new"),
        "{unknown:?}"
    );

    let told = prefork.done(&["reload", "api", "--dry-run"]);
    assert!(told.contains("pool api: env changes: HELLO\n"), "{told}");
    assert!(
        !told.contains("new would") && !told.contains("old would be"),
        "{told}"
    );
    prefork.done(&["reload", "api"]);
    let after = pids(&prefork, &["web", "api", "old"]);
    assert_eq!((&after[0], &after[2]), (&before[0], &before[2]));
    assert_ne!(after[1], before[1]);
    assert_eq!(
        processes::variable(after[1][0], "HELLO").as_deref(),
        Some("2")
    );
    // What was not asked for is still what was in force.
    processes::send(before[0][0], Signal::SIGKILL);
    let successor = prefork.replaced("web", 0, before[0][0]);
    assert_eq!(
        processes::variable(successor, "HELLO").as_deref(),
        Some("1")
    );

    // One goes, one comes, and the rest with all of it.
    prefork.done(&["reload", "old", "new"]);
    let pools: Vec<String> = prefork
        .status()
        .pools
        .iter()
        .map(|it| it.name.clone())
        .collect();
    assert!(pools.contains(&"new".to_owned()), "{pools:?}");
    prefork.done(&["reload"]);
    assert_eq!(
        processes::variable(prefork.ready_pid("web", 0), "HELLO").as_deref(),
        Some("2")
    );
    assert_eq!(prefork.ready_pids("api"), after[1]);
    assert_eq!(pid_on_page(prefork.address("api")), after[1][0]);
}

#[test]
fn pools_that_would_not_go_together_are_not_reloaded_alone() {
    let [one, two] = [(); 2].map(|()| {
        let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a port is free");
        free.local_addr().expect("it is bound").to_string()
    });
    let listening =
        |name: &'static str, at: &str| Pool::service(name, 1).set("listen", format!("[{at:?}]"));
    let prefork = Prefork::start(&[listening("web", &one), listening("api", &two)]);
    prefork.configure(&[listening("web", &two), listening("api", &one)]);
    let refused = prefork.cli(&["reload", "web"]);
    assert_eq!(refused.code, 78, "{refused:?}");
    assert!(
        refused.stderr.contains("of pool web and of pool api"),
        "{refused:?}"
    );
    let api = prefork.ready_pid("api", 0);
    prefork.done(&["reload", "web", "api"]);
    let at_one = http::get(one.parse().expect("an address"), "/").expect("it is served");
    assert_eq!(at_one.status, 200);
    assert_ne!(prefork.ready_pid("api", 0), api);
}
