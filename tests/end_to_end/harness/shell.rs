//! A shell as a reader of the pages has one: what is pasted into it stays in force.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use super::start::{environment, new_marker};
use super::{cli, processes};

/// Runs what comes on its standard input, separated by zero bytes, each with its output in a file, and answers
/// with the exit code of the first command in it that failed, else 0. The commands find `/dev/null` on theirs.
const LOOP: &str = r#"
exec 3<&0 0</dev/null
trap 'failed=${failed:-$?}' ERR
number=0
while IFS= read -r -d '' commands <&3; do
    failed=
    eval "$commands" >"$OUTPUT.$number" 2>&1 3<&-
    echo "${failed:-0}"
    number=$((number + 1))
done
"#;

/// Where shells of one reader run. Dropping it kills all that came of them.
pub(crate) struct Desk {
    marker: String,
}

impl Desk {
    /// One at which no shell was opened yet.
    pub(crate) fn new() -> Self {
        Self {
            marker: new_marker(),
        }
    }

    /// A shell that starts in `dir`, finds the binary under test first on its PATH, and has `variables` in its
    /// environment. Its outputs go to files whose names begin with `output`.
    pub(crate) fn shell(&self, dir: &Path, output: &Path, variables: &[(&str, &Path)]) -> Shell {
        let binary = cli::binary();
        let programs = binary.parent().expect("the binary lies in a directory");
        let path = std::env::var("PATH").unwrap_or_default();
        let mut child = environment(Command::new("bash"), &self.marker)
            .args(["--norc", "-c", LOOP])
            .env("OUTPUT", output)
            .env("PATH", format!("{}:{path}", programs.display()))
            .envs(variables.iter().copied())
            .current_dir(dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // There it says which of its jobs were killed.
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .expect("bash is there");
        let commands = child.stdin.take().expect("stdin is piped");
        let answers = BufReader::new(child.stdout.take().expect("stdout is piped"));
        let (sender, codes) = channel();
        std::thread::spawn(move || {
            for line in answers.lines().map_while(Result::ok) {
                let code = line.parse().expect("the loop answers with a number");
                if sender.send(code).is_err() {
                    return;
                }
            }
        });
        Shell {
            child,
            commands,
            codes,
            output: output.to_owned(),
            begun: 0,
            ended: 0,
        }
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        processes::kill_marked(&self.marker, Duration::from_secs(20));
    }
}

/// How commands ended.
#[derive(Debug)]
pub(crate) struct Ended {
    /// The exit code of the first that failed, else 0.
    pub(crate) code: i32,
    /// What they wrote, wherever.
    pub(crate) output: String,
}

/// A shell with commands of which one may still run.
pub(crate) struct Shell {
    child: Child,
    commands: ChildStdin,
    codes: Receiver<i32>,
    output: PathBuf,
    begun: usize,
    ended: usize,
}

impl Shell {
    /// Has it run these commands after those before them.
    pub(crate) fn begin(&mut self, commands: &str) {
        let written = self
            .commands
            .write_all(&[commands.as_bytes(), b"\0"].concat());
        written.expect("the shell reads");
        self.begun += 1;
    }

    /// Whether something was begun whose end was not heard yet.
    pub(crate) fn is_busy(&self) -> bool {
        self.ended < self.begun
    }

    /// How the oldest commands ended whose end was not heard yet.
    #[track_caller]
    pub(crate) fn end(&mut self, within: Duration) -> Ended {
        assert!(self.is_busy(), "nothing was begun");
        let file = format!("{}.{}", self.output.display(), self.ended);
        // What they have written in the background meanwhile may be anything.
        let output = || String::from_utf8_lossy(&fs::read(&file).unwrap_or_default()).into_owned();
        let code = match self.codes.recv_timeout(within) {
            Ok(code) => code,
            Err(RecvTimeoutError::Timeout) => panic!("not within {within:?}:\n{}", output()),
            Err(RecvTimeoutError::Disconnected) => panic!("the shell has ended:\n{}", output()),
        };
        self.ended += 1;
        Ended {
            code,
            output: output(),
        }
    }

    /// Runs commands to their end.
    #[track_caller]
    pub(crate) fn run(&mut self, commands: &str, within: Duration) -> Ended {
        self.begin(commands);
        self.end(within)
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        // What it has started is the desk's; without the wait it would stay a zombie.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
