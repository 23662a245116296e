//! The supervisor's end of a process's channel: what is sent, what is heard and
//! what follows from it.

use prefork_proto::capability;

use crate::reactor::worker_process::task::closing::Closing;
use crate::reactor::worker_process::task::descriptors_in_flight::TOO_MANY_IN_FLIGHT;
use crate::reactor::worker_process::task::*;

/// Messages handled before the other tasks get their turn.
const MESSAGES_PER_TURN: usize = 64;

/// Retry of a send that there was no room for. The kernel gives no sign of its
/// own want of room; a socket that has room again could give one, but would
/// then do so each time a worker reads, and hardly any is ever full.
const SEND_RETRY: Duration = Duration::from_millis(20);

impl Process {
    /// Whether its `hello` lists the capability.
    pub(super) fn can(&self, capability: &str) -> bool {
        let vitals = self.vitals.borrow();
        vitals.can(capability)
    }

    /// Whether it says what it serves.
    pub(super) fn counts_http(&self) -> bool {
        self.can(capability::SCOREBOARD) || self.can(capability::HTTP_COUNTS)
    }

    /// As its `hello` said to whoever heard it.
    pub(super) fn know_what_it_counts(&self) {
        if self.vitals.borrow().hello.is_some() {
            self.metrics.counts_http(self.counts_http(), true);
        }
    }

    pub(super) fn send(&mut self, message: &ToWorker) -> Result<(), String> {
        self.send_with(message, None)
    }

    /// Queues a message and sends what the kernel takes at once.
    pub(super) fn send_with(
        &mut self,
        message: &ToWorker,
        fd: Option<OwnedFd>,
    ) -> Result<(), String> {
        let Some(channel) = &mut self.channel else {
            return Err("its channel is closed".to_owned());
        };
        let channel = channel.get_mut();
        let queued = match fd {
            Some(fd) => channel.queue_with_fd(message, fd),
            None => channel.queue(message),
        };
        if let Err(error) = queued {
            self.metrics.send_error(error.reason());
            debug!(slot = %self.slot, pid = self.pid, "cannot send: {error}");
            return Err(error.to_string());
        }
        self.flush();
        Ok(())
    }

    pub(super) fn flush(&mut self) {
        let Some(channel) = &mut self.channel else {
            return;
        };
        let again = match channel.get_mut().flush() {
            Ok(Flush::Done) => false,
            Ok(Flush::Blocked) => true,
            Err(error) => {
                self.metrics.send_error(error.reason());
                debug!(slot = %self.slot, pid = self.pid, "cannot send: {error}");
                if error.reason() == TOO_MANY_IN_FLIGHT {
                    self.tell_of_crowd();
                }
                // A link that broke says so to the reader, after what came before.
                !error.breaks_link()
            }
        };
        self.retry = again.then(|| Instant::now() + SEND_RETRY);
        self.publish();
    }

    /// Reads and handles messages, a turn's worth.
    pub(super) async fn listen(&mut self) {
        let more = self.take_turn().await;
        self.publish();
        // The usual case is one message, and a turn of the loop is not cheap.
        if more {
            tokio::task::yield_now().await;
        }
    }

    /// Whether there may be more to handle at once.
    async fn take_turn(&mut self) -> bool {
        for _ in 0..MESSAGES_PER_TURN {
            let now = Instant::now();
            if let Err(wait) = self.conversation.allowance(now) {
                self.throttle(now + wait);
                return false;
            }
            if !self.receive_one(now).await {
                return false;
            }
        }
        true
    }

    pub(super) fn throttle(&mut self, until: Instant) {
        if self.conversation.note_flood() {
            self.metrics.decode_error(FLOOD);
            warn!(slot = %self.slot, pid = self.pid, "it sends too many messages: reading it slowly");
        }
        self.throttled = Some(until);
    }

    /// Handles one message; `false` when there is none.
    pub(super) async fn receive_one(&mut self, now: Instant) -> bool {
        let Some(channel) = &mut self.channel else {
            return false;
        };
        let mut last = None;
        let received = channel.try_io_mut(Interest::READABLE, |channel| {
            match channel.receive() {
                Ok(Receive::Blocked) => Err(io::ErrorKind::WouldBlock),
                message if channel.is_drained() => {
                    // The call that would find nothing more is not made.
                    last = Some(message);
                    Err(io::ErrorKind::WouldBlock)
                }
                other => Ok(other),
            }
            .map_err(io::Error::from)
        });
        let Some(received) = received.ok().or(last) else {
            return false;
        };
        match received {
            Ok(Receive::Message(Received { message, fd })) => {
                drop(fd);
                self.hear(message, now).await
            }
            Ok(Receive::Unknown { kind, id: _ }) => {
                self.metrics.decode_error(UNKNOWN_TYPE);
                debug!(slot = %self.slot, pid = self.pid, "message of unknown type {kind:?}");
                true
            }
            Ok(Receive::Blocked) => false,
            Ok(Receive::Closed) => {
                self.close(now);
                false
            }
            Err(error) => {
                self.metrics.decode_error(error.reason());
                if matches!(error, ChannelError::Truncated { .. }) {
                    // Most likely it died in the middle of a word.
                    self.close(now);
                } else {
                    self.misbehaved(error.to_string()).await;
                }
                false
            }
        }
    }

    pub(super) async fn hear(&mut self, message: ToSupervisor, now: Instant) -> bool {
        self.ties.rest.heard(now);
        let worker = self.worker;
        match self.conversation.hear(message, now) {
            Ok(Heard::Hello(hello)) => self.welcome(hello).await,
            Ok(Heard::Ready) => return self.ready().await,
            Ok(Heard::Health(health)) => self.health(health, now).await,
            Ok(Heard::Metrics(report)) => self.metrics.application(worker.incarnation, &report),
            Ok(Heard::Pong(after)) => self.answered(after).await,
            Ok(Heard::Answered) => {}
            Ok(Heard::Shut) => self.tell(Event::Shut { worker }).await,
            Ok(Heard::Drained) => self.tell(Event::Drained { worker }).await,
            Ok(Heard::Bye(reason)) => self.tell(Event::Bye { worker, reason }).await,
            Err(Breach { reason, rule }) => {
                self.metrics.decode_error(reason);
                self.misbehaved(rule).await;
                return false;
            }
        }
        true
    }

    /// It accepts connections, and has mapped what it counts in. `false` where
    /// it has made that unfit to be read.
    pub(super) async fn ready(&mut self) -> bool {
        if let Some(unsealed) = self.unsealed.take() {
            match unsealed.seal() {
                Ok(board) => self.vitals.borrow_mut().board = Some(board),
                Err(error) => {
                    self.metrics.decode_error(BAD_SCOREBOARD);
                    self.misbehaved(error.to_string()).await;
                    return false;
                }
            }
        }
        self.metrics.channel_up(self.worker.incarnation, true);
        self.metrics.counts_http(self.counts_http(), true);
        if !self.begin_check() {
            let worker = self.worker;
            self.tell(Event::Ready { worker }).await;
        }
        true
    }

    /// Answers `hello`: who it is, where to count, its listeners, and leave to
    /// begin.
    pub(super) async fn welcome(&mut self, hello: Hello) {
        self.vitals.borrow_mut().hello = Some(hello);
        self.metrics.counts_http(self.counts_http(), false);
        self.unheard = None;
        let worker = self.worker;
        self.tell(Event::Greeted { worker }).await;
        let scoreboard = self
            .scoreboard
            .take()
            .filter(|_| self.can(capability::SCOREBOARD));
        let requests = self.requests.take();
        let requests = requests.filter(|_| self.can(capability::REQUESTS));
        let Some(mut welcome) = self.welcome.take() else {
            return;
        };
        welcome.paused &= self.can(capability::PAUSE);
        if let Some(rule) = self.cannot_listen() {
            self.misbehaved(rule).await;
            return;
        }
        if let Err(error) = self.queue_welcome(welcome, scoreboard, requests) {
            self.misbehaved(format!("cannot welcome it: {error}")).await;
        } else {
            self.flush();
        }
    }

    /// Why it can't have its listeners, if that is so: on one of them it would take for
    /// a request what is none.
    fn cannot_listen(&self) -> Option<String> {
        if let (Some(certificates), false) = (&self.certificates, self.can(capability::TLS)) {
            return Some(format!(
                "listener {} is for TLS, which it does not speak: its hello lacks the capability `{}`",
                certificates.listener,
                capability::TLS,
            ));
        }
        if let Some(rule) = self.cannot_ask(self.certificates.as_ref()) {
            return Some(rule);
        }
        let mut offers = self.listeners.iter().map(|(offer, _)| offer);
        let proxied =
            offers.find(|offer| offer.proxy_protocol && !self.can(capability::PROXY_PROTOCOL))?;
        Some(format!(
            "listener {} is for the PROXY protocol, which it does not speak: its hello lacks the capability `{}`",
            proxied.name,
            capability::PROXY_PROTOCOL,
        ))
    }

    /// Why it can't serve with these certificates, if that is so: it would let every client
    /// in.
    pub(super) fn cannot_ask(&self, certificates: Option<&tls::Copy>) -> Option<String> {
        let asking = certificates?.asking.as_ref()?;
        (!self.can(capability::CLIENT_CERTIFICATES)).then(|| {
            format!(
                "listener {asking} asks clients for their certificates, which it does not: its hello lacks the capability `{}`",
                capability::CLIENT_CERTIFICATES,
            )
        })
    }

    pub(super) fn queue_welcome(
        &mut self,
        welcome: Welcome,
        scoreboard: Option<(Unsealed, OwnedFd)>,
        requests: Option<OfferedTable>,
    ) -> Result<(), String> {
        let access_log = self
            .access_log
            .clone()
            .filter(|_| self.can(capability::ACCESS_LOG));
        let keeps_output = self.can(capability::OUTPUT);
        let inherited = match self.can(capability::INHERIT) {
            true => std::mem::take(&mut self.inherited),
            false => Inherited::default(),
        };
        let Some(channel) = &mut self.channel else {
            return Ok(());
        };
        let channel = channel.get_mut();
        let text = |error: ChannelError| error.to_string();
        channel.queue(&ToWorker::Welcome(welcome)).map_err(text)?;
        if let Some((unsealed, fd)) = scoreboard {
            let offer = ToWorker::Scoreboard(ScoreboardOffer {
                abi: scoreboard::ABI,
                bytes: scoreboard::BYTES,
                fds: 1,
            });
            inherited.queue(channel, &offer, fd).map_err(text)?;
            self.unsealed = Some(unsealed);
        }
        if let Some(requests) = requests {
            let offer = ToWorker::Requests(requests.offer);
            inherited
                .queue(channel, &offer, requests.theirs)
                .map_err(text)?;
            self.vitals.borrow_mut().requests = Some(requests.table);
        }
        if let Some(tls::Copy { memory, bytes, .. }) = self.certificates.take() {
            let id = self.conversation.order();
            let offer = ToWorker::Tls(TlsOffer { id, bytes, fds: 1 });
            inherited.queue(channel, &offer, memory).map_err(text)?;
            let keys = std::mem::take(&mut self.tickets);
            channel.queue(&ToWorker::Tickets { keys }).map_err(text)?;
        }
        if let Some(access_log) = access_log {
            let id = self.conversation.order();
            let (offer, fd) = access_log.offer(id).map_err(|error| error.to_string())?;
            let offer = ToWorker::AccessLog(offer);
            inherited.queue(channel, &offer, fd).map_err(text)?;
        }
        if keeps_output {
            for (offer, fd) in self.outputs.drain(..) {
                let offer = ToWorker::Output(offer);
                inherited.queue(channel, &offer, fd).map_err(text)?;
            }
        }
        self.outputs = Vec::new();
        for (offer, fd) in self.listeners.drain(..) {
            let offer = ToWorker::Listener(offer);
            inherited.queue(channel, &offer, fd).map_err(text)?;
        }
        self.queue_behind()?;
        let Some(channel) = &mut self.channel else {
            return Ok(());
        };
        channel.get_mut().queue(&ToWorker::Start).map_err(text)
    }

    /// Hands keys of session tickets over, once the worker has said `hello`.
    pub(super) fn take_tickets(&mut self, keys: Vec<TicketKey>) {
        if self.welcome.is_some() {
            self.tickets = keys;
        } else if !keys.is_empty() && self.can(capability::TLS) {
            // One that does not take them makes tickets with those it has.
            let _ = self.send(&ToWorker::Tickets { keys });
        }
    }

    /// Has a worker that came back write to the log that was opened anew.
    pub(super) fn offer_log(&mut self) {
        if self.has_no_log_to_change() {
            return;
        }
        let id = self.conversation.order();
        match self.log_offer(id) {
            // Not sent, it goes on with the one it has.
            Ok((offer, fd)) => drop(self.send_with(&offer, Some(fd))),
            Err(error) => {
                warn!(slot = %self.slot, pid = self.pid, "it keeps its access log: {error}");
            }
        }
    }

    /// Whether there is no log, it knows none, or it will be told of it yet.
    pub(super) fn has_no_log_to_change(&self) -> bool {
        self.access_log.is_none() || self.welcome.is_some() || !self.can(capability::ACCESS_LOG)
    }

    pub(super) fn log_offer(&self, id: u64) -> io::Result<(ToWorker, OwnedFd)> {
        let access_log = self.access_log.as_ref();
        let (offer, fd) = access_log.ok_or(io::ErrorKind::NotFound)?.offer(id)?;
        Ok((ToWorker::AccessLog(offer), fd))
    }

    pub(super) async fn health(&mut self, mut health: Health, now: Instant) {
        // A worker that counts on a scoreboard counts there alone.
        if let Some(counted) = self.vitals.borrow().counted() {
            health.http = Some(Box::new(counted.http));
        }
        let event = Event::Health {
            worker: self.worker,
            requests: health.http.as_ref().map_or(0, |http| http.total()),
            in_flight: health.in_flight,
        };
        self.metrics
            .health(self.worker.incarnation, &health, SystemTime::now());
        self.vitals.borrow_mut().health = Some(health);
        // A worker that talks but doesn't listen hangs as well: its reports
        // stop counting until it answers.
        match self.conversation.unanswered(now) {
            Some(silence) if silence > self.heartbeat_timeout / 2 => {
                self.warn_deaf(silence);
                self.withheld = Some(event);
                return;
            }
            Some(_) => {}
            None => {
                self.deaf = false;
                self.ping(now);
            }
        }
        self.tell(event).await;
    }

    /// It listens. A report that did not count for want of this answer counts now: one
    /// that was kept from running, or whose supervisor was, may be late with both.
    async fn answered(&mut self, after: Duration) {
        self.metrics.round_trip(after);
        if let Some(report) = self.withheld.take() {
            self.tell(report).await;
        }
    }

    /// Asks whether it listens: often enough to know within the heartbeat's
    /// deadline, and not with each report, which would double an idle channel's
    /// traffic.
    pub(super) fn ping(&mut self, now: Instant) {
        if self
            .pinged
            .is_none_or(|last| now - last >= self.heartbeat_timeout / 3)
        {
            self.pinged = Some(now);
            self.ties.rest.asked();
            let id = self.conversation.ping(now);
            // A full queue is noticed by the pings that wait in it.
            let _ = self.send(&ToWorker::Ping { id });
        }
    }

    /// Says so once per silence: its reports go on.
    pub(super) fn warn_deaf(&mut self, silence: Duration) {
        if !std::mem::replace(&mut self.deaf, true) {
            let (slot, pid) = (&self.slot, self.pid);
            warn!(%slot, pid, "it reports but has answered no ping for {silence:.1?}");
        }
    }

    pub(super) async fn misbehaved(&mut self, rule: String) {
        if self.channel.is_none() {
            return;
        }
        warn!(slot = %self.slot, pid = self.pid, "channel closed: {rule}");
        self.publish();
        self.channel = None;
        self.closed = None;
        self.metrics.channel_up(self.worker.incarnation, false);
        self.tell(Event::Misbehaved {
            worker: self.worker,
            rule,
        })
        .await;
    }

    pub(super) fn close(&mut self, now: Instant) {
        self.publish();
        self.channel = None;
        self.closed = Some(now + AFTER_CLOSE);
        self.closing = Some(Closing::begin(self.pid, now));
        self.metrics.channel_up(self.worker.incarnation, false);
    }

    /// Brings status and metrics up to date with the channel's own counting.
    pub(super) fn publish(&self) {
        if let Some(channel) = &self.channel {
            let channel = channel.get_ref();
            self.metrics
                .channel_counters(self.worker.incarnation, channel.counters());
            self.metrics
                .send_queue(self.worker.incarnation, channel.queued_bytes() as u64);
        }
    }
}

pub(super) fn rescue(id: u64, offer: ListenerOffer) -> ToWorker {
    ToWorker::Rescue(Rescue {
        id,
        name: offer.name,
        address: offer.address,
        tls: offer.tls,
        proxy_protocol: offer.proxy_protocol,
        fds: offer.fds,
    })
}
