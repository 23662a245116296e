//! The commands that have something done: they end when it is done.

use std::time::Duration;

use prefork_api::{JobLine, JobResult, TellBody, TellOutcome, TellReply};
use serde::Serialize;
use serde_json::Value;
use tokio::time::timeout;

use super::address::Target;
use super::client::{Client, Deadline, Lines};
use super::error::Error;
use super::progress::Progress;
use super::render;
use super::terminal::Terminal;
use crate::sanitize::one_line;

/// How often a line that moves is drawn anew while nothing happens.
const TICK: Duration = Duration::from_secs(1);

/// Gives an order and follows its job to the end.
pub(super) async fn run(
    client: &Client,
    path: &str,
    body: &impl Serialize,
    terminal: Terminal,
    deadline: Deadline,
) -> Result<(), Error> {
    let work = async {
        let mut lines = client.order(path, body).await?;
        let result = follow(&mut lines, terminal, |_| {}).await?;
        say(terminal, &result.message)
    };
    let after = deadline.given;
    deadline
        .bound(work)
        .await
        .unwrap_or(Err(Error::Unfinished { after }))
}

/// `prefork tell`: a row per worker, whatever they answer and even if the
/// supervisor falls silent halfway.
pub(super) async fn tell(
    client: &Client,
    target: &Target,
    command: String,
    args: Value,
    terminal: Terminal,
    deadline: Deadline,
) -> Result<(), Error> {
    let body = TellBody {
        command,
        args,
        timeout_ms: worker_timeout_ms(deadline.given),
    };
    let mut replies = Vec::new();
    let path = format!("{}/tell", target.path());
    let ended = deadline
        .bound(async {
            let mut lines = client.order(&path, &body).await?;
            let keep = |finding| {
                if let Finding::Reply(reply) = finding {
                    replies.push(reply);
                }
            };
            follow(&mut lines, terminal, keep).await
        })
        .await;
    if !terminal.is_json() && !replies.is_empty() {
        replies.sort_by_key(|reply| reply.slot);
        terminal.told(render::replies(&replies, terminal.color))?;
    }
    let Some(ended) = ended else {
        return Err(Error::Unfinished {
            after: deadline.given,
        });
    };
    judge(&replies).and(ended.map(drop))
}

/// What a worker gets of the time, in milliseconds: a little less than all, so
/// that its silence is told before the whole command is out of time.
fn worker_timeout_ms(given: Duration) -> u64 {
    let margin = (given / 4).min(Duration::from_secs(1));
    u64::try_from((given - margin).as_millis())
        .unwrap_or(u64::MAX)
        .clamp(1, 3_600_000)
}

/// Whether every worker did it.
fn judge(replies: &[TellReply]) -> Result<(), Error> {
    let count = |outcome| {
        replies
            .iter()
            .filter(|reply| reply.outcome == outcome)
            .count()
    };
    let (silent, failed, gone) = (
        count(TellOutcome::Timeout),
        count(TellOutcome::Failed),
        count(TellOutcome::Gone),
    );
    if silent + failed + gone == 0 {
        return Ok(());
    }
    let parts: Vec<String> = [(silent, "timed out"), (failed, "failed"), (gone, "gone")]
        .iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, what)| format!("{count} {what}"))
        .collect();
    Err(Error::Told {
        message: format!("of {} workers, {}", replies.len(), parts.join(", ")),
        timed_out: silent > 0,
    })
}

/// Follows a job to its result: progress goes to stderr, what the job finds out
/// to `on_finding`. The result, or why it failed. For programs, every line goes
/// to stdout as it is.
pub(super) async fn follow(
    lines: &mut Lines,
    terminal: Terminal,
    mut on_finding: impl FnMut(Finding),
) -> Result<JobResult, Error> {
    let mut progress = Progress::new(terminal);
    loop {
        // The time on a line that moves goes on while nothing happens.
        match timeout(TICK, step(lines, &mut progress, &mut on_finding)).await {
            Ok(Ok(Some(result))) => return outcome(result),
            Ok(Ok(None)) => {}
            Ok(Err(error)) => return Err(error),
            Err(_elapsed) => progress.show(),
        }
    }
}

/// What a job finds out on its way, besides its progress.
#[derive(Debug)]
pub(super) enum Finding {
    /// One worker's answer to `tell`.
    Reply(TellReply),
    /// Something that a reload would change.
    Change { what: String, message: String },
}

/// Follows a job by one line; its result, if that line is it.
pub(super) async fn step(
    lines: &mut Lines,
    progress: &mut Progress,
    on_finding: &mut impl FnMut(Finding),
) -> Result<Option<JobResult>, Error> {
    let Some(line) = lines.next().await? else {
        return Err(Error::Lost("the job has no result".to_owned()));
    };
    let terminal = progress.terminal();
    if terminal.is_json() {
        terminal.told([&line[..], b"\n"].concat())?;
    }
    // A newer supervisor may say things that this client doesn't know.
    let Ok(line) = serde_json::from_slice(&line) else {
        return Ok(None);
    };
    match line {
        JobLine::Progress { .. } if terminal.is_json() => {}
        JobLine::Progress {
            pool,
            slot,
            message,
            done,
            all,
        } => match slot {
            Some(slot) => progress.of_worker(format!("{pool}/{slot}: {message}"), done.zip(all)),
            // What concerns no pool concerns the supervisor itself.
            None if pool.is_empty() => progress.note(&message),
            None => progress.note(&format!("{pool}: {message}")),
        },
        JobLine::Reply(reply) => on_finding(Finding::Reply(reply)),
        JobLine::Change { what, message } => on_finding(Finding::Change { what, message }),
        JobLine::Result(result) => return Ok(Some(result)),
    }
    Ok(None)
}

/// A result that is a success, or the error that it is.
pub(super) fn outcome(result: JobResult) -> Result<JobResult, Error> {
    match result.error {
        Some(error) => Err(Error::JobFailed(error)),
        None if result.ok => Ok(result),
        None => Err(Error::Malformed("a failure without a reason".to_owned())),
    }
}

/// Shows a result's message to people; programs have it already.
pub(super) fn say(terminal: Terminal, message: &str) -> Result<(), Error> {
    if terminal.is_json() || message.is_empty() {
        return Ok(());
    }
    terminal.told(format!("{}\n", one_line(message)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_get_a_little_less_than_the_whole_time() {
        let ms = |given| worker_timeout_ms(Duration::from_millis(given));
        assert_eq!(ms(10_000), 9_000);
        assert_eq!(ms(1_000), 750);
        assert_eq!(ms(1), 1);
        assert_eq!(worker_timeout_ms(Duration::MAX), 3_600_000);
    }

    fn reply(outcome: TellOutcome) -> TellReply {
        TellReply {
            pool: "web".to_owned(),
            slot: 0,
            pid: Some(1),
            outcome,
            data: Value::Null,
            error: None,
            seconds: 0.0,
        }
    }

    #[test]
    fn silence_weighs_more_than_failure() {
        use TellOutcome::{Failed, Gone, Ok, Timeout};

        let code = |outcomes: &[TellOutcome]| {
            let replies: Vec<TellReply> = outcomes.iter().copied().map(reply).collect();
            judge(&replies).map_or_else(|error| error.exit_code(), |()| 0)
        };
        assert_eq!(code(&[Ok, Ok]), 0);
        assert_eq!(code(&[Ok, Failed]), 1);
        assert_eq!(code(&[Ok, Gone]), 1);
        assert_eq!(code(&[Failed, Timeout, Ok]), 5);
    }
}
