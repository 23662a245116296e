//! `prefork check --boot`: a worker is tried out, and nobody else notices.

use std::fs::File;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

use crate::harness::deadline::{PATIENCE, eventually};
use crate::harness::{Pool, Prefork, cli, directory, http, processes};

/// A configuration in a directory of its own.
struct Config {
    dir: TempDir,
    path: String,
}

impl Config {
    fn new(pools: &str) -> Self {
        let dir = directory();
        let path = dir.path().join("prefork.toml");
        let runtime_dir = dir.path().join("run");
        let text = format!("[supervisor]\nruntime_dir = {runtime_dir:?}\n{pools}");
        std::fs::write(&path, text).expect("it is ours");
        let path = path.to_str().expect("the path is text").to_owned();
        Self { dir, path }
    }

    fn check(&self, args: &[&str]) -> cli::Output {
        let all = [&["check", "--config", &self.path, "--boot"], args].concat();
        cli::run_alone(self.dir.path(), &all)
    }
}

/// A pool whose worker is a shell script.
fn script(name: &str, script: &str) -> String {
    format!(
        "[pool.{name}]\nlisten = [\"127.0.0.1:1\"]\nprogram = [\"/bin/sh\", \"-c\", {script:?}]\n"
    )
}

/// The same, through the handshake: it says that it is ready.
fn ready_script(name: &str, then: &str) -> String {
    let hello = r#"{"type":"hello","protocol":1,"pid":%d,"program":"sh","version":"1"}\n"#;
    let handshake = format!(
        "printf '{hello}' $$ >&3; \
         while read -r line <&3; do case $line in *'\"start\"'*) break;; esac; done; \
         echo '{{\"type\":\"ready\"}}' >&3; {then}"
    );
    script(name, &handshake)
}

#[track_caller]
fn boots(output: &cli::Output) -> Vec<Value> {
    let document: Value =
        serde_json::from_str(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"));
    document["boot"].as_array().expect("a row per pool").clone()
}

fn free_address() -> SocketAddr {
    let free = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    free.local_addr().expect("it is bound")
}

#[test]
fn a_program_that_somebody_writes_to_is_said_with_what_to_do() {
    let pool = "[pool.web]\nlisten = [\"127.0.0.1:1\"]\nprogram = [\"./shop\"]\n";
    let config = Config::new(pool);
    let program = config.dir.path().join("shop");
    cli::install(Path::new("/bin/true"), &program);
    let written = File::options().append(true).open(&program);
    let _written = written.expect("it is ours");
    if Command::new(&program).status().is_ok() {
        eprintln!("SKIPPED: this kernel starts what is open for writing");
        return;
    }
    let output = config.check(&[]);
    assert_eq!(output.code, 1, "{output:?}");
    assert!(output.stderr.contains("Text file busy"), "{output:?}");
    assert!(output.stderr.contains("rename it over"), "{output:?}");
}

#[test]
fn a_worker_that_comes_up_is_measured() {
    let unix = "[pool.api]\nlisten = [\"unix:/nowhere/api.sock\"]\n";
    let config = Config::new(&format!("[pool.web]\nlisten = [\"192.0.2.1:80\"]\n{unix}"));
    let output = config.check(&["--output", "json"]);
    assert_eq!(output.code, 0, "{output:?}");
    assert_eq!(output.stderr, "");
    let boots = boots(&output);
    assert_eq!(boots.len(), 2, "{boots:?}");
    for (boot, pool) in boots.iter().zip(["web", "api"]) {
        assert_eq!(boot["pool"], pool);
        assert_eq!(boot["ok"], true, "{boot}");
        assert_eq!(boot["status"], 200, "{boot}");
        assert!(boot["boot_seconds"].as_f64().expect("a time") > 0.0);
        assert!(boot["resident_bytes"].as_u64().expect("a size") > 100_000);
    }

    let output = config.check(&["--pool", "api"]);
    assert_eq!(output.code, 0, "{output:?}");
    let table = output.stdout.split("\n\n").nth(1).expect("a table");
    assert!(table.starts_with("POOL"), "{table}");
    assert_eq!(table.lines().count(), 2, "{table}");
    assert!(table.contains("api") && table.contains("200"), "{table}");
    assert!(!config.dir.path().join("run").exists());
}

#[test]
fn a_front_is_not_asked_for_what_is_not_there() {
    let program = cli::example("plain_http");
    let config = Config::new(&format!(
        "[pool.web]\nlisten = [\"192.0.2.1:80\"]\napp = {{ forward = \"shop\" }}\n\
         [pool.shop]\nprogram = [{program:?}, \"--uds\", \"{{socket}}\"]\n[pool.shop.adapter]\n"
    ));
    let output = config.check(&["--output", "json"]);
    assert_eq!(output.code, 0, "{output:?}");
    for (boot, pool) in boots(&output).iter().zip(["web", "shop"]) {
        assert_eq!(boot["pool"], pool);
        assert_eq!(boot["ok"], true, "{boot}");
        assert!(boot["status"].is_null(), "{boot}");
    }
}

#[test]
fn a_running_supervisor_is_not_disturbed() {
    let address = free_address();
    let pool = Pool::bundled("web", 2).set("listen", format!("[\"{address}\"]"));
    let prefork = Prefork::start(&[pool]);
    let before = prefork.status();
    let processes = prefork.processes();

    let config = prefork.dir().join("prefork.toml");
    let config = config.to_str().expect("the path is text");
    prefork.done(&["check", "--config", config, "--boot"]);

    let after = prefork.status();
    assert_eq!(prefork.processes(), processes, "somebody was left behind");
    let pids = |status: &prefork_api::Status| -> Vec<_> {
        let workers = status.pools.iter().flat_map(|pool| &pool.workers);
        workers.map(|worker| worker.pid).collect()
    };
    assert_eq!(pids(&after), pids(&before));
    assert!(after.ready);
    assert_eq!(http::get(address, "/").expect("it serves").status, 200);
    let requests = || prefork.metric("prefork_http_requests_total", &[]);
    eventually("the request is counted", PATIENCE, || requests() > 0.0);
    assert_eq!(requests(), 1.0, "the probe came to a worker that serves");
}

#[test]
fn a_worker_that_does_not_come_up_is_1_with_its_stderr() {
    let bad = script("bad", "echo no database >&2; exit 3");
    let config = Config::new(&format!("{bad}[pool.web]\nlisten = [\"192.0.2.1:80\"]\n"));
    let output = config.check(&[]);
    assert_eq!(output.code, 1, "{output:?}");
    assert!(output.stderr.contains("code 3"), "{output:?}");
    let last_words = "last words on stderr:\nno database\n";
    assert!(output.stderr.contains(last_words), "{output:?}");
    assert!(output.stdout.contains("failed"), "{output:?}");

    let boots = boots(&config.check(&["--output", "json"]));
    assert_eq!(boots[0]["ok"], false);
    assert_eq!(boots[0]["stderr"], "no database\n");
    assert_eq!(boots[1]["ok"], true, "the other pool is tried out as well");
    assert_eq!(config.check(&["--pool", "web"]).code, 0);
    let unknown = config.check(&["--pool", "nope"]);
    assert_eq!(unknown.code, 4, "{unknown:?}");
    assert!(unknown.stderr.contains("bad, web"), "{unknown:?}");
    assert_eq!(unknown.stdout, "");
}

#[test]
fn a_worker_that_dies_of_the_probe_is_1_with_its_stderr() {
    let config = Config::new(&ready_script(
        "web",
        "sleep 0.1; echo out of luck >&2; exit 4",
    ));
    let output = config.check(&[]);
    // Had it been waited for, it would be 5.
    assert_eq!(output.code, 1, "{output:?}");
    assert!(output.stderr.contains("did not answer GET /"), "{output:?}");
    let last_words = "last words on stderr:\nout of luck\n";
    assert!(output.stderr.contains(last_words), "{output:?}");
}

#[test]
fn a_worker_that_takes_too_long_is_5_and_gone() {
    let pid_file = directory();
    let pid_path = pid_file.path().join("pid");
    let silent = format!("echo $$ > {}; exec sleep 60", pid_path.display());
    let config = Config::new(&script("web", &silent));
    let output = config.check(&["--timeout", "1s"]);
    assert_eq!(output.code, 5, "{output:?}");
    assert_gone(&pid_path);
}

#[test]
fn a_worker_that_will_not_leave_is_killed_when_the_time_is_over() {
    let orders = directory();
    std::fs::write(orders.path().join("boot"), "stubborn").expect("it is ours");
    let program = [cli::example("test_worker"), orders.path().to_owned()];
    let config = Config::new(&format!(
        "[pool.web]\nlisten = [\"127.0.0.1:1\"]\nprogram = {program:?}\nkill_timeout = \"10m\"\n"
    ));
    // Were it waited for, the command would not end within a minute.
    let output = config.check(&["--timeout", "1s"]);
    assert_eq!(output.code, 0, "it came up and answered: {output:?}");
}

#[test]
fn an_interrupted_check_leaves_nobody_behind() {
    let pid_file = directory();
    let pid_path = pid_file.path().join("pid");
    // The worker itself interrupts the check.
    let config = Config::new(&script(
        "web",
        &format!(
            "echo $$ > {}; kill -TERM $PPID; exec sleep 60",
            pid_path.display()
        ),
    ));
    let output = config.check(&[]);
    assert_eq!(output.code, 1, "{output:?}");
    assert!(output.stderr.contains("interrupted"), "{output:?}");
    assert_gone(&pid_path);
}

/// Wants the process whose id the file holds to be gone.
#[track_caller]
fn assert_gone(pid_path: &Path) {
    let pid = std::fs::read_to_string(pid_path).expect("the worker has started");
    let pid: i32 = pid.trim().parse().expect("a process id");
    assert!(!processes::alive(pid), "{pid} lives on");
}
