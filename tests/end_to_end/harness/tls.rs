//! Certificates for a test, and clients that trust them.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::client::Resumption;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{
    ClientConfig, ClientConnection, HandshakeKind, RootCertStore, StreamOwned,
    SupportedProtocolVersion,
};

/// How long an answer may take.
const LONGEST: Duration = Duration::from_secs(20);

/// The name that certificates are for, where it does not matter.
pub(crate) const NAME: &str = "www.example.org";

/// A certificate that signs itself.
pub(crate) struct Issued {
    pub(crate) pem: String,
    pub(crate) key: String,
    pub(crate) der: CertificateDer<'static>,
}

impl Issued {
    /// A new one for these names.
    pub(crate) fn for_names(names: &[&str]) -> Self {
        let names: Vec<String> = names.iter().copied().map(str::to_owned).collect();
        let issued = rcgen::generate_simple_self_signed(names).expect("the names are good");
        Self::from(issued)
    }

    /// One for [`NAME`] that has expired long ago.
    pub(crate) fn expired() -> Self {
        let mut parameters =
            rcgen::CertificateParams::new([NAME.to_owned()]).expect("the name is good");
        parameters.not_before = rcgen::date_time_ymd(2001, 1, 1);
        parameters.not_after = rcgen::date_time_ymd(2001, 2, 3);
        let signing_key = rcgen::KeyPair::generate().expect("there are keys");
        let cert = parameters.self_signed(&signing_key);
        let cert = cert.expect("it signs itself");
        Self::from(rcgen::CertifiedKey { cert, signing_key })
    }

    /// A new one for [`NAME`].
    pub(crate) fn new() -> Self {
        Self::for_names(&[NAME])
    }

    /// Puts it into `NAME.pem` and `NAME.key` of a directory.
    pub(crate) fn install(&self, dir: &Path, name: &str) {
        for (suffix, content) in [("pem", &self.pem), ("key", &self.key)] {
            let path = dir.join(format!("{name}.{suffix}"));
            std::fs::write(path, content).expect("the directory is writable");
        }
    }
}

impl From<rcgen::CertifiedKey<rcgen::KeyPair>> for Issued {
    fn from(issued: rcgen::CertifiedKey<rcgen::KeyPair>) -> Self {
        Self {
            pem: issued.cert.pem(),
            key: issued.signing_key.serialize_pem(),
            der: issued.cert.der().clone(),
        }
    }
}

/// One that issues certificates to clients.
pub(crate) struct Authority {
    pem: String,
    issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
}

impl Authority {
    /// A new one of this name.
    pub(crate) fn new(name: &str) -> Self {
        let mut parameters = named(name);
        parameters.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let key = rcgen::KeyPair::generate().expect("there are keys");
        let own = parameters.self_signed(&key).expect("it signs itself");
        Self {
            pem: own.pem(),
            issuer: rcgen::Issuer::new(parameters, key),
        }
    }

    /// Puts its own certificate into `NAME.pem` of a directory.
    pub(crate) fn install(&self, dir: &Path, name: &str) {
        let path = dir.join(format!("{name}.pem"));
        std::fs::write(path, &self.pem).expect("the directory is writable");
    }

    /// A client's certificate, good to the end of this year.
    pub(crate) fn issue(&self, name: &str, until: i32) -> Issued {
        let mut parameters = named(name);
        parameters.not_before = rcgen::date_time_ymd(2000, 1, 1);
        parameters.not_after = rcgen::date_time_ymd(until, 12, 31);
        let signing_key = rcgen::KeyPair::generate().expect("there are keys");
        let cert = parameters.signed_by(&signing_key, &self.issuer);
        let cert = cert.expect("it is signed");
        Issued::from(rcgen::CertifiedKey { cert, signing_key })
    }
}

/// Parameters of a certificate for this name and no server.
fn named(name: &str) -> rcgen::CertificateParams {
    let mut parameters = rcgen::CertificateParams::new(Vec::new()).expect("no name is bad");
    parameters.distinguished_name = rcgen::DistinguishedName::new();
    let common = rcgen::DnType::CommonName;
    parameters.distinguished_name.push(common, name);
    parameters
}

/// What clients speak TLS with; they remember sessions.
#[derive(Clone)]
pub(crate) struct Trust(Arc<ClientConfig>);

impl Trust {
    /// Clients that trust these and speak HTTP/1.1.
    pub(crate) fn of(issued: &[&Issued]) -> Self {
        Self::speaking(issued, rustls::ALL_VERSIONS, "http/1.1")
    }

    /// Clients of these versions of TLS that ask for this protocol.
    pub(crate) fn speaking(
        issued: &[&Issued],
        versions: &[&'static SupportedProtocolVersion],
        protocol: &str,
    ) -> Self {
        let mut roots = RootCertStore::empty();
        for issued in issued {
            roots.add(issued.der.clone()).expect("it is a certificate");
        }
        let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(versions)
            .expect("the versions are known")
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![protocol.into()];
        config.resumption = Resumption::in_memory_sessions(32);
        Self(Arc::new(config))
    }

    /// Clients that trust this and prove by that certificate who they are.
    pub(crate) fn proving(server: &Issued, client: &Issued) -> Self {
        let mut roots = RootCertStore::empty();
        roots.add(server.der.clone()).expect("it is a certificate");
        let key = PrivateKeyDer::from_pem_slice(client.key.as_bytes()).expect("it is a key");
        let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(rustls::ALL_VERSIONS)
            .expect("the versions are known")
            .with_root_certificates(roots)
            .with_client_auth_cert(vec![client.der.clone()], key)
            .expect("they belong together");
        config.resumption = Resumption::in_memory_sessions(32);
        Self(Arc::new(config))
    }

    /// The same for another protocol; nothing of a session is shared.
    pub(crate) fn protocol(&self, protocol: &str) -> Self {
        let mut config = ClientConfig::clone(&self.0);
        config.alpn_protocols = vec![protocol.into()];
        config.resumption = Resumption::in_memory_sessions(32);
        Self(Arc::new(config))
    }

    /// What a client of another library needs.
    pub(crate) fn config(&self) -> Arc<ClientConfig> {
        Arc::clone(&self.0)
    }

    /// A connection past its handshake, for [`NAME`].
    pub(crate) fn connect(&self, address: SocketAddr) -> io::Result<Secured<TcpStream>> {
        self.connect_for(address, NAME)
    }

    /// The same for any name.
    pub(crate) fn connect_for(
        &self,
        address: SocketAddr,
        name: &str,
    ) -> io::Result<Secured<TcpStream>> {
        let socket = TcpStream::connect_timeout(&address, LONGEST)?;
        socket.set_read_timeout(Some(LONGEST))?;
        socket.set_write_timeout(Some(LONGEST))?;
        socket.set_nodelay(true)?;
        self.shake(socket, name)
    }

    /// The same over a unix socket.
    pub(crate) fn connect_unix(&self, path: &Path) -> io::Result<Secured<UnixStream>> {
        let socket = UnixStream::connect(path)?;
        socket.set_read_timeout(Some(LONGEST))?;
        self.shake(socket, NAME)
    }

    fn shake<S: Read + Write>(&self, mut socket: S, name: &str) -> io::Result<Secured<S>> {
        let name = ServerName::try_from(name.to_owned()).expect("it is a name");
        let session = ClientConnection::new(Arc::clone(&self.0), name);
        let mut session = session.map_err(io::Error::other)?;
        while session.is_handshaking() {
            session.complete_io(&mut socket)?;
        }
        Ok(Secured(StreamOwned::new(session, socket)))
    }

    /// The certificate that a new client gets for this name.
    #[track_caller]
    pub(crate) fn sees(&self, address: SocketAddr, name: &str) -> CertificateDer<'static> {
        // One that remembers no session.
        let new = self.protocol("http/1.1");
        let secured = new.connect_for(address, name).expect("a handshake");
        let chain = secured.0.conn.peer_certificates().expect("a certificate");
        chain[0].clone().into_owned()
    }
}

/// A connection past its handshake.
pub(crate) struct Secured<S: Read + Write>(pub(crate) StreamOwned<ClientConnection, S>);

impl<S: Read + Write> Secured<S> {
    /// Whether a session was taken up that an earlier connection began.
    pub(crate) fn is_resumed(&self) -> bool {
        self.0.conn.handshake_kind() == Some(HandshakeKind::Resumed)
    }
}

impl<S: Read + Write> Read for Secured<S> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl<S: Read + Write> Write for Secured<S> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}
