//! Work that needs the processor, beside answering: `/primes/N` counts the primes below N on
//! a thread of its own, one such request of the worker at a time, and `/` answers meanwhile.
//! Alone: `cargo run --example compute`; supervised, a worker for each processor:
//! `prefork run -- target/debug/examples/compute`. Then
//! `curl localhost:8080/primes/5000000 & curl localhost:8080/`.

use std::process::ExitCode;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::get;
use prefork_worker::{Context, Worker};
use tokio::sync::Semaphore;

/// How far it counts: a number of a stranger's does not keep the processor for hours.
const MOST: usize = 50_000_000;

/// What requests share.
#[derive(Clone)]
struct Shared {
    context: Context,
    /// Who computes holds one. More threads than processors make nothing quicker.
    turns: Arc<Semaphore>,
}

async fn primes(State(shared): State<Shared>, Path(below): Path<usize>) -> (StatusCode, String) {
    if below > MOST {
        return (
            StatusCode::BAD_REQUEST,
            format!("a number up to {MOST}, please\n"),
        );
    }
    let turn = shared.turns.acquire_owned().await;
    let counted = shared.context.blocking(move || {
        // Given back when the work is done, also where nobody waits for it any more.
        let _turn = turn;
        count_primes(below)
    });
    match counted.await {
        Ok(count) => (StatusCode::OK, format!("{count}\n")),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
    }
}

/// The sieve of Eratosthenes.
fn count_primes(below: usize) -> usize {
    let mut is_prime = vec![true; below];
    let mut count = 0;
    for number in 2..below {
        if is_prime[number] {
            count += 1;
            for multiple in (number * number..below).step_by(number) {
                is_prime[multiple] = false;
            }
        }
    }
    count
}

fn main() -> ExitCode {
    Worker::new("compute-example", env!("CARGO_PKG_VERSION")).run_tower(|context| async {
        let shared = Shared {
            context,
            turns: Arc::new(Semaphore::new(1)),
        };
        Ok(Router::new()
            .route("/", get(async || "here\n"))
            .route("/primes/{below}", get(primes))
            .with_state(shared))
    })
}
