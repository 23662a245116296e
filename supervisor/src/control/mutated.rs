//! Requests that are nearly right: each is an order, a query or a refusal with a reason.

use hyper::{Method, Uri};
use prefork_testkit::mutate::mutate;

use super::answer::Rejection;
use super::job::Job;
use super::route::{Route, route};
use super::{events, logs, wanted};

/// Method, target and body, each on a line.
fn corpus() -> Vec<Vec<u8>> {
    let requests = [
        "GET\n/v1/status\n",
        "GET\n/v1/events?since=12&follow=1\n",
        "GET\n/v1/logs?pool=web&slot=0&newer_than_ms=60000&follow=1\n",
        "GET\n/v1/requests?pool=web&slot=0&older_than_ms=2000\n",
        "GET\n/v1/workers/web/0\n",
        "POST\n/v1/pools/web/scale\n{\"workers\": 4}",
        "POST\n/v1/pools/web/scale\n{\"by\": -1, \"file\": true}",
        "POST\n/v1/pools/web/tell\n{\"command\": \"cache.flush\", \"args\": {}, \"timeout_ms\": 10000}",
        "POST\n/v1/pools/web/restart\n{}",
        "POST\n/v1/reload\n{\"pools\": [\"web\"], \"force\": true, \"dry_run\": true}",
        "POST\n/v1/upgrade\n{\"program\": \"/usr/bin/prefork\"}",
        "POST\n/v1/log-level\n{\"level\": \"debug\"}",
        "POST\n/v1/stop\n",
    ];
    requests.map(|request| request.as_bytes().to_vec()).to_vec()
}

/// What is made of a request before anything is asked or done.
fn read(request: &[u8]) -> Result<(), Rejection> {
    let mut parts = request.splitn(3, |byte| *byte == b'\n');
    let mut part = || parts.next().unwrap_or_default();
    // What hyper takes for a head.
    let (Ok(method), Ok(target)) = (Method::from_bytes(part()), Uri::try_from(part())) else {
        return Ok(());
    };
    let query = target.query().unwrap_or_default();
    match route(&method, target.path())? {
        Route::Order(order) => Job::parse(order, part()).map(drop),
        Route::Query(_) => {
            let read = [
                events::Wanted::parse(query).map(drop),
                logs::Wanted::parse(query).map(drop),
                wanted::parse(query).map(drop),
            ];
            read.into_iter().collect()
        }
    }
}

#[test]
fn requests_that_are_nearly_right_are_read_or_refused() {
    for request in corpus().iter().filter(|it| it.starts_with(b"POST")) {
        let _ = read(request);
    }
    mutate(80, 20_000, &corpus(), |request| {
        let _ = read(request);
    });
}
