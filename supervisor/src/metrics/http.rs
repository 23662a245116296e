//! HTTP totals of a slot from what its incarnations report or have on their
//! scoreboards.

use prefork_proto::message::HttpCounts;

/// The most that is believed of one process: beyond it a number is not even exact in the
/// exposition. A worker that says more would have the total stand at its end for ever.
pub(super) const BELIEVED: u64 = 1 << 53;

/// One incarnation's totals, which never go backwards whatever it says.
#[derive(Debug, Default)]
pub(super) struct Totals {
    /// The highest that each cell has been.
    held: HttpCounts,
    /// What it said last.
    said: HttpCounts,
}

impl Totals {
    /// An incarnation's that another supervisor has followed until now.
    pub(super) fn from(counts: &HttpCounts) -> Self {
        Self {
            held: counts.clone(),
            said: counts.clone(),
        }
    }

    /// Takes over what a worker says now, cell by cell. A cell that is lower
    /// than it was, or beyond what is believed, holds its highest value. The answer is
    /// how many cells have come to that since the last look: one that stays so is
    /// counted once, however often it is looked at.
    pub(super) fn advance(&mut self, says: &HttpCounts) -> u64 {
        let mut backwards = 0;
        for_each_cell(&mut self.said, says, |said, says| {
            let was_good = *said <= BELIEVED;
            backwards += u64::from(was_good && (says < *said || says > BELIEVED));
            *said = says;
        });
        for_each_cell(&mut self.held, says, |held, says| {
            if says <= BELIEVED {
                *held = says.max(*held);
            }
        });
        backwards
    }

    /// The totals.
    pub(super) fn counts(&self) -> &HttpCounts {
        &self.held
    }
}

/// Adds one incarnation's counts to a total. A worker may report anything, so
/// that the sum stops at the largest number instead of beginning again.
pub(super) fn add(total: &mut HttpCounts, counts: &HttpCounts) {
    for_each_cell(total, counts, |sum, count| *sum = sum.saturating_add(count));
}

fn for_each_cell(ours: &mut HttpCounts, theirs: &HttpCounts, mut then: impl FnMut(&mut u64, u64)) {
    // Taken apart in full, so that a new field does not go unnoticed.
    let HttpCounts {
        requests,
        accepted,
        received_bytes,
        sent_bytes,
        duration_buckets,
        duration_sum_us,
        panics,
        tls_failures,
    } = ours;
    then(accepted, theirs.accepted);
    then(received_bytes, theirs.received_bytes);
    then(sent_bytes, theirs.sent_bytes);
    then(duration_sum_us, theirs.duration_sum_us);
    then(panics, theirs.panics);
    for (cell, reported) in requests.iter_mut().zip(theirs.requests) {
        then(cell, reported);
    }
    for (cell, reported) in tls_failures.iter_mut().zip(theirs.tls_failures) {
        then(cell, reported);
    }
    for (cell, reported) in duration_buckets.iter_mut().zip(theirs.duration_buckets) {
        then(cell, reported);
    }
}
