//! The commands around a reload, run beside the loop. A process of our own runs them one
//! after the other, says of each how it ended, and stops at the first that fails, or
//! where nobody hears it any more: what is left of a reload whose supervisor was killed
//! is not to be done.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::{Gid, Pid, Uid, setgid, setgroups, setuid};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, BufReader};

use crate::config::RunAs;
use crate::helper::process;
use crate::kernel::sys;
use crate::run::environment::NOBODY_ELSES;

/// The argument that makes the `prefork` binary run commands for the supervisor that has
/// started it.
pub const STEPS_ARGUMENT: &str = "run-steps";

/// What is kept of a command's output, its end.
const MOST_OUTPUT: usize = 8 << 10;

/// How long output is waited for that somebody holds open whom a command has left behind.
const LEFT_BEHIND: Duration = Duration::from_millis(200);

/// How much longer than all commands together the process may take that runs them.
const MARGIN: Duration = Duration::from_secs(10);

/// What is to be run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Plan {
    /// Programs with their arguments.
    pub(crate) commands: Vec<Vec<String>>,
    /// How long each may take.
    pub(crate) timeout: Duration,
    /// Whom they run as.
    pub(crate) run_as: Option<RunAs>,
    /// What is another in the environment that they inherit; what has no value is left
    /// out of it.
    pub(crate) env: BTreeMap<String, Option<String>>,
}

/// How a command ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Done {
    /// Which one it is, from 1.
    number: usize,
    /// Its program. Not its arguments: some are passwords, and a log is read by many.
    program: String,
    end: End,
    /// How long it took.
    took: Duration,
    /// The last of what it wrote, to stdout and stderr.
    pub(crate) output: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
enum End {
    Exited(i32),
    Killed(i32),
    TimedOut,
    NotStarted(String),
}

impl Done {
    /// Whether it did what it was to do.
    pub(crate) fn is_success(&self) -> bool {
        self.end == End::Exited(0)
    }

    /// What became of it, in words: `step 1 (/srv/migrate) exited with code 3 after 1.2 s`.
    pub(crate) fn sentence(&self) -> String {
        let seconds = self.took.as_secs_f64();
        let end = match &self.end {
            End::Exited(code) => format!("exited with code {code} after {seconds:.1} s"),
            End::Killed(signal) => format!("was ended by signal {signal} after {seconds:.1} s"),
            End::TimedOut => format!("was not done after {seconds:.1} s and was killed"),
            End::NotStarted(why) => format!("could not be started: {why}"),
        };
        format!("step {} ({}) {end}", self.number, self.program)
    }
}

/// Runs the commands in a process of its own, and tells of each that has ended. Whoever
/// reaps strangers reaps it.
///
/// # Errors
///
/// Why the process came to nothing.
pub(crate) async fn run(
    plan: &Plan,
    directory: &Path,
    mut told: impl FnMut(&Done),
) -> io::Result<Vec<Done>> {
    let (child, said) = process::start(STEPS_ARGUMENT, plan, Some(directory))?;
    let mut lines = BufReader::new(said).lines();
    let mut done = Vec::new();
    let number = u32::try_from(plan.commands.len()).unwrap_or(u32::MAX);
    let within = plan.timeout.saturating_mul(number).saturating_add(MARGIN);
    let heard = async {
        while let Some(line) = lines.next_line().await? {
            let ended: Done = serde_json::from_str(&line)?;
            told(&ended);
            done.push(ended);
        }
        Ok(())
    };
    match tokio::time::timeout(within, heard).await {
        Ok(heard) => heard.map(|()| done),
        Err(_) => {
            let _ = sys::pidfd_kill(&child, Signal::SIGKILL);
            Err(io::Error::new(
                io::ErrorKind::TimedOut,
                "the process that runs its steps does not answer",
            ))
        }
    }
}

/// The main function of the process that runs commands: the plan comes from stdin, a line
/// for each command goes to stdout.
pub fn run_steps_for_supervisor() -> ExitCode {
    let Ok(plan) = serde_json::from_reader::<_, Plan>(io::stdin().lock()) else {
        return ExitCode::FAILURE;
    };
    let become_who = plan.run_as.as_ref().map_or(Ok(()), become_user);
    for (index, words) in plan.commands.iter().enumerate() {
        let began = Instant::now();
        let (end, output) = match &become_who {
            Ok(()) => run_one(words, &plan),
            Err(why) => (End::NotStarted(why.clone()), String::new()),
        };
        let done = Done {
            number: index + 1,
            program: words.first().cloned().unwrap_or_default(),
            end,
            took: began.elapsed(),
            output,
        };
        let line = serde_json::to_string(&done).unwrap_or_default();
        if writeln!(io::stdout(), "{line}").is_err() || !done.is_success() {
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

fn become_user(who: &RunAs) -> Result<(), String> {
    let groups: Vec<Gid> = who.groups.iter().copied().map(Gid::from_raw).collect();
    setgroups(&groups)
        .and_then(|()| setgid(Gid::from_raw(who.gid)))
        .and_then(|()| setuid(Uid::from_raw(who.uid)))
        .map_err(|errno| format!("cannot become the user {}: {errno}", who.user))
}

fn run_one(words: &[String], plan: &Plan) -> (End, String) {
    let not_started = |error: io::Error| (End::NotStarted(error.to_string()), String::new());
    let [program, args @ ..] = words else {
        return not_started(io::ErrorKind::InvalidInput.into());
    };
    let (output, child) = match begin(program, args, plan) {
        Ok(begun) => begun,
        Err(error) => return not_started(error),
    };
    let (keeping, kept) = mpsc::channel();
    std::thread::spawn(move || keep_the_end(output, &keeping));
    let end = wait(child, plan.timeout).unwrap_or_else(|error| End::NotStarted(error.to_string()));
    // Everything that the command wrote itself is in the pipe by now.
    let mut text = Vec::new();
    while let Ok(last) = kept.recv_timeout(LEFT_BEHIND) {
        text = last;
    }
    (end, String::from_utf8_lossy(&text).trim_end().to_owned())
}

fn begin(program: &str, args: &[String], plan: &Plan) -> io::Result<(io::PipeReader, Child)> {
    let (output, writer) = io::pipe()?;
    let mut command = Command::new(program);
    command
        .args(args)
        .stdin(Stdio::null())
        .stdout(writer.try_clone()?)
        .stderr(writer)
        // Killed as a whole where it takes too long.
        .process_group(0);
    for name in NOBODY_ELSES {
        command.env_remove(name);
    }
    for (name, value) in &plan.env {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    Ok((output, command.spawn()?))
}

/// Reads all that a command writes and hands on the end of it, as often as there is more.
fn keep_the_end(mut output: io::PipeReader, kept: &mpsc::Sender<Vec<u8>>) {
    let (mut text, mut piece) = (Vec::new(), [0; 4096]);
    while let Ok(read @ 1..) = output.read(&mut piece) {
        text.extend_from_slice(&piece[..read]);
        let surplus = text.len().saturating_sub(MOST_OUTPUT);
        text.drain(..surplus);
        if kept.send(text.clone()).is_err() {
            return;
        }
    }
}

/// Waits for a command, and kills it with its process group where it takes too long.
fn wait(mut child: Child, timeout: Duration) -> io::Result<End> {
    let pid = Pid::from_raw(i32::try_from(child.id()).unwrap_or(i32::MAX));
    let ended = sys::pidfd_open(pid)?;
    let until = Instant::now() + timeout;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let left = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        let mut wanted = [PollFd::new(ended.as_fd(), PollFlags::POLLIN)];
        match poll(&mut wanted, left) {
            Ok(1..) => return child.wait().map(End::of),
            Ok(_) if Instant::now() >= until => break,
            Ok(_) | Err(nix::Error::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    let _ = killpg(pid, Signal::SIGKILL);
    child.wait()?;
    Ok(End::TimedOut)
}

impl End {
    fn of(status: ExitStatus) -> Self {
        match (status.code(), status.signal()) {
            (Some(code), _) => Self::Exited(code),
            (None, signal) => Self::Killed(signal.unwrap_or_default()),
        }
    }
}
