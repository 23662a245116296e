//! `prefork reload` and `prefork rollback`: done when the new generation is in force, or when it is
//! clear why it is not.

use prefork_api::JobResult;
use serde::Serialize;

use super::client::{Client, Deadline, Lines};
use super::error::Error;
use super::job::{self, Finding};
use super::progress::Progress;
use super::render;
use super::terminal::Terminal;

/// What kind of reload, or rollback, is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wanted {
    /// Put the new configuration in force, and wait for it.
    Committed,
    /// The same, but don't wait: that it is begun is enough.
    Begun,
    /// Only see what would change.
    Preview,
}

/// Asks for one at its path and follows it as far as is wanted.
pub(super) async fn run(
    client: &Client,
    path: &str,
    wanted: Wanted,
    body: &impl Serialize,
    terminal: Terminal,
    deadline: Deadline,
) -> Result<(), Error> {
    let work = async {
        let mut lines = client.order(path, body).await?;
        match wanted {
            Wanted::Committed => {
                let result = job::follow(&mut lines, terminal, |_| {}).await?;
                committed(&result, terminal)
            }
            Wanted::Begun => begun(&mut lines, terminal).await,
            Wanted::Preview => preview(&mut lines, terminal).await,
        }
    };
    let after = deadline.given;
    deadline
        .bound(work)
        .await
        .unwrap_or(Err(Error::Unfinished { after }))
}

/// Says which generation is in force, on a line that never changes its form;
/// whatever else there is to know goes beside it.
fn committed(result: &JobResult, terminal: Terminal) -> Result<(), Error> {
    let Some(generation) = result.generation else {
        return job::say(terminal, &result.message);
    };
    let sentence = format!("generation {generation} is in force");
    if !terminal.is_json() && !result.message.is_empty() && result.message != sentence {
        terminal.note(&result.message);
    }
    job::say(terminal, &sentence)
}

/// Waits for the job's first line: a configuration that is refused has none
/// but the refusal.
async fn begun(lines: &mut Lines, terminal: Terminal) -> Result<(), Error> {
    match job::step(lines, &mut Progress::new(terminal), &mut |_| {}).await? {
        Some(result) => committed(&job::outcome(result)?, terminal),
        None => job::say(
            terminal,
            "it goes on: see `prefork status` and `prefork events`",
        ),
    }
}

/// Shows what would change as a table.
async fn preview(lines: &mut Lines, terminal: Terminal) -> Result<(), Error> {
    let mut changes = Vec::new();
    let keep = |finding| {
        if let Finding::Change { what, message } = finding {
            changes.push((what, message));
        }
    };
    let result = job::follow(lines, terminal, keep).await?;
    if terminal.is_json() {
        return Ok(());
    }
    if changes.is_empty() {
        return job::say(terminal, "nothing would change");
    }
    terminal.data(render::changes(&changes, terminal.color))?;
    if !result.message.is_empty() {
        terminal.note(&result.message);
    }
    Ok(())
}
