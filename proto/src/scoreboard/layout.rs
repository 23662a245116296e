//! Where each cell is. A change of any offset is a new [`ABI`](super::ABI).

use std::mem::offset_of;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::message::DURATION_BOUNDS;
use crate::tls::HandshakeFailure;

/// The memory as cells of type `C`: [`AtomicU64`] for the worker, [`Seen`] for
/// the supervisor. Both have the size and alignment of a `u64`.
///
/// A request touches three cache lines: the first, one of its bucket, and the
/// last. Nothing but `C` is in it: no pointer, index or length.
#[derive(Debug, Default)]
#[repr(C, align(64))]
pub(crate) struct Cells<C> {
    // Line 0, written by the serving thread.
    pub(super) requests: [C; 5],
    pub(super) duration_sum_us: C,
    pub(super) in_flight: C,
    pub(super) accepted: C,
    // Lines 1 and 2, written by the serving thread.
    pub(super) duration_buckets: [C; DURATION_BOUNDS.len() + 1],
    pub(super) panics: C,
    // Line 3, the bytes written by any thread that holds an upgraded connection.
    pub(super) received_bytes: C,
    pub(super) sent_bytes: C,
    pub(super) connections: C,
    pub(super) tls_failures: [C; HandshakeFailure::ALL.len()],
}

/// A cell that can only be looked at: the supervisor's mapping is read-only,
/// and a store to it would be a fault.
#[derive(Debug)]
#[repr(transparent)]
pub(crate) struct Seen(AtomicU64);

impl Seen {
    /// What it holds at this moment.
    pub(crate) fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

const _: () = {
    assert!(size_of::<Cells<AtomicU64>>() == 256);
    assert!(size_of::<Cells<Seen>>() == 256);
    assert!(align_of::<Cells<AtomicU64>>() == 64);
    assert!(offset_of!(Cells<Seen>, requests) == 0);
    assert!(offset_of!(Cells<Seen>, duration_sum_us) == 40);
    assert!(offset_of!(Cells<Seen>, in_flight) == 48);
    assert!(offset_of!(Cells<Seen>, accepted) == 56);
    assert!(offset_of!(Cells<Seen>, duration_buckets) == 64);
    assert!(offset_of!(Cells<Seen>, panics) == 184);
    assert!(offset_of!(Cells<Seen>, received_bytes) == 192);
    assert!(offset_of!(Cells<Seen>, sent_bytes) == 200);
    assert!(offset_of!(Cells<Seen>, connections) == 208);
    assert!(offset_of!(Cells<Seen>, tls_failures) == 216);
};
