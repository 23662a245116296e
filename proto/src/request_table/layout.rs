//! Where each field is. A change of any offset is a new [`ABI`](super::ABI).

use std::mem::offset_of;
use std::sync::atomic::{AtomicU32, AtomicU64};

/// Bytes of a method that are kept.
pub const METHOD: usize = 16;

/// Bytes of a request's id that are kept.
pub const ID: usize = 48;

/// Bytes of a target that are kept.
pub const TARGET: usize = 128;

/// What comes before the entries.
#[derive(Debug, Default)]
#[repr(C, align(64))]
pub(crate) struct Header {
    /// Requests that are being served and have no entry.
    pub(super) unlisted: AtomicU64,
}

/// An entry as its writer has it. The texts are bytes in words, the first byte first.
#[derive(Debug, Default)]
#[repr(C, align(64))]
pub(crate) struct Record {
    /// Odd while the entry is written.
    pub(super) sequence: AtomicU64,
    /// When the request came, in nanoseconds of the monotonic clock.
    pub(super) began: AtomicU64,
    /// What is being done, 0 where the entry is free.
    pub(super) stage: AtomicU32,
    /// The address's family above 16 bits, the port in them.
    pub(super) client: AtomicU32,
    /// The id's length above 16 bits, the target's in them.
    pub(super) lengths: AtomicU32,
    _reserved: AtomicU32,
    /// The client's address in the order of the network.
    pub(super) address: [AtomicU64; 2],
    /// Bytes of the response's body that were given out.
    pub(super) sent: AtomicU64,
    _reserved_too: AtomicU64,
    pub(super) method: [AtomicU64; METHOD / 8],
    pub(super) id: [AtomicU64; ID / 8],
    pub(super) target: [AtomicU64; TARGET / 8],
}

/// Where a reader finds what it has a copy of.
pub(super) mod at {
    use super::{Header, Record, offset_of};

    pub(in super::super) const UNLISTED: usize = offset_of!(Header, unlisted);
    pub(in super::super) const SEQUENCE: usize = offset_of!(Record, sequence);
    pub(in super::super) const BEGAN: usize = offset_of!(Record, began);
    pub(in super::super) const STAGE: usize = offset_of!(Record, stage);
    pub(in super::super) const CLIENT: usize = offset_of!(Record, client);
    pub(in super::super) const LENGTHS: usize = offset_of!(Record, lengths);
    pub(in super::super) const ADDRESS: usize = offset_of!(Record, address);
    pub(in super::super) const SENT: usize = offset_of!(Record, sent);
    pub(in super::super) const METHOD: usize = offset_of!(Record, method);
    pub(in super::super) const ID: usize = offset_of!(Record, id);
    pub(in super::super) const TARGET: usize = offset_of!(Record, target);
}

/// The values of `stage`.
pub(super) const FREE: u32 = 0;
pub(super) const QUEUED: u32 = 1;
pub(super) const WORKING: u32 = 2;
pub(super) const RESPONDING: u32 = 3;

/// The families of an address.
pub(super) const IPV4: u32 = 4;
pub(super) const IPV6: u32 = 6;

const _: () = {
    assert!(size_of::<Header>() == 64);
    assert!(size_of::<Record>() == 256);
    assert!(at::UNLISTED == 0);
    assert!(at::SEQUENCE == 0);
    assert!(at::BEGAN == 8);
    assert!(at::STAGE == 16);
    assert!(at::CLIENT == 20);
    assert!(at::LENGTHS == 24);
    assert!(at::ADDRESS == 32);
    assert!(at::SENT == 48);
    assert!(at::METHOD == 64);
    assert!(at::ID == 80);
    assert!(at::TARGET == 128);
};
