//! The commands that look and change nothing.

use std::io;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use hyper::StatusCode;
use prefork_api::{Channels, Describe, Event, LogEntry, Requests, Status};
use serde_json::Value;

use super::address::{PoolName, Target, WorkerAddress};
use super::args::{Events, Logs, Question, Since, Status as StatusFlags, Top};
use super::client::{Client, Deadline, Lines, read};
use super::error::{self, Error};
use super::fleet;
use super::render;
use super::terminal::Terminal;
use super::top;
use crate::kernel::sys::stdout_is_unread;

/// How often `status --watch` looks.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);

/// Moves the cursor home and clears the screen (ECMA-48, CUP and ED).
const CLEAR: &str = "\x1b[H\x1b[2J";

/// A line that is too long ends at the screen's edge, and does not go on in the next one
/// (DEC private mode 7); and back again.
const UNWRAPPED: &str = "\x1b[?7l";
const WRAPPED: &str = "\x1b[?7h";

/// Questions to a supervisor, each with the same time for an answer.
pub(super) struct Query<'a> {
    pub(super) client: &'a Client,
    pub(super) terminal: Terminal,
    pub(super) timeout: Duration,
}

impl Query<'_> {
    /// Asks and shows the answer: the exit code.
    pub(super) async fn answer(&self, question: Question) -> Result<u8, Error> {
        match question {
            Question::Status(wanted) if !wanted.url.is_empty() => {
                return self.while_read(self.fleet(&wanted)).await;
            }
            Question::Status(wanted) if wanted.watch => {
                return self.while_read(self.watch(wanted.pool.as_ref())).await;
            }
            Question::Status(wanted) => return self.status(wanted).await,
            Question::Describe { worker } => self.describe(&worker).await?,
            Question::Requests { target, older_than } => {
                self.requests(target.as_ref(), older_than).await?;
            }
            Question::Top(wanted) => return self.while_read(self.top(wanted)).await,
            Question::Channels => self.channels().await?,
            Question::Metrics => self.metrics().await?,
            Question::Events(wanted) => self.while_read(self.events(wanted)).await?,
            Question::Logs(wanted) => self.while_read(self.logs(wanted)).await?,
            Question::Health { live: true, .. } => self.health("/v1/livez").await?,
            Question::Health { .. } => self.health("/v1/readyz").await?,
        }
        Ok(0)
    }

    /// `prefork status`: the exit code.
    async fn status(&self, wanted: StatusFlags) -> Result<u8, Error> {
        let (document, status) = self.status_of(wanted.pool.as_ref()).await?;
        self.show(&document, || {
            render::status(&status, now(), self.terminal.color)
        })?;
        Ok(match wanted.exit_code {
            true => error::readiness(&status),
            false => 0,
        })
    }

    /// The status, as it came and as it was read; of one pool where one is named.
    async fn status_of(&self, pool: Option<&PoolName>) -> Result<(Bytes, Status), Error> {
        let document = self.document("/v1/status").await?;
        let mut status: Status = read(&document)?;
        let Some(pool) = pool.map(ToString::to_string) else {
            return Ok((document, status));
        };
        if !status.pools.iter().any(|it| it.name == pool) {
            let known: Vec<String> = status.pools.into_iter().map(|it| it.name).collect();
            return Err(Error::NoSuchPool {
                pool,
                known: known.join(", "),
            });
        }
        status.pools.retain(|it| it.name == pool);
        // What this program does not know of it is kept.
        let mut document: Value = read(&document)?;
        if let Some(pools) = document["pools"].as_array_mut() {
            pools.retain(|it| it["name"] == pool);
        }
        Ok((format!("{document}\n").into(), status))
    }

    /// `prefork status --watch`: until the supervisor or the reader goes.
    async fn watch(&self, pool: Option<&PoolName>) -> Result<u8, Error> {
        let mut tick = tokio::time::interval(WATCH_INTERVAL);
        let mut before: Option<Status> = None;
        loop {
            tick.tick().await;
            let (document, status) = self.status_of(pool).await?;
            self.show(&document, || {
                let color = self.terminal.color;
                self.anew(&render::watch(before.as_ref(), &status, now(), color))
            })?;
            before = Some(status);
        }
    }

    /// `prefork status --url`: the exit code.
    async fn fleet(&self, wanted: &StatusFlags) -> Result<u8, Error> {
        let mut tick = tokio::time::interval(WATCH_INTERVAL);
        loop {
            tick.tick().await;
            let instances = fleet::ask(&wanted.url, self.timeout).await;
            let document = format!("{}\n", fleet::as_json(&instances));
            self.show(document.as_bytes(), || {
                let table = render::fleet(&instances, self.terminal.color);
                match wanted.watch {
                    true => self.anew(&table),
                    false => table,
                }
            })?;
            if !wanted.watch {
                return Ok(fleet::exit_code(&instances, wanted.exit_code));
            }
        }
    }

    /// A picture in the place of the last one, where there is a screen.
    fn anew(&self, table: &str) -> String {
        match self.terminal.screen {
            true => format!("{CLEAR}{UNWRAPPED}{table}{WRAPPED}"),
            false => format!("{table}\n"),
        }
    }

    /// `prefork describe`.
    async fn describe(&self, worker: &WorkerAddress) -> Result<(), Error> {
        let document = self.document(&worker.path()).await?;
        let describe: Describe = read(&document)?;
        self.show(&document, || {
            render::describe(&describe, now(), self.terminal.color)
        })
    }

    /// `prefork requests`.
    async fn requests(
        &self,
        target: Option<&Target>,
        older_than: Option<Duration>,
    ) -> Result<(), Error> {
        let older_than = older_than.unwrap_or_default().as_millis();
        let mut path = format!("/v1/requests?older_than_ms={older_than}");
        path.push_str(&parameters(target));
        let document = self.document(&path).await?;
        let requests: Requests = read(&document)?;
        self.show(&document, || {
            render::requests(&requests, self.terminal.color)
        })
    }

    /// `prefork top`: the exit code.
    async fn top(&self, wanted: Top) -> Result<u8, Error> {
        top::run(self.client, self.terminal, self.timeout, wanted).await
    }

    /// `prefork channels`.
    async fn channels(&self) -> Result<(), Error> {
        let document = self.document("/v1/channels").await?;
        let channels: Channels = read(&document)?;
        self.show(&document, || {
            render::channels(&channels, now(), self.terminal.color)
        })
    }

    /// `prefork metrics`.
    async fn metrics(&self) -> Result<(), Error> {
        self.terminal.data(self.document("/v1/metrics").await?)
    }

    /// `prefork health`: done when the answer is yes.
    async fn health(&self, path: &str) -> Result<(), Error> {
        let (status, body) = self.within(self.client.get(path)).await?;
        let answer = String::from_utf8_lossy(&body).trim_end().to_owned();
        if status == StatusCode::OK {
            return self.terminal.data(format!("{answer}\n"));
        }
        if status == StatusCode::SERVICE_UNAVAILABLE {
            return Err(Error::Unhealthy(answer));
        }
        // Anything else is an error document.
        self.document(path).await.map(drop)
    }

    /// `prefork events`.
    async fn events(&self, wanted: Events) -> Result<(), Error> {
        let follow = wanted.follow;
        let (since, earliest) = match wanted.since {
            Since::Number(number) => (number, 0.0),
            Since::Ago(ago) => (0, now() - ago.as_secs_f64()),
        };
        let pools: Vec<String> = wanted.pool.iter().map(ToString::to_string).collect();
        let is_wanted = |event: &Event| {
            let of_pool = |pool: &String| pools.contains(pool);
            event.at >= earliest
                && (pools.is_empty() || event.pool.as_ref().is_some_and(of_pool))
                && (wanted.kind.is_empty() || wanted.kind.contains(&event.kind))
        };
        let path = format!("/v1/events?since={since}&follow={}", u8::from(follow));
        let mut lines = self.within(self.client.follow(&path)).await?;
        while let Some(line) = self.next(&mut lines, follow).await? {
            let event: Event = read(&line)?;
            if !is_wanted(&event) {
                continue;
            }
            if self.terminal.has_json_lines() {
                self.terminal.data([&line[..], b"\n"].concat())?;
            } else {
                self.terminal
                    .data(render::event(&event, self.terminal.color))?;
            }
        }
        Ok(())
    }

    /// `prefork logs`.
    async fn logs(&self, wanted: Logs) -> Result<(), Error> {
        let follow = wanted.follow;
        let since = match wanted.since {
            Since::Number(number) => format!("since={number}"),
            Since::Ago(ago) => format!("newer_than_ms={}", ago.as_millis()),
        };
        let target = parameters(wanted.target.as_ref());
        let path = format!("/v1/logs?{since}{target}&follow={}", u8::from(follow));
        let mut lines = self.within(self.client.follow(&path)).await?;
        while let Some(line) = self.next(&mut lines, follow).await? {
            if self.terminal.is_json() {
                self.terminal.data([&line[..], b"\n"].concat())?;
            } else {
                let entry: LogEntry = read(&line)?;
                self.terminal
                    .data(render::log_entry(&entry, self.terminal.color))?;
            }
        }
        Ok(())
    }

    /// The next line: what will happen comes when it happens; what has happened, in time.
    async fn next(&self, lines: &mut Lines, follow: bool) -> Result<Option<Bytes>, Error> {
        if follow {
            lines.next().await
        } else {
            self.within(lines.next()).await
        }
    }

    /// Shows a document: as it came, or as people like it.
    fn show(&self, document: &[u8], table: impl FnOnce() -> String) -> Result<(), Error> {
        if self.terminal.is_json() {
            self.terminal.data(document)
        } else {
            self.terminal.data(table())
        }
    }

    async fn document(&self, path: &str) -> Result<Bytes, Error> {
        self.within(self.client.document(path)).await
    }

    /// Does what might never end as long as somebody reads what comes of it.
    async fn while_read<T>(
        &self,
        work: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        tokio::select! {
            biased;
            done = work => done,
            () = stdout_is_unread() => Err(io::Error::from(io::ErrorKind::BrokenPipe).into()),
        }
    }

    async fn within<T>(&self, work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        let deadline = Deadline::after(self.timeout);
        deadline.bound(work).await.unwrap_or(Err(Error::NoAnswer {
            after: deadline.given,
        }))
    }
}

/// A pool or a worker as parameters of a query.
fn parameters(target: Option<&Target>) -> String {
    match target {
        Some(Target::Pool(pool)) => format!("&pool={pool}"),
        Some(Target::Worker(WorkerAddress { pool, slot })) => format!("&pool={pool}&slot={slot}"),
        None => String::new(),
    }
}

/// Seconds since the Unix epoch.
fn now() -> f64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0.0, |since| since.as_secs_f64())
}
