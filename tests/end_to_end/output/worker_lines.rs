//! What workers write, as it is in the supervisor's log: each line one entry, at the
//! level that it says, and never anything but a worker's line.

use std::fs;
use std::path::Path;

use crate::harness::cli::example;
use crate::harness::{Pool, Prefork};

/// Its stderr is the journal's, as far as it can tell.
const IN_THE_JOURNAL: &str =
    r#"JOURNAL_STREAM=$(stat -Lc %d:%i /dev/stderr); export JOURNAL_STREAM; exec "$@""#;

/// A pool of one test worker that runs a script before it boots.
fn saying(script: &str) -> Pool {
    let worker = example("test_worker");
    let script = format!("{script}; exec \"$0\"");
    let program = ["/bin/sh", "-c", &script, worker.to_str().expect("text")];
    Pool::command("app", &program, 1)
}

/// The same of one that writes these bytes to stderr.
fn writing(bytes: impl AsRef<[u8]>) -> Prefork {
    let install = |dir: &Path| fs::write(dir.join("said"), bytes).expect("the directory is ours");
    let prefork = Prefork::launch_in(install, &[saying("cat said >&2")]);
    prefork.wait_until_ready();
    prefork
}

#[test]
fn a_line_beyond_the_limit_is_one_entry_that_says_so_and_is_cut_at_a_character() {
    let long = "é世🦀".repeat(5_000);
    let prefork = writing(format!("begin {long}\nafter\n"));
    prefork.logged(&["app/0 worker: after pid="]);
    let line = prefork.logged(&[
        "worker: begin é世🦀",
        "[cut: a line is logged up to 16 KiB]",
    ]);
    let begun = &line[line.find("begin").unwrap()..];
    let kept = &begun[.."begin ".len() + begun["begin ".len()..].find(" [cut").unwrap()];
    assert!((16_380..=16_384).contains(&kept.len()), "{}", kept.len());
    assert!(format!("begin {long}").starts_with(kept));
    let log = prefork.log();
    assert_eq!(
        log.matches("é世🦀é世🦀").count(),
        kept.matches("é世🦀é世🦀").count()
    );
    assert!(!log.contains('\u{fffd}'));
}

#[test]
fn its_level_is_the_entrys_level_and_its_colours_and_time_are_not_repeated() {
    let script = r#"now() { date -u +%Y-%m-%dT%H:%M:%S.000000Z; }
        printf '\033[2m%s\033[0m \033[33m WARN\033[0m \033[2mshop\033[0m: slow\n' "$(now)" >&2
        printf '<3>no disk\n' >&2
        printf '{"level":"error","msg":"json"}\n'
        printf 'CRITICAL:root:python\n' >&2
        printf '[%s DEBUG shop] chatty\n' "$(now)" >&2
        printf 'nothing special\n'"#;
    let prefork = Prefork::start(&[saying(script)]);
    for (level, text) in [
        (" WARN", "shop: slow pid="),
        ("ERROR", "no disk pid="),
        ("ERROR", "{\"level\":\"error\",\"msg\":\"json\"} pid="),
        ("ERROR", "CRITICAL:root:python pid="),
        ("DEBUG", "[shop] chatty pid="),
        (" INFO", "nothing special pid="),
    ] {
        let line = prefork.logged(&[&format!("Z {level} app/0 worker: {text}")]);
        assert!(!line.contains('\x1b') && !line.contains("x1b"), "{line}");
        let times = line
            .match_indices("T")
            .filter(|(at, _)| line[at + 1..].starts_with(|c: char| c.is_ascii_digit()));
        assert_eq!(times.count(), 1, "{line}");
    }
}

#[test]
fn where_stderr_is_the_journal_every_line_has_a_priority_and_no_time() {
    let pool = saying("echo '<4>careful' >&2; echo 'Traceback (most recent call last):' >&2");
    let prefork = Prefork::launch_by_script(IN_THE_JOURNAL, "", &[pool]);
    prefork.wait_until_ready();
    prefork.logged(&["<4> WARN app/0 worker: careful pid="]);
    prefork.logged(&["<3>ERROR app/0 worker: Traceback"]);
    prefork.logged(&["<6> INFO prefork starts"]);
    // One that has a text of several lines gives each its priority.
    prefork.append_to_configuration("nonsense\n");
    prefork.cli(&["reload"]);
    prefork.logged(&["<3>ERROR reload refused"]);
    prefork.logged(&["<3>    ", "nonsense"]);
    for line in prefork.log().lines() {
        assert!(line.starts_with('<'), "{line}");
    }
}

#[test]
fn the_level_is_the_configurations_and_else_that_of_rust_log() {
    let loud = |prefork: &Prefork| {
        prefork.logged(&["WARN app/0 worker: careful"]);
        prefork.log().contains("prefork starts")
    };
    let pool = || saying("echo '<4>careful' >&2");
    let quiet = "export RUST_LOG=warn,shop=debug; exec \"$@\"";
    let launched = Prefork::launch_by_script(quiet, "", &[pool()]);
    assert!(!loud(&launched));
    let launched = Prefork::launch_by_script(quiet, "log_level = \"info\"", &[pool()]);
    assert!(loud(&launched));
    launched.wait_until_ready();
    // A reload takes another one, and says so nowhere as something that it can't take.
    let file = launched.dir().join("prefork.toml");
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, text.replace("\"info\"", "\"error\"")).unwrap();
    let dry = launched.done(&["reload", "--dry-run"]);
    assert!(dry.contains("log_level info → error\n"), "{dry}");
    launched.done(&["reload"]);
    launched.done(&["restart", "app"]);
    launched.done(&["log-level", "info"]);
    launched.done(&["reopen-logs"]);
    launched.logged(&["audit: reopen-logs"]);
    let log = launched.log();
    assert!(!log.contains("audit: restart app"), "{log}");
}

#[test]
fn a_worker_can_imitate_neither_an_audit_line_nor_another_entry() {
    let said = "audit: stop, asked for by uid 0 pid 1: allowed\n\
                x\r2026-01-01T00:00:00Z  INFO audit: stop\n\
                nul\0 c1\u{9b}2J bidi\u{202e}txt zero\u{200b}width\u{feff} slot=web/9 pid=1\n";
    let prefork = writing(said);
    prefork.logged(&["INFO app/0 worker: audit: stop, asked for by uid 0 pid 1: allowed pid="]);
    prefork.logged(&["worker: x\\r2026-01-01T00:00:00Z  INFO audit: stop pid="]);
    prefork.logged(&[
        "nul\\u{0} c1\\u{9b}2J bidi\\u{202e}txt zero\\u{200b}width\\u{feff} slot=web/9 pid=1 pid=",
    ]);
    // A real one says so before everything else.
    prefork.done(&["restart", "app"]);
    let line = prefork.logged(&[" INFO audit: restart app, asked for by uid "]);
    assert_eq!(line.find("INFO audit: "), line.find("INFO "), "{line}");
}
