//! `prefork upgrade`: done when the new program answers in the same process.

use std::path::{Path, PathBuf};
use std::time::Duration;

use prefork_api::{ApiError, ErrorCode, Status, UpgradeBody};
use tokio::time::sleep;

use super::client::{self, Client, Deadline};
use super::error::Error;
use super::job::{self, Finding};
use super::terminal::Terminal;

/// Between two looks at a supervisor that is being replaced.
const PAUSE: Duration = Duration::from_millis(10);

/// Asks for an upgrade and waits until the new program answers.
pub(super) async fn run(
    client: &Client,
    program: Option<PathBuf>,
    terminal: Terminal,
    deadline: Deadline,
) -> Result<(), Error> {
    let program = program.map(std::path::absolute).transpose()?;
    let work = async {
        let before = status(client).await?;
        let mut nothing = None;
        let asked = async {
            let body = UpgradeBody { program };
            let mut lines = client.order("/v1/upgrade", &body).await?;
            let keep = |finding| {
                if let Finding::Change { message, .. } = finding {
                    nothing = Some(message);
                }
            };
            job::follow(&mut lines, terminal, keep).await
        };
        match asked.await {
            // The program that would have said more is gone.
            Ok(_) | Err(Error::Lost(_)) => {}
            Err(error) => return Err(error),
        }
        let version = replaced(client, &before).await?;
        let sentence = format!("version {version} runs in the place of {}", before.version);
        job::say(
            terminal,
            &match nothing {
                Some(message) => format!("{sentence}; {message}"),
                None => sentence,
            },
        )
    };
    let after = deadline.given;
    deadline
        .bound(work)
        .await
        .unwrap_or(Err(Error::Unfinished { after }))
}

async fn status(client: &Client) -> Result<Status, Error> {
    client::read(&client.document("/v1/status").await?)
}

/// Waits until another program answers in the same process: its version.
async fn replaced(client: &Client, before: &Status) -> Result<String, Error> {
    let pid = before.pid;
    loop {
        match status(client).await {
            Ok(now) if now.pid != pid => {
                let why = format!("supervisor {pid} has ended, and {} runs", now.pid);
                return Err(failed(why));
            }
            Ok(now) if now.upgrades > before.upgrades => return Ok(now.version),
            // It is about to go, or just coming.
            Ok(_) | Err(Error::Lost(_)) => {}
            Err(error) if error.is_not_running() => {
                if !Path::new("/proc").join(pid.to_string()).exists() {
                    return Err(failed(format!("supervisor {pid} ended in the upgrade")));
                }
            }
            Err(error) => return Err(error),
        }
        sleep(PAUSE).await;
    }
}

fn failed(why: String) -> Error {
    Error::JobFailed(ApiError::new(ErrorCode::Failed, why))
}
