//! What the supervisor asks of a ready worker, and how it is done.

use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use prefork_proto::message::{
    AccessLogOffer, PassageOffer, Reply, Rescue, TlsOffer, ToSupervisor, ToWorker,
};
use serde_json::{Value, json};

use crate::accept;
use crate::accept::listener::Listener;
use crate::access_log;
use crate::app::handlers::{self, LocalFuture, Refused, Reload, Tell};
use crate::error::WorkerError;
use crate::idle::passage::Passage;
use crate::runtime::task;

use super::{Course, Leave, Session};

impl Session {
    /// Does what the supervisor asks for.
    pub(super) fn obey(
        &mut self,
        message: ToWorker,
        fd: Option<OwnedFd>,
        course: &mut Course,
    ) -> Option<Leave> {
        let id = match message {
            ToWorker::Tell { id, command, args } => {
                let context = self.context.clone();
                let tell = Tell {
                    context,
                    command,
                    args,
                };
                let work = self.application.tell(tell);
                begin(id, work, course);
                return None;
            }
            ToWorker::Reload { id, app } => {
                let context = self.context.clone();
                let work = self.application.reload(Reload { context, app });
                begin(id, work, course);
                return None;
            }
            ToWorker::Tls(offer) => {
                begin(offer.id, self.take_certificates(&offer, fd), course);
                return None;
            }
            ToWorker::Tickets { keys } => {
                if let Err(error) = self.tls.set_tickets(&keys) {
                    self.remark(&format!("the ticket keys stay as they are: {error}"));
                }
                return None;
            }
            ToWorker::AccessLog(offer) => {
                begin(offer.id, self.take_log(&offer, fd), course);
                return None;
            }
            ToWorker::Places(offer) => {
                if let Err(error) = self.application.count_in(&offer, fd) {
                    self.remark(&format!("requests are counted as before: {error}"));
                }
                return None;
            }
            ToWorker::UpstreamCounts(offer) => {
                if let Err(error) = self.application.count_answers_in(&offer, fd) {
                    self.remark(&format!("answers are counted as before: {error}"));
                }
                return None;
            }
            ToWorker::Upstreams(table) => {
                let id = table.id;
                self.application.learn(table);
                id
            }
            ToWorker::Vacate(whom) => {
                begin(whom.id, self.application.vacate(&whom), course);
                return None;
            }
            ToWorker::Ping { id } => id,
            ToWorker::Pause { id } => {
                self.gate.shut();
                course.settling.push(id);
                return None;
            }
            ToWorker::Resume { id } => {
                // A drain is not taken back.
                if course.deadline.is_some() {
                    let reply = Reply::failed(id, "draining", "this worker is on its way out");
                    self.say(&ToSupervisor::Reply(reply), course);
                    return None;
                }
                self.gate.open();
                id
            }
            ToWorker::Passage(offer) => {
                if let Err(problem) = self.take_passage(offer, fd) {
                    self.remark(&format!("connections are not handed on: {problem}"));
                }
                return None;
            }
            ToWorker::Drain {
                id,
                deadline_ms,
                sweep,
                pass_on,
            } => {
                self.serving.handoffs.leave_by(pass_on);
                self.drain(Duration::from_millis(deadline_ms), sweep, course);
                course.settling.push(id);
                return None;
            }
            ToWorker::Stop { id } => {
                let reply = Reply::done(id, Value::Null);
                self.say(&ToSupervisor::Reply(reply), course);
                return Some(Leave::Cut(self.left("the supervisor's `stop`")));
            }
            ToWorker::Rescue(rescue) => {
                let id = rescue.id;
                let work = self.rescue(rescue, fd);
                begin(id, work, course);
                return None;
            }
            message @ (ToWorker::Welcome(_)
            | ToWorker::Refused { .. }
            | ToWorker::Scoreboard(_)
            | ToWorker::Requests(_)
            | ToWorker::Listener(_)
            | ToWorker::Output(_)
            | ToWorker::Start) => {
                let error = WorkerError::out_of_order("no more of the handshake", &message);
                return Some(Leave::Broken(error.to_string()));
            }
        };
        self.say(&ToSupervisor::Reply(Reply::done(id, Value::Null)), course);
        None
    }

    /// Serves what waits in the queue of another worker's listener.
    fn rescue(&self, rescue: Rescue, fd: Option<OwnedFd>) -> LocalFuture<handlers::Answer> {
        let endpoint = self.tls.endpoint(&rescue.name).filter(|_| rescue.tls);
        let queue = match fd {
            _ if rescue.tls && endpoint.is_none() => {
                Err("it is for TLS, and this worker has no certificate for it".to_owned())
            }
            None => Err("its descriptor did not arrive".to_owned()),
            Some(fd) => {
                let Rescue {
                    name,
                    address,
                    proxy_protocol,
                    ..
                } = rescue;
                Listener::from_fd(name, address, fd, endpoint, proxy_protocol)
                    .map_err(|error| error.to_string())
            }
        };
        let queue = queue.map(|listener| {
            let serve = Rc::clone(&self.serve);
            accept::rescue(listener, &self.gate, self.serving, serve)
        });
        Box::pin(async {
            match queue {
                Ok(queue) => Ok(json!({ "accepted": queue.await })),
                Err(problem) => Err(Refused::new("unusable_listener", problem)),
            }
        })
    }

    /// Takes the connections that other workers of a listener hand on, and hands on its own
    /// in the same way when it leaves.
    fn take_passage(&self, offer: PassageOffer, fd: Option<OwnedFd>) -> Result<(), String> {
        let fd = fd.ok_or("a descriptor did not arrive")?;
        let passage = Arc::new(Passage::new(offer, fd)?);
        self.serving.handoffs.adopt(&passage);
        let (gate, serve) = (Rc::clone(&self.gate), Rc::clone(&self.serve));
        task::spawn(accept::accept(passage, gate, self.serving, serve));
        Ok(())
    }

    /// Has new connections do their handshakes with other certificates. Reading
    /// them is not done here, where requests wait meanwhile.
    fn take_certificates(
        &self,
        offer: &TlsOffer,
        memory: Option<OwnedFd>,
    ) -> LocalFuture<handlers::Answer> {
        let tls = self.tls.clone();
        let Some(memory) = memory else {
            let missing = Refused::new("unusable_tls", "its descriptor did not arrive");
            return Box::pin(std::future::ready(Err(missing)));
        };
        let preparation = tls.preparation(offer, memory);
        Box::pin(async move {
            let refused = |problem: String| Refused::new("unusable_tls", problem);
            let prepared = tokio::task::spawn_blocking(preparation).await;
            let prepared = prepared.map_err(|error| refused(error.to_string()))?;
            tls.adopt(prepared.map_err(|error| refused(error.to_string()))?);
            Ok(Value::Null)
        })
    }

    /// Logs requests to another file from now on.
    fn take_log(
        &self,
        offer: &AccessLogOffer,
        file: Option<OwnedFd>,
    ) -> LocalFuture<handlers::Answer> {
        let installed = match file {
            Some(file) => self.serving.access_log.install(offer.format, file.into()),
            None => Err(std::io::Error::other("its descriptor did not arrive")),
        };
        Box::pin(async move {
            let refused =
                |error: std::io::Error| Refused::new("unusable_access_log", error.to_string());
            access_log::switched(installed.map_err(refused)?).await;
            Ok(Value::Null)
        })
    }
}

/// Runs a handler beside the loop; its reply comes back into it.
fn begin(id: u64, work: LocalFuture<handlers::Answer>, course: &Course) {
    let replies = course.replies.clone();
    task::spawn(async move {
        // Fails only where the worker has left meanwhile.
        let _ = replies.send(handlers::answer(id, work).await);
    });
}
