//! A listener changes hands: whoever accepts from it after a reload, or after
//! the reload was undone, no connection to it is refused and no request lost.

use std::net::SocketAddr;

use crate::harness::deadline::{PATIENCE, eventually};
use crate::harness::http;
use crate::harness::load::mixed::Mixed;
use crate::harness::{Mode, Pool, Prefork};

/// A pool that listens at these loopback addresses, on a port that each keeps.
fn pool(name: &'static str, workers: u32, mode: Mode, hosts: &[u8]) -> Pool {
    listening(Pool::service(name, workers), mode, hosts)
}

fn listening(pool: Pool, mode: Mode, hosts: &[u8]) -> Pool {
    let mode = mode.as_str();
    let listeners = hosts
        .iter()
        .map(|host| format!("{{ address = \"127.0.0.{host}:0\", mode = {mode:?} }}"));
    pool.set(
        "listen",
        format!("[{}]", listeners.collect::<Vec<_>>().join(", ")),
    )
}

/// Where the listener of this loopback address is bound.
#[track_caller]
fn bound(prefork: &Prefork, host: u8) -> SocketAddr {
    let name = format!("127.0.0.{host}:0");
    let pools = prefork.status().pools;
    let mut listeners = pools.into_iter().flat_map(|pool| pool.listeners);
    let listener = listeners.find(|listener| listener.name == name);
    let address = listener.expect("it is listened on").address;
    address.parse().expect("it is TCP")
}

/// Clients of two listeners, from before a reload until after it.
struct Clients(Vec<(SocketAddr, Mixed)>);

impl Clients {
    #[track_caller]
    fn of(prefork: &Prefork, hosts: &[u8]) -> Self {
        let start = |host: &u8| {
            let address = bound(prefork, *host);
            (address, Mixed::start(address, 1))
        };
        let clients = Self(hosts.iter().map(start).collect());
        clients.are_served();
        clients
    }

    #[track_caller]
    fn are_served(&self) {
        for (_, load) in &self.0 {
            load.serves(15);
        }
    }

    /// The pool that answers at the `index`th address is this one, and all the
    /// others' workers have gone.
    #[track_caller]
    fn come_to(&self, index: usize, pool: &str) {
        let address = self.0[index].0;
        let words = format!("pool {pool} ");
        eventually(&format!("{pool} answers at {address}"), PATIENCE, || {
            (0..8).all(|_| {
                let answer = http::get(address, "/").expect("it is answered");
                answer.body.contains(&words)
            })
        });
    }

    #[track_caller]
    fn have_lost_nothing(self) {
        self.are_served();
        for (_, load) in self.0 {
            load.stop_flawless();
        }
    }
}

/// Returns when whoever was to leave has left.
#[track_caller]
fn settled(prefork: &Prefork, workers: usize) {
    eventually("the old workers are gone", PATIENCE, || {
        let pools = prefork.status().pools;
        pools.iter().map(|pool| pool.workers.len()).sum::<usize>() == workers
            && pools
                .iter()
                .flat_map(|pool| &pool.workers)
                .all(|worker| worker.pid.is_some())
            && prefork.processes().len() == workers + 1
    });
}

#[test]
fn a_pool_that_is_renamed_keeps_its_listener() {
    for mode in Mode::ALL {
        for (before, after) in [(1, 1), (3, 1), (1, 3)] {
            let prefork = Prefork::start(&[pool("web", before, mode, &[7])]);
            let clients = Clients::of(&prefork, &[7]);
            prefork.configure(&[pool("shop", after, mode, &[7])]);
            prefork.done(&["reload"]);
            settled(&prefork, after as usize);
            clients.come_to(0, "shop");
            clients.have_lost_nothing();
        }
    }
}

#[test]
fn a_pool_that_stays_takes_the_listener_of_one_that_goes() {
    for mode in Mode::ALL {
        let prefork = Prefork::start(&[pool("old", 3, mode, &[8]), pool("web", 2, mode, &[7])]);
        let clients = Clients::of(&prefork, &[7, 8]);
        prefork.configure(&[pool("web", 2, mode, &[7, 8])]);
        prefork.done(&["reload"]);
        settled(&prefork, 2);
        clients.come_to(1, "web");
        clients.have_lost_nothing();
    }
}

#[test]
fn two_pools_swap_their_listeners() {
    for mode in Mode::ALL {
        let prefork = Prefork::start(&[pool("one", 1, mode, &[7]), pool("two", 3, mode, &[8])]);
        let clients = Clients::of(&prefork, &[7, 8]);
        prefork.configure(&[pool("one", 1, mode, &[8]), pool("two", 3, mode, &[7])]);
        prefork.done(&["reload"]);
        settled(&prefork, 4);
        clients.come_to(0, "two");
        clients.come_to(1, "one");
        clients.have_lost_nothing();
    }
}

#[test]
fn a_pool_that_stays_gives_a_listener_to_one_that_comes() {
    for mode in Mode::ALL {
        let prefork = Prefork::start(&[pool("web", 3, mode, &[7, 8])]);
        let clients = Clients::of(&prefork, &[7, 8]);
        prefork.configure(&[pool("web", 1, mode, &[7]), pool("api", 2, mode, &[8])]);
        prefork.done(&["reload"]);
        settled(&prefork, 3);
        clients.come_to(0, "web");
        clients.come_to(1, "api");
        clients.have_lost_nothing();
    }
}

#[test]
fn a_handover_that_is_undone_leaves_the_listener_where_it_was() {
    for mode in Mode::ALL {
        let prefork = Prefork::start(&[pool("web", 2, mode, &[7]), pool("api", 1, mode, &[8])]);
        let clients = Clients::of(&prefork, &[7, 8]);
        // Its other slots come up, and accept meanwhile.
        let shop = Pool::service_with("shop", &["--fail-in-slot", "2"], 3);
        prefork.configure(&[listening(shop, mode, &[7, 8])]);
        assert_eq!(prefork.cli(&["reload"]).code, 1);
        settled(&prefork, 3);
        clients.come_to(0, "web");
        clients.come_to(1, "api");
        // And again, between pools that stay.
        let api = Pool::service_with("api", &["--fail-in-slot", "2"], 3);
        prefork.configure(&[pool("web", 2, mode, &[8]), listening(api, mode, &[7])]);
        assert_eq!(prefork.cli(&["reload"]).code, 1);
        settled(&prefork, 3);
        clients.come_to(0, "web");
        clients.come_to(1, "api");
        clients.have_lost_nothing();
    }
}

#[test]
fn a_unix_socket_keeps_its_file_when_it_changes_hands() {
    let listen = |pool: Pool, file: &str| pool.set("listen", format!("[\"unix:./{file}\"]"));
    let web = || listen(Pool::service("web", 2), "web.sock");
    let api = || listen(Pool::service("api", 1), "api.sock");
    let prefork = Prefork::start(&[web(), api()]);
    let answers = |file: &str, pool: &str| {
        let words = format!("pool {pool} ");
        eventually(&format!("{pool} answers at {file}"), PATIENCE, || {
            let answer = http::get_unix(&prefork.dir().join(file), "/");
            answer.expect("it is answered").body.contains(&words)
        });
    };
    answers("web.sock", "web");

    prefork.configure(&[listen(Pool::service("shop", 2), "web.sock"), api()]);
    prefork.done(&["reload"]);
    settled(&prefork, 3);
    answers("web.sock", "shop");

    let broken = Pool::service_with("web", &["--fail-in-slot", "1"], 2);
    prefork.configure(&[listen(broken, "web.sock"), api()]);
    assert_eq!(prefork.cli(&["reload"]).code, 1);
    settled(&prefork, 3);
    answers("web.sock", "shop");

    let shop = listen(Pool::service("shop", 2), "api.sock");
    prefork.configure(&[shop, listen(Pool::service("api", 1), "web.sock")]);
    prefork.done(&["reload"]);
    settled(&prefork, 3);
    answers("web.sock", "api");
    answers("api.sock", "shop");
}
