//! Who a request comes from, for the application to ask.

use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll};

use hyper::Request;
use prefork_proto::tls::TlsVersion;
use rustls::{ProtocolVersion, ServerConnection};
use tower_layer::Layer;
use tower_service::Service;

use crate::request::forwarded::Told;

/// Who a request comes from: an extension of every request, but for those of a
/// worker [without](crate::Worker::without_peer). A clone is the same.
///
/// ```
/// # use hyper::Request;
/// use prefork_worker::Peer;
///
/// fn client<B>(request: &Request<B>) -> String {
///     let peer = request.extensions().get::<Peer>();
///     match peer.and_then(Peer::address) {
///         Some(address) => address.ip().to_string(),
///         None => "a unix socket".to_owned(),
///     }
/// }
/// ```
///
/// It is whoever has made the connection, or whoever that one speaks for, where it is one
/// of the [proxies that are trusted](crate::Limits::trusted_proxies).
#[derive(Debug, Clone)]
pub struct Peer {
    connection: Arc<Known>,
    told: Option<Arc<Told>>,
}

/// What is known of a connection.
#[derive(Debug)]
struct Known {
    origin: Origin,
    tls: Option<PeerTls>,
}

/// Where a connection has come from.
#[derive(Debug, Clone)]
pub(crate) struct Origin {
    pub(crate) address: Option<SocketAddr>,
    pub(crate) listener: Arc<str>,
}

impl Default for Origin {
    fn default() -> Self {
        Self {
            address: None,
            listener: Arc::from(""),
        }
    }
}

impl Peer {
    pub(crate) fn new(origin: Origin, tls: Option<PeerTls>) -> Self {
        Self {
            connection: Arc::new(Known { origin, tls }),
            told: None,
        }
    }

    /// The client for whom the one at the other end of the connection speaks.
    pub(crate) fn speaking_for(&self, told: Told) -> Self {
        Self {
            connection: Arc::clone(&self.connection),
            told: Some(Arc::new(told)),
        }
    }

    /// Where its connection has come from.
    pub(crate) fn origin(&self) -> Origin {
        self.connection.origin.clone()
    }

    /// The client's address and port; `None` for a client of a unix socket. One
    /// that has come over IPv4 to a socket for both has its IPv4 address. Where a proxy
    /// speaks for the client, the port is 0 unless it has said that as well.
    pub fn address(&self) -> Option<SocketAddr> {
        match &self.told {
            Some(told) => Some(canonical(told.address)),
            None => self.connected(),
        }
    }

    /// The address of whoever has made the connection, which may be a proxy; `None` for
    /// one that has come by a unix socket.
    pub fn connected(&self) -> Option<SocketAddr> {
        self.connection.origin.address.map(canonical)
    }

    /// Whether the client has come by TLS, here or to the proxy that speaks for it.
    pub fn is_secure(&self) -> bool {
        let told = self.told.as_ref().and_then(|told| told.is_secure);
        told.unwrap_or_else(|| self.tls().is_some())
    }

    /// The name of the listener that it has come to, as in the configuration.
    pub fn listener(&self) -> &str {
        &self.connection.origin.listener
    }

    /// What was agreed on under TLS on the connection; `None` without TLS.
    pub fn tls(&self) -> Option<&PeerTls> {
        self.connection.tls.as_ref()
    }

    /// Gives every request one more extension, made of who it comes from, where
    /// that gives one; for what looks for an extension of its own. So axum's
    /// `ConnectInfo` is had by
    ///
    /// ```
    /// use axum::extract::ConnectInfo;
    /// use axum::{Router, routing::get};
    /// use prefork_worker::Peer;
    /// # use std::net::SocketAddr;
    ///
    /// async fn whoami(ConnectInfo(client): ConnectInfo<SocketAddr>) -> String {
    ///     format!("you are {client}\n")
    /// }
    ///
    /// let router: Router = Router::new()
    ///     .route("/", get(whoami))
    ///     .layer(Peer::layer(|peer| peer.address().map(ConnectInfo)));
    /// ```
    pub fn layer<F, T>(make: F) -> PeerLayer<F>
    where
        F: Fn(&Self) -> Option<T>,
        T: Clone + Send + Sync + 'static,
    {
        PeerLayer { make }
    }
}

fn canonical(address: SocketAddr) -> SocketAddr {
    match address.ip().to_canonical() {
        ip if ip == address.ip() => address,
        ip => SocketAddr::new(ip, address.port()),
    }
}

/// What was agreed on with a client under TLS.
///
/// ```
/// use prefork_worker::{Peer, PeerTls, TlsVersion};
///
/// /// Whether the client has proved who it is, and by the newer version.
/// fn is_known(peer: &Peer) -> bool {
///     let known = |tls: &PeerTls| {
///         tls.client_certificate.is_some() && tls.version == TlsVersion::V1_3
///     };
///     peer.tls().is_some_and(known)
/// }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PeerTls {
    /// The version that is spoken.
    pub version: TlsVersion,
    /// The server that the client asked for (SNI), in lower case.
    pub server_name: Option<String>,
    /// The protocol that was agreed on (ALPN): `h2` or `http/1.1`; `None` where the
    /// client offered none.
    pub protocol: Option<String>,
    /// The certificate with which the client proved who it is, in DER; `None` where
    /// it was asked for none.
    pub client_certificate: Option<Vec<u8>>,
}

impl PeerTls {
    pub(crate) fn of(connection: &ServerConnection) -> Self {
        let protocol = connection.alpn_protocol();
        let mut certificates = connection.peer_certificates().unwrap_or_default().iter();
        Self {
            version: match connection.protocol_version() {
                Some(ProtocolVersion::TLSv1_2) => TlsVersion::V1_2,
                _ => TlsVersion::V1_3,
            },
            server_name: connection.server_name().map(str::to_ascii_lowercase),
            protocol: protocol.map(|name| String::from_utf8_lossy(name).into_owned()),
            client_certificate: certificates.next().map(|first| first.to_vec()),
        }
    }
}

/// Gives requests an extension; see [`Peer::layer`].
///
/// ```
/// use axum::{Router, routing::get};
/// use prefork_worker::{Peer, PeerLayer};
///
/// #[derive(Clone)]
/// struct Listener(String);
///
/// fn name(peer: &Peer) -> Option<Listener> {
///     Some(Listener(peer.listener().to_owned()))
/// }
///
/// let layer: PeerLayer<_> = Peer::layer(name);
/// let router: Router = Router::new().route("/", get(async || "hello")).layer(layer);
/// ```
#[derive(Debug, Clone)]
pub struct PeerLayer<F> {
    make: F,
}

impl<S, F: Clone> Layer<S> for PeerLayer<F> {
    type Service = WithPeer<S, F>;

    fn layer(&self, inner: S) -> Self::Service {
        WithPeer {
            inner,
            make: self.make.clone(),
        }
    }
}

/// A service whose requests have one more extension; see [`Peer::layer`].
///
/// ```
/// use prefork_worker::{Peer, PeerLayer, WithPeer};
/// use tower_layer::Layer;
///
/// fn around<S, F: Clone>(layer: &PeerLayer<F>, service: S) -> WithPeer<S, F> {
///     layer.layer(service)
/// }
/// ```
#[derive(Debug, Clone)]
pub struct WithPeer<S, F> {
    inner: S,
    make: F,
}

impl<S, B, F, T> Service<Request<B>> for WithPeer<S, F>
where
    S: Service<Request<B>>,
    F: Fn(&Peer) -> Option<T>,
    T: Clone + Send + Sync + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> S::Future {
        let made = request.extensions().get::<Peer>().and_then(&self.make);
        if let Some(made) = made {
            request.extensions_mut().insert(made);
        }
        self.inner.call(request)
    }
}
