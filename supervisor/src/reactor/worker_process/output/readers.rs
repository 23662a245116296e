//! Who touches workers' pipes for the loop: processes that are asked one thing at a time.
//!
//! Most of the time there is one. Where it does not answer, a pipe's lock is held by a
//! writer whose memory does not come: another process is started for the other pipes, and
//! the first one is free again when that writer is.

mod one;

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::unistd::Pid;
use one::{At, Job, Reader, What};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::{Notify, oneshot};
use tracing::{info, warn};

use crate::kernel::sys;
use crate::reactor::worker_process::handle::SlotName;
use crate::reactor::worker_process::output::reader;
use crate::reactor::worker_process::output::wire::{Answer, Found};

/// Other pipes are not kept waiting for longer by one that does not answer.
const SLOW: Duration = Duration::from_millis(250);

/// A pipe that has not answered for so long is talked of.
const HELD: Duration = Duration::from_secs(1);

/// As many processes wait for writers at most.
const MOST_READERS: usize = 64;

/// The reading end of a worker's pipe. Only a reader may do anything with it that takes its
/// lock, and closing it may: it is handed to one for that.
#[derive(Debug)]
pub(super) struct Pipe {
    end: Option<AsyncFd<OwnedFd>>,
    writer: Writer,
}

/// Who writes to it.
#[derive(Debug, Clone)]
pub(crate) struct Writer {
    pub(crate) slot: SlotName,
    pub(crate) pid: i32,
    pub(crate) stream: &'static str,
}

/// What is to be done with a pipe.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Task {
    /// How many bytes of what was seen last are to be taken out first.
    pub(super) take: usize,
    pub(super) look: bool,
    pub(super) shrink: bool,
}

/// What comes of it.
#[derive(Debug)]
pub(super) enum Outcome {
    /// It is done, and this was seen.
    Seen(Look),
    /// The reader died: what was to be taken out may still be there.
    Lost,
    /// The pipe is held, and too many others are.
    Held,
}

/// What was seen in a pipe.
#[derive(Debug)]
pub(super) struct Look {
    pub(super) found: Found,
    pub(super) bytes: Vec<u8>,
    pub(super) is_all: bool,
    pub(super) has_writer: bool,
    /// Who has seen it, and is asked nothing else before it is told what was logged.
    pub(super) lease: Lease,
}

/// How things stand.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Numbers {
    /// Processes there are.
    pub(crate) readers: usize,
    /// How many were started since the last call.
    pub(crate) started: u64,
    /// How often one was kept waiting by a pipe since then.
    pub(crate) held: u64,
}

/// All readers of this loop.
#[derive(Debug)]
pub(crate) struct Readers {
    /// How many there may be.
    most: usize,
    all: RefCell<Vec<Rc<Reader>>>,
    waiting: RefCell<VecDeque<Job>>,
    /// Wakes who looks after those that don't answer.
    asked: Notify,
    is_watched: Cell<bool>,
    /// Not before then is another started in place of one that has died.
    next_start: Cell<Option<Instant>>,
    started: Cell<u64>,
    held: Cell<u64>,
}

/// A reader that waits for what it is to do next with the pipe that it has looked at.
#[derive(Debug)]
pub(super) struct Lease {
    readers: Rc<Readers>,
    reader: Rc<Reader>,
}

thread_local! {
    static SHARED: Rc<Readers> = Rc::new(Readers::new(MOST_READERS));
}

impl Pipe {
    pub(super) fn new(end: OwnedFd, writer: Writer) -> io::Result<Self> {
        Ok(Self {
            end: Some(sys::watch_fd(end)?),
            writer,
        })
    }

    pub(super) fn end(&self) -> &AsyncFd<OwnedFd> {
        self.end.as_ref().expect("only dropping takes it")
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        if let Some(end) = self.end.take() {
            let (end, writer) = (end.into_inner(), self.writer.clone());
            // Where the thread ends there is nobody to hand it to.
            let _ = SHARED.try_with(|readers| readers.close(end, writer));
        }
    }
}

impl Readers {
    fn new(most: usize) -> Self {
        Self {
            most,
            all: RefCell::default(),
            waiting: RefCell::default(),
            asked: Notify::new(),
            is_watched: Cell::new(false),
            next_start: Cell::new(None),
            started: Cell::new(0),
            held: Cell::new(0),
        }
    }

    /// Those of this thread.
    pub(crate) fn shared() -> Rc<Self> {
        SHARED.with(Rc::clone)
    }

    /// Whether a process is one of them.
    pub(crate) fn are_run_by(&self, pid: i32) -> bool {
        let all = self.all.borrow();
        all.iter().any(|reader| reader.pid == Pid::from_raw(pid))
    }

    /// What there is to count.
    pub(crate) fn take_numbers(&self) -> Numbers {
        Numbers {
            readers: self.all.borrow().len(),
            started: self.started.take(),
            held: self.held.take(),
        }
    }

    /// Has something done with a pipe as soon as there is a reader for it.
    pub(super) fn ask(self: &Rc<Self>, pipe: &Rc<Pipe>, task: Task) -> oneshot::Receiver<Outcome> {
        let (answer, outcome) = oneshot::channel();
        self.waiting.borrow_mut().push_back(Job {
            what: What::Read(Rc::clone(pipe)),
            task,
            answer: Some(answer),
        });
        self.dispatch();
        if !self.waiting.borrow().is_empty() && self.may_start() {
            self.start(None);
            self.dispatch();
        }
        self.watch();
        outcome
    }

    fn close(self: &Rc<Self>, end: OwnedFd, writer: Writer) {
        self.waiting.borrow_mut().push_back(Job {
            what: What::Close(end, writer),
            task: Task::default(),
            answer: None,
        });
        // Nothing is started here: this may be the end of the loop.
        self.dispatch();
        self.asked.notify_one();
    }

    /// Whether others wait for a reader.
    pub(super) fn are_wanted(&self) -> bool {
        !self.waiting.borrow().is_empty()
    }

    /// Gives what waits to those who have nothing to do, and ends who is not needed.
    fn dispatch(self: &Rc<Self>) {
        while let Some(reader) = self.idle() {
            let Some(job) = self.waiting.borrow_mut().pop_front() else {
                break;
            };
            if !job.is_forgotten() {
                self.give(&reader, job, false);
            }
        }
        let mut spare = 0;
        self.all.borrow_mut().retain(|reader| {
            spare += usize::from(reader.is_idle());
            let is_needed = !reader.is_idle() || spare <= 1;
            if !is_needed {
                reader.dismiss();
            }
            is_needed
        });
    }

    fn idle(&self) -> Option<Rc<Reader>> {
        let all = self.all.borrow();
        all.iter().find(|reader| reader.is_idle()).cloned()
    }

    fn give(self: &Rc<Self>, reader: &Rc<Reader>, job: Job, holds: bool) {
        let sent = reader.ask(&job, holds);
        let at = At::Asked {
            job,
            since: Instant::now(),
            is_said: false,
        };
        reader.at.replace(at);
        match sent {
            Ok(()) => self.asked.notify_one(),
            // Descriptors that others have in flight leave no room for one of ours: who
            // needs none is born with the pipe.
            Err(Errno::ETOOMANYREFS) if !holds => self.start_in_place_of(reader),
            Err(_) => self.bereave(reader),
        }
    }

    fn start_in_place_of(self: &Rc<Self>, reader: &Rc<Reader>) {
        let At::Asked { job, .. } = reader.at.replace(At::Idle) else {
            return;
        };
        self.all.borrow_mut().retain(|it| !Rc::ptr_eq(it, reader));
        reader.dismiss();
        let pipe = job.end().and_then(|end| end.try_clone().ok());
        match self.start(pipe) {
            Some(born) => self.give(&born, job, true),
            None => self.waiting.borrow_mut().push_front(job),
        }
    }

    fn may_start(&self) -> bool {
        self.all.borrow().is_empty() && self.next_start.get().is_none_or(|at| at <= Instant::now())
    }

    /// Starts another, to which a pipe may be handed at birth.
    fn start(self: &Rc<Self>, pipe: Option<OwnedFd>) -> Option<Rc<Reader>> {
        self.next_start.set(Some(Instant::now() + SLOW));
        match Reader::start(pipe) {
            Ok(reader) => {
                self.started.set(self.started.get() + 1);
                let reader = Rc::new(reader);
                self.all.borrow_mut().push(Rc::clone(&reader));
                let (readers, attended) = (Rc::clone(self), Rc::clone(&reader));
                tokio::task::spawn_local(async move { readers.attend(attended).await });
                Some(reader)
            }
            Err(error) => {
                warn!("cannot start a process that reads what workers print: {error}");
                None
            }
        }
    }

    /// Hears one of them until it is gone.
    async fn attend(self: Rc<Self>, reader: Rc<Reader>) {
        loop {
            sys::readable(&reader.socket).await;
            match reader.socket.try_io(Interest::READABLE, Answer::receive) {
                Ok(Some((answer, bytes))) => self.answered(&reader, answer, bytes),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Ok(None) | Err(_) => break,
            }
        }
        self.bereave(&reader);
    }

    fn answered(self: &Rc<Self>, reader: &Rc<Reader>, answer: Answer, bytes: Vec<u8>) {
        if answer.number != reader.number.get() {
            return;
        }
        let leased = At::Leased {
            since: Instant::now(),
        };
        let At::Asked {
            job,
            since,
            is_said,
        } = reader.at.replace(leased)
        else {
            return;
        };
        if is_said {
            let Writer { slot, pid, stream } = job.writer();
            let time = since.elapsed();
            info!(%slot, pid, stream, "the pipe that it prints to can be read again after {time:.0?}");
        }
        let lease = Lease {
            readers: Rc::clone(self),
            reader: Rc::clone(reader),
        };
        match job.what {
            What::Read(_) => {
                let look = Look {
                    found: answer.found,
                    bytes,
                    is_all: answer.is_all,
                    has_writer: answer.has_writer,
                    lease,
                };
                // Whoever asked may have ended.
                let _ = job.answer.map(|it| it.send(Outcome::Seen(look)));
            }
            What::Close(end, writer) => {
                drop(end);
                lease.go_on_with(Job {
                    what: What::Release(writer),
                    task: Task::default(),
                    answer: None,
                });
            }
            What::Release(_) => drop(lease),
        }
    }

    /// One has died: what it was at is for another, unless it is not known how far it came.
    fn bereave(self: &Rc<Self>, reader: &Rc<Reader>) {
        self.all.borrow_mut().retain(|it| !Rc::ptr_eq(it, reader));
        if let At::Asked { mut job, .. } = reader.at.replace(At::Idle) {
            match job.answer.take() {
                Some(answer) if job.task.take > 0 => drop(answer.send(Outcome::Lost)),
                answer => {
                    let job = Job { answer, ..job };
                    if !matches!(job.what, What::Release(_)) {
                        self.waiting.borrow_mut().push_front(job);
                    }
                }
            }
        }
        if self.are_wanted() && self.may_start() {
            self.start(None);
        }
        self.dispatch();
        self.asked.notify_one();
    }

    /// Looks after those that don't answer, as long as there is a loop.
    fn watch(self: &Rc<Self>) {
        if !self.is_watched.replace(true) {
            let readers = Rc::clone(self);
            tokio::task::spawn_local(async move {
                loop {
                    readers.asked.notified().await;
                    while readers.is_busy() {
                        tokio::time::sleep(SLOW).await;
                        readers.look_after_slow();
                    }
                }
            });
        }
    }

    fn is_busy(&self) -> bool {
        self.are_wanted() || !self.all.borrow().iter().all(|it| it.is_idle())
    }

    fn look_after_slow(self: &Rc<Self>) {
        let all = self.all.borrow().clone();
        for reader in &all {
            self.say_if_held(reader);
        }
        if !self.are_wanted() || !all.iter().all(|it| it.is_slow()) {
            return;
        }
        if all.len() < self.most {
            self.start(None);
        } else if let Some(held) = all.iter().find(|it| it.is_said_to_wait()) {
            held.give_up();
        }
        self.dispatch();
    }

    fn say_if_held(&self, reader: &Reader) {
        let At::Asked {
            job,
            since,
            is_said,
        } = &mut *reader.at.borrow_mut()
        else {
            return;
        };
        if *is_said || since.elapsed() < HELD || !reader.is_held() {
            return;
        }
        *is_said = true;
        self.held.set(self.held.get() + 1);
        let Writer { slot, pid, stream } = job.writer();
        warn!(
            %slot, pid, stream,
            "the pipe that it prints to is held by a write whose memory does not come: \
             what it prints is read when that is over"
        );
    }
}

impl Lease {
    /// So much of what was seen is logged by now. Should this process be killed, the reader
    /// takes that much out.
    pub(super) fn logged(&self, length: usize) {
        let word = reader::pack(self.reader.number.get(), length);
        self.reader.logged.store(word, Ordering::Release);
    }

    /// Has the same reader go on with the same pipe at once.
    pub(super) fn go_on(self, pipe: &Rc<Pipe>, task: Task) -> oneshot::Receiver<Outcome> {
        let (answer, outcome) = oneshot::channel();
        self.go_on_with(Job {
            what: What::Read(Rc::clone(pipe)),
            task,
            answer: Some(answer),
        });
        outcome
    }

    fn go_on_with(self, job: Job) {
        let readers = Rc::clone(&self.readers);
        readers.give(&Rc::clone(&self.reader), job, true);
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let is_unused = matches!(*self.reader.at.borrow(), At::Leased { .. });
        if is_unused {
            self.reader.at.replace(At::Idle);
            self.readers.dispatch();
        }
    }
}

#[cfg(test)]
mod tests;
