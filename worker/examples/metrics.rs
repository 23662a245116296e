//! A worker with metrics of its own: a counter, a gauge and a histogram, counted
//! with the `prometheus` crate as in any other program. The supervisor exports
//! them for the whole pool.
//!
//! `prefork run -- target/debug/examples/metrics`, then
//! `curl -d 12.50 http://127.0.0.1:8080/` and `prefork metrics | grep shop`.

use std::process::ExitCode;
use std::sync::LazyLock;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use prefork_worker::{Context, Rule, Worker};
use prometheus::{
    Gauge, Histogram, IntCounterVec, register_gauge, register_histogram, register_int_counter_vec,
};

const ONCE: &str = "it is registered once, under a valid name";

static ORDERS: LazyLock<IntCounterVec> = LazyLock::new(|| {
    register_int_counter_vec!(
        "shop_orders_total",
        "Orders, by the worker's slot.",
        &["till"]
    )
    .expect(ONCE)
});

static LARGEST: LazyLock<Gauge> = LazyLock::new(|| {
    register_gauge!("shop_largest_order_euros", "The largest order so far.").expect(ONCE)
});

static PRICES: LazyLock<Histogram> = LazyLock::new(|| {
    let bounds = vec![1.0, 10.0, 100.0];
    register_histogram!("shop_order_euros", "What orders come to.", bounds).expect(ONCE)
});

async fn order(State(context): State<Context>, price: String) -> Result<String, StatusCode> {
    let price: f64 = price.trim().parse().map_err(|_| StatusCode::BAD_REQUEST)?;
    let till = context.slot().to_string();
    ORDERS.with_label_values(&[&till]).inc();
    LARGEST.set(LARGEST.get().max(price));
    PRICES.observe(price);
    Ok(format!("thank you, says till {till}\n"))
}

fn main() -> ExitCode {
    Worker::new("metrics-example", env!("CARGO_PKG_VERSION"))
        .gauge_rule("shop_largest_order_euros", Rule::Max)
        .run_tower(|context| async {
            let till = context.slot().to_string();
            // Exported with 0 before the first order.
            ORDERS.with_label_values(&[&till]);
            LazyLock::force(&LARGEST);
            LazyLock::force(&PRICES);
            Ok(Router::new().route("/", post(order)).with_state(context))
        })
}
