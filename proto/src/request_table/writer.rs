//! The worker's side: notes requests as they come and go.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{
    AtomicU32, AtomicU64,
    Ordering::{Relaxed, Release},
    fence,
};

use super::layout::{
    FREE, Header, IPV4, IPV6, METHOD, QUEUED, RESPONDING, Record, TARGET, WORKING,
};
use super::{ABI, RequestTableError, bytes, entries};
use crate::error::Call;
use crate::message::RequestsOffer;
use crate::sys;
use crate::system_error::refused;
use prefork_api::RequestStage;

/// The end of the list of free entries.
const NONE: u32 = u32::MAX;

/// Notes what a worker serves. One per process: its memory stays for as long as that.
///
/// It has one writer, the thread that serves, and is written with plain loads and stores.
/// Two threads that call it at the same time may spoil what is shown, and nothing else.
#[derive(Debug)]
pub struct Writer {
    header: &'static Header,
    /// In memory that nobody else has, so that nobody else leads it astray. It stays as
    /// the table does.
    slots: &'static [Slot],
    first_free: AtomicU32,
    /// Whether targets are noted with their queries.
    query: bool,
    memory: OwnedFd,
}

/// An entry, and which one is free as well while it is.
#[derive(Debug)]
struct Slot {
    record: &'static Record,
    index: u32,
    next_free: AtomicU32,
}

/// A request's entry, until [`Writer::end`].
#[derive(Debug)]
pub struct Place(&'static Slot);

/// A method as an entry has it: worked out once for those that come often.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Method([u64; METHOD / 8]);

/// Who a connection's requests come from, as an entry has it: worked out once for all of
/// them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Client {
    family_and_port: u32,
    address: [u64; 2],
}

/// What is noted of a request when it comes.
#[derive(Debug, Clone, Copy)]
pub struct Arrived<'a> {
    /// When, in nanoseconds of the monotonic clock.
    pub began_nanos: u64,
    /// Its method.
    pub method: Method,
    /// Its target, with its query where [`Writer::has_query`] says so.
    pub target: &'a str,
    /// Who it comes from.
    pub client: &'a Client,
}

impl Method {
    /// A method of this name, as much of it as there is room for.
    pub const fn of(name: &str) -> Self {
        let name = name.as_bytes();
        let mut bytes = [0; METHOD];
        let mut at = 0;
        while at < name.len() && at < METHOD {
            bytes[at] = name[at];
            at += 1;
        }
        let (words, _) = bytes.as_chunks::<8>();
        Self([u64::from_ne_bytes(words[0]), u64::from_ne_bytes(words[1])])
    }
}

impl Client {
    /// A client at this address; none for one of a unix socket.
    pub fn of(address: Option<SocketAddr>) -> Self {
        let Some(address) = address else {
            return Self::default();
        };
        let mut bytes = [0; 16];
        let family = match address.ip() {
            IpAddr::V4(ip) => {
                bytes[..4].copy_from_slice(&ip.octets());
                IPV4
            }
            IpAddr::V6(ip) => {
                bytes = ip.octets();
                IPV6
            }
        };
        let (words, _) = bytes.as_chunks::<8>();
        Self {
            family_and_port: family << 16 | u32::from(address.port()),
            address: [words[0], words[1]].map(u64::from_ne_bytes),
        }
    }
}

impl Writer {
    /// Maps what `requests` brought.
    ///
    /// # Errors
    /// It is not what a supervisor made, or the kernel refuses something.
    pub fn map(offer: &RequestsOffer, memory: OwnedFd) -> Result<Self, RequestTableError> {
        if offer.abi != ABI {
            return Err(RequestTableError::Abi { found: offer.abi });
        }
        let entries = entries(&memory)?;
        // SAFETY: its seals keep it from shrinking, and it has room for as many entries.
        #[expect(unsafe_code, reason = "what it takes has just been checked")]
        let mapped = unsafe { sys::map_requests_for_good(memory.as_fd(), entries as usize) };
        let (header, records) = mapped.map_err(refused(Call::Mmap))?;
        let next = (1..entries).chain([NONE]);
        let slots: Box<[Slot]> = records
            .iter()
            .zip((0..).zip(next))
            .map(|(record, (index, next))| Slot {
                record,
                index,
                next_free: AtomicU32::new(next),
            })
            .collect();
        Ok(Self {
            header,
            slots: Box::leak(slots),
            first_free: AtomicU32::new(0),
            query: offer.query,
            memory,
        })
    }

    /// The memory, to be handed to the next supervisor.
    pub fn memory(&self) -> BorrowedFd<'_> {
        self.memory.as_fd()
    }

    /// What goes with it.
    pub fn offer(&self) -> RequestsOffer {
        let entries = u32::try_from(self.slots.len()).expect("there are few");
        RequestsOffer {
            abi: ABI,
            bytes: bytes(entries),
            query: self.query,
            fds: 1,
        }
    }

    /// Whether targets are noted with their queries.
    pub fn has_query(&self) -> bool {
        self.query
    }

    /// Notes a request that the application gets; `None` where there is no room for it,
    /// which is counted until the [end](Self::end).
    #[inline]
    pub fn begin(&self, arrived: Arrived<'_>) -> Option<Place> {
        let index = self.first_free.load(Relaxed);
        let Some(slot) = self.slots.get(index as usize) else {
            add(&self.header.unlisted, 1);
            return None;
        };
        let next = slot.next_free.load(Relaxed);
        self.first_free.store(next, Relaxed);
        slot.record.write(arrived);
        Some(Place(slot))
    }

    /// It is over; its place is what `begin` gave.
    #[inline]
    pub fn end(&self, place: Option<Place>) {
        let Some(Place(slot)) = place else {
            return add(&self.header.unlisted, u64::MAX);
        };
        slot.record.stage.store(FREE, Relaxed);
        let next = self.first_free.load(Relaxed);
        slot.next_free.store(next, Relaxed);
        self.first_free.store(slot.index, Relaxed);
    }
}

impl Place {
    /// What is being done about it has changed.
    #[inline]
    pub fn stage(&self, stage: RequestStage) {
        self.0.record.stage.store(number(stage), Relaxed);
    }

    /// It goes by this id.
    pub fn identify(&self, id: &[u8]) {
        self.0.record.change(|record| {
            let kept = store(&record.id, id);
            let target = record.lengths.load(Relaxed) & 0xffff;
            record.lengths.store(kept << 16 | target, Relaxed);
        });
    }

    /// So many bytes more of its response's body were given out.
    #[inline]
    pub fn sent(&self, bytes: u64) {
        add(&self.0.record.sent, bytes);
    }
}

impl Record {
    /// Writes all of it for a request that has come.
    #[inline]
    fn write(&self, arrived: Arrived<'_>) {
        self.change(|record| {
            record.began.store(arrived.began_nanos, Relaxed);
            record.client.store(arrived.client.family_and_port, Relaxed);
            record.address[0].store(arrived.client.address[0], Relaxed);
            record.address[1].store(arrived.client.address[1], Relaxed);
            record.sent.store(0, Relaxed);
            record.method[0].store(arrived.method.0[0], Relaxed);
            record.method[1].store(arrived.method.0[1], Relaxed);
            let length = store(&record.target, arrived.target.as_bytes());
            record.lengths.store(length, Relaxed);
            record.stage.store(WORKING, Relaxed);
        });
    }

    /// Changes what a reader has to see as a whole.
    #[inline]
    fn change(&self, change: impl FnOnce(&Self)) {
        let sequence = self.sequence.load(Relaxed);
        self.sequence.store(sequence.wrapping_add(1), Relaxed);
        fence(Release);
        change(self);
        self.sequence.store(sequence.wrapping_add(2), Release);
    }
}

/// Writes as much of a text as there is room for; how long all of it is, as far as 16
/// bits can say.
#[inline]
fn store(words: &[AtomicU64], text: &[u8]) -> u32 {
    match words.first() {
        Some(word) if text.len() < 8 => word.store(short_word(text), Relaxed),
        _ => store_long(words, text),
    }
    text.len().min(0xffff) as u32
}

/// The same of a text of 8 bytes at least.
fn store_long(words: &[AtomicU64], text: &[u8]) {
    let (whole, rest) = text.as_chunks::<8>();
    for (word, bytes) in words.iter().zip(whole) {
        word.store(u64::from_ne_bytes(*bytes), Relaxed);
    }
    if let (Some(word), Some(last), 1..) =
        (words.get(whole.len()), text.last_chunk::<8>(), rest.len())
    {
        let last = u64::from_le_bytes(*last) >> (64 - 8 * rest.len());
        word.store(last.to_le(), Relaxed);
    }
}

/// A text of fewer than 8 bytes in a word, the first of them first, and zeros after them.
/// Bytes in the middle are read twice rather than one after the other: each request pays
/// for it.
#[inline]
fn short_word(text: &[u8]) -> u64 {
    let little_endian = match text {
        [] => 0,
        [only] => u64::from(*only),
        [a, b, c, d, ..] => {
            let first = u32::from_le_bytes([*a, *b, *c, *d]);
            let last = text
                .last_chunk()
                .map_or(0, |last| u32::from_le_bytes(*last));
            u64::from(first) | u64::from(last) << (8 * (text.len() - 4))
        }
        [first, .., last] => {
            let middle = u64::from(text[text.len() / 2]) << (8 * (text.len() / 2));
            u64::from(*first) | middle | u64::from(*last) << (8 * (text.len() - 1))
        }
    };
    little_endian.to_le()
}

fn number(stage: RequestStage) -> u32 {
    match stage {
        RequestStage::Queued => QUEUED,
        RequestStage::Working => WORKING,
        RequestStage::Responding => RESPONDING,
    }
}

/// Adds where there is one writer.
#[inline]
fn add(cell: &AtomicU64, more: u64) {
    cell.store(cell.load(Relaxed).wrapping_add(more), Relaxed);
}

const _: () = assert!(TARGET < 0xffff, "a length says whether a target was cut");
