//! What the next supervisor has to know, should this one be killed: gathered from
//! everything that the reactor holds, and written when it has changed.

use std::time::Instant;

use prefork_fleet::SnapshotRef;

use crate::reactor::Reactor;
use crate::reactor::worker_process::handle::Grip;
use crate::recovery::state::{Document, VERSION};

impl Reactor {
    /// What the next supervisor has to know now.
    pub(in crate::reactor) fn document(&self) -> Option<Document<SnapshotRef<'_>>> {
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
            metrics: self.metrics.save(),
        })
    }

    /// Writes down what the next supervisor has to know.
    pub(in crate::reactor) fn write_state(&mut self) {
        self.count_readers();
        self.read_scoreboards();
        self.keep_secrets();
        let refusals = self.keep.as_ref().map(|keep| keep.door.take_refusals());
        for (reason, number) in refusals.into_iter().flatten() {
            for _ in 0..number {
                self.metrics.supervisor().rejoin_refused(reason);
            }
        }
        // Taken out, since the document borrows everything else.
        let Some(mut file) = self.keep.as_mut().and_then(|keep| keep.file.take()) else {
            return;
        };
        let written = self.document().map(|document| file.write(&document));
        if written == Some(false) {
            self.metrics.supervisor().state_not_written();
        }
        if let Some(keep) = &mut self.keep {
            keep.file = Some(file);
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
