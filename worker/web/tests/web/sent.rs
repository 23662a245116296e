//! Files that the kernel sends by itself: every byte of them, whatever becomes of
//! the file or the client meanwhile.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::time::Instant;

use serde_json::json;
use tempfile::TempDir;

use prefork_testkit::client::Client;
use prefork_testkit::supervisor::{DEADLINE, Orders, Worker};

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;
const BLOCK: usize = 4 * KIB;

/// More than all that a kernel takes for one connection on both of its sides.
const LONG: usize = 32 * MIB;

/// Bytes that tell where in which file they are: each block its number, and each byte its
/// place in the block.
fn content(file: u64, length: usize) -> Vec<u8> {
    let places: Vec<u8> = (0..BLOCK as u16 / 2).flat_map(u16::to_be_bytes).collect();
    let mut bytes = places.repeat(length.div_ceil(BLOCK));
    for (number, block) in bytes.chunks_mut(BLOCK).enumerate() {
        block[..8].copy_from_slice(&(file << 32 | number as u64).to_be_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// A web server with files of these lengths, called 0, 1 and so on.
fn site(lengths: &[usize], prefix: Option<&'static str>) -> (TempDir, Worker) {
    let directory = tempfile::tempdir().unwrap();
    for (file, length) in lengths.iter().enumerate() {
        let path = directory.path().join(file.to_string());
        fs::write(path, content(file as u64, *length)).unwrap();
    }
    let mut orders = Orders {
        program: "web_server",
        prefix,
        ..Orders::default()
    };
    orders.welcome.app = json!({ "root": directory.path() });
    (directory, Worker::with(orders))
}

/// Asks for a file as the last on a connection, and hears the answer's head.
fn begin(worker: &Worker, path: &str) -> (Client, String) {
    let mut client = Client::connect(worker.address);
    client.send(format!(
        "GET {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n"
    ));
    let head = client.until("\r\n\r\n");
    (client, head)
}

fn range(client: &mut Client, path: &str, first: usize, last: usize) -> Vec<u8> {
    client.send(format!(
        "GET {path} HTTP/1.1\r\nhost: test\r\nrange: bytes={first}-{last}\r\n\r\n"
    ));
    let response = client.response();
    assert_eq!(response.status, 206);
    response.body
}

#[test]
fn every_byte_of_files_and_of_their_ranges_comes_on_one_connection() {
    // About what is read and what is sent, and about what is one part and what are two.
    let lengths = [
        0,
        1,
        32 * KIB - 1,
        32 * KIB,
        32 * KIB + 1,
        256 * KIB - 1,
        256 * KIB,
        256 * KIB + 1,
        3 * MIB + 5,
    ];
    let (_directory, worker) = site(&lengths, None);
    let mut client = Client::connect(worker.address);
    for (file, length) in lengths.iter().enumerate() {
        let response = client.get(&format!("/{file}"));
        assert_eq!(response.status, 200);
        assert!(response.body == content(file as u64, *length), "{length}");
        client.send(format!("HEAD /{file} HTTP/1.1\r\nhost: test\r\n\r\n"));
        assert!(client.until("\r\n\r\n").starts_with("HTTP/1.1 200"));
    }
    let whole = content(8, lengths[8]);
    for first in [0, 1, 4095, 256 * KIB - 1, 256 * KIB + 1, MIB + 3] {
        for length in [1, 32 * KIB, 256 * KIB, 256 * KIB + 7, 2 * MIB] {
            let body = range(&mut client, "/8", first, first + length - 1);
            assert!(body == whole[first..first + length], "{first} {length}");
        }
    }
}

#[test]
fn pipelined_requests_get_their_files_one_after_the_other() {
    let lengths = [700 * KIB, 10, 40 * KIB, 700 * KIB + 1];
    let (_directory, worker) = site(&lengths, None);
    let mut client = Client::connect(worker.address);
    let order = [0, 1, 2, 3, 2, 1, 0, 3, 3];
    let requests = order.map(|file| format!("GET /{file} HTTP/1.1\r\nhost: test\r\n\r\n"));
    client.send(requests.concat());
    for file in order {
        let body = client.response().body;
        assert!(body == content(file as u64, lengths[file]), "{file}");
    }
}

#[test]
fn a_file_that_is_replaced_while_it_is_sent_is_sent_to_its_end() {
    let (directory, worker) = site(&[LONG], None);
    let (mut client, _) = begin(&worker, "/0");
    let new = directory.path().join("new");
    fs::write(&new, content(1, LONG)).unwrap();
    fs::rename(&new, directory.path().join("0")).unwrap();
    let mut other = Client::connect(worker.address);
    assert!(other.get("/0").body == content(1, LONG));
    // The first one had the old file, and has it to its end.
    assert!(client.rest() == content(0, LONG));
}

#[test]
fn a_file_that_is_cut_while_it_is_sent_breaks_its_connection_off() {
    let (directory, mut worker) = site(&[LONG], None);
    let (mut client, head) = begin(&worker, "/0");
    assert!(head.contains(&format!("content-length: {LONG}\r\n")));
    let file = OpenOptions::new()
        .write(true)
        .open(directory.path().join("0"));
    file.unwrap().set_len(MIB as u64).unwrap();
    let body = client.rest();
    assert!(body.len() < LONG);
    // What was on its way when the file was cut may be the file's or nothing's: pages
    // that a cut has emptied. All before the cut is the file's.
    let first = body.len().min(MIB);
    assert!(body[..first] == content(0, MIB)[..first]);
    // Others are served, and the worker has let go of it.
    worker.in_flight(0);
    assert!(Client::connect(worker.address).get("/0").body == content(0, MIB));
}

/// Files of the site that the worker has open.
fn open_files(directory: &TempDir, worker: &Worker) -> usize {
    let descriptors = fs::read_dir(format!("/proc/{}/fd", worker.process.pid())).unwrap();
    let targets = descriptors.filter_map(|fd| fs::read_link(fd.unwrap().path()).ok());
    let within = |target: &std::path::PathBuf| {
        target.starts_with(directory.path()) && target != directory.path()
    };
    targets.filter(within).count()
}

#[test]
fn clients_that_take_nothing_hold_few_files_and_none_once_they_have_gone() {
    let files = 24_u64;
    let (directory, mut worker) = site(&[LONG, LONG], Some("ulimit -n 64;"));
    for file in 2..files {
        let long = File::create(directory.path().join(file.to_string()));
        long.unwrap().set_len(LONG as u64).unwrap();
    }
    let mut clients: Vec<Client> = (0..files)
        .map(|file| begin(&worker, &format!("/{file}")).0)
        .collect();
    worker.in_flight(files);
    let open = open_files(&directory, &worker);
    assert!(open <= 16, "{open} of 64 descriptors");
    // Whoever goes on has all of it.
    for file in [0, 1] {
        let client = &mut clients[file as usize];
        assert!(client.rest() == content(file, LONG), "{file}");
    }
    drop(clients);
    let begun = Instant::now();
    while open_files(&directory, &worker) > 0 {
        assert!(begun.elapsed() < DEADLINE);
        worker.health(|_| true);
    }
}

#[test]
fn a_file_that_has_to_be_read_from_its_disk_comes_right() {
    let (directory, worker) = site(&[0], None);
    let mut file = File::create(directory.path().join("cold")).unwrap();
    file.write_all(&content(9, 5 * MIB)).unwrap();
    file.sync_all().unwrap();
    let advice = nix::fcntl::PosixFadviseAdvice::POSIX_FADV_DONTNEED;
    // Where the file system has no disk it stays in memory.
    nix::fcntl::posix_fadvise(&file, 0, 0, advice).unwrap();
    let mut client = Client::connect(worker.address);
    assert!(client.get("/cold").body == content(9, 5 * MIB));
}
