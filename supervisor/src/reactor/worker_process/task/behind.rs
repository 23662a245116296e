//! What a front is told of the pools behind it: with all else that comes before `start`,
//! or at once.

use prefork_proto::capability;
use prefork_proto::message::{PlacesOffer, UpstreamCountsOffer};

use crate::reactor::fronts::Table;
use crate::reactor::worker_process::task::*;

/// What is told before `start`.
#[derive(Debug, Default)]
pub(super) struct Behind {
    places: Vec<(PlacesOffer, OwnedFd)>,
    counts: Vec<(UpstreamCountsOffer, OwnedFd)>,
    tables: Vec<Rc<Table>>,
}

impl Process {
    /// Whether it can have nothing in flight at a pool behind it: it was told of none.
    pub(super) fn has_nothing_behind(&self) -> bool {
        self.welcome.is_some() || !self.can(capability::FORWARD)
    }

    /// Hands over the memory in which it counts.
    pub(super) fn hand_places_over(&mut self, offer: PlacesOffer, memory: OwnedFd) {
        if self.welcome.is_some() {
            self.behind.places.push((offer, memory));
        } else if self.can(capability::FORWARD) {
            // Not sent, it counts as before.
            let _ = self.send_with(&ToWorker::Places(offer), Some(memory));
        }
    }

    /// Hands over the memory in which it counts what was answered.
    pub(super) fn hand_counts_over(&mut self, offer: UpstreamCountsOffer, memory: OwnedFd) {
        if self.welcome.is_some() {
            self.behind.counts.push((offer, memory));
        } else if self.can(capability::UPSTREAM_COUNTS) {
            // Not sent, it counts as before.
            let _ = self.send_with(&ToWorker::UpstreamCounts(offer), Some(memory));
        }
    }

    /// Tells it a table, in place of the one before.
    pub(super) fn tell_upstreams(&mut self, table: Rc<Table>) {
        if self.welcome.is_some() {
            let tables = &mut self.behind.tables;
            tables.retain(|known| known.pool() != table.pool());
            tables.push(table);
        } else if self.can(capability::FORWARD) {
            for line in table.lines(|| self.conversation.order()) {
                // A link that takes no more is broken, and its worker replaced.
                let _ = self.send(&line);
            }
        }
    }

    /// Queues what is told before `start`.
    pub(super) fn queue_behind(&mut self) -> Result<(), String> {
        let Behind {
            places,
            counts,
            tables,
        } = std::mem::take(&mut self.behind);
        if !self.can(capability::FORWARD) {
            return Ok(());
        }
        let counts_answers = self.can(capability::UPSTREAM_COUNTS);
        let Some(channel) = &mut self.channel else {
            return Ok(());
        };
        let channel = channel.get_mut();
        let text = |error: ChannelError| error.to_string();
        for (offer, memory) in places {
            let offer = ToWorker::Places(offer);
            channel.queue_with_fd(&offer, memory).map_err(text)?;
        }
        for (offer, memory) in counts.into_iter().filter(|_| counts_answers) {
            let offer = ToWorker::UpstreamCounts(offer);
            channel.queue_with_fd(&offer, memory).map_err(text)?;
        }
        for table in tables {
            for line in table.lines(|| self.conversation.order()) {
                channel.queue(&line).map_err(text)?;
            }
        }
        Ok(())
    }
}
