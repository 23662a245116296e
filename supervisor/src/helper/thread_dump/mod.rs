//! Where the threads of a process are, looked at by a process of our own: it stops them
//! for a moment (ptrace(2)), and reads what may be large or lie on a file system that does
//! not answer.
//!
//! It answers three times, each time with more: what the kernel tells, from then on
//! the process that it looks at is not needed any more; the functions' names from symbol
//! tables; their source lines from debug information. Whoever asks takes what there is
//! when its time is over.
//!
//! What a process has mapped may be made to confuse who reads it. It is read by crates
//! without unsafe parsing, after all privileges were given up.

mod attach;
mod elf;
mod mappings;
mod symbols;
mod threads;

use std::io::{self, BufRead, Write};
use std::os::fd::OwnedFd;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use nix::unistd::{Gid, Uid, setgid, setgroups, setuid};
use prefork_api::ThreadDump;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader, Lines, Take};
use tokio::net::unix::pipe;

use crate::helper::process;
use crate::kernel::sys;
use threads::Seen;

/// The argument that makes the `prefork` binary look at a process for the supervisor that
/// has started it.
pub const DUMP_ARGUMENT: &str = "dump-threads";

/// For how long whatever ends a process waits until it was looked at.
pub(crate) const MOST_DELAY: Duration = Duration::from_millis(500);

/// For how long names are waited for.
const MOST_TIME: Duration = Duration::from_secs(5);

/// No three answers are longer.
const MOST_BYTES: u64 = 4 << 20;

/// Whom to look at.
#[derive(Debug, Serialize, Deserialize)]
struct Question {
    pid: i32,
    /// When it started, as /proc has it: the number alone may be another's by now.
    start_ticks: u64,
}

/// A look at a process that is being taken.
#[derive(Debug)]
pub(crate) struct Looking {
    helper: OwnedFd,
    said: Lines<BufReader<Take<pipe::Receiver>>>,
    began: Instant,
    dump: Option<Box<ThreadDump>>,
}

impl Looking {
    /// Starts the process that looks. Whoever reaps strangers reaps it.
    pub(crate) fn start(pid: i32, start_ticks: u64) -> io::Result<Self> {
        let question = Question { pid, start_ticks };
        let (helper, said) = process::start(DUMP_ARGUMENT, &question, None)?;
        Ok(Self {
            helper,
            said: BufReader::new(said.take(MOST_BYTES)).lines(),
            began: Instant::now(),
            dump: None,
        })
    }

    /// Waits until the process was looked at and is not needed any more; may be
    /// cancelled.
    pub(crate) async fn seen(&mut self) {
        let until = self.began + MOST_DELAY;
        if self.dump.is_none() {
            let _ = tokio::time::timeout_at(until.into(), self.hear()).await;
        }
    }

    /// All that has been found out when there is no more, or no more time.
    pub(crate) async fn result(mut self) -> Option<Box<ThreadDump>> {
        let until = self.began + MOST_TIME;
        let all = async { while self.hear().await {} };
        let heard = tokio::time::timeout_at(until.into(), all).await;
        if heard.is_err() {
            // It goes as soon as whatever it waits for lets go of it.
            let _ = sys::pidfd_kill(&self.helper, Signal::SIGKILL);
            if let Some(dump) = &mut self.dump {
                let late = "names or source lines: reading them took too long";
                dump.lacks.push(late.to_owned());
            }
        }
        self.dump
    }

    /// Whether there was another answer.
    async fn hear(&mut self) -> bool {
        let line = self.said.next_line().await.ok().flatten();
        let dump = line.and_then(|line| serde_json::from_str(&line).ok());
        let is_one = dump.is_some();
        self.dump = dump.or(self.dump.take());
        is_one
    }
}

/// The main function of the process that looks: the question comes from stdin, the answers
/// go to stdout, a line each.
pub fn dump_threads_for_supervisor() -> ExitCode {
    let mut question = String::new();
    let asked = io::stdin().lock().read_line(&mut question).ok();
    let question = asked.and_then(|_| serde_json::from_str(&question).ok());
    let Some(question) = question else {
        return ExitCode::FAILURE;
    };
    match answer(&question) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn answer(question: &Question) -> io::Result<()> {
    let Seen { mut dump, stacks } = threads::look(question.pid, question.start_ticks);
    say(&dump)?;
    if let Err(errno) = give_up_privileges(question.pid) {
        let lacks = format!("functions' names: cannot give up privileges first: {errno}");
        dump.lacks.push(lacks);
        return say(&dump);
    }
    let mut symbols = symbols::Symbols::default();
    let mut unwound = Vec::new();
    for stack in &stacks {
        let addresses = stack.unwind();
        dump.threads[stack.thread].frames = symbols.names(&stack.code, &addresses);
        unwound.push(addresses);
    }
    say(&dump)?;
    for (stack, addresses) in stacks.iter().zip(&unwound) {
        dump.threads[stack.thread].frames = symbols.lines(&stack.code, addresses);
    }
    dump.lacks.extend(symbols.lacks());
    say(&dump)
}

fn say(dump: &ThreadDump) -> io::Result<()> {
    let line = serde_json::to_string(dump)?;
    writeln!(io::stdout(), "{line}")
}

/// Becomes who the process is that was looked at: what it has mapped is its own.
fn give_up_privileges(pid: i32) -> nix::Result<()> {
    if Uid::effective().is_root() {
        let (uid, gid) = threads::owner(pid).unwrap_or((NOBODY, NOBODY));
        setgroups(&[])?;
        setgid(Gid::from_raw(gid))?;
        setuid(Uid::from_raw(uid))?;
    }
    sys::drop_capabilities()
}

/// Who has nothing (systemd's and the kernel's overflow user).
const NOBODY: u32 = 65534;
