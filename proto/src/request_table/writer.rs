//! The worker's side: notes requests as they come and go.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{
    AtomicU32, AtomicU64,
    Ordering::{Relaxed, Release},
    fence,
};

use nix::sys::stat::fstat;

use super::layout::{FREE, Header, IPV4, IPV6, QUEUED, RESPONDING, Record, TARGET, WORKING};
use super::{ABI, RequestTableError, bytes, entries, refused};
use crate::control::RequestStage;
use crate::error::Call;
use crate::message::RequestsOffer;
use crate::scoreboard::seals;
use crate::sys;

/// The end of the list of free entries.
const NONE: u32 = u32::MAX;

/// Notes what a worker serves. One per process: its memory stays for as long as that.
///
/// It has one writer, the thread that serves, and is written with plain loads and stores.
/// Two threads that call it at the same time may spoil what is shown, and nothing else.
#[derive(Debug)]
pub struct Writer {
    header: &'static Header,
    records: &'static [Record],
    /// Of each free entry, which one is free as well. In memory that nobody else has.
    free: Box<[AtomicU32]>,
    first_free: AtomicU32,
    /// Whether targets are noted with their queries.
    query: bool,
    memory: OwnedFd,
}

/// A request's entry, until [`Writer::end`].
#[derive(Debug, PartialEq, Eq)]
pub struct Place(u32);

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
    pub method: &'a str,
    /// Its target, with its query where [`Writer::has_query`] says so.
    pub target: &'a str,
    /// Who it comes from.
    pub client: &'a Client,
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
        let size = fstat(&memory).map_err(refused(Call::Fstat))?.st_size;
        let entries = entries(seals(&memory)?, size)?;
        let (header, records) = sys::map_requests_for_good(memory.as_fd(), entries as usize)
            .map_err(refused(Call::Mmap))?;
        let next = (1..entries).chain([NONE]);
        Ok(Self {
            header,
            records,
            free: next.map(AtomicU32::new).collect(),
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
        let entries = u32::try_from(self.records.len()).expect("there are few");
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
        let (Some(record), Some(next)) = (
            self.records.get(index as usize),
            self.free.get(index as usize),
        ) else {
            add(&self.header.unlisted, 1);
            return None;
        };
        self.first_free.store(next.load(Relaxed), Relaxed);
        record.write(arrived);
        Some(Place(index))
    }

    /// What is being done about it has changed.
    #[inline]
    pub fn stage(&self, place: &Place, stage: RequestStage) {
        if let Some(record) = self.record(place) {
            record.stage.store(number(stage), Relaxed);
        }
    }

    /// It goes by this id.
    pub fn identify(&self, place: &Place, id: &[u8]) {
        let Some(record) = self.record(place) else {
            return;
        };
        record.change(|record| {
            let kept = store(&record.id, id);
            let target = record.lengths.load(Relaxed) & 0xffff;
            record.lengths.store(kept << 16 | target, Relaxed);
        });
    }

    /// So many bytes more of its response's body were given out.
    #[inline]
    pub fn sent(&self, place: &Place, bytes: u64) {
        if let Some(record) = self.record(place) {
            add(&record.sent, bytes);
        }
    }

    /// It is over; its place is what `begin` gave.
    #[inline]
    pub fn end(&self, place: Option<Place>) {
        let Some(Place(index)) = place else {
            return add(&self.header.unlisted, u64::MAX);
        };
        if let (Some(record), Some(next)) = (
            self.records.get(index as usize),
            self.free.get(index as usize),
        ) {
            record.stage.store(FREE, Relaxed);
            next.store(self.first_free.load(Relaxed), Relaxed);
            self.first_free.store(index, Relaxed);
        }
    }

    #[inline]
    fn record(&self, Place(index): &Place) -> Option<&'static Record> {
        self.records.get(*index as usize)
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
            record.method[1].store(0, Relaxed);
            store(&record.method, arrived.method.as_bytes());
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
    let (whole, rest) = text.as_chunks::<8>();
    for (word, bytes) in words.iter().zip(whole) {
        word.store(u64::from_ne_bytes(*bytes), Relaxed);
    }
    if let Some(word) = words.get(whole.len()) {
        word.store(last_word(text, rest), Relaxed);
    }
    u32::try_from(text.len()).map_or(0xffff, |length| length.min(0xffff))
}

/// The last bytes of a text in a word, the first of them first, and zeros after them.
#[inline]
fn last_word(text: &[u8], rest: &[u8]) -> u64 {
    if rest.is_empty() {
        return 0;
    }
    if let Some(last) = text.last_chunk::<8>() {
        return (u64::from_le_bytes(*last) >> (64 - 8 * rest.len())).to_le();
    }
    let mut word = 0;
    for byte in rest.iter().rev() {
        word = word << 8 | u64::from(*byte);
    }
    word.to_le()
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
