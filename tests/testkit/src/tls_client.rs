//! A TLS client that says which certificate it got and whether it took a session
//! up again, and certificates for it to trust.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use prefork_proto::tls::{Certificate, TicketKey, TlsListener, TlsSettings, TlsVersion};
use rustls::client::Resumption;
use rustls::crypto::ring;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, HandshakeKind, RootCertStore, StreamOwned};

use crate::client::{Client, Stream, connected};

/// A certificate that signs itself, for these names.
pub struct Issued {
    pub given: Certificate,
    pub der: CertificateDer<'static>,
}

pub fn issue(names: &[&str]) -> Issued {
    let names: Vec<String> = names.iter().copied().map(str::to_owned).collect();
    let issued = rcgen::generate_simple_self_signed(names.clone()).unwrap();
    Issued {
        given: Certificate {
            names,
            chain: issued.cert.pem(),
            key: issued.signing_key.serialize_pem(),
        },
        der: issued.cert.der().clone(),
    }
}

/// Settings with which the test's listener has these certificates.
pub fn settings(issued: &[&Issued], min_version: TlsVersion) -> TlsSettings {
    TlsSettings {
        certificates: issued.iter().map(|it| it.given.clone()).collect(),
        listeners: vec![TlsListener {
            name: "main".to_owned(),
            certificates: (0..issued.len().try_into().unwrap()).collect(),
            min_version,
            clients: None,
        }],
    }
}

/// A ticket key; the same for the same number.
pub fn ticket_key(number: u8) -> TicketKey {
    TicketKey {
        name: format!("{number:02x}").repeat(16),
        secret: format!("{number:02x}").repeat(32),
    }
}

/// What a client speaks TLS with; it remembers sessions.
#[derive(Clone)]
pub struct Trust(pub Arc<ClientConfig>);

/// How a handshake went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shaken {
    pub certificate: Option<CertificateDer<'static>>,
    pub resumed: bool,
    pub version: rustls::ProtocolVersion,
}

impl Trust {
    /// One that trusts these, speaks HTTP/1.1 and any version of TLS.
    pub fn of(issued: &[&Issued]) -> Self {
        Self::speaking(issued, rustls::ALL_VERSIONS, b"http/1.1")
    }

    pub fn speaking(
        issued: &[&Issued],
        versions: &[&'static rustls::SupportedProtocolVersion],
        protocol: &[u8],
    ) -> Self {
        let mut roots = RootCertStore::empty();
        for issued in issued {
            roots.add(issued.der.clone()).unwrap();
        }
        let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![protocol.to_vec()];
        config.resumption = Resumption::in_memory_sessions(8);
        Self(Arc::new(config))
    }

    /// The handshake, as a client that asks for this name.
    pub fn shake(&self, address: SocketAddr, name: &str) -> io::Result<(Connection, Shaken)> {
        self.shake_over(connected(address), name)
    }

    /// A handshake over a connection that is open already.
    pub fn shake_over(
        &self,
        mut socket: TcpStream,
        name: &str,
    ) -> io::Result<(Connection, Shaken)> {
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let mut session = ClientConnection::new(Arc::clone(&self.0), name).unwrap();
        while session.is_handshaking() {
            session.complete_io(&mut socket)?;
        }
        let shaken = Shaken {
            certificate: session
                .peer_certificates()
                .map(|chain| chain[0].clone().into_owned()),
            resumed: session.handshake_kind() == Some(HandshakeKind::Resumed),
            version: session.protocol_version().unwrap(),
        };
        Ok((Connection(StreamOwned::new(session, socket)), shaken))
    }

    /// A client on a new connection.
    pub fn client(&self, address: SocketAddr, name: &str) -> Client {
        Client::over(self.shake(address, name).unwrap().0)
    }

    /// The certificate that a new connection gets for this name.
    pub fn sees(&self, address: SocketAddr, name: &str) -> CertificateDer<'static> {
        let (_, shaken) = self.shake(address, name).unwrap();
        shaken.certificate.unwrap()
    }
}

/// A connection past its handshake.
pub struct Connection(pub StreamOwned<ClientConnection, TcpStream>);

impl Read for Connection {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl Write for Connection {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

impl Stream for Connection {
    fn socket(&self) -> &TcpStream {
        &self.0.sock
    }
}
