//! What an application counts itself, exported for the whole pool.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use nix::sys::signal::Signal;

use crate::harness::deadline::{PATIENCE, eventually};
use crate::harness::http::Connection;
use crate::harness::{Pool, Prefork, cli, processes};

/// A pool of `worker/examples/metrics.rs`.
fn shops(workers: u32) -> Prefork {
    let program = cli::example("metrics");
    let program = program.to_str().expect("the path is text");
    let pool = Pool::command("shop", &[program], workers).text("heartbeat_interval", "100ms");
    Prefork::start(&[pool])
}

/// Places orders of these prices, each on a connection of its own.
fn order(prefork: &Prefork, prices: &[f64]) {
    order_at(prefork.address("shop"), prices);
}

fn order_at(shop: SocketAddr, prices: &[f64]) {
    for price in prices {
        let mut client = Connection::open(shop).expect("it listens");
        let answer = client.ask("POST", "/", &price.to_string());
        assert_eq!(answer.expect("it answers").status, 200);
    }
}

/// Waits until so many orders are exported, by each of the ways to count them.
#[track_caller]
fn exported(prefork: &Prefork, orders: f64, euros: f64, largest: f64) {
    eventually("every order is exported", PATIENCE, || {
        prefork.metric("shop_orders_total", &[("pool", "shop")]) == orders
    });
    let scrape = prefork.scrape();
    assert_eq!(
        scrape.sum("shop_order_euros_count", &[("pool", "shop")]),
        orders
    );
    assert_eq!(
        scrape.sum("shop_order_euros_sum", &[("pool", "shop")]),
        euros
    );
    let all = [("pool", "shop"), ("le", "+Inf")];
    assert_eq!(scrape.sum("shop_order_euros_bucket", &all), orders);
    assert_eq!(
        scrape.sum("shop_largest_order_euros", &[("pool", "shop")]),
        largest
    );
    assert_eq!(scrape.type_of("shop_orders_total"), Some("counter"));
    assert_eq!(scrape.type_of("shop_largest_order_euros"), Some("gauge"));
    assert_eq!(scrape.type_of("shop_order_euros"), Some("histogram"));
}

#[test]
fn an_applications_metrics_are_exact_across_kills_restarts_and_reloads() {
    let prefork = shops(4);
    let (mut orders, mut euros) = (0.0, 0.0);
    let mut more = |count: u32| {
        order(&prefork, &vec![2.5; count as usize]);
        orders += f64::from(count);
        euros += 2.5 * f64::from(count);
        exported(&prefork, orders, euros, 2.5);
    };
    more(40);
    for slot in [0, 3] {
        // What was reported is not lost.
        let old = prefork.ready_pid("shop", slot);
        processes::send(old, Signal::SIGKILL);
        prefork.replaced("shop", slot, old);
        more(20);
    }
    // What was not reported yet is, before a worker leaves.
    order(&prefork, &[2.5; 30]);
    prefork.done(&["restart", "shop"]);
    orders += 30.0;
    euros += 75.0;
    let count = prefork.metric("shop_orders_total", &[("pool", "shop")]);
    assert_eq!(count, orders);
    order(&prefork, &[2.5; 10]);
    prefork.done(&["reload", "--force"]);
    orders += 10.0;
    euros += 25.0;
    order(&prefork, &[2.5]);
    exported(&prefork, orders + 1.0, euros + 2.5, 2.5);
    let refused = prefork.metric("prefork_application_families_refused_total", &[]);
    assert_eq!(refused, 0.0);
    let held = prefork.metric("prefork_worker_counters_held_total", &[]);
    assert_eq!(held, 0.0);
}

#[test]
fn a_gauge_is_put_together_by_its_rule_and_goes_with_its_worker() {
    let prefork = shops(2);
    order(&prefork, &[7.0, 90.0, 7.0]);
    exported(&prefork, 3.0, 104.0, 90.0);
    prefork.done(&["restart", "shop"]);
    eventually("the largest order's worker has gone", PATIENCE, || {
        prefork.metric("shop_largest_order_euros", &[]) == 0.0
    });
    exported(&prefork, 3.0, 104.0, 0.0);
}

/// The shop's totals, and what is counted of reports on them, by series.
fn totals(prefork: &Prefork) -> BTreeMap<String, f64> {
    let page = prefork.scrape();
    let counted = [
        "shop_orders_total",
        "shop_order_euros",
        "prefork_application",
    ];
    let lines = page.text().lines();
    let samples = lines
        .filter(|line| counted.iter().any(|name| line.starts_with(name)))
        .filter_map(|line| line.rsplit_once(' '));
    samples
        .map(|(series, value)| (series.to_owned(), value.parse().expect("a number")))
        .collect()
}

/// Kills the supervisor, calls `meanwhile`, and starts the next one.
fn kill_supervisor(prefork: &mut Prefork, meanwhile: impl FnOnce()) {
    prefork.signal(Signal::SIGKILL);
    prefork.ended();
    meanwhile();
    prefork.start_again();
    prefork.wait_until_ready();
}

#[test]
fn no_total_of_the_application_runs_backwards_when_the_supervisor_is_killed() {
    let mut prefork = shops(2);
    let shop = prefork.address("shop");
    order(&prefork, &[2.5; 20]);
    exported(&prefork, 20.0, 50.0, 2.5);
    // What it has counted is in no process any more.
    let gone = prefork.ready_pid("shop", 0);
    processes::send(gone, Signal::SIGKILL);
    prefork.replaced("shop", 0, gone);
    let workers = prefork.ready_pids("shop");
    let mut orders = 20.0;
    for _ in 0..3 {
        order(&prefork, &[2.5; 10]);
        orders += 10.0;
        exported(&prefork, orders, orders * 2.5, 2.5);
        let before = totals(&prefork);
        assert!(before.len() > 8, "{before:?}");
        // The workers serve and count on.
        kill_supervisor(&mut prefork, || order_at(shop, &[2.5; 7]));
        orders += 7.0;
        let after = totals(&prefork);
        for (series, value) in &before {
            let now = after.get(series);
            assert!(now >= Some(value), "{series} was {value} and is {now:?}");
        }
        assert_eq!(prefork.ready_pids("shop"), workers);
        exported(&prefork, orders, orders * 2.5, 2.5);
    }
    // Those who outlived it add nothing when they go.
    prefork.done(&["restart", "shop"]);
    order(&prefork, &[2.5]);
    exported(&prefork, orders + 1.0, (orders + 1.0) * 2.5, 2.5);
    let held = prefork.metric("prefork_worker_counters_held_total", &[]);
    assert_eq!(held, 0.0);
}

#[test]
fn an_applications_totals_go_on_when_everyone_is_killed() {
    let mut prefork = shops(2);
    order(&prefork, &[2.5; 20]);
    exported(&prefork, 20.0, 50.0, 2.5);
    let workers = prefork.ready_pids("shop");
    kill_supervisor(&mut prefork, || {
        for worker in &workers {
            processes::send(*worker, Signal::SIGKILL);
        }
        eventually("they are gone", PATIENCE, || {
            workers.iter().all(|pid| !processes::alive(*pid))
        });
    });
    let orders = [("pool", "shop")];
    assert_eq!(prefork.metric("shop_orders_total", &orders), 20.0);
    order(&prefork, &[2.5; 3]);
    exported(&prefork, 23.0, 57.5, 2.5);
}

#[test]
fn two_pools_use_one_name_each_in_its_own_way() {
    let program = cli::example("metrics");
    let program = program.to_str().expect("the path is text");
    let prefork = Prefork::start(&[
        Pool::command("shop", &[program], 1).text("heartbeat_interval", "100ms"),
        Pool::test_worker("depot", 1),
    ]);
    // The shop's orders are told by till and its prices by 1, 10 and 100.
    prefork.order(
        "depot",
        0,
        concat!(
            r#"write {"type":"metrics","seq":1,"families":["#,
            r#"{"name":"shop_orders_total","help":"Orders.","type":"counter","series":[{"value":4.0}]},"#,
            r#"{"name":"shop_order_euros","help":"Prices.","type":"histogram","#,
            r#""series":[{"buckets":[[7.0,4]],"sum":12.0,"count":4}]}]}"#,
            "\n"
        ),
    );
    order(&prefork, &[2.5; 10]);
    exported(&prefork, 10.0, 25.0, 2.5);
    let depots = || {
        let depot = [("pool", "depot")];
        let of = |name| prefork.metric(name, &depot);
        (of("shop_orders_total"), of("shop_order_euros_sum"))
    };
    eventually("the depot's are exported beside", PATIENCE, || {
        depots() == (4.0, 12.0)
    });
    let bounds = |pool| {
        let scrape = prefork.scrape();
        let buckets = scrape.matching("shop_order_euros_bucket", &[("pool", pool)]);
        buckets.len()
    };
    assert_eq!((bounds("shop"), bounds("depot")), (4, 2));
    // All of a pool's workers are new, and the other's totals are there still, as its own are.
    for pool in ["depot", "shop"] {
        prefork.done(&["restart", pool]);
        exported(&prefork, 10.0, 25.0, if pool == "shop" { 0.0 } else { 2.5 });
        assert_eq!(depots(), (4.0, 12.0));
    }
    let refused = prefork.metric("prefork_application_families_refused_total", &[]);
    assert_eq!(refused, 0.0);
}
