//! A request from its head to the end of its response.

use std::rc::Rc;
use std::task::Waker;

use hyper::body::Incoming;
use hyper::header::HeaderMap;
use hyper::upgrade::OnUpgrade;
use hyper::{Method, Request, StatusCode, Uri, Version};
use prefork_proto::request_table::RequestStage;
use prefork_proto::request_table::{self, Arrived, Client, Place, Writer};

use crate::access_log::Entry;
use crate::connection::peer::Peer;
use crate::limits::concurrency::Turn;
use crate::request::connection_state::Requests;
use crate::request::deadlines::BodyEnd;
use crate::request::head::Head;
use crate::runtime::moment::Moment;
use crate::transport::http2::bodies::Uploads;

/// Fewer unexplained bytes than this are spaces that a client put into its
/// headers; as many or more are the beginning of another request.
const SHORTEST_REQUEST: u64 = 16;

/// Where a request ends of which that can't be told.
const UNKNOWN: u64 = u64::MAX;

/// A request from its head to the end of its response's body. It moves with the
/// request and with the response, so it is kept small.
pub(crate) struct InFlight {
    pub(crate) requests: Rc<Requests>,
    /// Who it comes from, where its connection does not say that.
    told: Option<Box<Peer>>,
    /// Where in the connection's input it ends, or [`UNKNOWN`].
    end: u64,
    /// What is logged of it; none where nothing is.
    pub(crate) entry: Option<Box<Entry>>,
    /// Where it is noted for others to see; none where there is no room for it.
    place: Option<Place>,
    /// Its right to be served, where there is not one for all.
    pub(crate) turn: Option<Turn>,
    /// The stream on which its body comes, where there are streams.
    pub(crate) upload: Option<u32>,
    /// Its key where it is not answered at once.
    unanswered: Option<usize>,
    pub(crate) asks: Asks,
    /// HTTP/2 knows neither `Connection` nor a change of protocol.
    pub(crate) is_http2: bool,
    has_body: bool,
    /// Whether its client waits for a 100 (Continue) that is for this library to
    /// send. Over HTTP/1, hyper sends it.
    pub(crate) expects_continue: bool,
    /// Whether more of its response was given than was asked for since.
    offers: bool,
    /// Whether what becomes of it is noted in a table or logged: one look for both.
    is_watched: bool,
}

/// What a request asks for, as far as that decides what its response may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asks {
    Content,
    /// The head that a GET would have, and nothing after it.
    Head,
    /// A tunnel, which begins where a success response ends.
    Tunnel,
    /// Another protocol, if the server likes, or content.
    Upgrade,
}

impl Asks {
    fn of(request: &Request<Incoming>) -> Self {
        match *request.method() {
            Method::HEAD => Self::Head,
            Method::CONNECT => Self::Tunnel,
            // hyper has read `Upgrade`, and puts this where it can be obeyed.
            _ if request.extensions().get::<OnUpgrade>().is_some() => Self::Upgrade,
            _ => Self::Content,
        }
    }
}

impl InFlight {
    pub(crate) fn begin(
        requests: Rc<Requests>,
        told: Option<Box<Peer>>,
        request: &Request<Incoming>,
        head: &Head,
        began: Moment,
    ) -> Self {
        requests.traffic.request_began(head.has_body);
        requests.serving().tally.request_began();
        requests.in_flight.set(requests.in_flight.get() + 1);
        let is_watched = requests.table().is_some();
        let place = note(&requests, told.as_deref(), request, began);
        let is_http2 = request.version() == Version::HTTP_2;
        let mut end = UNKNOWN;
        if head.body.is_some() || !is_http2 {
            let head_end = requests.consumed() + head.length(request);
            match (head.body, requests.limits().max_body_size) {
                (Some(body), _) => end = head_end + body,
                (None, Some(most)) => requests.traffic.limit_body(head_end.saturating_add(most)),
                (None, None) => {}
            }
        }
        Self {
            requests,
            told,
            end,
            entry: None,
            place,
            turn: None,
            upload: None,
            unanswered: None,
            asks: Asks::of(request),
            is_http2,
            has_body: head.has_body,
            expects_continue: false,
            offers: false,
            is_watched,
        }
    }

    /// Who it comes from.
    #[inline]
    pub(crate) fn peer(&self) -> &Peer {
        self.told.as_deref().unwrap_or(&self.requests.peer)
    }

    /// Shows what is being done about it.
    #[inline]
    pub(crate) fn show(&self, stage: RequestStage) {
        if let Some(place) = &self.place {
            place.stage(stage);
        }
    }

    /// Takes down what is logged of it.
    pub(crate) fn log(&mut self, entry: Option<Box<Entry>>) {
        let Some(entry) = entry else { return };
        if let Some(place) = &self.place {
            place.identify(entry.id().as_bytes());
        }
        self.is_watched = true;
        self.entry = Some(entry);
    }

    /// Whether somebody wants to know how much of its response was given out.
    #[inline]
    pub(crate) fn is_watched(&self) -> bool {
        self.is_watched
    }

    /// Its response begins, or it is answered by this head and nothing else.
    #[inline]
    pub(crate) fn answered(&mut self, status: StatusCode, headers: &mut HeaderMap) {
        self.show(RequestStage::Responding);
        if let Some(entry) = &mut self.entry {
            entry.answered(status.as_u16(), headers);
        }
    }

    /// Its entry is free again, and its line is written.
    fn end_watch(&mut self) {
        let (requests, place) = (&self.requests, self.place.take());
        if let Some(table) = requests.table() {
            table.end(place);
        }
        if let Some(entry) = &self.entry {
            let client = self.peer().address().map(|address| address.ip());
            requests.serving().access_log.end(entry, client);
        }
    }

    /// So many bytes of its response's body were given out.
    #[inline]
    pub(crate) fn sent(&mut self, bytes: usize) {
        if let Some(entry) = &mut self.entry {
            entry.sent(bytes);
        }
        if let Some(place) = &self.place {
            place.sent(bytes as u64);
        }
    }

    /// What its body has to do with its deadlines.
    pub(crate) fn body(&self) -> BodyEnd {
        match (self.upload, self.end) {
            _ if !self.has_body => BodyEnd::Here,
            (Some(stream), _) => BodyEnd::Stream(stream),
            (None, UNKNOWN) => BodyEnd::Chunked,
            (None, end) => BodyEnd::At(end),
        }
    }

    /// The application has not answered yet and will wake this task; what is
    /// to be answered in its place, if the time is over.
    pub(crate) fn wait(&mut self, began: Moment, waker: &Waker) -> Option<StatusCode> {
        let unanswered = &self.requests.unanswered;
        match self.unanswered {
            Some(key) => unanswered.look_after(key, waker),
            None => {
                let since = self.requests.serving().timer.shown(began.instant());
                let received = self.requests.received();
                self.unanswered = Some(unanswered.begin(since, self.body(), received, waker));
                None
            }
        }
    }

    /// Whether its body has come to be too large on its stream. If not, this
    /// task is woken when it is.
    pub(crate) fn is_over(&self, waker: &Waker) -> bool {
        self.upload()
            .is_some_and(|(stream, uploads)| uploads.is_over(stream, waker))
    }

    /// The application works on it and has not answered at once: that is when a
    /// client that waits for a 100 (Continue) gets it. That the application reads
    /// the body is not to be seen before there is one.
    pub(crate) fn invite_body(&mut self) {
        if std::mem::take(&mut self.expects_continue)
            && let Some((stream, uploads)) = self.upload()
        {
            uploads.owe_continue(stream);
        }
    }

    /// What is known of its body where there are streams.
    pub(crate) fn upload(&self) -> Option<(u32, &Uploads)> {
        self.upload.zip(self.requests.uploads())
    }

    /// It is answered, or will not be.
    pub(crate) fn stop_waiting(&mut self) {
        if let Some(key) = self.unanswered.take() {
            self.requests.unanswered.end(key);
        }
    }

    /// Notes whether a part of its response waits for the client.
    pub(crate) fn offer(&mut self, offers: bool) {
        if self.offers != offers {
            self.offers = offers;
            let offering = &self.requests.offering;
            offering.set(match offers {
                true => offering.get() + 1,
                false => offering.get() - 1,
            });
        }
    }

    /// Whether the client has sent its next request without waiting for this
    /// one's response. What it has sent must be answered, so this response
    /// can't be the connection's last.
    pub(crate) fn is_pipelined(&self) -> bool {
        self.requests.received() >= self.end.saturating_add(SHORTEST_REQUEST)
    }
}

impl InFlight {
    /// Whether its connection goes on to another worker in a drain, once it is answered.
    pub(crate) fn is_handed_on(&self) -> bool {
        let has_come = !self.has_body || self.end <= self.requests.received();
        has_come && self.requests.goes_on()
    }
}

/// Notes a request in the table that the supervisor reads, if there is one.
#[inline]
fn note(
    requests: &Requests,
    told: Option<&Peer>,
    request: &Request<Incoming>,
    began: Moment,
) -> Option<Place> {
    let table = requests.table()?;
    match told {
        None => note_in(table, &requests.client, request, began),
        Some(peer) => note_in(table, &Client::of(peer.address()), request, began),
    }
}

/// Apart from the rest, so that a worker without a table has nothing of it on its way.
#[inline(never)]
fn note_in(
    table: &Writer,
    client: &Client,
    request: &Request<Incoming>,
    began: Moment,
) -> Option<Place> {
    table.begin(Arrived {
        began_nanos: began.nanos(),
        method: method(request.method()),
        target: target(request.uri(), table.has_query()),
        client,
    })
}

#[inline]
fn method(method: &Method) -> request_table::Method {
    const GET: request_table::Method = request_table::Method::of("GET");
    const POST: request_table::Method = request_table::Method::of("POST");
    match *method {
        Method::GET => GET,
        Method::POST => POST,
        _ => request_table::Method::of(method.as_str()),
    }
}

/// What a request is for: its path, or the authority that a tunnel is to lead to.
#[inline]
fn target(uri: &Uri, with_query: bool) -> &str {
    match uri.path_and_query() {
        Some(whole) if with_query => whole.as_str(),
        Some(whole) => whole.path(),
        None => uri.authority().map_or("", |authority| authority.as_str()),
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.stop_waiting();
        self.offer(false);
        if let Some((stream, uploads)) = self.upload() {
            uploads.leave(stream);
        }
        let requests = &self.requests;
        if self.body() == BodyEnd::Chunked {
            requests.traffic.limit_body(u64::MAX);
        }
        requests
            .body_end
            .set(if self.has_body { self.end } else { 0 });
        requests.consumed.set(match self.is_pipelined() {
            true => self.end,
            false => requests.received(),
        });
        requests.in_flight.set(requests.in_flight.get() - 1);
        let serving = requests.serving();
        serving.tally.request_ended();
        if serving.drain.is_on() {
            requests.last_ended.set(Some(serving.timer.now()));
        }
        if self.is_watched {
            self.end_watch();
        }
    }
}
