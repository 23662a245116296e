//! `prefork stop`: done when the supervisor's process has gone.

use std::fs;
use std::io;
use std::time::Duration;

use prefork_api::StopBody;
use tokio::io::AsyncReadExt;
use tokio::time::sleep;

use super::client::{Client, Deadline};
use super::error::Error;
use super::job;
use super::terminal::Terminal;

/// Between two looks at a process that has closed its socket and only has to exit.
const EXIT_PAUSE: Duration = Duration::from_millis(2);

/// Asks the supervisor to stop and waits until it has.
pub(super) async fn run(
    client: &Client,
    now: bool,
    terminal: Terminal,
    deadline: Deadline,
) -> Result<(), Error> {
    let work = async {
        // Who is behind the socket now: a successor may take its place.
        let pid = client.connect().await?.peer_cred()?.pid();
        let asked = async {
            let mut lines = client.order("/v1/stop", &StopBody { now }).await?;
            job::follow(&mut lines, terminal, |_| {}).await
        };
        match asked.await {
            // The supervisor may be gone before its last word is out.
            Ok(_) | Err(Error::Lost(_)) => {}
            Err(error) => return Err(error),
        }
        closed(client, pid).await?;
        if let Some(pid) = pid {
            exited(pid).await;
        }
        job::say(terminal, "stopped")
    };
    let after = deadline.given;
    deadline
        .bound(work)
        .await
        .unwrap_or(Err(Error::Unfinished { after }))
}

/// Waits until nobody, or somebody else, is behind the socket: an idle
/// connection ends when the supervisor does.
async fn closed(client: &Client, pid: Option<i32>) -> Result<(), Error> {
    loop {
        let mut stream = match client.connect().await {
            Ok(stream) => stream,
            Err(error) if error.is_not_running() => return Ok(()),
            Err(error) => return Err(error),
        };
        if stream.peer_cred()?.pid() != pid {
            return Ok(());
        }
        // The end, or a reset, or the server's patience: look again.
        let _ = stream.read(&mut [0; 1]).await;
    }
}

/// Waits until a process has exited: gone, or a zombie that its parent has not reaped.
async fn exited(pid: i32) {
    loop {
        match fs::read_to_string(format!("/proc/{pid}/stat")) {
            // proc_pid_stat(5): the state follows the name, which is in
            // parentheses and may hold any.
            Ok(stat) => {
                let state = stat
                    .rsplit_once(") ")
                    .and_then(|(_, rest)| rest.chars().next());
                if matches!(state, Some('Z' | 'X') | None) {
                    return;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => return,
            // It went while it was read.
            Err(_) => return,
        }
        sleep(EXIT_PAUSE).await;
    }
}
