//! What a wrong file says, to the letter.

use proptest::prelude::*;

use super::*;

#[test]
fn an_unknown_key_shows_its_line_and_the_nearest_valid_one() {
    let text = "[pool.web]\nlisten = [\"0.0.0.0:80\"]\nhartbeat_timeout = \"1s\"\n";
    let expected = "\
prefork.toml:3:1: unknown key `hartbeat_timeout` in [pool.web]
  |
3 | hartbeat_timeout = \"1s\"
  | ^^^^^^^^^^^^^^^^
  = help: did you mean `heartbeat_timeout`?";
    assert_eq!(message(text), expected);
}

#[test]
fn a_setting_of_another_server_is_answered_with_ours() {
    for (settings, said) in [
        (
            "graceful_timeout = 30",
            "unknown key `graceful_timeout` in [pool.web] (here it is `drain_timeout` in [pool.web])",
        ),
        (
            "timeout = 30",
            "unknown key `timeout` in [pool.web] (here it is `heartbeat_timeout` in [pool.web] or \
             `request_timeout` in [pool.web.http]: the first ends a worker that hangs, the second \
             a request that takes too long)",
        ),
        (
            "pm.max_children = 5",
            "unknown key `pm` in [pool.web] (here it is `workers` in [pool.web]: a pool has as many \
             workers as it says; `prefork scale` changes that while it runs)",
        ),
        (
            "limits = { requests = 5 }",
            "unknown key `limits` in [pool.web] (here it is `max_requests` in [pool.web])",
        ),
        (
            "http.keepalive-timeout = 5",
            "unknown key `keepalive-timeout` in `http` of [pool.web] \
             (here it is `idle_timeout` in [pool.web.http])",
        ),
        (
            "loglevel = \"debug\"",
            "unknown key `loglevel` in [pool.web] (here it is `log_level` in [supervisor])",
        ),
        (
            "daemon = true",
            "unknown key `daemon` in [pool.web] (prefork stays in the foreground; a service \
             manager puts it into the background)",
        ),
        (
            "max-requests = 5",
            "unknown key `max-requests` in [pool.web] (did you mean `max_requests`?)",
        ),
    ] {
        assert_eq!(problem_of(settings), said);
    }
}

#[test]
fn a_key_in_the_wrong_table_is_told_where_it_stands() {
    for (settings, said) in [
        (
            "request_timeout = \"5s\"",
            "unknown key `request_timeout` in [pool.web] (it stands in [pool.web.http])",
        ),
        (
            "log_level = \"info\"",
            "unknown key `log_level` in [pool.web] (it stands in [supervisor])",
        ),
        (
            "http.workers = 2",
            "unknown key `workers` in `http` of [pool.web] (it stands in [pool.web])",
        ),
    ] {
        assert_eq!(problem_of(settings), said);
    }
    let top = "workers = 2\n[pool.web]\nlisten = [\"0.0.0.0:80\"]\n";
    assert_eq!(
        only_problem(top),
        "unknown key `workers` in the file (it stands in [pool.NAME])"
    );
}

#[test]
fn valid_keys_are_listed_by_likeness() {
    assert_eq!(
        problem_of("check = { path = \"/\", state_code = 200 }"),
        "unknown key `state_code` in `check` of [pool.web] \
         (valid keys: status, timeout, path, headers, body)"
    );
}

#[test]
fn each_key_of_a_canary_says_what_it_takes() {
    for (key, said) in [
        ("workers = 0", "`workers`: 0 is out of range"),
        ("duration = \"10ms\"", "`duration`: 10ms is out of range"),
        ("min_requests = 0", "`min_requests`: 0 is out of range"),
        (
            "max_p99_ratio = 0.5",
            "`max_p99_ratio`: expected a ratio from 1 to 1000 such as 2.0, or 0 for none, found float 0.5",
        ),
        (
            "on_no_verdict = \"wait\"",
            "`on_no_verdict`: expected \"proceed\" or \"undo\", found string \"wait\"",
        ),
        (
            "min_request = 1",
            "unknown key `min_request` in `canary` of [pool.web] (did you mean `min_requests`?)",
        ),
    ] {
        let problem = problem_of(&format!("canary = {{ {key} }}"));
        assert!(problem.starts_with(said), "{problem}");
    }
    let alone = problem_of("workers = 2\ncanary = { workers = 2 }");
    assert!(
        alone.contains("leaves no worker of the old generation"),
        "{alone}"
    );
}

#[test]
fn a_bare_number_is_told_to_take_a_unit() {
    let text = "[pool.web]\nlisten = [\"0.0.0.0:80\"]\n\tboot_timeout = 30 # long\n";
    let expected = "\
prefork.toml:3:17: `boot_timeout`: expected a duration such as \"30s\", found integer 30
  |
3 | \tboot_timeout = 30 # long
  | \t               ^^
  = help: write its unit: \"30s\" or \"30ms\"";
    assert_eq!(message(text), expected);
}

#[test]
fn limits_of_http_are_checked_key_by_key() {
    let text = r#"[pool.web]
listen = ["0.0.0.0:80"]

[pool.web.http]
max_body_sise = "1MiB"
max_header_size = "2MiB"
header_timeout = "0s"
max_headers = "many"
max_uri_size = 100
"#;
    let expected = r#"prefork.toml:5:1: unknown key `max_body_sise` in `http` of [pool.web]
  |
5 | max_body_sise = "1MiB"
  | ^^^^^^^^^^^^^
  = help: did you mean `max_body_size`?

prefork.toml:6:19: `max_header_size`: 2MiB is out of range
  |
6 | max_header_size = "2MiB"
  |                   ^^^^^^
  = help: from 1KiB to 1MiB

prefork.toml:7:18: `header_timeout`: 0s is out of range
  |
7 | header_timeout = "0s"
  |                  ^^^^
  = help: from 10ms to 1d

prefork.toml:8:15: `max_headers`: expected an integer, found string "many"
  |
8 | max_headers = "many"
  |               ^^^^^^

prefork.toml:9:16: `max_uri_size`: expected a size such as "16KiB", found integer 100
  |
9 | max_uri_size = 100
  |                ^^^"#;
    assert_eq!(message(text), expected);
}

#[test]
fn all_that_is_wrong_is_reported_at_once_in_the_order_of_the_lines() {
    let text = r#"[supervisor]
control_mode = "0999"
admim = "127.0.0.1:1"

[pool.web]
listen = ["0.0.0.0:80", ":81"]
max_rss = "1gb"
backoff_initial = "1m"
workers = 0
"#;
    let expected = r#"prefork.toml:2:16: `control_mode`: expected permission bits from "0000" to "0777", found "0999"
  |
2 | control_mode = "0999"
  |                ^^^^^^

prefork.toml:3:1: unknown key `admim` in [supervisor]
  |
3 | admim = "127.0.0.1:1"
  | ^^^^^
  = help: did you mean `admin`?

prefork.toml:6:25: ":81" is not an IP address with a port
  |
6 | listen = ["0.0.0.0:80", ":81"]
  |                         ^^^^^
  = help: for every address write "0.0.0.0:81" or "[::]:81"

prefork.toml:7:11: `max_rss`: expected a size such as "512MiB": "gb" is not a unit
  |
7 | max_rss = "1gb"
  |           ^^^^^
  = help: write "1GiB" or "1GB"

prefork.toml:8:19: `backoff_max` must not be shorter than `backoff_initial`
  |
8 | backoff_initial = "1m"
  |                   ^^^^
  = help: they are 30s and 1m

prefork.toml:9:11: `workers`: 0 is out of range
  |
9 | workers = 0
  |           ^
  = help: from 1 to 10000"#;
    assert_eq!(message(text), expected);
}

#[test]
fn a_duplicate_table_is_shown_where_it_comes_again() {
    let text = "[pool.web]\nlisten = [\"0.0.0.0:80\"]\n[pool.web]\n";
    let expected = "\
prefork.toml:3:7: duplicate key
  |
3 | [pool.web]
  |       ^^^";
    assert_eq!(message(text), expected);
}

#[test]
fn a_file_without_a_pool_says_how_to_add_one() {
    let expected = "prefork.toml: no pool is configured\n = help: add [pool.web] with listen = [\"0.0.0.0:8080\"]";
    for text in [
        "",
        "# nothing\n",
        "[pool]\n",
        "[supervisor]\nadmin = \"\"\n",
    ] {
        assert_eq!(message(text), expected);
    }
}

#[test]
fn a_long_line_is_shown_around_the_spot() {
    let long = "x".repeat(500);
    let text = format!("[pool.web]\nlisten = [\"unix:/{long}\"]\nworkers = 1 # {long}");
    let found = problems(&text);
    assert_eq!(found.len(), 1, "{found:?}");
    for line in found[0].to_string().lines().skip(1) {
        assert!(line.chars().count() <= 130, "{line}");
    }
}

#[test]
fn columns_count_characters_and_control_characters_stay_off_the_terminal() {
    let found = problems("[pool.web]\nlisten = [\"ü:80\", 3]\n");
    let places: Vec<_> = found
        .iter()
        .map(|problem| problem.place.as_ref().unwrap().column)
        .collect();
    assert_eq!(places, [11, 19]);
    let shown = message("[pool.web]\nlisten = [\"\u{1b}[2J\"]\n");
    assert!(!shown.contains('\u{1b}'), "{shown:?}");
}

/// The only problem of a pool with these settings, and its help in parentheses.
pub(super) fn problem_of(settings: &str) -> String {
    let listens = settings.contains("listen") || settings.contains("program");
    let listen = if listens {
        ""
    } else {
        "listen = [\"127.0.0.1:1\"]"
    };
    only_problem(&format!("[pool.web]\n{settings}\n{listen}\n"))
}

fn only_problem(text: &str) -> String {
    let found = problems(text);
    let [problem] = found.as_slice() else {
        panic!("one problem in {text:?}, not {found:#?}");
    };
    match &problem.help {
        Some(help) => format!("{} ({help})", problem.message),
        None => problem.message.clone(),
    }
}

#[test]
fn each_mistake_in_a_pool_has_its_own_words() {
    let cases = [
        (
            "workers = 0",
            "`workers`: 0 is out of range (from 1 to 10000)",
        ),
        (
            "workers = -1",
            "`workers`: -1 is out of range (from 1 to 10000)",
        ),
        (
            "workers = 99999999999999999999",
            "`workers`: 99999999999999999999 is out of range (from 1 to 10000)",
        ),
        (
            "workers = \"many\"",
            "`workers`: expected a number of workers or \"auto\", found \"many\" (from 1 to 10000)",
        ),
        (
            "workers = 1.5",
            "`workers`: expected a number of workers or \"auto\", found float 1.5",
        ),
        ("listen = []", "`listen` is empty ([\"0.0.0.0:8080\"])"),
        (
            "listen = \"0.0.0.0:80\"",
            "`listen`: expected an array such as [\"0.0.0.0:8080\"], found string \"0.0.0.0:80\" (write [\"0.0.0.0:80\"])",
        ),
        (
            "listen = [\"localhost:80\"]",
            "\"localhost:80\" is not an IP address with a port (names are not looked up; write \"127.0.0.1:80\")",
        ),
        (
            "listen = [\"1.2.3.4:99999\"]",
            "\"1.2.3.4:99999\" has the port \"99999\" (a port is a number from 0 to 65535)",
        ),
        (
            "listen = [\"1.2.3.4\"]",
            "\"1.2.3.4\" has no port (write \"1.2.3.4:8080\")",
        ),
        (
            "listen = [\"::1\"]",
            "\"::1\" has no port (write \"[::1]:8080\")",
        ),
        (
            "listen = [\"8080\"]",
            "\"8080\" is a port without an address (write \"127.0.0.1:8080\" for this machine alone, or \"0.0.0.0:8080\" for everybody)",
        ),
        (
            "listen = [\"web\"]",
            "\"web\" is not an IP address with a port (write IP:PORT, for instance \"0.0.0.0:8080\")",
        ),
        (
            "listen = [\"http://127.0.0.1:8080/\"]",
            "\"http://127.0.0.1:8080/\" is a URL (write the address alone: \"127.0.0.1:8080\")",
        ),
        (
            "listen = [\"/run/app.sock\"]",
            "\"/run/app.sock\" is a path (for a unix socket write \"unix:/run/app.sock\")",
        ),
        (
            "listen = [\"fd00:1:8080:9090:1:2:3:4:80\"]",
            "\"fd00:1:8080:9090:1:2:3:4:80\" is not an IP address with a port (write \"[fd00:1:8080:9090:1:2:3:4]:80\")",
        ),
        (
            "listen = [\"[fe80::1]:80\"]",
            "\"[fe80::1]:80\" is of one link, and does not say which (write its interface: \"[fe80::1%eth0]:80\")",
        ),
        (
            "listen = [\"[fe80::1%no-such]:80\"]",
            "there is no interface \"no-such\"",
        ),
        (
            "listen = [\"unix:\"]",
            "\"unix:\" names no file (write a path: \"unix:/run/app.sock\")",
        ),
        (
            "listen = [\"systemd:\"]",
            "\"systemd:\" names no socket (write the FileDescriptorName= of a socket unit: \"systemd:http\")",
        ),
        (
            "listen = [{ address = \"systemd:http\", backlog = 9 }]",
            "`backlog` is not for a socket from systemd (set Backlog= in its socket unit)",
        ),
        (
            "listen = [{ address = \"systemd:http\", mode = \"per-slot\" }]",
            "`mode`: \"per-slot\" needs TCP; this listener is one socket from systemd (leave `mode` out for \"shared\")",
        ),
        (
            "listen = [{ backlog = 1 }]",
            "a listener has no `address` (address = \"0.0.0.0:8080\")",
        ),
        (
            "listen = [{ address = \"[::]:1\", tls = {} }]",
            "`tls` has no certificate (tls = { cert = \"www.pem\", key = \"www.key\" })",
        ),
        (
            "listen = [{ address = \"unix:/run/a\", mode = \"per-slot\" }]",
            "`mode`: \"per-slot\" needs TCP; this listener is a unix socket (leave `mode` out for \"shared\")",
        ),
        (
            "listen = [{ address = \"[::]:1\", mode = \"own\" }]",
            "`mode`: expected \"shared\" or \"per-slot\", found \"own\"",
        ),
        (
            "listen = [{ address = \"[::]:1\", backlog = 0 }]",
            "`backlog`: 0 is out of range (from 1 to 65535)",
        ),
        (
            "listen = [{ address = \"[::]:1\", permissions = \"0600\" }]",
            "`permissions` are for unix sockets; this listener is TCP",
        ),
        (
            "listen = [{ address = \"[::]:1\", group = 0 }]",
            "`group` is for unix sockets; this listener is TCP",
        ),
        (
            "listen = [{ address = \"systemd:http\", group = \"root\" }]",
            "`group` is not for a socket from systemd (set SocketGroup= in its socket unit)",
        ),
        (
            "listen = [{ address = \"unix:/run/a\", group = \"no such group\" }]",
            "`group`: there is no group \"no such group\"",
        ),
        (
            "listen = [{ address = \"[::]:1\", colour = 1 }]",
            "unknown key `colour` in a listener (valid keys: backlog, group, tls, mode, proxy_protocol, address, ipv6_only, permissions)",
        ),
        (
            "listen = [\"0.0.0.0:80\", \"127.0.0.1:80\"]",
            "127.0.0.1:80 clashes with 0.0.0.0:80 of [pool.web] (the other one is in line 2)",
        ),
        (
            "listen = [\"0.0.0.0:9919\"]",
            "0.0.0.0:9919 clashes with the admin address 127.0.0.1:9919 (set `admin` in [supervisor] to another address, or to \"\" for none)",
        ),
        (
            "program = []",
            "`program` is empty (leave it out for the bundled web server)",
        ),
        (
            "program = \"/bin/sh\"",
            "`program`: expected an array such as [\"/usr/bin/shop\", \"--quiet\"], found string \"/bin/sh\" (write [\"/bin/sh\"])",
        ),
        ("program = [1]", "expected a string, found integer 1"),
        (
            "program = [\"/nowhere/shop\"]",
            "/nowhere/shop: no such file",
        ),
        ("program = [\"/etc\"]", "/etc: not a file"),
        (
            "program = [\"no-such-shop\"]",
            "no program `no-such-shop` in PATH (a program beside the configuration is written \"./no-such-shop\")",
        ),
        (
            "program = [\"sh\", \"\\u0000\"]",
            "an argument cannot contain a NUL",
        ),
        ("env = { A = 1 }", "`A`: expected a string, found integer 1"),
        (
            "env = { PREFORK_CHANNEL_FD = \"3\" }",
            "`PREFORK_CHANNEL_FD` is prefork's own",
        ),
        (
            "env = { \"A=B\" = \"\" }",
            "\"A=B\" is not a variable's name: it is empty or contains `=` or NUL",
        ),
        (
            "env = { A = \"\\u0000\" }",
            "`A`: a value cannot contain a NUL",
        ),
        (
            "user = 4242424242",
            "no user has the number 4242424242 here, so its group is not known (add group = 4242424242)",
        ),
        (
            "user = -1",
            "`user`: -1 is out of range (from 0 to 4294967294)",
        ),
        (
            "user = \"4294967295\"",
            "`user`: there is no user \"4294967295\"",
        ),
        (
            "user = \"nobody-by-this-name\"",
            "`user`: there is no user \"nobody-by-this-name\"",
        ),
        (
            "group = \"root\"",
            "`group` needs `user` (add user = \"www-data\")",
        ),
        (
            "user = \"root\"\ngroup = \"no-such-group\"",
            "`group`: there is no group \"no-such-group\"",
        ),
        (
            "drain_timeout = \"30\"",
            "`drain_timeout`: expected a duration such as \"30s\": \"30\" has no unit (units: d, h, m, s, ms)",
        ),
        (
            "drain_timeout = \"1y\"",
            "`drain_timeout`: expected a duration such as \"30s\": \"y\" is not a unit (units: d, h, m, s, ms)",
        ),
        (
            "drain_timeout = \"soon\"",
            "`drain_timeout`: expected a duration such as \"30s\": \"soon\" does not begin with a whole number",
        ),
        (
            "drain_timeout = \"99999999999999999d\"",
            "`drain_timeout`: expected a duration such as \"30s\": \"99999999999999999d\" is too large",
        ),
        (
            "drain_timeout = \"8d\"",
            "`drain_timeout`: 8d is out of range (from 0s to 7d)",
        ),
        (
            "drain_timeout = \"1M\"",
            "`drain_timeout`: expected a duration such as \"30s\": \"M\" is not a unit (write \"1m\")",
        ),
        (
            "drain_timeout = \"1.5h\"",
            "`drain_timeout`: expected a duration such as \"30s\": \"1.5h\" has a fraction (write whole numbers of smaller units)",
        ),
        (
            "drain_timeout = \"30s1m\"",
            "`drain_timeout`: expected a duration such as \"30s\": in \"30s1m\" a unit comes after a smaller one, or twice (write the larger one first, as in \"1h30m\")",
        ),
        (
            "drain_timeout = \"1m30\"",
            "`drain_timeout`: expected a duration such as \"30s\": \"1m30\" has no unit (units: d, h, m, s, ms)",
        ),
        (
            "drain_timeout = \"1m or so\"",
            "`drain_timeout`: expected a duration such as \"30s\": in \"1m or so\" a whole number has to follow before \"or so\"",
        ),
        (
            "heartbeat_interval = \"10s\"",
            "`heartbeat_timeout` must be longer than `heartbeat_interval` (they are 10s and 10s)",
        ),
        (
            "max_requests_jitter = \"110%\"",
            "`max_requests_jitter`: expected a percentage from \"0%\" to \"100%\", found \"110%\"",
        ),
        (
            "max_rss = 1024",
            "`max_rss`: expected a size such as \"512MiB\", found integer 1024",
        ),
        (
            "max_surge = 0",
            "`max_surge`: 0 is out of range (from 1 to 10000)",
        ),
        (
            "dump_on_hang = \"yes\"",
            "`dump_on_hang`: expected true or false, found string \"yes\"",
        ),
        (
            "ready = \"0%\"",
            "`ready`: expected \"any\", \"all\" or a whole percentage from \"1%\" to \"100%\", found \"0%\"",
        ),
        (
            "ready = \"101%\"",
            "`ready`: expected \"any\", \"all\" or a whole percentage from \"1%\" to \"100%\", found \"101%\"",
        ),
        (
            "ready = \"+7%\"",
            "`ready`: expected \"any\", \"all\" or a whole percentage from \"1%\" to \"100%\", found \"+7%\"",
        ),
        (
            "ready = \"most\"",
            "`ready`: expected \"any\", \"all\" or a whole percentage from \"1%\" to \"100%\", found \"most\"",
        ),
        (
            "ready = 12",
            "`ready`: expected \"any\", \"all\" or a whole percentage from \"1%\" to \"100%\", found integer 12",
        ),
        ("app = 1", "`app`: expected a table, found integer 1"),
        (
            "app.root = \"/nowhere\"",
            "`root`: /nowhere: no such directory",
        ),
        (
            "app.root = \"/etc/passwd\"",
            "`root`: /etc/passwd: not a directory",
        ),
        (
            "app.confine = 1",
            "`confine`: expected true, false or \"required\", found integer 1",
        ),
        (
            "app = { confine = \"required\", symlinks = \"anywhere\" }",
            "`confine = \"required\"` does not go with `symlinks = \"anywhere\"` \
             (leave one of the two out)",
        ),
        (
            "access_log = { format = \"json\" }",
            "`access_log` of [pool.web] has no `path` \
             (path = \"/var/log/prefork/web.log\", or \"stdout\")",
        ),
        (
            "access_log = { path = \"stdout\", format = \"xml\" }",
            "`format`: expected \"combined\" or \"json\", found string \"xml\"",
        ),
        (
            "access_log.path = \"/nowhere/at/all.log\"",
            "`path`: cannot write /nowhere/at/all.log: No such file or directory (os error 2)",
        ),
        (
            "check = { status = 200 }",
            "`check` of [pool.web] has no `path` (path = \"/healthz\")",
        ),
        (
            "check = { path = \"healthz\" }",
            "`path`: expected a path such as \"/healthz\", found string \"healthz\"",
        ),
        (
            "check = { path = \"/\", status = 100 }",
            "`status`: 100 is out of range (from 200 to 599)",
        ),
        (
            "check = { path = \"/\", headers = { \"a b\" = \"c\" } }",
            "`headers`: \"a b\" is no header field",
        ),
        (
            "check = { path = \"/\", body = 1 }",
            "`body`: expected text that the answer has to contain, found integer 1",
        ),
        (
            "access_log.path = \"/etc\"",
            "`path`: cannot write /etc: Is a directory (os error 21)",
        ),
        (
            "access_log = { paht = \"stdout\", path = \"stdout\" }",
            "unknown key `paht` in `access_log` of [pool.web] (did you mean `path`?)",
        ),
        (
            "app.symlinks = true",
            "`symlinks`: expected \"inside\" or \"anywhere\", found boolean true",
        ),
        (
            "app.not_found = \"404.html\"",
            "`not_found` needs `root` (add root = \"./public\")",
        ),
        (
            "app = { root = \"/etc\", not_found = \"../404.html\" }",
            "`not_found`: expected the path of a file in the root, such as \"404.html\", \
             found string \"../404.html\"",
        ),
        (
            "app = { root = \"/etc\", fallback = \"no/index.html\" }",
            "`fallback`: /etc/no/index.html: no such file",
        ),
        (
            "app.cache_control = { assets = \"immutable\" }",
            "`cache_control`: \"assets\" is no path (a path begins with a slash: \"/assets/\")",
        ),
        (
            "app.cache_control = \"a\\nb\"",
            "`cache_control`: expected a header's value such as \"max-age=3600\", \
             or a table of them by path, found string \"a\\nb\"",
        ),
        (
            "app.roots = \"/etc\"",
            "unknown key `roots` in `app` of [pool.web] (did you mean `root`?)",
        ),
        ("program = [\"sh\"]\napp.x = inf", "JSON has no number inf"),
        (
            "program = [\"sh\"]\napp.x = 99999999999999999999",
            "99999999999999999999 does not fit 64 bits",
        ),
    ];
    for (settings, expected) in cases {
        assert_eq!(problem_of(settings), expected, "{settings}");
    }
}

#[test]
fn each_mistake_around_the_pools_has_its_own_words() {
    let pool = "\n[pool.web]\nlisten = [\"0.0.0.0:80\"]";
    let long = "r".repeat(100);
    let name = "(a name has 1 to 64 of the characters a-z, 0-9, _ and -)";
    let socket = format!("/{long}/control.sock has 114 bytes; the kernel takes 107");
    let cases = [
        (
            "[pool.Web]".to_owned(),
            format!("\"Web\" cannot name a pool {name}"),
        ),
        (
            format!("[pool.{long}]"),
            format!("\"{long}\" cannot name a pool {name}"),
        ),
        (
            "[pool.\"\"]".to_owned(),
            format!("\"\" cannot name a pool {name}"),
        ),
        (
            "pool.workers = 3".to_owned(),
            "`workers`: expected a table, found integer 3 \
             (the settings of a pool stand under its name, as in [pool.web])"
                .to_owned(),
        ),
        (
            "[pools.web]".to_owned(),
            "unknown key `pools` in the file (did you mean `pool`?)".to_owned(),
        ),
        (
            "[pool.api]".to_owned(),
            "[pool.api] has no `listen` (listen = [\"0.0.0.0:8080\"])".to_owned(),
        ),
        (
            "[pool.api]\nlisten = [\"127.0.0.1:80\"]".to_owned(),
            "0.0.0.0:80 clashes with 127.0.0.1:80 of [pool.api] (the other one is in line 2)"
                .to_owned(),
        ),
        (
            "supervisor = 1".to_owned(),
            "`supervisor`: expected a table, found integer 1".to_owned(),
        ),
        (
            format!("[supervisor]\nruntime_dir = \"/{long}\""),
            format!("`runtime_dir`: the control socket's path {socket}"),
        ),
        (
            "[supervisor]\ncontrol_mode = 0o660".to_owned(),
            "`control_mode`: expected permission bits such as \"0660\", found integer 0o660"
                .to_owned(),
        ),
        (
            "[supervisor]\nadmin = \":9919\"".to_owned(),
            "`admin`: \":9919\" is not an IP address with a port \
             (for every address write \"0.0.0.0:9919\" or \"[::]:9919\")"
                .to_owned(),
        ),
        (
            "[metrics]\ndetail = \"worker\"".to_owned(),
            "`detail`: expected \"slot\" or \"pool\", found \"worker\"".to_owned(),
        ),
        (
            "[metrics]\ndetails = \"slot\"".to_owned(),
            "unknown key `details` in [metrics] (did you mean `detail`?)".to_owned(),
        ),
        (
            "[supervisor]\nlog = \"\"".to_owned(),
            "`log`: the path is empty or contains a NUL".to_owned(),
        ),
    ];
    for (text, expected) in cases {
        assert_eq!(only_problem(&format!("{text}{pool}")), expected);
    }
}

#[test]
fn another_user_needs_root() {
    let host = Host {
        root: false,
        ..host()
    };
    let text = "[pool.web]\nlisten = [\"0.0.0.0:80\"]\nuser = \"root\"";
    let error = parse(text, "prefork.toml", &host).unwrap_err().to_string();
    assert!(
        error.contains("only root can run workers as another user"),
        "{error}"
    );
}

#[test]
fn settings_too_large_for_a_message_are_refused() {
    let text = format!("program = [\"sh\"]\napp.text = \"{}\"", "x".repeat(70_000));
    assert!(problem_of(&text).starts_with("the settings take 70011 bytes as JSON"));
}

#[test]
fn hundreds_of_problems_are_cut_short() {
    let keys: String = (0..100).map(|key| format!("key{key} = 1\n")).collect();
    let shown = message(&format!("[pool.web]\nlisten = [\"0.0.0.0:80\"]\n{keys}"));
    assert!(shown.ends_with("and 80 more problems"), "{shown}");
}

#[test]
fn deep_nesting_is_a_problem_and_not_a_crash() {
    let text = format!("[pool.web]\napp.x = {}", "[".repeat(100_000));
    assert!(!problems(&text).is_empty());
}

/// Pieces that make text which gets past the parser.
fn piece() -> impl Strategy<Value = String> {
    let known = prop::sample::select(vec![
        "[supervisor]\n",
        "[pool.web]\n",
        "[pool.api.app]\n",
        "[pool.web.env]\n",
        "workers",
        "listen",
        "program",
        "max_rss",
        "boot_timeout",
        "root",
        "user",
        " = ",
        "[\"0.0.0.0:80\"]",
        "{ address = \"unix:a\" }",
        "\"30s\"",
        "\"1GiB\"",
        "\"\"",
        "3",
        "-1",
        "inf",
        "true",
        "[[]]",
        "1979-05-27",
        "\n",
        "\"ü\"",
        "\\",
        "'",
    ]);
    prop_oneof![4 => known.prop_map(str::to_owned), 1 => any::<String>()]
}

proptest! {
    #[test]
    fn any_text_is_a_configuration_or_a_message(text in any::<String>()) {
        check_any(&text);
    }

    #[test]
    fn any_pieces_are_a_configuration_or_a_message(pieces in prop::collection::vec(piece(), 0..40)) {
        check_any(&pieces.concat());
    }
}

#[test]
fn a_configuration_that_is_nearly_right_is_one_or_a_message() {
    let corpus = [
        include_bytes!("../../../../deploy/systemd/prefork.toml").to_vec(),
        br#"
[supervisor]
runtime_dir = "/run/p"
control_mode = "0660"
[reload]
before = [["./migrate", "up"]]
[pool.web]
listen = ["0.0.0.0:80", { address = "[::1]:81", backlog = 9 }]
ready = "75%"
[pool.web.app]
forward = { "/api/" = "shop" }
[pool.web.canary]
workers = 1
duration = "2m"
[pool.shop]
workers = 4
user = "root"
program = ["/bin/sh", "--uds", "{socket}"]
rlimits = { as = "2GiB" }
[pool.shop.adapter]
ready = "http:/healthz"
stop_signal = "TERM"
"#
        .to_vec(),
    ];
    prefork_testkit::mutate::mutate(78, 2_000, &corpus, |text| {
        check_any(&String::from_utf8_lossy(text));
    });
}

fn check_any(text: &str) {
    if let Err(error) = parse(text, "prefork.toml", &host()) {
        assert_eq!(error.exit_code(), 78);
        let shown = error.to_string();
        assert!(shown.starts_with("prefork.toml:"), "{shown}");
        assert!(
            !shown.contains(|c: char| c.is_control() && c != '\n' && c != '\t'),
            "{shown:?}"
        );
    }
}

#[test]
fn what_an_adapter_is_told_wrong_is_said_where_it_stands() {
    let shop = |program: &str, rest: &str| {
        let program = format!("program = [\"/bin/sh\", \"{program}\"]");
        message(&format!("[pool.shop]\n{program}\n{rest}"))
    };
    let adapter = "[pool.shop.adapter]\n";
    for (program, rest, said) in [
        ("{sockt}", adapter, "there is no placeholder {sockt}"),
        (
            "{sockt}",
            adapter,
            "did you mean `socket`?; {{sockt}} stands for {sockt}",
        ),
        ("{socket}{port}", adapter, "a program has one socket"),
        ("{host}", adapter, "{host} needs {port} beside it"),
        (
            "{socket}",
            "listen = [\"0.0.0.0:80\"]\n[pool.shop.adapter]",
            "as {fd} alone",
        ),
        (
            "x",
            "listen = [\"0.0.0.0:80\"]\n[pool.shop.adapter]",
            "its program has no {fd}",
        ),
        (
            "x",
            "app = {}\n[pool.shop.adapter]",
            "`app` does not go with `adapter`",
        ),
        (
            "{socket}",
            "max_requests = 1000\n[pool.shop.adapter]",
            "recycle it by `max_rss` or `max_age`",
        ),
        (
            "{fd}",
            "listen = [\"0.0.0.0:80\"]\n[pool.shop.adapter]\nhealth = \"http:/\"",
            "prefork.toml:5:10: `health`: a pool with `listen` cannot be asked over HTTP",
        ),
        (
            "{socket}",
            "[pool.shop.adapter]\nredy = \"2s\"\nstop_signal = \"KILL\"\nready = \"http:x\"",
            "did you mean `ready`?",
        ),
        (
            "{socket}",
            "[pool.shop.adapter]\nstop_signal = \"KILL\"",
            "`stop_signal`: \"KILL\" is no signal that asks a program to leave",
        ),
        (
            "{socket}",
            "[pool.shop.adapter]\nready = \"http:x\"",
            "`ready`: \"x\" is no path",
        ),
    ] {
        let whole = shop(program, rest);
        assert!(whole.contains(said), "no {said:?} in\n{whole}");
    }
    let bundled = message("[pool.web]\nlisten = [\"0.0.0.0:80\"]\n[pool.web.adapter]");
    assert!(
        bundled.contains("`adapter` of [pool.web] needs a program"),
        "{bundled}"
    );
}
