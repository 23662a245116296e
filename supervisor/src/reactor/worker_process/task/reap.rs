//! A process's output while it lives, and what it leaves behind.

use super::*;
use crate::log::{Voice, worker_said};
use crate::reactor::observe::in_flight;

/// Messages read after the process's end: a grandchild may hold the channel
/// and write for ever.
const LAST_MESSAGES: usize = 4096;

/// How long its last words may take together: a grandchild may hold the pipe's lock.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// What is said of a worker that is ended for that.
const HOLDS: &str = "it holds the pipe that it prints to, as too many others do";

fn name_of(stream: OutputStream) -> &'static str {
    match stream {
        OutputStream::Stdout => "stdout",
        OutputStream::Stderr => "stderr",
    }
}

/// The stdout and stderr of a process that was started here.
pub(super) fn read_from(slot: &SlotName, pid: i32, pipes: [OwnedFd; 2]) -> io::Result<[Output; 2]> {
    let [stdout, stderr] = pipes;
    let read = |pipe, stream| Output::new(pipe, writer(slot, pid, stream));
    Ok([
        read(stdout, OutputStream::Stdout)?,
        read(stderr, OutputStream::Stderr)?,
    ])
}

/// Who writes to a stream.
pub(super) fn writer(slot: &SlotName, pid: i32, stream: OutputStream) -> Writer {
    Writer {
        slot: slot.clone(),
        pid,
        stream: name_of(stream),
    }
}

/// Reads on from what a worker that came back prints to: stdout and stderr, as far
/// as it has brought them.
pub(super) fn go_on_reading(
    slot: &SlotName,
    pid: i32,
    outputs: Vec<(OutputStream, OwnedFd)>,
) -> [Option<Output>; 2] {
    let [mut stdout, mut stderr] = [None, None];
    for (stream, pipe) in outputs {
        let place = match stream {
            OutputStream::Stdout => &mut stdout,
            OutputStream::Stderr => &mut stderr,
        };
        match Output::taken_over(pipe, writer(slot, pid, stream)) {
            Ok(output) => *place = Some(output),
            Err(error) => warn!(%slot, pid, "what it prints is not logged: {error}"),
        }
    }
    [stdout, stderr]
}

impl Process {
    /// Logs what was printed to a stream, a turn's worth: the loop has others to attend
    /// to, however much there is.
    pub(super) async fn read_output(&mut self, stream: OutputStream) {
        let (slot, pid) = (&self.slot, self.pid);
        let log =
            |voice: &mut Voice, line: &str| worker_said(slot, pid, name_of(stream), voice, line);
        let output = match stream {
            OutputStream::Stdout => &mut self.stdout,
            OutputStream::Stderr => &mut self.stderr,
        };
        match output.as_mut().map(|output| output.read(log)) {
            Some(Progress::Ended) => match stream {
                OutputStream::Stdout => self.stdout = None,
                OutputStream::Stderr => self.stderr_ended = true,
            },
            Some(Progress::Held) => {
                warn!(slot = %self.slot, pid, "{HOLDS}");
                self.tell(Event::Misbehaved {
                    worker: self.worker,
                    rule: HOLDS.to_owned(),
                })
                .await;
            }
            _ => {}
        }
        self.count_dropped();
        // A pipe that is full makes its worker wait.
        self.ties.rest.stir();
        tokio::task::yield_now().await;
    }

    /// Counts what is not logged of a worker that prints without measure, and says so.
    fn count_dropped(&mut self) {
        let (slot, pid) = (&self.slot, self.pid);
        for (stream, output) in [("stdout", &mut self.stdout), ("stderr", &mut self.stderr)] {
            let Some(output) = output else { continue };
            let (flood, dropped) = output.flood();
            if dropped > 0 {
                self.metrics.output_dropped(dropped);
            }
            match flood {
                Some(Flood::Begun) => {
                    warn!(%slot, pid, stream, "it prints more than is logged: the rest is dropped");
                }
                Some(Flood::Over(bytes)) => {
                    warn!(%slot, pid, stream, "{bytes} bytes that it printed were dropped");
                }
                None => {}
            }
        }
    }

    /// The process has ended: take what it left behind, then reap it.
    pub(super) async fn bury(&mut self) -> Death {
        for _ in 0..LAST_MESSAGES {
            if self.channel.is_none() || !self.receive_one(Instant::now()).await {
                break;
            }
        }
        self.publish();
        // What it has started is known by it, and a zombie is hidden from nobody.
        self.started.ticks();
        self.metrics.channel_up(self.worker.incarnation, false);
        // Nobody counts any more: this is all, however it died.
        if let Some(counted) = self.vitals.borrow().counted() {
            self.metrics.counted(self.worker.incarnation, &counted);
        }
        self.hear_last_words().await;
        self.count_dropped();

        // A zombie's processor time is final, and it has nothing else. A successor
        // waits meanwhile.
        if let Ok(stat) = procfs::stat(Pid::from_raw(self.pid)) {
            let usage = procfs::Usage {
                cpu: stat.cpu,
                ..procfs::Usage::default()
            };
            self.metrics.process(self.worker.incarnation, usage);
        }
        // The memory outlives it, and nobody writes any more.
        let requests = self.vitals.borrow_mut().requests.take();
        let left = requests.map(|table| in_flight::at_death(&self.slot, &table));
        let left = left.unwrap_or_default();
        let thread_dump = self.hang.result().await;
        let reaped = self.reap().await;
        Death {
            code: reaped.and_then(|reaped| reaped.code),
            signal: reaped
                .and_then(|reaped| reaped.signal)
                .map(prefork_fleet::Signal),
            oom: false,
            requests: self.metrics.requests_of(self.worker.incarnation),
            peak_memory_bytes: reaped.map_or(0, |reaped| reaped.peak_memory_bytes),
            stderr: self.stderr.as_ref().map_or_else(String::new, Output::tail),
            at_unix_ms: crate::reactor::unix_ms(),
            in_flight: left.requests,
            in_flight_unlisted: left.unlisted,
            thread_dump,
        }
    }

    /// Logs what is still in its pipes.
    async fn hear_last_words(&mut self) {
        let deadline = Instant::now() + LAST_WORDS;
        let (slot, pid) = (&self.slot, self.pid);
        let outputs = [
            ("stdout", self.stdout.as_mut()),
            (
                "stderr",
                self.stderr.as_mut().filter(|_| !self.stderr_ended),
            ),
        ];
        for (stream, output) in outputs {
            let Some(output) = output else { continue };
            let log = |voice: &mut Voice, line: &str| worker_said(slot, pid, stream, voice, line);
            let heard = tokio::time::timeout_at(deadline.into(), output.finish(log)).await;
            if heard.is_err() {
                warn!(%slot, pid, stream, "its last words are lost: another process holds the pipe");
            }
        }
    }

    /// Reaps it, if it is ours to reap.
    pub(super) async fn reap(&self) -> Option<Reaped> {
        if !self.is_child {
            let ended = self.seen_to_end();
            if ended.is_none() {
                let worker = self.worker;
                let reason = "adopted; exit status unknown".to_owned();
                self.tell(Event::Bye { worker, reason }).await;
            }
            return ended;
        }
        match sys::reap(self.pidfd.get_ref()) {
            Ok(reaped) => reaped,
            Err(errno) => {
                warn!(slot = %self.slot, pid = self.pid, "cannot reap: {errno}");
                None
            }
        }
    }

    /// How a process ended that is another's child, as far as that can be seen:
    /// once it is reaped the kernel may tell, and until then its zombie does,
    /// where it says something that cannot mean "not yours to know".
    fn seen_to_end(&self) -> Option<Reaped> {
        let told = || sys::pidfd_exit_status(self.pidfd.get_ref()).ok().flatten();
        let shown = || {
            let stat = procfs::stat(Pid::from_raw(self.pid)).ok()?;
            let same = stat.start_ticks == self.started.ticks() && stat.exit_status != 0;
            same.then_some(stat.exit_status)
        };
        // It may be reaped between the first two.
        let status = told().or_else(shown).or_else(told);
        status.map(Reaped::from_status)
    }
}
