//! The process that touches workers' pipes for the supervisor.
//!
//! The kernel holds a pipe's lock while a writer's bytes are copied into it. Where the
//! writer's memory does not come, everybody else who touches the pipe waits for it, and
//! cannot be woken (pipe(7) does not say so; `pipe_write` in fs/pipe.c does it). So the
//! supervisor touches none: it asks this process, and has another one where it does not
//! answer.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::process::ExitCode;
use std::sync::atomic::Ordering;

use nix::fcntl::{FcntlArg, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::SigSet;
use nix::unistd::Pid;

use crate::kernel::sys::{self, SharedWord};
use crate::reactor::worker_process::output::tee::Peek;
use crate::reactor::worker_process::output::wire::{Answer, Found, MOST, Question};

/// The argument that makes the `prefork` binary read pipes for the supervisor that has
/// started it.
pub const READ_OUTPUT_ARGUMENT: &str = "read-output";

/// What a pipe holds that nobody has changed, in bytes (pipe(7)).
const CAPACITY: i32 = 64 * 1024;

/// The main function of the process. Its stdin is the socket to the supervisor, its stdout
/// the memory that they share, and its stderr may be the first pipe. It ends when the
/// supervisor's end of the socket is closed.
pub fn read_output_for_supervisor() -> ExitCode {
    // Signals to everybody are not meant for it: it is needed until the last worker has gone.
    let _ = SigSet::all().thread_block();
    match confine().and_then(|[socket, memory, pipe]| {
        let logged = SharedWord::map(&memory)?;
        serve(&socket, &logged, Some(pipe))
    }) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

/// Gives up what it has no use for; returns what it was started with.
fn confine() -> io::Result<[OwnedFd; 3]> {
    nix::sys::prctl::set_dumpable(false)?;
    nix::sys::prctl::set_no_new_privs()?;
    sys::drop_capabilities()?;
    sys::take_standard_descriptors()
}

/// Answers questions until there will be no more. What the supervisor has logged by then
/// of what it was shown last is taken out: nobody else will.
pub(super) fn serve(
    socket: &OwnedFd,
    logged: &SharedWord,
    pipe: Option<OwnedFd>,
) -> io::Result<()> {
    let mut reader = Reader {
        peek: Peek::new()?,
        pipe,
        chunk: vec![0; MOST],
        shown: 0,
    };
    let mut last = 0;
    while let Some((question, pipe)) = Question::receive(socket)? {
        last = question.number;
        let answer = reader.answer(question, pipe);
        if answer.send(socket, &reader.chunk[..reader.shown]).is_err() {
            break;
        }
    }
    let (number, length) = unpack(logged.load(Ordering::Acquire));
    if number == last {
        reader.take_if_there(length);
    }
    Ok(())
}

/// How much has been logged of the answer with this number, as one number.
pub(super) fn pack(number: u32, length: usize) -> u64 {
    u64::from(number) << 32 | length as u64 & u64::from(u32::MAX)
}

fn unpack(word: u64) -> (u32, usize) {
    ((word >> 32) as u32, (word & u64::from(u32::MAX)) as usize)
}

struct Reader {
    peek: Peek,
    pipe: Option<OwnedFd>,
    chunk: Vec<u8>,
    /// How much of `chunk` the last answer showed.
    shown: usize,
}

impl Reader {
    fn answer(&mut self, question: Question, pipe: Option<OwnedFd>) -> Answer {
        if pipe.is_some() || question.release {
            self.pipe = pipe;
        }
        self.shown = 0;
        let mut answer = Answer {
            number: question.number,
            found: Found::Nothing,
            is_all: true,
            has_writer: true,
        };
        let Some(pipe) = &self.pipe else {
            return answer;
        };
        self.peek.take(pipe.as_fd(), question.take as usize);
        if question.shrink {
            // Where more is in it already it stays large.
            let _ = fcntl(pipe, FcntlArg::F_SETPIPE_SZ(CAPACITY));
        }
        if question.look {
            // Before, since what is written until then is seen.
            answer.has_writer = has_writer(pipe);
            match self.peek.look(pipe.as_fd(), &mut self.chunk) {
                Ok(seen) if seen.length > 0 => {
                    self.shown = seen.length;
                    answer.found = Found::Bytes;
                    answer.is_all = seen.is_all;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Ok(_) | Err(_) => answer.found = Found::End,
            }
        }
        answer
    }

    /// Takes out the beginning of what was shown last, unless it is not there any more: then
    /// the next supervisor has been faster.
    fn take_if_there(&mut self, length: usize) {
        let (Some(pipe), true) = (&self.pipe, (1..=self.shown).contains(&length)) else {
            return;
        };
        let mut now = vec![0; length];
        let seen = self.peek.look(pipe.as_fd(), &mut now);
        if seen.is_ok_and(|seen| now[..seen.length] == self.chunk[..length]) {
            self.peek.take(pipe.as_fd(), length);
        }
    }
}

/// Whether anybody can still write to the pipe.
fn has_writer(pipe: &OwnedFd) -> bool {
    let mut ready = [PollFd::new(pipe.as_fd(), PollFlags::empty())];
    let known = poll(&mut ready, PollTimeout::ZERO).is_ok();
    let events = ready[0].revents().filter(|_| known);
    !events.is_some_and(|events| events.contains(PollFlags::POLLHUP))
}

/// Starts such a process, to which the pipe may be handed at birth.
pub(super) fn start(socket: OwnedFd, memory: OwnedFd, pipe: Option<OwnedFd>) -> io::Result<Pid> {
    #[cfg(not(test))]
    {
        use std::os::unix::process::CommandExt;
        use std::process::{Command, Stdio};

        let pipe = pipe.map_or_else(Stdio::null, |pipe| Stdio::from(File::from(pipe)));
        Command::new("/proc/self/exe")
            .arg0("prefork")
            .arg(READ_OUTPUT_ARGUMENT)
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::from(File::from(socket)))
            .stdout(Stdio::from(File::from(memory)))
            .stderr(pipe)
            // The terminal's Ctrl-C is for the supervisor.
            .process_group(0)
            .spawn()
            .map(|child| Pid::from_raw(i32::try_from(child.id()).unwrap_or(i32::MAX)))
    }
    // A test's program is not this one.
    #[cfg(test)]
    {
        let logged = SharedWord::map(&File::from(memory).into())?;
        std::thread::spawn(move || serve(&socket, &logged, pipe));
        Ok(Pid::this())
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};

    use super::*;

    /// What is left in a pipe with three lines when the supervisor has logged so much of
    /// what it was shown, somebody else has taken something out, and then it was killed.
    fn left(logged: usize, taken: usize) -> String {
        let (mut end, mut pipe) = io::pipe().unwrap();
        pipe.write_all(b"one\ntwo\nthree\n").unwrap();
        drop(pipe);
        let kind = SockType::SeqPacket;
        let flags = SockFlag::SOCK_CLOEXEC;
        let (ours, theirs) = socketpair(AddressFamily::Unix, kind, None, flags).unwrap();
        let (word, memory) = SharedWord::create().unwrap();
        let shared = SharedWord::map(&memory).unwrap();
        let reader = std::thread::spawn(move || serve(&theirs, &shared, None));
        let question = Question {
            number: 7,
            look: true,
            ..Question::default()
        };
        question.send(ours.as_fd(), Some(end.as_fd())).unwrap();
        let mut ready = [PollFd::new(ours.as_fd(), PollFlags::POLLIN)];
        poll(&mut ready, PollTimeout::NONE).unwrap();
        let (answer, seen) = Answer::receive(&ours).unwrap().unwrap();
        assert_eq!((answer.number, answer.has_writer), (7, false));
        assert_eq!(seen, b"one\ntwo\nthree\n");
        word.store(pack(7, logged), Ordering::Release);
        end.read_exact(&mut vec![0; taken]).unwrap();
        drop(ours);
        reader.join().unwrap().unwrap();
        let mut left = String::new();
        end.read_to_string(&mut left).unwrap();
        left
    }

    #[test]
    fn what_a_killed_supervisor_had_logged_is_taken_out_and_nothing_else() {
        assert_eq!(left(0, 0), "one\ntwo\nthree\n");
        assert_eq!(left(4, 0), "two\nthree\n");
        assert_eq!(left(14, 0), "");
    }

    #[test]
    fn what_the_next_supervisor_has_taken_out_is_not_taken_again() {
        assert_eq!(left(4, 4), "two\nthree\n");
    }

    #[test]
    fn who_asks_for_nothing_that_is_known_is_answered_no_more() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let (_, memory) = SharedWord::create().unwrap();
        let word = SharedWord::map(&memory).unwrap();
        (&ours).write_all(b"?").unwrap();
        serve(&theirs.into(), &word, None).unwrap();
    }
}
