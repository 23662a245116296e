//! What the control API says of the service at one moment.

use std::collections::VecDeque;
use std::time::Duration;

use prefork_api::{Event, Requests, Status, Traffic};

use crate::cli::client::{Client, Deadline, read};
use crate::cli::error::Error;

/// How many events are kept.
const EVENTS: usize = 100;

/// One moment.
#[derive(Debug, Clone)]
pub(super) struct Reading {
    pub(super) status: Status,
    pub(super) traffic: Traffic,
    pub(super) requests: Requests,
    /// The last events, the newest first.
    pub(super) events: VecDeque<Event>,
}

/// Where readings come from.
#[derive(Debug)]
pub(super) struct Source {
    client: Client,
    timeout: Duration,
    /// The newest first.
    events: VecDeque<Event>,
}

impl Source {
    pub(super) fn new(client: Client, timeout: Duration) -> Self {
        Self {
            client,
            timeout,
            events: VecDeque::new(),
        }
    }

    /// Reads everything. May be dropped while it waits.
    pub(super) async fn read(&mut self) -> Result<Reading, Error> {
        let deadline = Deadline::after(self.timeout);
        let reading = deadline.bound(self.read_all()).await;
        reading.unwrap_or(Err(Error::NoAnswer {
            after: self.timeout,
        }))
    }

    async fn read_all(&mut self) -> Result<Reading, Error> {
        let status: Status = read(&self.client.document("/v1/status").await?)?;
        let traffic = read(&self.client.document("/v1/traffic").await?)?;
        let requests = read(&self.client.document("/v1/requests").await?)?;
        self.hear_events().await?;
        Ok(Reading {
            status,
            traffic,
            requests,
            events: self.events.clone(),
        })
    }

    /// Takes the events that are new.
    async fn hear_events(&mut self) -> Result<(), Error> {
        let since = self.events.front().map_or(0, |event| event.seq + 1);
        let path = format!("/v1/events?since={since}&follow=0");
        let mut lines = self.client.follow(&path).await?;
        while let Some(line) = lines.next().await? {
            self.events.push_front(read(&line)?);
            self.events.truncate(EVENTS);
        }
        Ok(())
    }
}
