//! A process's output while it lives, and what it leaves behind.

use super::*;

/// Messages read after the process's end: a grandchild may hold the channel
/// and write for ever.
const LAST_MESSAGES: usize = 4096;

/// Output reads after the process's end: a grandchild may hold the pipe and
/// write for ever.
const LAST_READS: usize = 64;

/// The capability of a worker that takes new pipes for what it prints.
const OUTPUT: &str = "output";

impl Process {
    /// Offers a worker that came back new pipes for its output: the old ones'
    /// readers have gone with the last supervisor.
    pub(super) fn listen_to_output(&mut self) {
        if !self.can(OUTPUT) {
            return;
        }
        let lost = |error: io::Error| {
            warn!("what an adopted worker prints will not be logged: {error}");
        };
        self.stdout = self.offer_pipe(OutputStream::Stdout).map_err(lost).ok();
        self.stderr = self.offer_pipe(OutputStream::Stderr).map_err(lost).ok();
        self.stderr_ended = self.stderr.is_none();
    }

    fn offer_pipe(&mut self, stream: OutputStream) -> io::Result<Output> {
        let (reader, writer) = pipe()?;
        let output = Output::new(reader)?;
        let offer = ToWorker::Output(OutputOffer { stream, fds: 1 });
        // Not sent, it closes with the writer and is found at its end.
        let _ = self.send_with(&offer, Some(writer));
        Ok(output)
    }

    /// Reads what was printed, a turn's worth of each: the loop has others to
    /// attend to, however much there is.
    pub(super) async fn read_output(&mut self) {
        self.read_stdout();
        if !self.stderr_ended {
            self.read_stderr();
        }
        tokio::task::yield_now().await;
    }

    fn read_stdout(&mut self) {
        let Some(stdout) = &mut self.stdout else {
            return;
        };
        let (slot, pid) = (&self.slot, self.pid);
        if stdout.read(|line| log_line(slot, pid, "stdout", line)) == Progress::Ended {
            stdout.finish_line(|line| log_line(slot, pid, "stdout", line));
            self.stdout = None;
        }
    }

    fn read_stderr(&mut self) {
        let Some(stderr) = &mut self.stderr else {
            return;
        };
        let (slot, pid) = (&self.slot, self.pid);
        if stderr.read(|line| log_line(slot, pid, "stderr", line)) == Progress::Ended {
            stderr.finish_line(|line| log_line(slot, pid, "stderr", line));
            self.stderr_ended = true;
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
            output.finish_line(log);
        }

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
