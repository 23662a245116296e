//! What a correct file comes to.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use prefork_proto::message::HttpLimits;
use prefork_proto::network::Network;
use serde_json::json;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn the_page_on_the_configuration_is_a_configuration() {
    let page = include_str!("../../../CONFIG.md");
    let (_, rest) = page.split_once("```toml\n").expect("it has an example");
    let (example, _) = rest.split_once("```").expect("the example ends");
    let config = valid(example);
    // What the page calls a default is one.
    let supervisor = valid("[pool.web]\nlisten = [\"0.0.0.0:8080\"]").supervisor;
    assert_eq!(config.supervisor.orphan_timeout, supervisor.orphan_timeout);
    assert_eq!(config.supervisor.stop_delay, supervisor.stop_delay);
    let shown = &config.pools[0];
    let plain = valid("[pool.web]\nlisten = [\"0.0.0.0:8080\"]").pools[0].clone();
    let mut defaults = plain.policy;
    defaults.max_rss = Some(1 << 30);
    defaults.max_age = Some(24 * 3600 * SECOND);
    assert_eq!(shown.policy, defaults);
    assert_eq!(shown.heartbeat_interval, plain.heartbeat_interval);
    assert_eq!(shown.idle_grace, plain.idle_grace);
    assert_eq!(shown.listen[0], plain.listen[0]);
    assert_eq!(shown.http, the_librarys());
}

fn networks(texts: &[&str]) -> Vec<Network> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

/// What the library has where nothing is said, written out.
fn the_librarys() -> HttpLimits {
    let limits = prefork_worker::Limits::default();
    let time = |time: Duration| Some(time.as_millis() as u64);
    HttpLimits {
        max_header_size: Some(limits.max_header_size as u64),
        max_headers: Some(limits.max_headers as u64),
        max_uri_size: Some(limits.max_uri_size as u64),
        max_body_size: limits.max_body_size,
        header_timeout_ms: time(limits.header_timeout),
        idle_timeout_ms: time(limits.idle_timeout),
        request_timeout_ms: limits.request_timeout.and_then(time),
        body_timeout_ms: limits.body_timeout.and_then(time),
        write_timeout_ms: limits.write_timeout.and_then(time),
        min_rate: limits.min_rate,
        max_connections: limits.max_connections.map(|most| most as u64),
        max_concurrency: Some(limits.max_concurrency.unwrap_or(0) as u64),
        // It has no default of its own.
        max_queue: Some(100),
        queue_timeout_ms: time(limits.queue_timeout),
        http2_max_streams: Some(limits.http2_max_streams.into()),
        http2_max_resets: Some(limits.http2_max_resets as u64),
        http2_stream_window: Some(limits.http2_stream_window.into()),
        http2_connection_window: Some(limits.http2_connection_window.into()),
        http2_ping_interval_ms: time(limits.http2_ping_interval.unwrap_or_default()),
        http2_ping_timeout_ms: time(limits.http2_ping_timeout),
        // There are none where nothing is said.
        trusted_proxies: Some(networks(&["10.0.0.0/8", "2001:db8::/32", "unix"])),
        client_header: Some(limits.client_header),
    }
}

#[test]
fn limits_of_http_are_handed_on_as_they_are_written_and_others_not_at_all() {
    let pool = |lines: &str| {
        let text = format!("[pool.web]\nlisten = [\"127.0.0.1:1\"]\n{lines}");
        valid(&text).pools.remove(0).http
    };
    assert_eq!(pool(""), HttpLimits::default());
    assert_eq!(pool("[pool.web.http]"), HttpLimits::default());
    let expected = HttpLimits {
        max_body_size: Some(0),
        request_timeout_ms: Some(1500),
        max_concurrency: Some(64),
        ..HttpLimits::default()
    };
    let lines =
        "http.max_body_size = \"0B\"\nhttp.request_timeout = \"1500ms\"\nhttp.max_concurrency = 64";
    assert_eq!(pool(lines), expected);
}

#[test]
fn the_pages_example_for_the_bundled_web_server_is_a_configuration() {
    let page = include_str!("../../../CONFIG.md");
    let example = page.split("```toml\n").nth(2).expect("a second example");
    let (example, _) = example.split_once("```").expect("the example ends");
    let site = tempfile::tempdir().unwrap();
    for name in ["404.html", "index.html"] {
        std::fs::write(site.path().join(name), "").unwrap();
    }
    let host = Host {
        directory: site.path().to_owned(),
        ..host()
    };
    let config = parse(example, "prefork.toml", &host).unwrap_or_else(|error| panic!("{error}"));
    let app = config.pools[0].app.as_object().unwrap();
    let keys: Vec<_> = app.keys().map(String::as_str).collect();
    let all = [
        "cache_control",
        "confine",
        "fallback",
        "not_found",
        "root",
        "symlinks",
    ];
    assert_eq!(keys, all);
}

#[test]
fn every_key_reaches_its_value() {
    let config = valid(
        r#"
        [supervisor]
        runtime_dir = "/srv/run"
        control_mode = "0600"
        admin = "127.0.0.1:9000"
        log = "/var/log/prefork.log"
        log_format = "json"
        orphan_timeout = "90s"
        stop_delay = "5s"
        strict_boot = true

        [metrics]
        detail = "pool"

        [pool.web]
        workers = 8
        program = ["/bin/sh", "-c", "exec shop"]
        listen = [
            "0.0.0.0:8080",
            "[::]:8080",
            { address = "unix:/run/app.sock", backlog = 16, permissions = "0666", group = "root", mode = "shared" },
            { address = "127.0.0.1:8081", mode = "per-slot" },
        ]
        env = { RUST_LOG = "info" }
        user = "root"
        group = "root"
        boot_timeout = "1s"
        heartbeat_interval = "250ms"
        heartbeat_timeout = "2s"
        drain_timeout = "3s"
        idle_grace = "4s"
        kill_timeout = "5s"
        backoff_initial = "6s"
        backoff_max = "7m"
        backoff_reset = "8h"
        max_requests = 1_000
        max_requests_jitter = "2.5%"
        max_rss = "1GiB"
        max_age = "9d"
        min_ready = "20ms"
        max_surge = 10
        dump_on_hang = true
        ready = "75%"

        [pool.web.app]
        greeting = "hello"
        "#,
    );
    assert_eq!(
        config.supervisor,
        Supervisor {
            runtime_dir: "/srv/run".into(),
            control_mode: Some(0o600),
            admin: Some(([127, 0, 0, 1], 9000).into()),
            log: Some("/var/log/prefork.log".into()),
            admin_hosts: Vec::new(),
            admin_ipv6_only: true,
            log_format: Some(LogFormat::Json),
            log_level: None,
            orphan_timeout: 90 * SECOND,
            stop_delay: 5 * SECOND,
            strict_boot: true,
        }
    );
    assert_eq!(config.metrics, Detail::Pool);
    let [pool] = config.pools.as_slice() else {
        panic!("one pool, not {:?}", config.pools);
    };
    assert_eq!(
        pool.policy,
        prefork_fleet::Policy {
            name: "web".to_owned(),
            workers: 8,
            boot_timeout: SECOND,
            heartbeat_timeout: 2 * SECOND,
            drain_timeout: 3 * SECOND,
            kill_timeout: 5 * SECOND,
            backoff_initial: 6 * SECOND,
            backoff_max: 7 * 60 * SECOND,
            backoff_reset: 8 * 3600 * SECOND,
            max_requests: 1000,
            max_requests_jitter: 0.025,
            max_rss: Some(1 << 30),
            max_age: Some(9 * 86_400 * SECOND),
            min_ready: Duration::from_millis(20),
            max_surge: 10,
            dump_on_hang: true,
            ready: prefork_fleet::Quorum::Percent(75),
        }
    );
    assert_eq!(
        pool.program,
        Program::Command {
            path: "/bin/sh".into(),
            args: vec!["-c".to_owned(), "exec shop".to_owned()],
        }
    );
    let unix = Listen {
        name: "unix:/run/app.sock".to_owned(),
        address: Address::Unix("/run/app.sock".into()),
        mode: Mode::Shared,
        backlog: 16,
        permissions: Some(0o666),
        group: Some(SocketGroup {
            name: "root".to_owned(),
            gid: 0,
        }),
        ipv6_only: true,
        proxy_protocol: false,
        tls: None,
    };
    assert_eq!(pool.listen[2], unix);
    let names: Vec<&str> = pool
        .listen
        .iter()
        .map(|listen| listen.name.as_str())
        .collect();
    assert_eq!(
        names,
        [
            "0.0.0.0:8080",
            "[::]:8080",
            "unix:/run/app.sock",
            "127.0.0.1:8081"
        ]
    );
    assert_eq!(pool.listen[0].backlog, 4096);
    assert_eq!(pool.listen[0].mode, Mode::Shared);
    assert_eq!(pool.listen[3].mode, Mode::PerSlot);
    assert_eq!(pool.env["RUST_LOG"], "info");
    let run_as = pool.run_as.as_ref().expect("user is set");
    assert_eq!(
        (run_as.user.as_str(), run_as.uid, run_as.gid),
        ("root", 0, 0)
    );
    assert!(run_as.groups.contains(&0));
    assert_eq!(pool.heartbeat_interval, SECOND / 4);
    assert_eq!(pool.idle_grace, 4 * SECOND);
    assert_eq!(pool.app, json!({ "greeting": "hello" }));
}

#[test]
fn a_pool_without_settings_is_as_the_embedded_default() {
    let config = valid("[pool.web]\nlisten = [\"127.0.0.1:8080\"]");
    let default = command_line::config(&Options::default(), &host()).unwrap();
    assert_eq!(config.pools, default.pools);
    assert_eq!(config.supervisor, default.supervisor);
    assert_eq!(config.metrics, default.metrics);
    assert_eq!(default.source, "embedded default");
    assert_eq!(default.pools[0].policy.workers, 4);
    assert_eq!(
        default.supervisor.admin,
        Some(([127, 0, 0, 1], 9919).into())
    );
}

#[test]
fn pools_keep_the_order_of_the_file() {
    let config = valid(
        "[pool.zoo]\nlisten = [\"127.0.0.1:1\"]\n[pool.api]\nlisten = [\"127.0.0.1:2\"]\n\
         [pool.mid]\nlisten = [\"127.0.0.1:3\"]",
    );
    let names: Vec<_> = config
        .pools
        .iter()
        .map(|pool| pool.policy.name.as_str())
        .collect();
    assert_eq!(names, ["zoo", "api", "mid"]);
}

#[test]
fn auto_is_a_worker_per_processor_and_an_empty_admin_is_none() {
    let config =
        valid("[supervisor]\nadmin = \"\"\n[pool.web]\nworkers = \"auto\"\nlisten = [\"[::1]:0\"]");
    assert_eq!(config.pools[0].policy.workers, 4);
    assert_eq!(config.supervisor.admin, None);
}

#[test]
fn metrics_tell_slots_apart_up_to_sixty_four_workers_unless_they_are_told_to() {
    let detail = |metrics: &str, web: u32, api: u32| {
        let pools = [("web", web, 1), ("api", api, 2)].map(|(name, workers, port)| {
            format!("[pool.{name}]\nworkers = {workers}\nlisten = [\"127.0.0.1:{port}\"]\n")
        });
        valid(&format!("{metrics}\n{}", pools.concat())).metrics
    };
    assert_eq!(detail("", 60, 4), Detail::Slot);
    assert_eq!(detail("", 60, 5), Detail::Pool);
    assert_eq!(detail("[metrics]", 60, 5), Detail::Pool);
    assert_eq!(detail("metrics.detail = \"slot\"", 60, 5), Detail::Slot);
    assert_eq!(detail("metrics.detail = \"pool\"", 1, 1), Detail::Pool);
    let many = Options {
        workers: Some("65".to_owned()),
        ..Options::default()
    };
    let many = command_line::config(&many, &host()).unwrap();
    assert_eq!(many.metrics, Detail::Pool);
}

#[test]
fn settings_of_the_application_become_json() {
    let config = valid(
        "[pool.web]\nprogram = [\"sh\"]\n[pool.web.app]\n\
         day = 2026-01-31\nat = 2026-01-31T12:00:00Z\nmask = 0xff\nless = -3\nratio = 0.5\n\
         on = true\nlist = [1, \"two\", { three = 3 }]\nroot = \"./not-looked-at\"\n\
         [pool.web.app.deep.down]\nkey = \"value\"",
    );
    assert_eq!(
        config.pools[0].app,
        json!({
            "day": "2026-01-31", "at": "2026-01-31T12:00:00Z", "mask": 255, "less": -3,
            "ratio": 0.5, "on": true, "list": [1, "two", { "three": 3 }],
            "root": "./not-looked-at", "deep": { "down": { "key": "value" } },
        })
    );
}

#[test]
fn programs_are_found_beside_the_file_and_in_the_path() {
    let directory = tempfile::tempdir().unwrap();
    let program = directory.path().join("bin/shop");
    fs::create_dir(directory.path().join("bin")).unwrap();
    fs::write(&program, "#!/bin/sh\n").unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let host = Host {
        directory: directory.path().to_owned(),
        search_path: std::env::join_paths([directory.path(), &directory.path().join("bin")])
            .unwrap(),
        ..host()
    };
    for word in ["./bin/shop", "bin/shop", "shop", program.to_str().unwrap()] {
        let text = format!("[pool.web]\nprogram = [\"{word}\"]");
        let config = parse(&text, "prefork.toml", &host).unwrap();
        let expected = Program::Command {
            path: program.clone(),
            args: Vec::new(),
        };
        assert_eq!(config.pools[0].program, expected, "{word}");
    }
    fs::set_permissions(&program, fs::Permissions::from_mode(0o644)).unwrap();
    let error = parse(
        "[pool.web]\nprogram = [\"bin/shop\"]",
        "prefork.toml",
        &host,
    )
    .unwrap_err();
    assert!(
        error.to_string().contains("bin/shop: not executable"),
        "{error}"
    );
}

#[test]
fn the_summary_shows_what_is_unusual_and_no_secrets() {
    let config = valid(
        "[pool.web]\nlisten = [\"127.0.0.1:80\", { address = \"unix:/run/a\", backlog = 9, group = 0 },\n\
         { address = \"[::1]:80\", mode = \"per-slot\" }]\n\
         env = { TOKEN = \"hunter2\" }\nmax_rss = \"1536MiB\"\ndrain_timeout = \"90s\"\n\
         kill_timeout = \"5s\"\n[pool.web.app]\ncache_control = \"hunter2\"",
    );
    let expected = "prefork.toml: valid
supervisor
  runtime_dir          /run/prefork
  control_mode         0660
  admin                127.0.0.1:9919
metrics
  detail               slot
pool web
  workers              4
  program              (bundled web server)
  listen               127.0.0.1:80
  listen               unix:/run/a, backlog 9, group 0
  listen               [::1]:80, mode per-slot
  env                  TOKEN
  drain_timeout        90s
  max_rss              1536MiB
";
    assert_eq!(render_checked(&config), expected);
    let json = checked_json(&config);
    assert_eq!(json["pools"][0]["settings"]["drain_timeout"], "90s");
    assert_eq!(json["pools"][0]["listeners"][1]["address"], "unix:/run/a");
    assert!(!json.to_string().contains("hunter2"));
}

#[test]
fn an_address_of_a_link_names_its_interface() {
    let text = "[pool.web]\nlisten = [\"[fe80::1%lo]:8080\", \"[fe80::1%4095]:8080\"]\n";
    let listen = &valid(text).pools[0].listen;
    let lo = nix::net::if_::if_nametoindex("lo").expect("every machine has one");
    let expected = [lo, 4095].map(|index| {
        let ip = "fe80::1".parse().expect("it is one");
        Address::Tcp(std::net::SocketAddrV6::new(ip, 8080, 0, index).into())
    });
    assert_eq!(
        [&listen[0].address, &listen[1].address],
        expected.each_ref()
    );
    assert_eq!(listen[0].name, "[fe80::1%lo]:8080");
}

#[test]
fn quantities_are_understood_in_the_ways_that_people_write_them() {
    let pool = |settings: &str| {
        let text = format!("[pool.web]\nlisten = [\"127.0.0.1:1\"]\n{settings}\n");
        valid(&text).pools.remove(0)
    };
    for (text, seconds) in [
        ("1m30s", 90),
        ("1h 30 min", 5400),
        ("5 minutes", 300),
        ("1 minute 1 second", 61),
        ("1d1h1m1s1000ms", 90_062),
    ] {
        let pool = pool(&format!("drain_timeout = \"{text}\""));
        let expected = Duration::from_secs(seconds);
        assert_eq!(pool.policy.drain_timeout, expected, "{text}");
    }
    for (text, bytes) in [
        ("1G", 1 << 30),
        ("1GiB", 1 << 30),
        ("512 MB", 512_000_000),
        ("1GiB 512MiB", 3 << 29),
        ("2000000 bytes", 2_000_000),
        ("2000kB", 2_000_000),
    ] {
        let pool = pool(&format!("max_rss = \"{text}\""));
        assert_eq!(pool.policy.max_rss, Some(bytes), "{text}");
    }
}

#[test]
fn quantities_are_shown_as_they_can_be_written() {
    for text in ["0s", "1ms", "1500ms", "90s", "2m", "36h", "7d"] {
        let duration = units::duration(text).unwrap();
        assert_eq!(units::show_duration(duration), text);
    }
    for text in ["1B", "3KiB", "10MB", "1536MiB", "2GiB", "1TiB"] {
        let bytes = units::size(text).unwrap();
        assert_eq!(units::show_size(bytes), text);
    }
    assert_eq!(units::size("64KiB").unwrap(), 65_536);
    assert_eq!(units::size("10MB").unwrap(), 10_000_000);
    assert_eq!(
        units::show_percentage(units::percentage("2.5%").unwrap()),
        "2.5%"
    );
}
