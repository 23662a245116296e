//! IPv4 and IPv6: an address of all interfaces is for its own family, unless it
//! is asked to be for both; for pools and for the admin address alike.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};

use crate::harness::{Pool, Prefork, http};

/// A port that is free in both families; none where this machine has one alone.
fn free_port() -> Option<u16> {
    let free = TcpListener::bind("[::]:0").ok()?;
    Some(free.local_addr().expect("it is bound").port())
}

fn over_ipv4(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

#[test]
fn every_address_of_ipv6_takes_ipv4_only_where_it_is_asked_to() {
    let (Some(port), Some(admin)) = (free_port(), free_port()) else {
        eprintln!("SKIPPED: this machine has no IPv6");
        return;
    };
    let listen = |keys: &str| format!("[{{ address = \"[::]:{port}\"{keys} }}]");
    let web = |keys: &str| Pool::bundled("web", 1).set("listen", listen(keys));
    let supervisor = format!("admin = \"[::]:{admin}\"\n");
    let prefork = Prefork::launch_with(&supervisor, &[web("")]);
    prefork.wait_until_ready();
    for port in [port, admin] {
        TcpStream::connect(over_ipv4(port)).expect_err("it is for IPv6 alone");
    }
    assert_eq!(
        http::get(prefork.address("web"), "/")
            .expect("it serves")
            .status,
        200
    );

    prefork.configure(&[web(", ipv6_only = false")]);
    prefork.done(&["reload"]);
    assert_eq!(
        http::get(over_ipv4(port), "/").expect("it serves").status,
        200
    );
    prefork.configure(&[web("")]);
    prefork.done(&["reload"]);
    assert_eq!(
        http::get(prefork.address("web"), "/")
            .expect("it serves")
            .status,
        200
    );
}

#[test]
fn the_admin_address_of_ipv6_takes_ipv4_where_it_is_asked_to() {
    let Some(port) = free_port() else {
        eprintln!("SKIPPED: this machine has no IPv6");
        return;
    };
    let supervisor = format!("admin = \"[::]:{port}\"\nadmin_ipv6_only = false\n");
    let prefork = Prefork::launch_with(&supervisor, &[Pool::bundled("web", 1)]);
    prefork.wait_until_ready();
    let answer = http::get(over_ipv4(port), "/livez").expect("it serves");
    assert_eq!(answer.status, 200);
}
