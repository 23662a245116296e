//! Proxies that are trusted say who their clients are, and nobody else does: to the
//! application, in the request table and in what a request goes by.

use std::io::{Read, Write};
use std::net::TcpStream;

use prefork_proto::message::{ClientHeader, HttpLimits, ToWorker};
use prefork_proto::request_table::Table;
use prefork_testkit::client::{Client, connected};
use prefork_testkit::supervisor::{Orders, Worker};

/// Orders by which these are believed.
fn believing(networks: &[&str]) -> Orders {
    let mut orders = Orders::default();
    orders.welcome.http = Box::new(HttpLimits {
        trusted_proxies: Some(networks.iter().map(|it| it.parse().unwrap()).collect()),
        ..HttpLimits::default()
    });
    orders
}

/// What `/peer` says to a request with these headers.
fn peer(client: &mut Client, headers: &str) -> String {
    client.send(format!("GET /peer HTTP/1.1\r\nhost: test\r\n{headers}\r\n"));
    client.response().text().to_owned()
}

#[test]
fn each_request_of_a_proxys_connection_has_a_client_of_its_own() {
    let worker = Worker::with(believing(&["127.0.0.0/8"]));
    let stream = connected(worker.address);
    let itself = format!("Some({}) main None", stream.local_addr().unwrap());
    let mut client = Client::over(stream);
    for (headers, told) in [
        (
            "x-forwarded-for: 192.0.2.1\r\n",
            "Some(192.0.2.1:0) main None",
        ),
        (
            "x-forwarded-for: 10.0.0.1, [2001:db8::1]:80\r\n",
            "Some([2001:db8::1]:80) main None",
        ),
        (
            "x-forwarded-for: 192.0.2.9\r\nx-forwarded-for: ::ffff:192.0.2.2, 127.0.0.5\r\n",
            "Some(192.0.2.2:0) main None",
        ),
        ("", itself.as_str()),
        ("forwarded: for=192.0.2.1\r\n", itself.as_str()),
        ("x-forwarded-for: 192.0.2.1, unknown\r\n", itself.as_str()),
    ] {
        assert_eq!(peer(&mut client, headers), told, "{headers}");
    }
}

#[test]
fn nobody_else_is_believed() {
    for orders in [
        Orders::default(),
        believing(&[]),
        believing(&["10.0.0.0/8"]),
    ] {
        let worker = Worker::with(orders);
        let stream = connected(worker.address);
        let itself = format!("Some({}) main None", stream.local_addr().unwrap());
        let said = "x-forwarded-for: 192.0.2.1\r\nforwarded: for=192.0.2.1\r\n";
        assert_eq!(peer(&mut Client::over(stream), said), itself);
    }
}

#[test]
fn the_other_header_is_read_where_that_is_said() {
    let mut orders = believing(&["127.0.0.1"]);
    orders.welcome.http.client_header = Some(ClientHeader::Forwarded);
    let worker = Worker::with(orders);
    let mut client = Client::connect(worker.address);
    let both = "x-forwarded-for: 192.0.2.9\r\nforwarded: for=192.0.2.1;proto=https\r\n";
    let told = "Some(192.0.2.1:0) main None";
    assert_eq!(peer(&mut client, both), told);
}

#[test]
fn the_request_table_has_the_client_and_not_the_proxy() {
    let orders = believing(&["127.0.0.1"]);
    let mut worker = Worker::spawned(&orders);
    worker.hello();
    worker.say(&ToWorker::Welcome(orders.welcome));
    let table = Table::create(8).unwrap();
    let offer = ToWorker::Requests(table.offer(false));
    let memory = table.duplicate().unwrap();
    worker.end.queue_with_fd(&offer, memory).unwrap();
    worker.offer();
    worker.say(&ToWorker::Start);
    worker.until_ready();
    let mut client = Client::connect(worker.address);
    client.send("GET /stream?600000 HTTP/1.1\r\nhost: test\r\nx-forwarded-for: 192.0.2.1\r\n\r\n");
    client.until("\r\n\r\n");
    let entries = table.read().unwrap().entries;
    let clients: Vec<_> = entries.iter().map(|it| it.client).collect();
    assert_eq!(clients, [Some("192.0.2.1:0".parse().unwrap())]);
}

#[test]
fn a_header_of_the_proxy_protocol_is_read_from_them_alone() {
    let begun = |worker: &Worker| -> TcpStream {
        let mut stream = connected(worker.address);
        let line = b"PROXY TCP4 192.0.2.7 10.0.0.1 4711 443\r\n";
        stream.write_all(line).unwrap();
        stream
    };
    let worker = Worker::proxied(believing(&["127.0.0.0/8", "192.0.2.7"]), None);
    let mut client = Client::over(begun(&worker));
    assert_eq!(peer(&mut client, ""), "Some(192.0.2.7:4711) main None");
    // Whom the header names is asked for whom it speaks as whoever connects by itself.
    let said = "x-forwarded-for: 192.0.2.1\r\n";
    assert_eq!(peer(&mut client, said), "Some(192.0.2.1:0) main None");
    let worker = Worker::proxied(believing(&["10.0.0.0/8"]), None);
    let mut stream = begun(&worker);
    assert_eq!(stream.read(&mut [0]).unwrap(), 0);
}
