use prefork_api::{
    Event, LastReload, PoolTraffic, RequestStage, RunningRequest, SlotState, TrafficPoint,
    WorkerRequest,
};

use super::*;
use crate::control::fake;

const NOW: f64 = 1_795_773_600.0;

fn overview(desired: u32, ready: u32) -> Overview {
    fake::overview(fake::status(desired, ready))
}

fn request(target: &str) -> WorkerRequest {
    WorkerRequest {
        pool: "web".to_owned(),
        slot: 0,
        pid: 4711,
        request: RunningRequest {
            method: "GET".to_owned(),
            target: target.to_owned(),
            client: Some("192.0.2.7:4711".to_owned()),
            id: Some("7b3b".to_owned()),
            stage: RequestStage::Working,
            age_ms: 2100,
            sent_bytes: 0,
        },
    }
}

/// Where a text stands in the page.
#[track_caller]
fn at(page: &str, text: &str) -> usize {
    let at = page.find(text);
    at.unwrap_or_else(|| panic!("there is no {text} in {page}"))
}

#[test]
fn crashes_are_told_apart_from_restarts() {
    let mut overview = overview(1, 1);
    overview.status.pools[0].workers[0].restarts = 71;
    overview.status.pools[0].workers[0].crashes = 13;
    let page = render(&overview, NOW);
    assert!(page.contains("restarts<th>crashes<th>"), "{page}");
    assert!(page.contains(">71<td>13<td>"), "{page}");
}

#[test]
fn what_strangers_say_stays_text_and_has_an_end() {
    let script = format!("<script>alert('1')</script>\u{202e}{}", "x".repeat(65_536));
    let mut overview = overview(2, 1);
    overview.status.pools[0].workers[0]
        .status
        .clone_from(&script);
    overview.status.pools[0].name = "<b>web</b>".to_owned();
    overview.status.last_reload = Some(LastReload {
        ok: false,
        at: NOW - 61.0,
        generation: 1,
        error: Some(script.clone()),
    });
    overview.requests.push(request(&script));
    overview.events.push(Event {
        message: script,
        ..fake::event(1)
    });
    let page = render(&overview, NOW);
    assert_eq!(page.matches("<script").count(), 1, "ours");
    assert_eq!(page.matches("&lt;script&gt;alert(&#39;1&#39;)").count(), 5);
    assert!(!page.contains("<b>") && !page.contains('\u{202e}'));
    assert!(page.len() < 20_000, "{}", page.len());
}

#[test]
fn of_a_request_there_is_what_it_asks_for_and_not_who() {
    let mut overview = overview(1, 1);
    overview.requests.push(request("/slow?token=secret"));
    let page = render(&overview, NOW);
    at(
        &page,
        "<td>2.1s<td>web/0<td>working<td class=\"says\">GET /slow</tr>",
    );
    for hidden in ["secret", "192.0.2.7", "7b3b"] {
        assert!(!page.contains(hidden), "{hidden}");
    }
}

#[test]
fn what_is_wrong_stands_first_with_its_reason_and_the_next_try() {
    let mut overview = overview(3, 3);
    let worker = &mut overview.status.pools[0].workers[2];
    worker.state = SlotState::Backoff;
    worker.backoff_seconds = Some(12.0);
    let page = render(&overview, NOW);
    let matter = at(&page, "web/2 backoff <span>next start in 12s");
    assert!(matter < at(&page, "<h2>web</h2>"));
    let row = at(&page, "<tr><td>2<td class=\"backoff\">");
    assert!(row < at(&page, "<tr><td>0<td class=\"ready\">"));
}

#[test]
fn a_service_that_is_well_has_nothing_to_look_at() {
    let page = render(&overview(2, 2), NOW);
    assert!(!page.contains("class=\"attention\""), "{page}");
    assert!(page.contains("<title>ready · prefork</title>"));
}

#[test]
fn a_pool_has_its_numbers_of_now_and_of_ten_minutes() {
    let mut overview = overview(1, 1);
    let point = |requests, p99_seconds| TrafficPoint {
        at: NOW,
        seconds: 5.0,
        requests,
        failed: requests / 100,
        p99_seconds,
        in_flight: 7,
    };
    overview.traffic.pools = vec![PoolTraffic {
        name: "web".to_owned(),
        history: vec![point(0, None), point(500, Some(0.25)), point(1000, None)],
        workers: vec![],
    }];
    let page = render(&overview, NOW);
    at(&page, "<dt>requests/s<dd>200<svg");
    at(&page, "<div class=\"bad\"><dt>5xx/s<dd>2.0<svg");
    at(&page, "<dt>p99<dd>&gt;10s<svg");
    at(&page, "aria-label=\"p99, the last ten minutes\"");
}

#[test]
fn a_thousand_workers_are_not_a_thousand_rows() {
    let page = render(&overview(1000, 1000), NOW);
    assert_eq!(page.matches("<td class=\"ready\">").count(), 100);
    at(&page, "900 more: see <code>prefork status web</code>");
    let page = render(&overview(1000, 0), NOW);
    at(&page, "950 more: see <code>prefork status</code>");
}

#[test]
fn the_policy_names_the_style_and_the_script_by_their_hashes() {
    // SHA-256 of nothing, in base64.
    assert_eq!(hash(""), "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=");
    let policy = POLICY.to_str().unwrap();
    assert!(policy.starts_with("default-src 'none'; style-src 'sha256-"));
    assert!(!policy.contains("unsafe"), "{policy}");
    assert!(policy.contains(&format!("script-src 'sha256-{}'", hash(SCRIPT))));
}
