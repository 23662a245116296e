//! One request of one peer: from its head to its answer.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use hyper::header::{CONNECTION, HeaderValue};
use hyper::{Request, StatusCode};
use prefork_api::ErrorCode;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::answer::{self, Answer, Rejection, TEXT};
use super::descent::Descent;
use super::job::Job;
use super::logs;
use super::route::{Order, Query, Route, route};
use super::{ask, compressed, events, wanted};
use crate::handle::{self, Handle, Peer};
use crate::kernel::fd_reserve::Reserve;
use crate::readiness;

/// The most that a body may hold, in bytes: a channel's line holds no more.
const BODY_LIMIT: usize = 64 * 1024;

/// How much of a body that is too long is read and thrown away before it is
/// refused, so that a client which writes first and reads then gets the answer.
const OVERFLOW_LIMIT: usize = 1024 * 1024;

/// How long a peer may take to send a request's body.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// A connection's peer, and the reactor it wants to reach.
pub(super) struct Visit {
    pub(super) handle: Handle,
    pub(super) peer: Peer,
    pub(super) descent: Descent,
    pub(super) admitted: bool,
    /// Places of those who follow events or the log.
    pub(super) followers: Arc<Semaphore>,
    pub(super) may_upgrade: bool,
    pub(super) reserve: Rc<Reserve>,
}

impl Visit {
    /// The answer to a request, whatever it is.
    pub(super) async fn answer(&self, request: Request<Incoming>) -> Answer {
        let route = route(request.method(), request.uri().path());
        match self.obstacle(&route).await {
            Ok(None) => {}
            Ok(Some(why)) => return self.refuse(&route, why).await,
            Err(rejection) => return rejection.into(),
        }
        let found = match route {
            Ok(Route::Query(query)) => self.query(query, request).await,
            Ok(Route::Order(order)) => self.order(order, request.into_body()).await,
            Err(rejection) => Err(rejection),
        };
        found.unwrap_or_else(Answer::from)
    }

    /// Why this peer may not, if it may not.
    async fn obstacle(
        &self,
        route: &Result<Route, Rejection>,
    ) -> Result<Option<String>, Rejection> {
        let uid = self.peer.uid;
        if !self.admitted {
            return Ok(Some(format!(
                "uid {uid} may not: the control socket is for root, the supervisor's user \
                 and the socket's group where control_mode grants it"
            )));
        }
        let is_public = matches!(route, Ok(Route::Query(query)) if query.is_public());
        if !is_public {
            // Asked each time: a process may be a worker's only by now.
            let workers = ask::workers(&self.handle).await?;
            if self.descent.is_of(&workers, &self.reserve) {
                return Ok(Some(format!(
                    "process {} may not: it is a worker, was started by one, or had gone before \
                     it could be seen; ask from outside, or at the admin address",
                    self.peer.pid
                )));
            }
        }
        let is_upgrade = matches!(route, Ok(Route::Order(Order::Upgrade)));
        Ok((is_upgrade && !self.may_upgrade).then(|| {
            format!(
                "uid {uid} may not upgrade: what program runs is for root and the supervisor's \
                 user to say, and not for the socket's group"
            )
        }))
    }

    async fn query<B>(&self, query: Query, request: Request<B>) -> Result<Answer, Rejection> {
        let handle = &self.handle;
        let answer = match query {
            Query::Status => answer::json(StatusCode::OK, &ask::status(handle).await?),
            Query::Traffic => answer::json(StatusCode::OK, &ask::traffic(handle).await?),
            Query::Channels => answer::json(StatusCode::OK, &ask::channels(handle).await?),
            Query::Describe { pool, slot } => {
                answer::json(StatusCode::OK, &ask::describe(handle, pool, slot).await?)
            }
            Query::Requests => {
                let parameters = request.uri().query().unwrap_or_default();
                let wanted = wanted::parse(parameters)?;
                answer::json(StatusCode::OK, &ask::requests(handle, wanted).await?)
            }
            Query::Metrics => {
                compressed::exposition(ask::metrics(handle).await?, request.headers())
            }
            Query::Events => {
                let parameters = request.uri().query().unwrap_or_default();
                let wanted = events::Wanted::parse(parameters)?;
                events::answer(handle, wanted, &self.followers).await?
            }
            Query::Logs => {
                let parameters = request.uri().query().unwrap_or_default();
                let wanted = logs::Wanted::parse(parameters)?;
                logs::answer(handle, wanted, &self.followers).await?
            }
            Query::Live => live(),
            Query::Ready => ready(handle).await?,
        };
        Ok(answer)
    }

    /// Carries out an order. Every one is audited, and counted where it fails.
    async fn order(&self, order: Order, body: Incoming) -> Result<Answer, Rejection> {
        let name = order.name();
        let target = order.target();
        let job = match read(body).await {
            Ok(body) => Job::parse(order, &body),
            Err(rejection) => Err(rejection),
        };
        let detail = match &job {
            Ok(job) => job.detail(),
            Err(_) => Some("(invalid)".to_owned()),
        };
        self.audit(name, target, detail, true).await;
        let job = match job {
            Ok(job) => job,
            Err(rejection) => {
                self.count_failure(name).await;
                return Err(rejection);
            }
        };
        job.run(&self.handle, name).await
    }

    /// Tells a peer that it may not, and why.
    async fn refuse(&self, route: &Result<Route, Rejection>, why: String) -> Answer {
        if let Ok(Route::Order(order)) = route {
            self.audit(order.name(), order.target(), None, false).await;
            self.count_failure(order.name()).await;
        }
        let rejection = Rejection::new(ErrorCode::Permission, why);
        let mut answer = Answer::from(rejection);
        answer
            .headers_mut()
            .insert(CONNECTION, HeaderValue::from_static("close"));
        answer
    }

    async fn audit(
        &self,
        command: &'static str,
        target: Option<String>,
        more: Option<String>,
        allowed: bool,
    ) {
        let words: Vec<String> = [Some(command.to_owned()), target, more]
            .into_iter()
            .flatten()
            .collect();
        // A supervisor that ends keeps no more books.
        let _ = self
            .handle
            .0
            .send(handle::Request::Audit {
                peer: self.peer,
                command,
                detail: words.join(" "),
                allowed,
            })
            .await;
    }

    async fn count_failure(&self, command: &'static str) {
        let _ = self
            .handle
            .0
            .send(handle::Request::Failed { command })
            .await;
    }
}

/// The answer to a liveness probe: that there is one.
pub(crate) fn live() -> Answer {
    answer::whole(StatusCode::OK, TEXT, "ok\n")
}

/// The answer to a readiness probe: 200, also where it is degraded, or 503; with
/// what is missing.
pub(crate) async fn ready(handle: &Handle) -> Result<Answer, Rejection> {
    let status = ask::status(handle).await?;
    let code = match readiness::serves(&status) {
        true => StatusCode::OK,
        false => StatusCode::SERVICE_UNAVAILABLE,
    };
    let text = format!("{}\n", readiness::sentence(&status));
    Ok(answer::whole(code, TEXT, text))
}

/// Reads a body, within its bounds in bytes and time.
async fn read(body: Incoming) -> Result<Bytes, Rejection> {
    timeout(BODY_TIMEOUT, collect(body))
        .await
        .unwrap_or_else(|_| {
            Err(Rejection::with_status(
                StatusCode::REQUEST_TIMEOUT,
                ErrorCode::TimedOut,
                format!("the body did not come within {} s", BODY_TIMEOUT.as_secs()),
            ))
        })
}

async fn collect<B>(mut body: B) -> Result<Bytes, Rejection>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: std::fmt::Display,
{
    let mut kept = Vec::new();
    let mut length = 0;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| {
            Rejection::new(ErrorCode::Usage, format!("the body broke off: {error}"))
        })?;
        let Some(data) = frame.data_ref() else {
            continue;
        };
        length += data.len();
        if length <= BODY_LIMIT {
            kept.extend_from_slice(data);
        } else if length > OVERFLOW_LIMIT {
            break;
        }
    }
    if length > BODY_LIMIT {
        return Err(Rejection::with_status(
            StatusCode::PAYLOAD_TOO_LARGE,
            ErrorCode::Usage,
            format!("a body may hold {BODY_LIMIT} bytes"),
        ));
    }
    Ok(kept.into())
}
