//! The supervisor's side: makes a table and reads copies of it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::uio::pread;

use super::layout::{ID, IPV4, IPV6, METHOD, QUEUED, RESPONDING, TARGET, WORKING, at};
use super::{ABI, Header, Record, RequestTableError, bytes, entries};
use crate::error::{Call, SystemError};
use crate::message::RequestsOffer;
use crate::sealed;
use prefork_api::RequestStage;

/// How often a table is read anew whose entries change meanwhile. What is begun and ended
/// between two looks each time is not worth showing.
const TRIES: u32 = 2;

/// A worker's request table, to be read.
#[derive(Debug)]
pub struct Table {
    memory: OwnedFd,
    /// The memory's size, which is sealed.
    bytes: usize,
}

/// A request that a worker was serving. Its texts are the worker's or its client's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// When it came, in nanoseconds of the monotonic clock, as the worker says.
    pub began_nanos: u64,
    /// What was being done.
    pub stage: RequestStage,
    /// Its method.
    pub method: String,
    /// Its target, of which [`TARGET`] bytes are kept.
    pub target: String,
    /// Whether that is not all of it.
    pub is_cut: bool,
    /// Who it came from; `None` for a client of a unix socket.
    pub client: Option<SocketAddr>,
    /// What it goes by, of which [`ID`] bytes are kept.
    pub id: Option<String>,
    /// Bytes of the response's body that were given out.
    pub sent_bytes: u64,
}

/// What a table held at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// The requests that have an entry, in no order.
    pub entries: Vec<Entry>,
    /// Requests beside them: those that there was no room for, and those in the middle of
    /// whose writing the worker was stopped or died.
    pub unlisted: u64,
}

impl Table {
    /// Makes memory for so many entries (at least 1, at most
    /// [`MOST_ENTRIES`](super::MOST_ENTRIES)), close-on-exec and of a fixed size. It takes
    /// up no more than was written to.
    ///
    /// # Errors
    /// [`RequestTableError::System`] with what the kernel lacks.
    pub fn create(entries: u32) -> Result<Self, RequestTableError> {
        let memory = sealed::create(c"prefork-requests", bytes(entries))?;
        Self::adopt(memory)
    }

    /// Takes a table that came from elsewhere: from the supervisor that was here before, or
    /// back from its worker. Trusts nothing.
    ///
    /// # Errors
    /// It is not what [`create`](Self::create) made, or the kernel refuses something, for
    /// instance because the descriptor is of something else.
    pub fn adopt(memory: OwnedFd) -> Result<Self, RequestTableError> {
        let entries = entries(&memory)?;
        let bytes = usize::try_from(bytes(entries)).expect("it is less than a megabyte");
        Ok(Self { memory, bytes })
    }

    /// A descriptor for the worker.
    ///
    /// # Errors
    /// There is none left.
    pub fn duplicate(&self) -> Result<OwnedFd, RequestTableError> {
        Ok(sealed::duplicate(&self.memory)?)
    }

    /// What the worker is told with it, and whether it is to note queries.
    pub fn offer(&self, query: bool) -> RequestsOffer {
        RequestsOffer {
            abi: ABI,
            bytes: self.bytes as u64,
            query,
            fds: 1,
        }
    }

    /// What the worker is serving; never waits for it.
    ///
    /// # Errors
    /// The kernel gives no copy, for want of memory for instance.
    pub fn read(&self) -> Result<Snapshot, RequestTableError> {
        let mut copies = [const { Vec::new() }; 3];
        let mut tries = 0;
        loop {
            tries += 1;
            for copy in &mut copies {
                self.copy(copy)?;
            }
            let (snapshot, is_settled) = settled(&copies);
            if is_settled || tries == TRIES {
                return Ok(snapshot);
            }
        }
    }

    /// A copy is made in no order that is promised. What is the same in the one before and
    /// the one after was the same all the time that the one between was made.
    fn copy(&self, to: &mut Vec<u8>) -> Result<(), SystemError> {
        to.clear();
        to.resize(self.bytes, 0);
        let mut done = 0;
        while done < to.len() {
            let from = i64::try_from(done).expect("it is less than a megabyte");
            match pread(&self.memory, &mut to[done..], from) {
                Ok(0) => break,
                Ok(more) => done += more,
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(SystemError::new(Call::Pread, errno)),
            }
        }
        Ok(())
    }
}

/// The memory, to be handed to a supervisor that comes after this one.
impl AsFd for Table {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.memory.as_fd()
    }
}

/// What is whole in the second of three copies, and whether that is all there is.
pub(super) fn settled([before, copy, after]: &[Vec<u8>; 3]) -> (Snapshot, bool) {
    let mut snapshot = Snapshot {
        entries: Vec::new(),
        unlisted: word(copy, at::UNLISTED),
    };
    let mut is_settled = true;
    let records = |copy| records(copy).map(|record| (record, word(record, at::SEQUENCE)));
    for (((_, first), (record, _)), (_, last)) in
        records(before).zip(records(copy)).zip(records(after))
    {
        let is_odd = last % 2 == 1;
        if first == last && !is_odd {
            snapshot.entries.extend(entry(record));
            continue;
        }
        is_settled = false;
        if first == last {
            snapshot.unlisted = snapshot.unlisted.saturating_add(1);
        }
    }
    (snapshot, is_settled)
}

fn records(copy: &[u8]) -> impl Iterator<Item = &[u8]> {
    let entries = copy.get(size_of::<Header>()..).unwrap_or_default();
    entries.chunks_exact(size_of::<Record>())
}

/// What an entry says, if it is one's.
fn entry(record: &[u8]) -> Option<Entry> {
    let stage = match half(record, at::STAGE) {
        QUEUED => RequestStage::Queued,
        WORKING => RequestStage::Working,
        RESPONDING => RequestStage::Responding,
        _ => return None,
    };
    let lengths = half(record, at::LENGTHS);
    let target_length = (lengths & 0xffff) as usize;
    let id_length = (lengths >> 16) as usize;
    let method = &record[at::METHOD..][..METHOD];
    let method_length = method.iter().position(|byte| *byte == 0);
    let id = text(&record[at::ID..][..ID], id_length);
    Some(Entry {
        began_nanos: word(record, at::BEGAN),
        stage,
        method: text(method, method_length.unwrap_or(METHOD)),
        target: text(&record[at::TARGET..][..TARGET], target_length),
        is_cut: target_length > TARGET,
        client: client(half(record, at::CLIENT), &record[at::ADDRESS..][..16]),
        id: (!id.is_empty()).then_some(id),
        sent_bytes: word(record, at::SENT),
    })
}

fn client(family_and_port: u32, address: &[u8]) -> Option<SocketAddr> {
    let port = (family_and_port & 0xffff) as u16;
    let ip: IpAddr = match family_and_port >> 16 {
        IPV4 => Ipv4Addr::from(*address.first_chunk::<4>()?).into(),
        IPV6 => Ipv6Addr::from(*address.first_chunk::<16>()?).into(),
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}

/// As much of a text as is there and is a character's; a character that was cut in two
/// goes as a whole.
fn text(bytes: &[u8], length: usize) -> String {
    let kept = &bytes[..length.min(bytes.len())];
    let cut = match std::str::from_utf8(kept) {
        Err(error) if error.error_len().is_none() => &kept[..error.valid_up_to()],
        _ => kept,
    };
    String::from_utf8_lossy(cut).into_owned()
}

fn word(bytes: &[u8], at: usize) -> u64 {
    let word = bytes.get(at..).and_then(|rest| rest.first_chunk::<8>());
    word.map_or(0, |bytes| u64::from_ne_bytes(*bytes))
}

fn half(bytes: &[u8], at: usize) -> u32 {
    let half = bytes.get(at..).and_then(|rest| rest.first_chunk::<4>());
    half.map_or(0, |bytes| u32::from_ne_bytes(*bytes))
}
