//! What an application counts itself, exported for the whole pool.

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
    for price in prices {
        let mut client = Connection::open(prefork.address("shop")).expect("it listens");
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
    prefork.done(&["reload"]);
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
