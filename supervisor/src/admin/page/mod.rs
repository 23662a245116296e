//! The admin address's page: how the service is, for somebody who is woken at night and
//! has a telephone.
//!
//! What is wrong stands first, with its reason and the next try. Each pool has its numbers
//! of now and of ten minutes. The page is whole without a script; with it, it takes itself
//! anew. Its only style and its only script are ours, and the browser runs no others.

mod attention;
mod html;
mod pool;
mod sparkline;

use std::fmt::Write;
use std::sync::LazyLock;

use data_encoding::BASE64;
use hyper::header::HeaderValue;
use prefork_api::{Event, LastReload, Readiness, Status, WorkerRequest};
use ring::digest::{SHA256, digest};

use crate::cli::units::{seconds, utc};
use crate::handle::Overview;
use crate::readiness;

use html::{escape, words};

const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");

/// How much of a sentence of a stranger is shown, in characters.
const SENTENCE: usize = 200;

/// What the page may do: nothing but use its own style and its own script, and ask the
/// address that it comes from (CSP Level 3).
pub(super) static POLICY: LazyLock<HeaderValue> = LazyLock::new(|| {
    let policy = format!(
        "default-src 'none'; style-src 'sha256-{}'; script-src 'sha256-{}'; connect-src 'self'; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        hash(STYLE),
        hash(SCRIPT),
    );
    HeaderValue::from_str(&policy).expect("hashes are letters, digits and signs")
});

/// The whole page. `now` is in seconds since the Unix epoch.
pub(super) fn render(overview: &Overview, now: f64) -> String {
    let status = &overview.status;
    let word = readiness::word(status);
    let mut main = head(status, now);
    main.push_str(&attention::list(status, now));
    for pool in &status.pools {
        let mut traffic = overview.traffic.pools.iter();
        let traffic = traffic.find(|it| it.name == pool.name);
        main.push_str(&pool::section(pool, traffic, now));
    }
    main.push_str(&requests(&overview.requests));
    main.push_str(&events(&overview.events, now));
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>{word} · prefork</title>\n<style>{STYLE}</style>\n\
         <noscript><meta http-equiv=\"refresh\" content=\"10\"></noscript>\n</head>\n<body>\n\
         <p id=\"stale\" role=\"alert\" hidden>No answer: what is shown is old.</p>\n\
         <main>\n{main}</main>\n<script>{SCRIPT}</script>\n</body>\n</html>\n"
    )
}

/// How the service is, and where there is more.
fn head(status: &Status, now: f64) -> String {
    let class = match status.readiness() {
        _ if status.stopping => "stopping",
        Readiness::Ready => "ready",
        Readiness::Degraded => "degraded",
        Readiness::NotReady => "not-ready",
    };
    let reload = status.last_reload.as_ref().map(|it| last_reload(it, now));
    format!(
        "<h1 class=\"{class}\">{}</h1>\n\
         <p class=\"faint\">prefork {}, pid {}, up {}, generation {}, at {}</p>\n{}\
         <nav><a href=\"/metrics\">metrics</a><a href=\"/status.json\">status.json</a>\
         <a href=\"/livez\">livez</a><a href=\"/readyz\">readyz</a></nav>\n",
        words(&readiness::sentence(status), SENTENCE),
        escape(&status.version),
        status.pid,
        seconds(status.uptime_seconds),
        status.generation,
        time_of_day(now),
        reload.unwrap_or_default(),
    )
}

fn last_reload(reload: &LastReload, now: f64) -> String {
    let verdict = match &reload.error {
        None => "<span class=\"good\">ok</span>".to_owned(),
        Some(error) => format!(
            "<span class=\"bad\">failed</span>: {}",
            words(error, SENTENCE)
        ),
    };
    format!(
        "<p>Last reload {}, generation {}: {verdict}</p>\n",
        ago(now, reload.at),
        reload.generation
    )
}

/// The oldest requests. Who sent them is not for everybody who comes to this address, nor
/// is what they ask for beyond the path.
fn requests(requests: &[WorkerRequest]) -> String {
    let mut rows = String::new();
    for WorkerRequest {
        pool,
        slot,
        request,
        ..
    } in requests
    {
        let path = request.target.split('?').next().unwrap_or_default();
        // Writing to a string cannot fail, here and below.
        let _ = writeln!(
            rows,
            "<tr><td>{}<td>{}/{slot}<td>{}<td class=\"says\">{} {}</tr>",
            seconds(request.age_ms as f64 / 1000.0),
            escape(pool),
            request.stage.as_str(),
            words(&request.method, 20),
            words(path, SENTENCE),
        );
    }
    table(
        "Slowest requests",
        "<th>age<th>worker<th>stage<th>request",
        &rows,
    )
}

fn events(events: &[Event], now: f64) -> String {
    let mut rows = String::new();
    for event in events {
        let _ = writeln!(
            rows,
            "<tr><td>{}<td>{}<td>{}<td class=\"says\">{}</tr>",
            ago(now, event.at),
            escape(&event.whom().unwrap_or_default()),
            escape(&event.kind),
            words(&event.message, SENTENCE),
        );
    }
    table("Last events", "<th>when<th>who<th>what<th>", &rows)
}

/// A table with a title; nothing where it has no rows.
fn table(title: &str, head: &str, rows: &str) -> String {
    match rows.is_empty() {
        true => String::new(),
        false => format!(
            "<h2>{title}</h2>\n<div class=\"table\"><table>\n<tr>{head}</tr>\n{rows}</table></div>\n"
        ),
    }
}

/// How long ago a moment was, both in seconds since the Unix epoch, and when.
fn ago(now: f64, at: f64) -> String {
    format!(
        "<time datetime=\"{0}\" title=\"{0}\">{1} ago</time>",
        utc(at),
        seconds((now - at).max(0.0))
    )
}

/// `03:12:45 UTC`.
fn time_of_day(at: f64) -> String {
    let moment = utc(at);
    format!("{} UTC", &moment[11..19])
}

/// What names a style or a script in the policy: its SHA-256 in base64 (RFC 4648).
fn hash(text: &str) -> String {
    BASE64.encode(digest(&SHA256, text.as_bytes()).as_ref())
}

#[cfg(test)]
mod tests;
