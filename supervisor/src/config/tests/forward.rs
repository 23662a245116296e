//! Pools that forward to others: what is taken, and what each mistake is told as.

use serde_json::json;

use super::*;
use crate::config::forward::forwards_to;

/// A front with these settings, before a program, a worker and a program that has
/// its clients itself.
fn file(app: &str) -> String {
    format!(
        r#"
[pool.web]
listen = ["0.0.0.0:80"]
[pool.web.app]
{app}
[pool.shop]
program = ["sh", "-c", "serve {{socket}}"]
[pool.shop.adapter]
[pool.worker]
program = ["sh"]
listen = ["0.0.0.0:81"]
[pool.direct]
program = ["sh", "-c", "serve {{fd}}"]
listen = ["0.0.0.0:82"]
[pool.direct.adapter]
"#
    )
}

/// What is wrong with these settings of the front, and what would be right.
fn problem(app: &str) -> String {
    let problems = problems(&file(app));
    let [problem] = problems.as_slice() else {
        panic!("{app}: {problems:#?}");
    };
    assert_eq!(
        problem.place.as_ref().map(|place| place.line),
        Some(5),
        "{problem}"
    );
    match &problem.help {
        Some(help) => format!("{} ({help})", problem.message),
        None => problem.message.clone(),
    }
}

#[test]
fn a_front_names_pools_and_says_how_long_requests_may_wait() {
    let config = valid(&file(
        "forward = { \"/api\" = \"shop\" }\nqueue_timeout = \"2m\"\nupstream_timeout = \"1d\"\nmax_queue = 7",
    ));
    let app = &config.pools[0].app;
    let expected = json!({
        "forward": { "/api": "shop" },
        "queue_timeout": "120000ms",
        "upstream_timeout": "86400000ms",
        "max_queue": 7,
    });
    assert_eq!(*app, expected);
    assert!(forwards_to(app, "shop") && !forwards_to(app, "web"));
    assert!(forwards_to(&json!({ "forward": "shop" }), "shop"));
    assert!(!forwards_to(&json!({ "root": "shop" }), "shop"));
}

#[test]
fn each_mistake_has_its_own_words() {
    for (app, expected) in [
        (
            "forward = \"shp\"",
            "`forward`: there is no pool \"shp\" (pools: web, shop, worker, direct)",
        ),
        (
            "forward = { \"/\" = \"web\" }",
            "`forward`: [pool.web] cannot forward to itself (name a pool that has an `adapter`)",
        ),
        (
            "forward = \"worker\"",
            "`forward`: [pool.worker] takes no requests from another pool (its program takes \
             connections itself; one that does not speak the channel has an `adapter`)",
        ),
        (
            "forward = \"direct\"",
            "`forward`: [pool.direct] takes its clients itself (leave its `listen` out, and give \
             its program {socket} or {port})",
        ),
        (
            "forward = { api = \"shop\" }",
            "`forward`: \"api\" is no path (a path begins with a slash: \"/api/\")",
        ),
        (
            "forward = 7",
            "`forward`: expected the name of a pool, or a table of them by path, found integer 7 \
             (forward = \"shop\", or { \"/api/\" = \"api\", \"/\" = \"shop\" })",
        ),
        (
            "max_queue = 7",
            "`max_queue` needs `forward` (add forward = \"shop\", or { \"/api/\" = \"api\", \"/\" = \
             \"shop\" })",
        ),
    ] {
        // In the line after the table's header.
        assert_eq!(problem(app), expected, "{app}");
    }
}

#[test]
fn there_are_no_circles() {
    let text = r#"
[pool.one]
listen = ["0.0.0.0:80"]
app = { forward = "other" }
[pool.other]
listen = ["0.0.0.0:81"]
app = { forward = "one" }
"#;
    let problems = problems(text);
    assert_eq!(problems.len(), 2, "{problems:#?}");
    for problem in problems {
        let help = problem.help.unwrap_or_default();
        assert!(help.contains("it is the bundled web server"), "{help}");
    }
}

#[test]
fn a_canary_is_for_programs_whose_answers_somebody_counts() {
    let front = "forward = \"shop\"";
    let canary = |pool: &str| format!("{}[pool.{pool}.canary]\n", file(front));
    let config = valid(&canary("shop"));
    let shop = config.pools.iter().find(|it| it.policy.name == "shop");
    assert!(shop.is_some_and(|shop| shop.canary.is_some()));
    let problems = problems(&canary("direct"));
    let [problem] = problems.as_slice() else {
        panic!("{problems:#?}");
    };
    let what = "nobody counts the requests of a program behind an adapter";
    assert!(problem.message.contains(what), "{problem}");
    let help = problem.help.as_deref().unwrap_or_default();
    assert!(help.contains("`forward` to it"), "{problem}");
}
