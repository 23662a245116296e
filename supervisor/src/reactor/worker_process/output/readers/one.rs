//! One of the processes, and what it is at.

use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::rc::Rc;
use std::time::Instant;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{AddressFamily, Shutdown, SockFlag, SockType, shutdown, socketpair};
use nix::unistd::Pid;
use tokio::io::unix::AsyncFd;
use tokio::sync::oneshot;

use crate::kernel::procfs;
use crate::kernel::sys::{self, SharedWord};
use crate::reactor::worker_process::output::reader;
use crate::reactor::worker_process::output::readers::{Outcome, Pipe, SLOW, Task, Writer};
use crate::reactor::worker_process::output::wire::Question;

/// One process.
#[derive(Debug)]
pub(super) struct Reader {
    pub(super) pid: Pid,
    pub(super) socket: AsyncFd<OwnedFd>,
    pub(super) logged: SharedWord,
    /// The last question's.
    pub(super) number: Cell<u32>,
    pub(super) at: RefCell<At>,
}

/// What it is at.
#[derive(Debug)]
pub(super) enum At {
    Idle,
    Asked {
        job: Job,
        since: Instant,
        is_said: bool,
    },
    /// It has answered, and waits to be told what was logged of that.
    Leased {
        since: Instant,
    },
}

#[derive(Debug)]
pub(super) struct Job {
    pub(super) what: What,
    pub(super) task: Task,
    pub(super) answer: Option<oneshot::Sender<Outcome>>,
}

#[derive(Debug)]
pub(super) enum What {
    Read(Rc<Pipe>),
    /// Closes a pipe: the reader holds it as well, so ours is not the last descriptor.
    Close(OwnedFd, Writer),
    /// Has it let go of the pipe that it holds.
    Release(Writer),
}

impl Reader {
    pub(super) fn start(pipe: Option<OwnedFd>) -> io::Result<Self> {
        let (ours, theirs) = socketpair(
            AddressFamily::Unix,
            SockType::SeqPacket,
            None,
            SockFlag::SOCK_CLOEXEC,
        )?;
        let (logged, memory) = SharedWord::create()?;
        let socket = sys::watch_fd(ours)?;
        Ok(Self {
            pid: reader::start(theirs, memory, pipe)?,
            socket,
            logged,
            number: Cell::new(0),
            at: RefCell::new(At::Idle),
        })
    }

    /// Sends what it is to do; with the pipe, unless it `holds` that.
    pub(super) fn ask(&self, job: &Job, holds: bool) -> nix::Result<()> {
        let number = self.number.get().wrapping_add(1);
        self.number.set(number);
        let question = Question {
            number,
            take: u32::try_from(job.task.take).unwrap_or(0),
            look: job.task.look,
            shrink: job.task.shrink,
            release: matches!(job.what, What::Release(_)),
        };
        let end = job.end().filter(|_| !holds);
        question.send(self.socket.as_fd(), end.map(AsFd::as_fd))
    }

    pub(super) fn is_idle(&self) -> bool {
        matches!(*self.at.borrow(), At::Idle)
    }

    pub(super) fn is_slow(&self) -> bool {
        match &*self.at.borrow() {
            At::Idle => false,
            At::Asked { since, .. } => since.elapsed() >= SLOW && !self.has_answered(),
            At::Leased { since } => since.elapsed() >= SLOW,
        }
    }

    /// Whether it is this process that has not listened.
    pub(super) fn has_answered(&self) -> bool {
        let mut socket = [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)];
        poll(&mut socket, PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
    }

    /// Whether it waits for a lock, and not for a processor.
    pub(super) fn is_held(&self) -> bool {
        // Where `/proc` hides it, its silence has to do.
        procfs::stat(self.pid).map_or(true, |stat| stat.state == 'D')
    }

    /// Has it end as soon as it can.
    pub(super) fn dismiss(&self) {
        let _ = shutdown(self.socket.as_raw_fd(), Shutdown::Write);
    }

    pub(super) fn is_said_to_wait(&self) -> bool {
        match &*self.at.borrow() {
            At::Asked { job, is_said, .. } => *is_said && job.answer.is_some(),
            _ => false,
        }
    }

    /// Says to who has asked that there will be no answer.
    pub(super) fn give_up(&self) {
        if let At::Asked { job, .. } = &mut *self.at.borrow_mut()
            && let Some(answer) = job.answer.take()
        {
            let _ = answer.send(Outcome::Held);
        }
    }
}

impl Job {
    pub(super) fn end(&self) -> Option<&OwnedFd> {
        match &self.what {
            What::Read(pipe) => Some(pipe.end().get_ref()),
            What::Close(end, _) => Some(end),
            What::Release(_) => None,
        }
    }

    /// Whether nobody waits for what comes of it.
    pub(super) fn is_forgotten(&self) -> bool {
        self.answer.as_ref().is_some_and(oneshot::Sender::is_closed)
    }

    pub(super) fn writer(&self) -> &Writer {
        match &self.what {
            What::Read(pipe) => &pipe.writer,
            What::Close(_, writer) | What::Release(writer) => writer,
        }
    }
}
