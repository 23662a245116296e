//! A process's output while it lives, and what it leaves behind.

use super::*;

/// Messages read after the process's end: a grandchild may hold the channel
/// and write for ever.
const LAST_MESSAGES: usize = 4096;

/// Output reads after the process's end: a grandchild may hold the pipe and
/// write for ever.
const LAST_READS: usize = 64;

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
        match Output::taken_over(pipe) {
            Ok(output) => *place = Some(output),
            Err(error) => warn!(%slot, pid, "what it prints is not logged: {error}"),
        }
    }
    [stdout, stderr]
}

impl Process {
    /// Reads what was printed, a turn's worth of each: the loop has others to
    /// attend to, however much there is.
    pub(super) async fn read_output(&mut self) {
        self.read_stdout();
        if !self.stderr_ended {
            self.read_stderr();
        }
        self.count_dropped();
        // A pipe that is full makes its worker wait.
        self.ties.rest.stir();
        tokio::task::yield_now().await;
    }

    fn read_stdout(&mut self) {
        let Some(stdout) = &mut self.stdout else {
            return;
        };
        let (slot, pid) = (&self.slot, self.pid);
        if stdout.read(|line| log_line(slot, pid, "stdout", line)) == Progress::Ended {
            self.stdout = None;
        }
    }

    fn read_stderr(&mut self) {
        let Some(stderr) = &mut self.stderr else {
            return;
        };
        let (slot, pid) = (&self.slot, self.pid);
        if stderr.read(|line| log_line(slot, pid, "stderr", line)) == Progress::Ended {
            self.stderr_ended = true;
        }
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
        self.metrics.channel_up(self.worker.incarnation, false);
        // Nobody counts any more: this is all, however it died.
        if let Some(counted) = self.vitals.borrow().counted() {
            self.metrics.counted(self.worker.incarnation, &counted);
        }
        let (slot, pid) = (self.slot.clone(), self.pid);
        for (stream, output) in [
            ("stdout", self.stdout.as_mut()),
            ("stderr", self.stderr.as_mut()),
        ] {
            let Some(output) = output else { continue };
            let log = |line: &str| log_line(&slot, pid, stream, line);
            let mut reads = 0..LAST_READS;
            while reads.next().is_some() && output.read(log) == Progress::Read {}
            output.finish(log);
        }
        self.count_dropped();

        // A zombie's processor time is final, and it has nothing else. A successor
        // waits meanwhile.
        if let Ok(stat) = proc::stat(Pid::from_raw(self.pid)) {
            let usage = proc::Usage {
                cpu: stat.cpu,
                ..proc::Usage::default()
            };
            self.metrics.process(self.worker.incarnation, usage);
        }
        let reaped = self.reap().await;
        Death {
            code: reaped.and_then(|reaped| reaped.code),
            signal: reaped.and_then(|reaped| reaped.signal),
            oom: false,
            requests: self.metrics.requests_of(self.worker.incarnation),
            peak_memory_bytes: reaped.map_or(0, |reaped| reaped.peak_memory_bytes),
            stderr: self.stderr.as_ref().map_or_else(String::new, Output::tail),
            at_unix_ms: crate::reactor::unix_ms(),
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
            let stat = proc::stat(Pid::from_raw(self.pid)).ok()?;
            let same = stat.start_ticks == self.start_ticks && stat.exit_status != 0;
            same.then_some(stat.exit_status)
        };
        // It may be reaped between the first two.
        let status = told().or_else(shown).or_else(told);
        status.map(Reaped::from_status)
    }
}
