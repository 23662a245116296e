//! The admin address's page: the status as tables, for a browser.

use std::fmt::Write;

use prefork_api::{PoolStatus, Readiness, Status, WorkerStatus};

use crate::cli::units::{bytes, seconds};
use crate::readiness;

const HEAD: &str = "<!doctype html>
<html lang=\"en\">
<meta charset=\"utf-8\">
<meta name=\"viewport\" content=\"width=device-width\">
<title>prefork</title>
<style>
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 64rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.4rem; margin: 0; }
h2 { font-size: 1.1rem; margin: 2rem 0 .4rem; }
p { margin: .2rem 0; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .3rem .8rem .3rem 0; border-bottom: 1px solid #8884; }
.ready { color: #18794e; }
.degraded, .starting, .draining, .stopping, .paused { color: #ad5700; }
.backoff { color: #c62a2f; font-weight: 600; }
@media (prefers-color-scheme: dark) {
  .ready { color: #4cc38a; } .degraded, .starting, .draining, .stopping, .paused { color: #ff9f52; }
  .backoff { color: #ff6369; }
}
</style>
";

/// The whole page. Everything that comes from outside is escaped.
pub(super) fn render(status: &Status) -> String {
    let mut page = HEAD.to_owned();
    let class = match status.readiness() {
        _ if status.stopping => "stopping",
        Readiness::Ready => "ready",
        Readiness::Degraded => "degraded",
        Readiness::NotReady => "backoff",
    };
    let state = escape(&readiness::sentence(status));
    // Writing to a string cannot fail, here and below.
    let _ = writeln!(
        page,
        "<h1>prefork {}</h1>\n<p class={class}>{state}</p>\n<p>pid {}, up {}, generation {}</p>\n\
         <p><a href=\"/metrics\">metrics</a> · <a href=\"/status.json\">status.json</a> · \
         <a href=\"/livez\">livez</a> · <a href=\"/readyz\">readyz</a></p>",
        escape(&status.version),
        status.pid,
        seconds(status.uptime_seconds),
        status.generation,
    );
    for pool in &status.pools {
        render_pool(&mut page, pool);
    }
    page
}

fn render_pool(page: &mut String, pool: &PoolStatus) {
    let _ = writeln!(
        page,
        "<h2>{}</h2>\n<p>{} of {} workers ready</p>",
        escape(&pool.name),
        pool.ready,
        pool.desired
    );
    for listener in &pool.listeners {
        let _ = write!(page, "<p>listens on {}", escape(&listener.address));
        if let (Some(waiting), Some(limit)) = (listener.backlog, listener.backlog_limit) {
            let _ = write!(page, ", {waiting} of {limit} connections waiting");
        }
        page.push_str("</p>\n");
    }
    page.push_str(
        "<table>\n<tr><th>slot<th>state<th>pid<th>generation<th>uptime<th>restarts\
         <th>crashes<th>in flight<th>connections<th>requests<th>memory<th>says</tr>\n",
    );
    for worker in &pool.workers {
        render_worker(page, worker);
    }
    page.push_str("</table>\n");
}

fn render_worker(page: &mut String, worker: &WorkerStatus) {
    let state = worker.state.as_str();
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "–".to_owned());
    let _ = writeln!(
        page,
        "<tr><td>{}<td class={state}>{state}<td>{}<td>{}<td>{}<td>{}<td>{}<td>{}<td>{}<td>{}<td>{}<td>{}</tr>",
        worker.slot,
        or_dash(worker.pid.map(|pid| pid.to_string())),
        or_dash(worker.generation.map(|generation| generation.to_string())),
        or_dash(worker.uptime_seconds.map(seconds)),
        worker.restarts,
        worker.crashes,
        worker.in_flight,
        worker.connections,
        or_dash(worker.requests.map(|requests| requests.to_string())),
        or_dash(worker.resident_bytes.map(bytes)),
        escape(&worker.status),
    );
}

fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            plain => escaped.push(plain),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::fake::status;

    #[test]
    fn crashes_are_told_apart_from_restarts() {
        let mut status = status(1, 1);
        status.pools[0].workers[0].restarts = 71;
        status.pools[0].workers[0].crashes = 13;
        let page = render(&status);
        assert!(page.contains("<th>restarts<th>crashes<th>"), "{page}");
        assert!(page.contains("<td>71<td>13<td>"), "{page}");
    }

    #[test]
    fn what_a_worker_says_stays_text() {
        let mut status = status(2, 1);
        status.pools[0].workers[0].status = "<script>alert('1')</script>".to_owned();
        let page = render(&status);
        assert!(page.contains("&lt;script&gt;alert(&#39;1&#39;)"), "{page}");
        assert!(!page.contains("<script"));
        assert!(page.contains("1 of 2 workers ready"));
    }
}
