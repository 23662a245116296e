//! What clients that take nothing make the bundled web server hold: a little
//! memory for each, which goes back, and a few descriptors for all.

use std::fs::{self, File};
use std::time::Instant;

use serde_json::json;
use tempfile::TempDir;

use prefork_testkit::client::Client;
use prefork_testkit::raw_http2::{Raw, Said};
use prefork_testkit::supervisor::{DEADLINE, Orders, Worker};

const WIDE: u32 = 1 << 30;
const MIB: u64 = 1 << 20;

/// Bytes of a file, which tell where in it they are.
fn content(file: usize, length: usize) -> Vec<u8> {
    (0..length / 8)
        .flat_map(|at| ((file * 1_000_000 + at) as u64).to_be_bytes())
        .collect()
}

/// A web server with files of this length, called 0, 1 and so on.
fn site(files: usize, length: usize, prefix: Option<&'static str>) -> (TempDir, Worker) {
    let directory = tempfile::tempdir().unwrap();
    for file in 0..files {
        let path = directory.path().join(file.to_string());
        fs::write(path, content(file, length)).unwrap();
    }
    let mut orders = Orders {
        program: "web_server",
        prefix,
        ..Orders::default()
    };
    orders.welcome.app = json!({ "root": directory.path() });
    (directory, Worker::with(orders))
}

fn resident(worker: &Worker) -> u64 {
    let status = format!("/proc/{}/status", worker.process.pid());
    let status = fs::read_to_string(status).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let kib = line.unwrap().split_whitespace().nth(1).unwrap();
    kib.parse::<u64>().unwrap() * 1024
}

fn descriptors(worker: &Worker) -> usize {
    let directory = format!("/proc/{}/fd", worker.process.pid());
    fs::read_dir(directory).unwrap().count()
}

/// A client of which each request for this file stands, all of them begun.
fn standing(worker: &Worker, path: &str, stream_window: u32, of_all: u32) -> Raw {
    let mut raw = Raw::connect(worker.address, stream_window, of_all);
    for stream in (1..256).step_by(2) {
        raw.ask(stream, path);
    }
    raw
}

/// Hears the heads of 128 responses.
fn all_have_begun(raw: &mut Raw) {
    let mut heads = 0;
    while heads < 128 {
        let head = |said| matches!(said, Said::Head(..)).then_some(());
        raw.until(head);
        heads += 1;
    }
}

#[test]
fn streams_that_nobody_takes_hold_little_and_their_memory_goes_back() {
    let (directory, mut worker) = site(1, MIB as usize, None);
    // Longer than all that a kernel takes for one connection on both of its sides.
    let long = File::create(directory.path().join("long")).unwrap();
    long.set_len(64 * MIB).unwrap();
    let before = resident(&worker);
    let mut clients: Vec<Raw> = (0..6).map(|_| standing(&worker, "/0", 10, WIDE)).collect();
    clients.iter_mut().for_each(all_have_begun);
    // These have windows that take all, and read nothing.
    let open: Vec<Raw> = (0..2)
        .map(|_| standing(&worker, "/long", WIDE, WIDE))
        .collect();
    worker.in_flight(8 * 128);
    // Another client is served as if they were not there.
    let mut client = Client::connect(worker.address);
    assert!(client.get("/0").body == content(0, MIB as usize));
    let held = resident(&worker).saturating_sub(before);
    assert!(held < 64 * MIB, "{held}");
    // What they have asked for comes, and comes right.
    clients[0].want(1, WIDE);
    let body = clients[0].rest(1, Vec::new()).unwrap();
    let whole = content(0, MIB as usize);
    // Some of it was heard with the heads.
    assert!(body.len() + 10 >= whole.len() && whole.ends_with(&body));
    drop((clients, open));
    worker.in_flight(0);
    until_small(&mut worker, before + 8 * MIB);
}

/// As many as have pinned gigabytes in servers that bound each connection alone.
#[test]
fn two_hundred_clients_that_take_nothing_share_what_one_worker_gives() {
    let (_directory, mut worker) = site(1, MIB as usize, Some("ulimit -n 1024;"));
    let before = resident(&worker);
    let mut clients: Vec<Raw> = (0..200)
        .map(|_| standing(&worker, "/0", 10, WIDE))
        .collect();
    clients.iter_mut().for_each(all_have_begun);
    let held = resident(&worker).saturating_sub(before);
    assert!(held < 512 * MIB, "{held}");
    let mut client = Client::connect(worker.address);
    assert!(client.get("/0").body == content(0, MIB as usize));
    drop(clients);
    worker.in_flight(0);
    until_small(&mut worker, before + 16 * MIB);
}

/// Waits until it holds no more than this.
fn until_small(worker: &mut Worker, most: u64) {
    let begun = Instant::now();
    while resident(worker) > most {
        assert!(begun.elapsed() < 2 * DEADLINE, "{}", resident(worker));
        worker.health(|_| true);
    }
}

#[test]
fn streams_that_stand_hold_no_descriptors_that_others_need() {
    let length = 300_000;
    let (directory, worker) = site(60, length, Some("ulimit -n 64;"));
    let mut raw = Raw::connect(worker.address, 10, WIDE);
    for file in 0..60 {
        raw.ask(2 * file + 1, &format!("/{file}"));
    }
    let mut begun = vec![Vec::new(); 60];
    for _ in 0..60 {
        raw.until(|said| match said {
            Said::Data(stream, bytes, _) => {
                begun[stream as usize / 2] = bytes;
                Some(())
            }
            _ => None,
        });
    }
    assert!(descriptors(&worker) < 48, "{}", descriptors(&worker));
    let mut clients: Vec<Client> = (0..8).map(|_| Client::connect(worker.address)).collect();
    for client in &mut clients {
        assert!(client.get("/7").body == content(7, length));
    }
    // Those that stood go on where they were; what was replaced meanwhile breaks off.
    let replaced = directory.path().join("0");
    fs::write(directory.path().join("new"), content(1, length)).unwrap();
    fs::rename(directory.path().join("new"), &replaced).unwrap();
    raw.want(1, WIDE);
    assert_eq!(raw.rest(1, Vec::new()), None);
    for file in 1..60 {
        raw.want(2 * file + 1, WIDE);
        let first = std::mem::take(&mut begun[file as usize]);
        let whole = raw.rest(2 * file + 1, first).unwrap();
        assert!(whole == content(file as usize, length), "{file}");
    }
}

#[test]
fn files_of_which_nothing_is_wanted_yet_hold_no_descriptors_that_others_need() {
    let length = 3000;
    let (_directory, worker) = site(120, length, Some("ulimit -n 64;"));
    let mut raw = Raw::connect(worker.address, 0, WIDE);
    for file in 0..120 {
        raw.ask(2 * file + 1, &format!("/{file}"));
    }
    for _ in 0..120 {
        raw.until(|said| matches!(said, Said::Head(_, true, false)).then_some(()));
    }
    assert!(descriptors(&worker) < 48, "{}", descriptors(&worker));
    let mut client = Client::connect(worker.address);
    assert!(client.get("/7").body == content(7, length));
    for file in 0..120 {
        raw.want(2 * file + 1, WIDE);
        let whole = raw.rest(2 * file + 1, Vec::new()).unwrap();
        assert!(whole == content(file as usize, length), "{file}");
    }
}
