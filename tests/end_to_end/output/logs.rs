//! The log for programs and for those who come later: as JSON, and by `prefork logs`.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread;

use prefork_api::LogEntry;

use crate::harness::cli::{self, example};
use crate::harness::deadline::{PATIENCE, eventually};
use crate::harness::{Pool, Prefork};

/// What a worker writes at its beginning, by one write: a trace, and a line of its own.
const TRACE: &str = "Traceback (most recent call last):\n  File \"shop.py\", line 7\n    buy()\n\
                     ValueError: sold out\nplain\n";

/// Workers that run a script before they boot.
fn saying(script: &str, workers: u32) -> Pool {
    let worker = example("test_worker");
    let script = format!("{script}; exec \"$0\"");
    let program = ["/bin/sh", "-c", &script, worker.to_str().expect("text")];
    Pool::command("app", &program, workers)
}

fn install(dir: &Path) {
    fs::write(dir.join("trace"), TRACE).expect("the directory is ours");
}

fn entries(text: &str) -> Vec<LogEntry> {
    let entry = |line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
    text.lines().map(entry).collect()
}

#[test]
fn a_log_in_json_is_an_object_for_each_entry_with_a_trace_in_one() {
    let written_at_once = "printf 'one\\n  two\\n' > said; cat said >&2";
    let in_json = "log_format = \"json\"\nlog = \"prefork.log\"";
    let prefork = Prefork::launch_with(in_json, &[saying(written_at_once, 1)]);
    prefork.wait_until_ready();
    let file = prefork.dir().join("prefork.log");
    let log = || fs::read_to_string(&file).unwrap_or_default();
    eventually("it is logged", PATIENCE, || log().contains("one\\n  two"));
    let entries = entries(&log());
    assert!(entries.windows(2).all(|two| two[0].seq + 1 == two[1].seq));
    let own = entries
        .iter()
        .find(|it| it.message.contains("prefork starts"));
    assert!(own.is_some_and(|it| it.level == "info" && it.stream.is_none() && it.slot.is_none()));
    let said = entries.iter().find(|it| it.message == "one\n  two");
    let said = said.expect("it is one entry");
    assert_eq!((said.pool.as_deref(), said.slot), (Some("app"), Some(0)));
    assert_eq!(said.pid, Some(prefork.ready_pid("app", 0)));
    assert!(said.stream.as_deref() == Some("stderr") && said.time.ends_with('Z'));
}

#[test]
fn the_last_of_the_log_is_told_by_worker_and_with_its_traces_whole() {
    let prefork = Prefork::launch_in(install, &[saying("cat trace >&2", 2)]);
    prefork.wait_until_ready();
    let of = |worker| entries(&prefork.done(&["--output", "json", "logs", worker]));
    // A worker may be ready before what it has written is read.
    eventually("all is logged", PATIENCE, || {
        let is_whole = |worker| of(worker).iter().any(|it| it.message == "plain");
        is_whole("app/0") && is_whole("app/1")
    });
    let of_one = of("app/1");
    assert!(of_one.iter().all(|it| it.slot == Some(1)), "{of_one:?}");
    let said = of_one.iter().filter(|it| it.stream.is_some());
    let said: Vec<_> = said
        .map(|it| (it.level.as_str(), it.message.as_str()))
        .collect();
    let frames = "Traceback (most recent call last):\n  File \"shop.py\", line 7\n    buy()";
    assert_eq!(
        said,
        [
            ("error", frames),
            ("error", "ValueError: sold out"),
            ("info", "plain")
        ]
    );
    let shown = prefork.done(&["logs", "--since", "1h"]);
    assert!(shown.contains(" INFO: prefork starts"), "{shown}");
    assert!(shown.contains("ERROR app/0 stderr: Traceback"), "{shown}");
    assert_eq!(prefork.cli(&["logs", "nothing"]).code, 4);
    let last = of_one.last().expect("there are some").seq;
    let since = prefork.done(&["--output", "json", "logs", "--since", &last.to_string()]);
    assert_eq!(entries(&since)[0].seq, last);
}

#[test]
fn who_follows_the_log_sees_what_is_said_later() {
    let prefork = Prefork::start(&[Pool::test_worker("app", 1)]);
    // It has shown what there was once the first line is there.
    let script = "\"$0\" --runtime-dir \"$1\" logs --follow | \
                  { read first; echo > \"$2\"; grep -m 1 'said later'; }";
    let begun = prefork.dir().join("begun");
    let mut command = Command::new("/bin/sh");
    command
        .args(["-c", script])
        .arg(cli::binary())
        .arg(prefork.runtime_dir())
        .arg(&begun);
    let following = thread::spawn(move || cli::finish(&mut command, PATIENCE));
    eventually("it follows", PATIENCE, || begun.exists());
    prefork.order("app", 0, "print said later");
    let output = following.join().expect("it ends in time");
    assert!(output.stdout.contains("app/0"), "{output:?}");
    assert_eq!(output.stderr, "");
}
