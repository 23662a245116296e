//! Forwards requests to pools of the same supervisor, whose workers are programs that
//! speak HTTP and nothing else.
//!
//! `route` says which pool answers for a path. `pool` knows its workers and gives a
//! request its place at one of them, with `counts` for what others have there;
//! `connection` leads there, and an `exchange` is one request on one connection. `head`
//! makes the heads that go on in either direction, `body` passes the bodies through, a
//! `tunnel` is what is left of HTTP after a change of protocol. `failure` is what a client
//! is told where no worker answers, `metrics` counts.

mod body;
mod connection;
mod counts;
mod exchange;
mod failure;
mod head;
mod metrics;
mod pool;
mod route;
mod tunnel;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{Either, Full};
use hyper::body::{Body as _, Incoming};
use hyper::ext::ReasonPhrase;
use hyper::header::HeaderName;
use hyper::http::request::Parts;
use hyper::upgrade::OnUpgrade;
use hyper::{Request, Response, StatusCode, Version};
use serde_json::Value;

use body::{Progress, Upload};
use exchange::{Exchange, Failed, Outcome};
use failure::Failure;
use head::{Client, Manner};
use metrics::Series;
use pool::Pool;
use prefork_worker::front::{
    Counter, Forwards, PlacesError, PlacesOffer, Row, UpstreamCountsError, UpstreamCountsOffer,
    Upstreams, Vacate, Vacated,
};
use prefork_worker::{Context, Peer, Timer};

pub(crate) use body::Forwarded;
pub(crate) use metrics::Metrics;
pub(crate) use route::Routes;

/// The header in which a request's id goes on.
const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// How soon a worker that could not be reached is tried again where there is no other.
const AGAIN: Duration = Duration::from_millis(10);

/// A worker's response, or one of the front's own.
pub(crate) type Body = Either<Full<Bytes>, Forwarded>;

/// The pools behind, as far as the supervisor has told of them.
#[derive(Debug)]
pub(crate) struct Pools {
    known: RefCell<BTreeMap<String, Rc<Pool>>>,
    metrics: Rc<Metrics>,
}

impl Pools {
    pub(crate) fn new(metrics: Rc<Metrics>) -> Rc<Self> {
        Rc::new(Self {
            known: RefCell::default(),
            metrics,
        })
    }

    fn get(&self, name: &str) -> Rc<Pool> {
        let mut known = self.known.borrow_mut();
        let pool = known
            .entry(name.to_owned())
            .or_insert_with(|| Rc::new(Pool::new(name)));
        Rc::clone(pool)
    }
}

impl Forwards for Pools {
    fn count_in(&self, offer: &PlacesOffer, memory: OwnedFd) -> Result<(), PlacesError> {
        self.get(&offer.pool).share(Row::map(offer, memory)?);
        Ok(())
    }

    fn count_answers_in(
        &self,
        offer: &UpstreamCountsOffer,
        memory: OwnedFd,
    ) -> Result<(), UpstreamCountsError> {
        let counter = Counter::map(offer, memory)?;
        self.get(&offer.pool).show_answers(counter);
        Ok(())
    }

    fn learn(&self, table: Upstreams) {
        self.get(&table.pool).learn(table);
    }

    fn vacate(&self, whom: &Vacate) -> Vacated {
        let departing = self.get(&whom.pool).departing(whom);
        if let Some(member) = &departing {
            member.leave();
        }
        Box::pin(async move {
            if let Some(member) = departing {
                member.emptied().await;
            }
            Ok(Value::Null)
        })
    }
}

/// How long a request may wait, and for what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Waits {
    /// For a worker that can take it.
    pub(crate) queue_timeout: Duration,
    /// With how many others.
    pub(crate) max_queue: usize,
    /// For the worker's answer to begin.
    pub(crate) upstream_timeout: Duration,
}

impl Default for Waits {
    fn default() -> Self {
        Self {
            queue_timeout: Duration::from_secs(10),
            max_queue: 1000,
            upstream_timeout: Duration::from_secs(50),
        }
    }
}

/// Where requests go, and how long they may take.
#[derive(Debug)]
pub(crate) struct Front {
    routes: Routes,
    waits: Waits,
    pools: Rc<Pools>,
    context: Context,
}

/// How long one request may take at one worker.
struct Patience {
    timer: &'static Timer,
    upstream_timeout: Duration,
}

impl Front {
    pub(crate) fn new(context: &Context, routes: Routes, waits: Waits, pools: Rc<Pools>) -> Self {
        Self {
            routes,
            waits,
            pools,
            context: context.clone(),
        }
    }

    /// The pool that answers for a path.
    pub(crate) fn pool(&self, path: &str) -> Option<Rc<Pool>> {
        self.routes.pool(path).map(|name| self.pools.get(name))
    }

    /// What is served, for people.
    pub(crate) fn pools(&self) -> String {
        self.routes.pools().collect::<Vec<_>>().join(", ")
    }

    /// Has a pool answer.
    pub(crate) async fn forward(
        &self,
        pool: Rc<Pool>,
        mut request: Request<Incoming>,
    ) -> Response<Body> {
        if head::expects_the_unknown(request.headers()) {
            return plain(StatusCode::EXPECTATION_FAILED, "417: that is not known\n");
        }
        let upgrade = request.extensions_mut().remove::<OnUpgrade>();
        let (head, body) = request.into_parts();
        let mut job = Job {
            client: self.client(&head),
            series: self.pools.metrics.of(pool.name()),
            progress: Progress::new(self.context.timer()),
            has_body: !body.is_end_stream(),
            body: Some(body),
            front: self,
            pool,
            head,
            upgrade,
        };
        match job.run().await {
            Ok(response) => response,
            Err(_) if job.progress.has_failed() => {
                plain(StatusCode::BAD_REQUEST, "400: the request broke off\n")
            }
            Err(why) => {
                job.series.fails(why);
                why.answer(&job.head.headers, &job.client.id)
                    .map(Either::Left)
            }
        }
    }

    fn client(&self, head: &Parts) -> Client {
        let peer = head.extensions.get::<Peer>();
        Client {
            address: peer.and_then(Peer::address).map(|address| address.ip()),
            is_secure: peer.is_some_and(Peer::is_secure),
            certificate: peer
                .and_then(Peer::tls)
                .and_then(|tls| tls.client_certificate.clone()),
            id: self.context.request_id(&head.headers),
        }
    }
}

/// A request on its way to whoever answers it.
struct Job<'a> {
    front: &'a Front,
    pool: Rc<Pool>,
    head: Parts,
    client: Client,
    series: Series,
    progress: Rc<Progress>,
    has_body: bool,
    /// Until it is sent.
    body: Option<Incoming>,
    upgrade: Option<OnUpgrade>,
}

/// What is left of a try.
enum Tried {
    Answered(Response<Body>),
    /// Nothing was sent; whether a connection was there.
    Unsent {
        connected: bool,
    },
    Failed(Failed),
}

impl Job<'_> {
    async fn run(&mut self) -> Result<Response<Body>, Failure> {
        let since = Instant::now();
        let timer = self.front.context.timer();
        let patience = pool::Patience {
            timer,
            until: timer.now() + self.front.waits.queue_timeout,
            max_queue: self.front.waits.max_queue,
        };
        // Those that had it and did not answer, and those that were not to be reached.
        let (mut avoided, mut failed) = (Vec::new(), 0);
        let mut lost = None;
        let (mut is_fresh, mut is_again) = (false, false);
        loop {
            if avoided.len() > failed && !self.pool.has_other(&avoided) {
                // One that has no room for a connection may have it soon, and one that
                // has ended may have a successor.
                timer.sleep_until(timer.now() + AGAIN).await;
                avoided.truncate(failed);
                if timer.now() >= patience.until {
                    return Err(lost.unwrap_or(Failure::Connect));
                }
            }
            let place = match self.pool.place(&avoided, patience).await {
                Ok(place) => place,
                // Why the first one did not answer says more than that there is no other.
                Err(why) => return Err(lost.unwrap_or(why)),
            };
            let member = Rc::clone(&place.member);
            let measured = self.series.begins(member.slot, since);
            let exchange = Exchange::begin(place, is_fresh, measured, timer).await;
            let tried = match exchange {
                Ok(exchange) => self.try_at(exchange).await,
                Err(_) => Tried::Unsent { connected: false },
            };
            match tried {
                Tried::Answered(response) => return Ok(response),
                // A connection that was just being closed; a new one is not.
                Tried::Unsent { connected: true } if !is_fresh => is_fresh = true,
                Tried::Unsent { .. } => {
                    lost.get_or_insert(Failure::Connect);
                    avoided.push(member);
                }
                Tried::Failed(end) if self.may_go_on(&end) && !is_again => {
                    is_again = true;
                    lost = Some(end.why);
                    avoided.insert(failed, member);
                    failed += 1;
                }
                Tried::Failed(end) => return Err(end.why),
            }
            if lost.is_some() {
                self.series.retries();
            }
        }
    }

    /// Whether another worker may be asked what the first has left unanswered.
    fn may_go_on(&self, failed: &Failed) -> bool {
        let is_again = head::is_safe(&self.head.method) && !self.has_body;
        is_again && failed.is_silent && failed.why == Failure::Closed
    }

    async fn try_at(&mut self, mut exchange: Box<Exchange>) -> Tried {
        let manner = Manner {
            closes: exchange.is_last(),
            upgrades: self.upgrade.is_some(),
        };
        let upload = Upload::new(self.body.take(), &self.progress);
        let request = head::request(&self.head, &self.client, manner).map(|()| upload);
        let patience = Patience {
            timer: self.front.context.timer(),
            upstream_timeout: self.front.waits.upstream_timeout,
        };
        match exchange.ask(request, &self.progress, &patience).await {
            Outcome::Answered(response) => self.answer(response, exchange),
            Outcome::Unsent(request) => {
                self.body = request.into_body().into_inner();
                Tried::Unsent { connected: true }
            }
            Outcome::Failed(failed) => {
                if !self.progress.has_failed() {
                    exchange.lacks_answer();
                }
                Tried::Failed(failed)
            }
        }
    }

    fn answer(&mut self, mut response: Response<Incoming>, exchange: Box<Exchange>) -> Tried {
        let status = response.status();
        let is_upgrade = status == StatusCode::SWITCHING_PROTOCOLS;
        let protocol = response.headers().get(hyper::header::UPGRADE);
        let is_asked = head::was_asked_for(protocol, &self.head.headers);
        let upgrade = match is_upgrade {
            true => self.upgrade.take().filter(|_| is_asked),
            false => None,
        };
        if !head::is_sound(status, response.headers()) || is_upgrade != upgrade.is_some() {
            exchange.lacks_answer();
            return Tried::Failed(Failed {
                why: Failure::BadResponse,
                is_silent: false,
            });
        }
        exchange.answers(status);
        // The client is spoken to in the front's own version (RFC 9112, 2.3), and a worker of
        // HTTP/1.0 doesn't end the client's connection with each answer.
        let version = std::mem::replace(response.version_mut(), Version::HTTP_11);
        head::response(response.headers_mut(), version, is_upgrade);
        if let Some(client) = upgrade {
            tunnel::begin(client, &mut response, exchange);
            return Tried::Answered(response.map(|_| Either::Left(Full::default())));
        }
        // All else in it is about the connection to the worker.
        let extensions = std::mem::take(response.extensions_mut());
        if let Some(reason) = extensions.get::<ReasonPhrase>() {
            response.extensions_mut().insert(reason.clone());
        }
        let forward = |body| Either::Right(Forwarded::new(body, exchange));
        Tried::Answered(response.map(forward))
    }
}

fn plain(status: StatusCode, text: &'static str) -> Response<Body> {
    let mut response = Response::new(Either::Left(Full::new(Bytes::from_static(text.as_bytes()))));
    *response.status_mut() = status;
    response
}
