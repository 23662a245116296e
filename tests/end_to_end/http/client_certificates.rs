//! Clients that prove by a certificate who they are: who is let in, what the program
//! behind a front is told of it, and what a reload changes.

use std::net::SocketAddr;
use std::path::Path;

use crate::harness::deadline::{PATIENCE, eventually};
use crate::harness::http::{Answer, Connection};
use crate::harness::tls::{Authority, Issued, Trust};
use crate::harness::{Pool, Prefork};

/// A front that asks clients for certificates so, before a program that says which head
/// it has got.
fn front(clients: &str) -> [Pool; 2] {
    let listen = format!(
        "[{{ address = \"127.0.0.1:0\", tls = {{ cert = \"www.pem\", key = \"www.key\", {clients} }} }}]"
    );
    let front = Pool::bundled("web", 1)
        .set("app", "{ forward = \"shop\", queue_timeout = \"20s\" }")
        .set("listen", listen);
    [front, Pool::behind("shop", &[], 1)]
}

/// What a client is answered that says something about its certificate itself; none where
/// it is not let in.
fn asked(trust: &Trust, address: SocketAddr) -> Option<Answer> {
    let mut connection = Connection::over(trust.connect(address).ok()?);
    let forged = "client-cert: :Zm9yZ2Vk:\r\nx_client_cert_subject: CN=forged\r\n";
    let request = format!("GET /head HTTP/1.1\r\nhost: shop\r\n{forged}\r\n");
    connection.write(request.as_bytes()).ok()?;
    connection.receive().ok()
}

/// The head that the program has got of a client that is let in.
#[track_caller]
fn head(trust: &Trust, address: SocketAddr) -> String {
    let answer = asked(trust, address).expect("it is let in");
    assert_eq!(answer.status, 200, "{answer:?}");
    let head = answer.body;
    assert!(
        !head.contains("forged") && !head.contains("Zm9yZ2Vk"),
        "{head}"
    );
    head
}

/// Waits until handshakes were refused for each of these.
fn has_counted(prefork: &Prefork, reasons: &[&str]) {
    eventually("each reason is counted", PATIENCE, || {
        let page = prefork.scrape();
        reasons.iter().all(|reason| {
            page.samples().iter().any(|it| {
                it.name == "tls_client_certificate_failures_total"
                    && it.labels.get("reason").is_some_and(|it| it == reason)
                    && it.value >= 1.0
            })
        })
    });
}

#[test]
fn only_who_has_a_certificate_of_the_authority_is_let_in() {
    let server = Issued::new();
    let [authority, other] = [Authority::new("staff"), Authority::new("others")];
    let install = |dir: &Path| {
        server.install(dir, "www");
        authority.install(dir, "clients");
    };
    let prefork = Prefork::launch_in(install, &front("client_ca = \"clients.pem\""));
    prefork.wait_until_ready();
    let address = prefork.address("web");
    let alice = Trust::proving(&server, &authority.issue("alice", 4000));
    let told = head(&alice, address);
    for line in [
        "x-client-cert-subject: CN=alice\r\n",
        "x-client-cert-sha256: ",
        "client-cert: :MI",
    ] {
        assert!(told.contains(line), "{line:?} in {told}");
    }
    let selfmade = Issued::new();
    for (who, trust) in [
        ("nobody", Trust::of(&[&server])),
        ("self-signed", Trust::proving(&server, &selfmade)),
        (
            "of another authority",
            Trust::proving(&server, &other.issue("alice", 4000)),
        ),
        (
            "expired",
            Trust::proving(&server, &authority.issue("bob", 2001)),
        ),
    ] {
        assert!(asked(&trust, address).is_none(), "{who} is let in");
    }
    has_counted(&prefork, &["missing", "unknown_issuer", "expired"]);
    let status = prefork.done(&["check"]);
    assert!(status.contains("clients"), "{status}");
}

#[test]
fn a_reload_takes_another_authority_and_no_session_outlives_it() {
    let server = Issued::new();
    let [old, new] = [Authority::new("old"), Authority::new("new")];
    let install = |dir: &Path| {
        server.install(dir, "www");
        old.install(dir, "clients");
    };
    let optional = "client_ca = \"clients.pem\", client_auth = \"optional\"";
    let prefork = Prefork::launch_in(install, &front(optional));
    prefork.wait_until_ready();
    let (address, workers) = (prefork.address("web"), prefork.ready_pids("web"));
    let [alice, bob] = [(&old, "alice"), (&new, "bob")];
    let [alice, bob] =
        [alice, bob].map(|(by, name)| Trust::proving(&server, &by.issue(name, 4000)));
    let nobody = Trust::of(&[&server]);
    assert!(head(&alice, address).contains("CN=alice\r\n"));
    // Nothing is asked of a client that has none; one that does not hold is no certificate.
    assert!(!head(&nobody, address).contains("client-cert"));
    assert!(asked(&bob, address).is_none());
    new.install(prefork.dir(), "clients");
    prefork.done(&["reload"]);
    assert_eq!(prefork.ready_pids("web"), workers);
    assert!(
        asked(&alice, address).is_none(),
        "a session is taken up again"
    );
    assert!(head(&bob, address).contains("CN=bob\r\n"));
}
