//! What a terminal shows of a long job: one line that moves, and nothing of it afterwards.

use std::io::Read;
use std::process::{Command, Stdio};

use prefork_api::JobLine;

use crate::control::terminals::terminal;
use crate::harness::cli;
use crate::harness::{Pool, Prefork};

/// Goes to the beginning of the line and erases it.
const ERASE: &str = "\r\u{1b}[2K";

/// What a command shows on a terminal that is so wide, by its stderr; and its stdout.
#[track_caller]
fn shown(prefork: &Prefork, columns: usize, args: &[&str]) -> (String, String) {
    let (mut ours, theirs) = terminal();
    let stdio = || Stdio::from(theirs.try_clone().expect("a descriptor is left"));
    let sized = Command::new("stty")
        .args(["cols", &columns.to_string()])
        .stdin(stdio())
        .status();
    assert!(sized.expect("stty(1) is there").success());
    let mut command = Command::new(cli::binary());
    command
        .arg("--runtime-dir")
        .arg(prefork.runtime_dir())
        .args(args)
        .env("TERM", "xterm")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(stdio());
    let child = command.spawn().expect("it is built");
    // The end comes when nobody has the terminal open any more.
    drop((command, theirs));
    let reader = std::thread::spawn(move || {
        let mut bytes = Vec::new();
        // A terminal ends with EIO.
        let _ = ours.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    });
    let output = child.wait_with_output().expect("it is our child");
    assert!(output.status.success(), "{args:?}: {output:?}");
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    (reader.join().expect("it doesn't panic"), stdout)
}

/// The lines that stay.
fn kept(shown: &str) -> Vec<&str> {
    let lines = shown.split('\n').map(|line| {
        let line = line.rsplit(ERASE).next().unwrap_or(line);
        line.trim_end_matches('\r')
    });
    lines.filter(|line| !line.is_empty()).collect()
}

#[test]
fn a_long_job_is_one_line_that_moves() {
    let prefork = Prefork::start(&[Pool::service("web", 4)]);
    for columns in [80, 24] {
        let (text, stdout) = shown(&prefork, columns, &["reload", "--force"]);
        let generation = prefork.status().generation;
        assert_eq!(stdout, format!("generation {generation} is in force\n"));
        assert!(text.contains(" of 4"), "{text:?}");
        let kept = kept(&text);
        assert_eq!(kept[0], format!("generation {generation} begins"));
        assert!(kept.iter().all(|line| !line.contains("web/")), "{text:?}");
        let moving = text.split(ERASE).skip(1).filter(|it| !it.contains('\n'));
        for drawn in moving {
            assert!(drawn.chars().count() < columns, "{drawn:?}");
        }
    }
    let (text, _) = shown(&prefork, 80, &["scale", "web", "6"]);
    assert!(text.contains(" of 2"), "{text:?}");
    assert!(kept(&text).is_empty(), "{text:?}");

    let (text, _) = shown(&prefork, 80, &["reload", "--force", "--verbose"]);
    assert!(!text.contains(ERASE), "{text:?}");
    for slot in 0..6 {
        let worker = format!("web/{slot}: ");
        assert!(
            kept(&text).iter().any(|it| it.starts_with(&worker)),
            "{text:?}"
        );
    }

    let (text, stdout) = shown(&prefork, 80, &["reload", "--force", "--output", "json"]);
    assert_eq!(text, "");
    let lines = stdout
        .lines()
        .map(|line| serde_json::from_str(line).expect("a line of a job"));
    let lines: Vec<JobLine> = lines.collect();
    let of_six = |line: &JobLine| {
        matches!(
            line,
            JobLine::Progress {
                slot: Some(_),
                all: Some(6),
                ..
            }
        )
    };
    assert!(lines.iter().any(of_six), "{stdout}");
    assert!(matches!(lines.last(), Some(JobLine::Result(result)) if result.ok));
}
