//! What the next supervisor has to know, should this one be killed: gathered from
//! everything that the reactor holds, and written when it has changed.
//!
//! The counters are most of the work and nothing that anybody waits for. So what has to be
//! on the disk before an order is given is written with the counters of a moment ago.

use std::time::Instant;

use prefork_fleet::SnapshotRef;
use serde_json::value::RawValue;
use tracing::warn;

use crate::reactor::Reactor;
use crate::reactor::worker_process::handle::Grip;
use crate::recovery::state::{Document, VERSION};

/// Before an order, counters are written anew at the most in this part of the time.
const COUNTERS_GAP_FACTOR: u32 = 20;

/// The counters as they were written last.
#[derive(Debug)]
pub(crate) struct Counted {
    text: Box<RawValue>,
    /// Until when an order need not wait for newer ones.
    good_until: Instant,
}

impl Reactor {
    /// What the next supervisor has to know now.
    pub(in crate::reactor) fn document(&self) -> Option<Document<SnapshotRef<'_>>> {
        self.document_with(self.metrics.save())
    }

    /// The same with these counters.
    fn document_with<M>(&self, metrics: M) -> Option<Document<SnapshotRef<'_>, M>> {
        let keep = self.keep.as_ref()?;
        let processes = self.processes.values().map(Grip::save);
        let sockets = self.editions.bound();
        Some(Document {
            version: VERSION,
            boot_id: keep.boot_id.clone(),
            pid: keep.pid,
            start_ticks: keep.start_ticks,
            secret: keep.door.secret().to_owned(),
            config: self.config.clone(),
            editions: self.editions.save(),
            tried: self.reloads.tried,
            next_job: self.next_job,
            next_seq: self.journal.next_seq(),
            last_reload: self.reloads.last.clone(),
            listeners: sockets.iter().flat_map(|(_, it)| it.save()).collect(),
            processes: processes.collect(),
            fleet: self.fleet.snapshot(),
            metrics,
        })
    }

    /// Writes down what the next supervisor has to know.
    pub(in crate::reactor) fn write_state(&mut self) {
        let counted = self.count_all();
        self.write_with(counted);
    }

    /// Writes down who lives and what is meant to be, before an order is given that can't
    /// be taken back. What the counters have missed is written when it is due.
    pub(in crate::reactor) fn write_before_order(&mut self) {
        let known = self.keep.as_mut().and_then(|keep| keep.counted.take());
        match known.filter(|counted| Instant::now() < counted.good_until) {
            Some(counted) => {
                self.write_with(Some(counted));
                self.touch_state();
            }
            None => self.write_state(),
        }
    }

    /// Every counter as it is now.
    fn count_all(&mut self) -> Option<Counted> {
        let begun = Instant::now();
        self.count_readers();
        self.read_scoreboards();
        self.count_refusals();
        // Of numbers and names there is nothing that can't be written.
        let text = self.metrics.to_json().inspect_err(|error| {
            warn!("cannot write the counters down: {error}");
        });
        let now = Instant::now();
        Some(Counted {
            text: text.ok()?,
            good_until: now + (now - begun) * COUNTERS_GAP_FACTOR,
        })
    }

    fn count_refusals(&mut self) {
        let refusals = self.keep.as_ref().map(|keep| keep.door.take_refusals());
        for (reason, number) in refusals.into_iter().flatten() {
            for _ in 0..number {
                self.metrics.supervisor().rejoin_refused(reason);
            }
        }
    }

    fn write_with(&mut self, counted: Option<Counted>) {
        self.keep_secrets();
        // Taken out, since the document borrows everything else.
        let Some(mut file) = self.keep.as_mut().and_then(|keep| keep.file.take()) else {
            return;
        };
        let written = counted
            .as_ref()
            .and_then(|counted| self.document_with(&*counted.text))
            .map(|document| file.write(&document));
        if written == Some(false) {
            self.metrics.supervisor().state_not_written();
        }
        if let Some(keep) = &mut self.keep {
            keep.file = Some(file);
            keep.counted = counted;
        }
    }

    /// When the state is to be written.
    pub(in crate::reactor) fn state_due(&self) -> Option<Instant> {
        let file = self.keep.as_ref()?.file.as_ref()?;
        Some(file.due())
    }

    /// Something has changed that the next supervisor has to know.
    pub(in crate::reactor) fn touch_state(&mut self) {
        if let Some(file) = self.keep.as_mut().and_then(|keep| keep.file.as_mut()) {
            file.touch();
        }
    }
}
