//! The client's commands against a real control socket.

use std::time::Duration;

use prefork_api::{ApiError, DrainingStatus, ErrorCode, ReloadBody};
use serde_json::{Value, json};
use tokio::task::LocalSet;

use super::args::Condition;
use super::client::{Client, Deadline, read};
use super::error::Error;
use super::reload::{self, Wanted};
use super::terminal::Terminal;
use super::{job, stop, wait};
use crate::control::fake::{Fake, done, failed, progress, status};

const TERMINAL: Terminal = Terminal {
    format: None,
    color: false,
    screen: false,
    moving: false,
    can_ask: false,
};

fn on_one_thread(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    LocalSet::new().block_on(&runtime, async {
        tokio::time::timeout(Duration::from_secs(20), test)
            .await
            .expect("the test is too slow");
    });
}

fn soon() -> Deadline {
    Deadline::after(Duration::from_secs(10))
}

async fn order(client: &Client, path: &str, body: Value) -> Result<(), Error> {
    job::run(client, path, &body, TERMINAL, soon()).await
}

fn body(wanted: Wanted) -> ReloadBody {
    ReloadBody {
        dry_run: wanted == Wanted::Preview,
        ..ReloadBody::default()
    }
}

fn code(result: &Result<(), Error>) -> u8 {
    result.as_ref().map_or_else(Error::exit_code, |()| 0)
}

#[test]
fn jobs_end_with_the_exit_code_of_their_result() {
    on_one_thread(async {
        let fake = Fake::start();
        let client = Client::new(fake.dir.path());
        let scaled = order(&client, "/v1/pools/web/scale", json!({"workers": 3})).await;
        assert_eq!(code(&scaled), 0);
        let nowhere = order(&client, "/v1/pools/nope/scale", json!({"workers": 3})).await;
        assert_eq!(code(&nowhere), 4);
        let wrong = order(&client, "/v1/pools/web/scale", json!({})).await;
        assert_eq!(code(&wrong), 2);
        let crashed = order(&client, "/v1/pools/web/restart", json!({})).await;
        assert_eq!(code(&crashed), 1);
        assert_eq!(crashed.unwrap_err().stderr_tail(), Some("no database\n"));
        let refused = order(&client, "/v1/workers/web/0/resume", json!({})).await;
        assert_eq!(code(&refused), 1);
        let lost = order(&client, "/v1/workers/web/0/pause", json!({})).await;
        assert_eq!(code(&lost), 1);
        assert!(lost.unwrap_err().to_string().contains("supervisor ended"));
    });
}

#[test]
fn a_job_that_takes_too_long_exits_with_5_and_goes_on() {
    on_one_thread(async {
        let fake = Fake::start();
        let client = Client::new(fake.dir.path());
        let deadline = Deadline::after(Duration::from_millis(200));
        let path = "/v1/workers/web/0/drain";
        let result = job::run(&client, path, &json!({}), TERMINAL, deadline).await;
        assert_eq!(code(&result), 5);
        assert!(result.unwrap_err().to_string().contains("goes on"));
        let lines = fake.state.borrow_mut().held.remove(0);
        assert!(lines.send(done("drained")).is_ok(), "the job was cancelled");
    });
}

#[test]
fn a_reload_ends_with_the_exit_code_of_what_came_of_it() {
    on_one_thread(async {
        let fake = Fake::start();
        let client = Client::new(fake.dir.path());
        let reload = async |wanted, said| {
            fake.state.borrow_mut().reload = said;
            let body = body(wanted);
            reload::run(&client, "/v1/reload", wanted, &body, TERMINAL, soon()).await
        };

        let committed = vec![progress("replaced"), done("generation 2 is in force")];
        assert_eq!(code(&reload(Wanted::Committed, committed).await), 0);

        let diagnosis = "prefork.toml:3:1: unknown key `wrokers`\n  |\n3 | wrokers = 2";
        let invalid = || failed(ApiError::new(ErrorCode::Config, diagnosis));
        for wanted in [Wanted::Committed, Wanted::Begun, Wanted::Preview] {
            let refused = reload(wanted, vec![invalid()]).await;
            assert_eq!(code(&refused), 78, "{wanted:?}");
            assert_eq!(refused.unwrap_err().to_string(), diagnosis);
        }

        let rolled_back = failed(ApiError {
            stderr: "no database\n".to_owned(),
            ..ApiError::new(
                ErrorCode::Failed,
                "web/2 did not come up; generation 1 stays",
            )
        });
        let refused = reload(Wanted::Committed, vec![progress("starts"), rolled_back]).await;
        assert_eq!(code(&refused), 1);
        let refused = refused.unwrap_err();
        assert!(refused.to_string().contains("web/2"), "{refused}");
        assert_eq!(refused.stderr_tail(), Some("no database\n"));

        let preview = reload(Wanted::Preview, vec![done("nothing would change")]).await;
        assert_eq!(code(&preview), 0);
        let audits = &fake.state.borrow().audits;
        let dry_runs = |detail: &&String| *detail == "allowed: reload dry-run";
        assert_eq!(audits.iter().filter(dry_runs).count(), 2, "{audits:?}");
        assert_eq!(audits[0], "allowed: reload");
    });
}

#[test]
fn a_reload_that_is_not_waited_for_goes_on() {
    on_one_thread(async {
        let fake = Fake::start();
        let client = Client::new(fake.dir.path());
        fake.state.borrow_mut().reload = vec![progress("starts")];
        let begun = reload::run(
            &client,
            "/v1/reload",
            Wanted::Begun,
            &body(Wanted::Begun),
            TERMINAL,
            soon(),
        )
        .await;
        assert_eq!(code(&begun), 0);
        let lines = fake.state.borrow_mut().held.remove(0);
        assert!(lines.send(done("in force")).is_ok(), "it was cancelled");
    });
}

#[test]
fn tell_counts_silence_above_refusal() {
    on_one_thread(async {
        let fake = Fake::start();
        let client = Client::new(fake.dir.path());
        let target = "web".parse().unwrap();
        for (command, expected) in [("flush", 0), ("refused", 1), ("silent", 5)] {
            let told = job::tell(
                &client,
                &target,
                command.to_owned(),
                Value::Null,
                TERMINAL,
                soon(),
            );
            assert_eq!(code(&told.await), expected, "{command}");
        }
        assert_eq!(
            fake.state.borrow().audits,
            [
                "allowed: tell web flush",
                "allowed: tell web refused",
                "allowed: tell web silent"
            ]
        );
    });
}

#[test]
fn without_a_supervisor_the_reason_is_told() {
    on_one_thread(async {
        let dir = tempfile::tempdir().unwrap();
        let client = Client::new(dir.path());
        let absent = client.document("/v1/status").await.unwrap_err();
        assert!(matches!(absent, Error::Absent { .. }), "{absent}");
        assert_eq!(absent.exit_code(), 3);
        assert!(absent.to_string().contains("control.sock"));

        // A listener that is dropped leaves its socket's file behind.
        drop(std::os::unix::net::UnixListener::bind(dir.path().join("control.sock")).unwrap());
        let stale = client.document("/v1/status").await.unwrap_err();
        assert!(matches!(stale, Error::Stale { .. }), "{stale}");
        assert_eq!(stale.exit_code(), 3);
    });
}

#[test]
fn a_supervisor_that_hangs_is_a_timeout() {
    on_one_thread(async {
        let dir = tempfile::tempdir().unwrap();
        let _deaf =
            std::os::unix::net::UnixListener::bind(dir.path().join("control.sock")).unwrap();
        let query = super::query::Query {
            client: &Client::new(dir.path()),
            terminal: TERMINAL,
            timeout: Duration::from_millis(100),
        };
        let error = query
            .answer(super::args::Question::Metrics)
            .await
            .unwrap_err();
        assert_eq!(error.exit_code(), 5, "{error}");
    });
}

#[test]
fn wait_ends_with_the_event_that_makes_it_true() {
    on_one_thread(async {
        let fake = Fake::start();
        fake.change(|it| *it = status(2, 1));
        let client = Client::new(fake.dir.path());
        let (waited, ()) = tokio::join!(
            wait::run(&client, Condition::Ready, TERMINAL, soon()),
            async {
                tokio::task::yield_now().await;
                fake.change(|it| *it = status(2, 2));
            }
        );
        waited.unwrap();

        fake.change(|it| {
            it.pools[0].workers[0].draining.push(DrainingStatus {
                pid: 7,
                generation: 1,
                in_flight: 1,
            });
        });
        let short = Deadline::after(Duration::from_millis(100));
        let drained = wait::run(&client, Condition::Drained, TERMINAL, short).await;
        assert_eq!(code(&drained), 5);
        fake.change(|it| it.pools[0].workers[0].draining.clear());
        wait::run(&client, Condition::Drained, TERMINAL, soon())
            .await
            .unwrap();

        wait::run(&client, Condition::Generation(1), TERMINAL, soon())
            .await
            .unwrap();
        let short = Deadline::after(Duration::from_millis(100));
        let later = wait::run(&client, Condition::Generation(2), TERMINAL, short).await;
        assert_eq!(
            later.unwrap_err().to_string(),
            "not at generation 2 within 0.1s"
        );
    });
}

#[test]
fn wait_gives_a_supervisor_time_to_appear() {
    on_one_thread(async {
        let dir = tempfile::tempdir().unwrap();
        let late = dir.path().join("late");
        let client = Client::new(&late);
        let (waited, _fake) = tokio::join!(
            wait::run(&client, Condition::Ready, TERMINAL, soon()),
            async {
                tokio::task::yield_now().await;
                let fake = Fake::start();
                std::os::unix::fs::symlink(fake.dir.path(), &late).unwrap();
                fake
            }
        );
        waited.unwrap();
    });
}

#[test]
fn status_is_a_document_that_the_types_understand() {
    on_one_thread(async {
        let fake = Fake::start();
        let client = Client::new(fake.dir.path());
        let document = client.document("/v1/status").await.unwrap();
        let shown: prefork_api::Status = read(&document).unwrap();
        assert_eq!(shown, fake.state.borrow().status);
    });
}

/// The supervisor that is stopped has to be another process: this test's own
/// binary, started again.
#[test]
fn stop_waits_until_the_process_has_gone() {
    const DIR: &str = "PREFORK_TEST_STOP_DIR";
    if let Some(dir) = std::env::var_os(DIR) {
        return on_one_thread(async {
            let fake = Fake::start();
            std::os::unix::fs::symlink(fake.dir.path(), dir).unwrap();
            while fake.state.borrow().audits.is_empty() {
                tokio::task::yield_now().await;
            }
            fake.end();
            // Closed, but not yet gone: one that did not wait would be back by now.
            tokio::time::sleep(Duration::from_millis(100)).await;
        });
    }
    let dir = tempfile::tempdir().unwrap();
    let link = dir.path().join("run");
    let mut child = std::process::Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "cli::tests::stop_waits_until_the_process_has_gone",
        ])
        .env(DIR, &link)
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    on_one_thread(async {
        let client = Client::new(&link);
        while client.connect().await.is_err() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        stop::run(&client, false, TERMINAL, soon()).await.unwrap();
    });
    let gone = child.try_wait().unwrap();
    assert!(gone.is_some(), "stop ended before the process did");
}
