use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use nix::errno::Errno;
use nix::sys::uio::pwrite;
use nix::unistd::ftruncate;

use super::layout::at;
use super::*;
use prefork_api::RequestStage;

fn pair(entries: u32) -> (Table, Writer) {
    let table = Table::create(entries).unwrap();
    let writer = Writer::map(&table.offer(false), table.duplicate().unwrap()).unwrap();
    (table, writer)
}

fn get<'a>(target: &'a str, client: &'a Client) -> Arrived<'a> {
    Arrived {
        began_nanos: 7,
        method: Method::of("GET"),
        target,
        client,
    }
}

fn targets(table: &Table) -> Vec<String> {
    let entries = table.read().unwrap().entries;
    entries.into_iter().map(|entry| entry.target).collect()
}

#[test]
fn a_request_is_seen_from_its_beginning_to_its_end() {
    let (table, writer) = pair(4);
    let address = "[2001:db8::1]:4711".parse().unwrap();
    let client = Client::of(Some(address));
    let place = writer.begin(get("/orders/17", &client)).unwrap();
    place.identify(b"7b3bf470-9456-11e8-9eb6-529269fb1459");
    place.stage(RequestStage::Responding);
    place.sent(100);
    place.sent(20);
    let seen = table.read().unwrap();
    assert_eq!(
        seen.entries,
        [Entry {
            began_nanos: 7,
            stage: RequestStage::Responding,
            method: "GET".to_owned(),
            target: "/orders/17".to_owned(),
            is_cut: false,
            client: Some(address),
            id: Some("7b3bf470-9456-11e8-9eb6-529269fb1459".to_owned()),
            sent_bytes: 120,
        }]
    );
    writer.end(Some(place));
    assert_eq!(table.read().unwrap(), Snapshot::default());
}

#[test]
fn nothing_of_the_request_before_is_left_in_an_entry() {
    let (table, writer) = pair(1);
    let client = Client::of(Some("192.0.2.1:80".parse().unwrap()));
    let long = Arrived {
        method: Method::of("VERSION-CONTROL-X"),
        ..get("/a/long/target/of/many/words", &client)
    };
    let place = writer.begin(long).unwrap();
    place.identify(b"an-id");
    place.sent(1);
    writer.end(Some(place));
    let nobody = Client::of(None);
    let _place = writer.begin(get("/x", &nobody)).unwrap();
    let [entry] = table.read().unwrap().entries.try_into().unwrap();
    assert_eq!(
        (entry.method.as_str(), entry.target.as_str()),
        ("GET", "/x")
    );
    assert_eq!((entry.client, entry.id, entry.sent_bytes), (None, None, 0));
}

#[test]
fn texts_of_every_length_are_kept_as_far_as_there_is_room() {
    let (table, writer) = pair(1);
    let client = Client::default();
    let text = "/0123456789".repeat(20);
    for length in 0..text.len() {
        let place = writer.begin(get(&text[..length], &client)).unwrap();
        let [entry] = table.read().unwrap().entries.try_into().unwrap();
        assert_eq!(entry.target, text[..length.min(TARGET)]);
        assert_eq!(entry.is_cut, length > TARGET);
        writer.end(Some(place));
    }
}

#[test]
fn a_method_is_kept_as_far_as_there_is_room() {
    let (table, writer) = pair(1);
    let client = Client::default();
    for method in [
        "GET",
        "PROPPATCH",
        "BASELINE-CONTROL",
        "VERSION-CONTROL-TOO",
    ] {
        let arrived = Arrived {
            method: Method::of(method),
            ..get("/", &client)
        };
        let place = writer.begin(arrived);
        let [entry] = table.read().unwrap().entries.try_into().unwrap();
        assert_eq!(entry.method, method[..method.len().min(METHOD)]);
        writer.end(place);
    }
}

#[test]
fn what_there_is_no_room_for_is_counted_until_it_ends() {
    let (table, writer) = pair(2);
    let client = Client::default();
    let mut places: Vec<_> = ["/a", "/b", "/c", "/d"]
        .map(|target| writer.begin(get(target, &client)))
        .into();
    assert_eq!(targets(&table), ["/a", "/b"]);
    assert_eq!(table.read().unwrap().unlisted, 2);
    writer.end(places.pop().unwrap());
    assert_eq!(table.read().unwrap().unlisted, 1);
    writer.end(places.remove(0));
    let _place = writer.begin(get("/e", &client)).unwrap();
    assert_eq!(targets(&table), ["/e", "/b"], "an entry is free again");
}

#[test]
fn an_entry_is_never_of_two_requests() {
    let (table, writer) = pair(2);
    let done = AtomicBool::new(false);
    let write = || {
        let ports = [1111, 2222].map(|port| Client::of(Some(([127, 0, 0, 1], port).into())));
        let targets = ["/1111".repeat(24), "/2222".repeat(25)];
        while !done.load(Relaxed) {
            for (target, client) in targets.iter().zip(&ports) {
                let place = writer.begin(get(target, client));
                place.as_ref().unwrap().identify(&target.as_bytes()[1..5]);
                writer.end(place);
            }
        }
    };
    let mut seen = 0;
    std::thread::scope(|scope| {
        scope.spawn(write);
        for _ in 0..20_000 {
            for entry in table.read().unwrap().entries {
                seen += 1;
                let port = entry.client.unwrap().port().to_string();
                assert_eq!(
                    entry.target,
                    format!("/{port}").repeat(entry.target.len() / 5)
                );
                assert!(entry.id.is_none_or(|id| id == port));
            }
        }
        done.store(true, Relaxed);
    });
    // With one processor the writer may always have stood between two requests.
    println!("{seen} entries were seen");
}

/// A copy of a table whose one entry has this number and target.
fn copy(sequence: u64, target: &str) -> Vec<u8> {
    let (table, writer) = pair(1);
    let _place = writer.begin(get(target, &Client::default()));
    let mut copy = vec![0; usize::try_from(bytes(1)).unwrap()];
    nix::sys::uio::pread(&table, &mut copy, 0).unwrap();
    copy[in_entry(0, at::SEQUENCE)..][..8].copy_from_slice(&sequence.to_ne_bytes());
    copy
}

#[test]
fn only_what_was_the_same_before_and_after_is_believed() {
    for (before, after, believed, counted) in [
        (2, 2, true, 0),
        (2, 4, false, 0),
        (2, 3, false, 0),
        (3, 4, false, 0),
        (3, 3, false, 1),
    ] {
        // Whatever the copy between says of itself.
        for between in [before, after] {
            let copies = [copy(before, "/a"), copy(between, "/b"), copy(after, "/c")];
            let (seen, is_settled) = super::reader::settled(&copies);
            let what = format!("{before}, {between}, {after}");
            assert_eq!(seen.entries.len(), usize::from(believed), "{what}");
            assert_eq!((is_settled, seen.unlisted), (believed, counted), "{what}");
        }
    }
}

/// Writes to a table as a hostile worker does.
fn scribble(table: &Table, at: usize, bytes: &[u8]) {
    pwrite(table, bytes, i64::try_from(at).unwrap()).unwrap();
}

fn in_entry(index: usize, field: usize) -> usize {
    size_of::<Header>() + index * size_of::<Record>() + field
}

#[test]
fn what_was_being_written_at_a_death_is_counted() {
    let (table, writer) = pair(2);
    let _whole = writer.begin(get("/whole", &Client::default()));
    scribble(&table, in_entry(1, at::SEQUENCE), &3_u64.to_ne_bytes());
    let seen = table.read().unwrap();
    assert_eq!(seen.entries.len(), 1);
    assert_eq!(seen.unlisted, 1);
}

#[test]
fn nonsense_is_read_and_does_no_harm() {
    let (table, _writer) = pair(3);
    let size = usize::try_from(bytes(3)).unwrap();
    for byte in 0..=u8::MAX {
        scribble(&table, 0, &vec![byte; size]);
        for index in 0..3 {
            scribble(&table, in_entry(index, at::STAGE), &2_u32.to_ne_bytes());
            scribble(&table, in_entry(index, at::SEQUENCE), &2_u64.to_ne_bytes());
        }
        let seen = table.read().unwrap();
        assert_eq!(seen.entries.len(), 3);
        for entry in seen.entries {
            assert!(entry.target.chars().count() <= TARGET);
            assert!(entry.method.chars().count() <= METHOD);
        }
    }
}

#[test]
fn a_character_that_was_cut_in_two_is_left_out() {
    let (table, writer) = pair(1);
    let target = format!("{}é", "/".repeat(TARGET - 1));
    let _place = writer.begin(get(&target, &Client::default()));
    assert_eq!(targets(&table), [target.trim_end_matches('é')]);
}

#[test]
fn memory_that_no_supervisor_made_is_refused() {
    let (null, _) = nix::unistd::pipe().unwrap();
    assert!(matches!(
        Table::adopt(null),
        Err(RequestTableError::System(_))
    ));
    let loose = loose(bytes(4));
    assert!(matches!(
        Table::adopt(loose),
        Err(RequestTableError::Seals { .. })
    ));
    for size in [0, 64, bytes(1) - 1, bytes(4) + 8, bytes(MOST_ENTRIES + 1)] {
        let memory = loose_sealed(size);
        let refused = Table::adopt(memory).unwrap_err();
        let bytes = size.cast_signed();
        assert_eq!(refused, RequestTableError::Size { bytes });
    }
    let table = Table::create(MOST_ENTRIES).unwrap();
    let later = crate::message::RequestsOffer {
        abi: ABI + 1,
        ..table.offer(false)
    };
    let refused = Writer::map(&later, table.duplicate().unwrap()).unwrap_err();
    assert_eq!(refused, RequestTableError::Abi { found: ABI + 1 });
}

fn loose(size: u64) -> OwnedFd {
    let flags = nix::sys::memfd::MFdFlags::MFD_ALLOW_SEALING;
    let memory = nix::sys::memfd::memfd_create(c"loose", flags).unwrap();
    ftruncate(&memory, size.cast_signed()).unwrap();
    memory
}

fn loose_sealed(size: u64) -> OwnedFd {
    let memory = loose(size);
    let seals = nix::fcntl::FcntlArg::F_ADD_SEALS(crate::sealed::SEALS);
    nix::fcntl::fcntl(&memory, seals).unwrap();
    memory
}

#[test]
fn it_can_be_made_neither_smaller_nor_larger() {
    let memory = Table::create(1).unwrap().duplicate().unwrap();
    for length in [0, bytes(1).cast_signed() + 1] {
        assert_eq!(ftruncate(&memory, length), Err(Errno::EPERM));
    }
}
