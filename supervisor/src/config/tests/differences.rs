//! What a reload says that it would change.

use super::*;

/// The sentences, each behind its kind.
fn changes(old: &str, new: &str) -> Vec<String> {
    let changes = diff(&valid(old), &valid(new));
    let show = |change: &Change| format!("{}: {change}", change.what());
    changes.iter().map(show).collect()
}

fn web(settings: &str) -> String {
    // What the bundled web server takes is its own affair.
    let free = settings.contains("app = ") && !settings.contains("program");
    let program = if free {
        "program = [\"/bin/cat\"]\n"
    } else {
        ""
    };
    format!("[pool.web]\nworkers = 4\nlisten = [\"127.0.0.1:8080\"]\n{program}{settings}\n")
}

#[test]
fn a_reload_of_the_same_configuration_leaves_the_workers_alone() {
    let expected = ["workers: pool web: 4 workers would stay"];
    assert_eq!(changes(&web(""), &web("")), expected);
    let expected = ["workers: pool web: 1 worker would stay"];
    let one = web("").replace("= 4", "= 1");
    assert_eq!(changes(&one, &one), expected);
}

#[test]
fn pools_listeners_settings_and_workers_are_told_in_order() {
    let old = r#"
        [pool.web]
        workers = 4
        listen = ["0.0.0.0:8080", "0.0.0.0:8082", { address = "unix:/run/a", permissions = "0600", group = 0 }]
        drain_timeout = "30s"
        env = { TOKEN = "hunter2", SAME = "same" }
        app = { cache_control = "no-cache", symlinks = "inside" }

        [pool.old]
        workers = 3
        listen = ["0.0.0.0:9000", "0.0.0.0:9001"]
    "#;
    let new = r#"
        [supervisor]
        admin = ""
        control_mode = "0600"

        [metrics]
        detail = "pool"

        [pool.api]
        workers = 2
        listen = ["0.0.0.0:9001", "0.0.0.0:7000"]

        [pool.web]
        workers = 6
        program = ["/bin/sh", "-c", "exec shop"]
        listen = [
            { address = "0.0.0.0:8080", mode = "per-slot", backlog = 16 },
            "0.0.0.0:8081",
            "unix:/run/a",
        ]
        drain_timeout = "10s"
        max_rss = "1GiB"
        env = { TOKEN = "swordfish", SAME = "same" }
        app = { welcome = "hello", symlinks = "inside" }
    "#;
    let restart = "a reload cannot take this, restart prefork for it";
    let expected = [
        &format!("setting: [supervisor] control_mode 0660 → 0600: {restart}"),
        &format!("setting: [supervisor] admin 127.0.0.1:9919 → none: {restart}"),
        "setting: [metrics] detail slot → pool",
        "pool: pool api would be added",
        "listener: listener 0.0.0.0:9001: pool old → api",
        "listener: listener 0.0.0.0:7000 would be bound",
        "workers: pool api: 2 workers would be started",
        "setting: pool web: program (bundled web server) → /bin/sh -c exec shop",
        "setting: pool web: drain_timeout 30s → 10s",
        "setting: pool web: max_rss none → 1GiB",
        "setting: pool web: env changes: TOKEN",
        "setting: pool web: app changes: cache_control, welcome",
        "listener: listener 0.0.0.0:8080: mode shared → per-slot, backlog 4096 → 16",
        "listener: listener 0.0.0.0:8081 would be bound",
        "listener: listener unix:/run/a: permissions 0600 → unset, group 0 → unset",
        "listener: listener 0.0.0.0:8082 would be closed",
        "workers: pool web: 4 workers would be replaced, 2 workers would be started",
        "pool: pool old would be removed",
        "listener: listener 0.0.0.0:9000 would be closed",
        "workers: pool old: 3 workers would be drained",
    ];
    assert_eq!(changes(old, new), expected);
}

#[test]
fn a_smaller_pool_drains_workers() {
    let expected = ["workers: pool web: 1 worker would stay, 3 workers would be drained"];
    assert_eq!(changes(&web(""), &web("").replace("= 4", "= 1")), expected);
}

/// One line of a pool for each key, none with its default.
const SETTINGS: [&str; 55] = [
    "program = [\"/bin/sh\"]",
    "env = { A = \"1\" }",
    "user = \"root\"",
    "no_new_privs = false",
    "capabilities = [\"kill\"]",
    "rlimits = { core = 7 }",
    "nice = 7",
    "cpu_affinity = \"slot\"",
    "umask = \"0077\"",
    "working_directory = \"/usr\"",
    "kill_tree = false",
    "boot_timeout = \"7s\"",
    "heartbeat_interval = \"70ms\"",
    "heartbeat_timeout = \"7s\"",
    "drain_timeout = \"7s\"",
    "idle_grace = \"7s\"",
    "kill_timeout = \"7s\"",
    "backoff_initial = \"7s\"",
    "backoff_max = \"7s\"",
    "backoff_reset = \"7s\"",
    "max_requests = 7",
    "max_requests_jitter = \"7%\"",
    "max_rss = \"7MiB\"",
    "max_age = \"7s\"",
    "min_ready = \"7s\"",
    "max_surge = 7",
    "dump_on_hang = true",
    "ready = \"7%\"",
    "http.max_header_size = \"7KiB\"",
    "http.max_headers = 7",
    "http.max_uri_size = \"7KiB\"",
    "http.max_body_size = \"7KiB\"",
    "http.header_timeout = \"7s\"",
    "http.idle_timeout = \"7s\"",
    "http.request_timeout = \"7s\"",
    "http.body_timeout = \"7s\"",
    "http.write_timeout = \"0s\"",
    "http.min_rate = \"7B\"",
    "http.max_connections = 7",
    "http.max_concurrency = 7",
    "http.max_queue = 0",
    "http.queue_timeout = \"7s\"",
    "http.http2_max_streams = 7",
    "http.http2_max_resets = 7",
    "http.http2_stream_window = \"7MiB\"",
    "http.http2_connection_window = \"7MiB\"",
    "http.http2_ping_interval = \"7s\"",
    "http.http2_ping_timeout = \"7s\"",
    "http.trusted_proxies = [\"10.0.0.0/8\"]",
    "http.trusted_proxies = []",
    "access_log = { path = \"stdout\", format = \"json\" }",
    "check = { path = \"/healthz\", status = 204 }",
    "app = { a = 1 }",
    "app = { a = { b = [1] } }",
    "app = {}",
];

#[test]
fn every_key_of_a_pool_is_told_when_it_changes_and_only_app_can_be_taken_in_place() {
    for line in SETTINGS {
        let (key, _) = line.split_once(" =").unwrap();
        let old = valid(&web("app = { b = 1 }"));
        let new = match key {
            "app" => valid(&web(line)),
            _ => valid(&web(&format!("app = {{ b = 1 }}\n{line}"))),
        };
        for (old, new) in [(&old, &new), (&new, &old)] {
            let changes = diff(old, new);
            let [setting, workers] = changes.as_slice() else {
                panic!("{line}: one setting and the workers, not {changes:#?}");
            };
            let told = setting.to_string();
            assert!(told.starts_with(&format!("pool web: {key} ")), "{told}");
            assert!(!setting.needs_restart());
            let takes = taken_in_place(&old.pools[0], &new.pools[0]);
            assert_eq!(takes.is_some(), key == "app", "{line}");
            let in_place = workers.to_string().contains("in place");
            assert_eq!(in_place, key == "app", "{workers}");
        }
    }
}

#[test]
fn every_key_of_the_supervisor_asks_for_a_restart() {
    for (line, value) in [
        ("runtime_dir = \"/srv/run\"", "/run/prefork → /srv/run"),
        ("control_mode = \"0600\"", "0660 → 0600"),
        (
            "admin = \"127.0.0.1:9000\"",
            "127.0.0.1:9919 → 127.0.0.1:9000",
        ),
        (
            "log = \"/var/log/prefork.log\"",
            "stderr → /var/log/prefork.log",
        ),
        ("log_format = \"json\"", "unset → json"),
        ("orphan_timeout = \"5s\"", "30s → 5s"),
        ("stop_delay = \"5s\"", "0s → 5s"),
        ("strict_boot = true", "false → true"),
    ] {
        let new = format!("[supervisor]\n{line}\n{}", web(""));
        let changes = diff(&valid(&web("")), &valid(&new));
        assert!(changes[0].needs_restart(), "{:?}", changes[0]);
        assert!(changes[0].to_string().contains(value), "{}", changes[0]);
        assert!(changes[1..].iter().all(|change| !change.needs_restart()));
    }
}

#[test]
fn secrets_stay_out_of_what_is_told() {
    let old = web("env = { TOKEN = \"hunter2\" }\napp = { password = \"hunter2\" }");
    let new = web("env = { TOKEN = \"swordfish\" }\napp = { password = \"swordfish\" }");
    let told = changes(&old, &new).join("\n");
    assert!(
        told.contains("TOKEN") && told.contains("password"),
        "{told}"
    );
    assert!(
        !told.contains("hunter2") && !told.contains("swordfish"),
        "{told}"
    );
}

#[test]
fn a_pool_whose_application_alone_is_another_can_take_it_in_place() {
    let [old, new] = [1, 2].map(|greetings| web(&format!("app = {{ greetings = {greetings} }}")));
    let expected = [
        "setting: pool web: app changes: greetings",
        "workers: pool web: 4 workers would take the new settings in place, \
         or be replaced where they cannot",
    ];
    assert_eq!(changes(&old, &new), expected);
    let more = format!(
        "{}max_surge = 2\n",
        new.replace("app", "max_age = \"1h\"\napp")
    );
    for new in [&more, &old] {
        let taken = taken_in_place(&valid(&old).pools[0], &valid(new).pools[0]);
        assert_eq!(taken, None);
    }
}
