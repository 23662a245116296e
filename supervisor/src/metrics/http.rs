//! HTTP totals of a slot from what its incarnations report.

use prefork_proto::message::HttpCounts;

/// Takes a worker's report over cell by cell. A cell that is lower than before
/// keeps its old value; the answer is how many did.
pub(super) fn advance(counts: &mut HttpCounts, report: &HttpCounts) -> u64 {
    let mut held = 0;
    for_each_cell(counts, report, |cell, reported| {
        held += u64::from(reported < *cell);
        *cell = reported.max(*cell);
    });
    held
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
    } = ours;
    then(accepted, theirs.accepted);
    then(received_bytes, theirs.received_bytes);
    then(sent_bytes, theirs.sent_bytes);
    then(duration_sum_us, theirs.duration_sum_us);
    for (cell, reported) in requests.iter_mut().zip(theirs.requests) {
        then(cell, reported);
    }
    for (cell, reported) in duration_buckets.iter_mut().zip(theirs.duration_buckets) {
        then(cell, reported);
    }
}
