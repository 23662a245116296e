//! Who the client of a request is, by what proxies in front say of it: `X-Forwarded-For`
//! or `Forwarded` (RFC 7239).
//!
//! Each proxy appends who has connected to it, so that these headers are read from their
//! end: what a proxy that is trusted says is taken, and the first address that is none of
//! such a proxy is the client, who may have written anything before it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

use hyper::header::{FORWARDED, HeaderMap, HeaderName};
use prefork_proto::message::ClientHeader;
use prefork_proto::network::Network;

use crate::limits::Limits;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// What those proxies say of a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Told {
    /// Its address; with port 0 where no port was said.
    pub(crate) address: SocketAddr,
    /// Whether it has come by TLS, where that was said.
    pub(crate) is_secure: Option<bool>,
}

/// One proxy's word: whom it serves, and whether that one has come by TLS.
type Word = (Option<SocketAddr>, Option<bool>);

/// Whether whoever has made a connection from there may say whom it speaks for; `None`
/// where nothing is said of proxies.
pub(crate) fn is_trusted(limits: &Limits, address: Option<SocketAddr>) -> Option<bool> {
    let networks = limits.trusted_proxies.as_deref()?;
    Some(has(networks, address.map(|it| it.ip())))
}

fn has(networks: &[Network], address: Option<IpAddr>) -> bool {
    networks.iter().any(|network| network.contains(address))
}

/// Who the client is, by the word of a proxy that is trusted and of those before it that
/// are as well; `None` where it says nothing that makes sense, and so speaks for itself.
pub(crate) fn client(limits: &Limits, headers: &HeaderMap) -> Option<Told> {
    let networks = limits.trusted_proxies.as_deref()?;
    match limits.client_header {
        ClientHeader::Forwarded => {
            let words = members(headers, &FORWARDED).map(element);
            furthest(networks, words)
        }
        ClientHeader::XForwardedFor => {
            let scheme = members(headers, &X_FORWARDED_PROTO).next().and_then(scheme);
            let words = members(headers, &X_FORWARDED_FOR).map(|name| (node(name), None));
            let told = furthest(networks, words)?;
            Some(Told {
                is_secure: scheme,
                ..told
            })
        }
    }
}

/// The first address from the end that is none of a trusted proxy, or else the furthest.
fn furthest(networks: &[Network], words: impl Iterator<Item = Word>) -> Option<Told> {
    let mut furthest = None;
    for (address, is_secure) in words {
        let Some(address) = address else { break };
        furthest = Some(Told { address, is_secure });
        if !has(networks, Some(address.ip())) {
            break;
        }
    }
    furthest
}

/// The members of a list, over all its lines, from its end. A comma within quotes parts
/// them as well: no address has one, and a quote that the client has left open must not
/// swallow what a proxy has appended.
fn members<'a>(
    headers: &'a HeaderMap,
    name: &HeaderName,
) -> impl Iterator<Item = &'a [u8]> + use<'a> {
    let lines: Vec<_> = headers.get_all(name).iter().collect();
    lines
        .into_iter()
        .rev()
        .flat_map(|line| line.as_bytes().rsplit(|byte| *byte == b','))
        .map(<[u8]>::trim_ascii)
}

/// An element of `Forwarded`; without an address where it is not one in every respect.
fn element(element: &[u8]) -> Word {
    let (mut node_said, mut scheme_said) = (None, None);
    for pair in element.split(|byte| *byte == b';') {
        let Some(at) = pair.iter().position(|byte| *byte == b'=') else {
            return (None, None);
        };
        let (name, value) = (
            pair[..at].trim_ascii(),
            unquoted(pair[at + 1..].trim_ascii()),
        );
        let said = match name.to_ascii_lowercase().as_slice() {
            b"for" => &mut node_said,
            b"proto" => &mut scheme_said,
            _ => continue,
        };
        if said.replace(value).is_some() {
            return (None, None);
        }
    }
    let address = node_said.and_then(node);
    (address, scheme_said.and_then(scheme))
}

/// A value without the quotes around it.
fn unquoted(value: &[u8]) -> &[u8] {
    let inner = value
        .strip_prefix(b"\"")
        .and_then(|it| it.strip_suffix(b"\""));
    inner.unwrap_or(value)
}

/// An address with a port or without one: `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1`,
/// `[2001:db8::1]`, `[2001:db8::1]:80`. What is hidden or unknown is none.
fn node(text: &[u8]) -> Option<SocketAddr> {
    let text = str::from_utf8(text).ok()?;
    if let Some(bracketed) = text.strip_prefix('[') {
        let (address, port) = bracketed.split_once(']')?;
        let address: Ipv6Addr = address.parse().ok()?;
        return Some(SocketAddrV6::new(address, port_after(port)?, 0, 0).into());
    }
    if let Ok(address) = text.parse::<Ipv6Addr>() {
        return Some((address, 0).into());
    }
    let end = text.find(':').unwrap_or(text.len());
    let address: Ipv4Addr = text[..end].parse().ok()?;
    Some((address, port_after(&text[end..])?).into())
}

/// The port after an address: 0 where there is none, or one that is hidden (RFC 7239, 6).
fn port_after(text: &str) -> Option<u16> {
    let Some(port) = text.strip_prefix(':') else {
        return text.is_empty().then_some(0);
    };
    let hidden = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    if port.len() > 1 && port.starts_with('_') && port.bytes().all(hidden) {
        return Some(0);
    }
    let digits = port.bytes().all(|byte| byte.is_ascii_digit());
    port.parse().ok().filter(|_| digits)
}

/// Whether a scheme is that of TLS, where it is one of the two.
fn scheme(text: &[u8]) -> Option<bool> {
    match text.to_ascii_lowercase().as_slice() {
        b"https" => Some(true),
        b"http" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderValue;

    use super::*;

    fn limits(client_header: ClientHeader) -> Limits {
        let trusted = ["10.0.0.0/8", "2001:db8:ffff::/48", "unix"];
        Limits {
            trusted_proxies: Some(trusted.map(|it| it.parse().unwrap()).to_vec()),
            client_header,
            ..Limits::default()
        }
    }

    fn told(by: ClientHeader, name: &'static str, lines: &[&str]) -> Option<String> {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(name, HeaderValue::from_bytes(line.as_bytes()).unwrap());
        }
        let told = client(&limits(by), &headers)?;
        Some(match told.address.port() {
            0 => told.address.ip().to_string(),
            _ => told.address.to_string(),
        })
    }

    fn forwarded_for(lines: &[&str]) -> Option<String> {
        told(ClientHeader::XForwardedFor, "x-forwarded-for", lines)
    }

    fn forwarded(lines: &[&str]) -> Option<String> {
        told(ClientHeader::Forwarded, "forwarded", lines)
    }

    #[test]
    fn the_client_is_the_last_that_is_no_proxy() {
        for (lines, client) in [
            (&["192.0.2.1"][..], Some("192.0.2.1")),
            // What the client itself has said is left of what the proxy says of it.
            (&["127.0.0.1, 192.0.2.1"], Some("192.0.2.1")),
            (&["10.9.9.9, 192.0.2.1, 10.0.0.2"], Some("192.0.2.1")),
            (&["192.0.2.1,10.0.0.2 ,\t10.0.0.3"], Some("192.0.2.1")),
            // Proxies all along: who is the furthest is the client.
            (&["10.0.0.1, 10.0.0.2"], Some("10.0.0.1")),
            // Lines are one list, in their order.
            (&["192.0.2.9", "192.0.2.1", "10.0.0.2"], Some("192.0.2.1")),
            (
                &["192.0.2.1, 10.0.0.2", "10.0.0.3, 10.0.0.4"],
                Some("192.0.2.1"),
            ),
            (&["2001:db8::1"], Some("2001:db8::1")),
            (&["2001:db8::1, 2001:db8:ffff::2"], Some("2001:db8::1")),
            (
                &["::ffff:192.0.2.1, ::ffff:10.0.0.2"],
                Some("::ffff:192.0.2.1"),
            ),
            (&["192.0.2.1:4711"], Some("192.0.2.1:4711")),
            (&["[2001:db8::1]:4711"], Some("[2001:db8::1]:4711")),
            (&["[2001:db8::1]"], Some("2001:db8::1")),
            (&["192.0.2.1, 10.0.0.2:80"], Some("192.0.2.1")),
        ] {
            assert_eq!(forwarded_for(lines).as_deref(), client, "{lines:?}");
        }
    }

    #[test]
    fn what_makes_no_sense_ends_what_is_believed() {
        for nonsense in [
            "unknown",
            "_hidden",
            "-",
            "localhost",
            "192.0.2",
            "192.0.2.256",
            "192.0.02.1",
            "192.0.2.1:",
            "192.0.2.1:x",
            "192.0.2.1:+1",
            "192.0.2.1:65536",
            "192.0.2.1 80",
            "0x7f.1",
            "3221225985",
            "[192.0.2.1]",
            "[2001:db8::1",
            "2001:db8::1]",
            "[2001:db8::1]80",
            "[2001:db8::1]:",
            "fe80::1%eth0",
            "2001:db8:::1",
            "\"192.0.2.1\"",
            "for=192.0.2.1",
            "192.0.2.1/32",
            "1.2.3.4.5",
            "\u{661}.2.3.4",
        ] {
            assert_eq!(forwarded_for(&[nonsense]), None, "{nonsense}");
            let before = format!("192.0.2.1, {nonsense}");
            assert_eq!(forwarded_for(&[&before]), None, "{before}");
            // The proxy that was told nonsense is the last that is known.
            let after = format!("192.0.2.1, {nonsense}, 10.0.0.2");
            assert_eq!(
                forwarded_for(&[&after]).as_deref(),
                Some("10.0.0.2"),
                "{after}"
            );
        }
        for empty in [&[][..], &[""], &[","], &["192.0.2.1,"], &["192.0.2.1", ""]] {
            assert_eq!(forwarded_for(empty), None, "{empty:?}");
        }
        let many = "10.0.0.1,".repeat(4000) + "192.0.2.1";
        assert_eq!(forwarded_for(&[&many]).as_deref(), Some("192.0.2.1"));
        let proxies = format!("192.0.2.1{}", ",10.0.0.1".repeat(4000));
        assert_eq!(forwarded_for(&[&proxies]).as_deref(), Some("192.0.2.1"));
    }

    #[test]
    fn an_element_of_forwarded_is_read_as_its_rfc_has_it() {
        for (line, client) in [
            ("for=192.0.2.1", Some("192.0.2.1")),
            ("For=192.0.2.1;proto=https;by=10.0.0.1", Some("192.0.2.1")),
            (
                "proto=http ; for=\"192.0.2.1:4711\"",
                Some("192.0.2.1:4711"),
            ),
            ("for=\"[2001:db8::1]:4711\"", Some("[2001:db8::1]:4711")),
            ("for=\"[2001:db8::1]:_port\"", Some("2001:db8::1")),
            ("for=192.0.2.1, for=\"10.0.0.2\"", Some("192.0.2.1")),
            ("for=192.0.2.9, for=192.0.2.1;host=shop", Some("192.0.2.1")),
            // A quote that a client has left open.
            ("for=\"192.0.2.9, for=192.0.2.1", Some("192.0.2.1")),
            ("for=\"192.0.2.9;x=\", for=192.0.2.1", Some("192.0.2.1")),
            ("for=unknown", None),
            ("for=_secret", None),
            ("for=\"\"", None),
            ("for=", None),
            ("for", None),
            ("192.0.2.1", None),
            ("proto=https", None),
            ("for=192.0.2.1;for=192.0.2.2", None),
            ("for=192.0.2.1;", None),
            ("for=192.0.2.9, for=unknown", None),
            ("for=\"192.0.2.1", None),
            ("", None),
        ] {
            assert_eq!(forwarded(&[line]).as_deref(), client, "{line}");
        }
        assert_eq!(
            forwarded(&["for=192.0.2.9", "for=192.0.2.1"]).as_deref(),
            Some("192.0.2.1")
        );
    }

    #[test]
    fn only_the_header_that_was_chosen_is_read() {
        let line = ["192.0.2.1"];
        assert_eq!(
            told(ClientHeader::Forwarded, "x-forwarded-for", &line),
            None
        );
        let line = ["for=192.0.2.1"];
        assert_eq!(told(ClientHeader::XForwardedFor, "forwarded", &line), None);
        let mut headers = HeaderMap::new();
        headers.insert("x-forwarded-for", HeaderValue::from_static("192.0.2.1"));
        assert_eq!(client(&Limits::default(), &headers), None);
    }

    #[test]
    fn the_last_proxy_says_whether_the_client_has_come_by_tls() {
        let secure = |by, said: &[(&'static str, &'static str)]| {
            let mut headers = HeaderMap::new();
            for (name, value) in said {
                headers.append(*name, HeaderValue::from_static(value));
            }
            client(&limits(by), &headers).and_then(|told| told.is_secure)
        };
        for (said, expected) in [
            ("https", Some(true)),
            ("HTTP", Some(false)),
            ("http, https", Some(true)),
            ("https, wss", None),
            ("", None),
        ] {
            let headers = [
                ("x-forwarded-for", "192.0.2.1"),
                ("x-forwarded-proto", said),
            ];
            assert_eq!(
                secure(ClientHeader::XForwardedFor, &headers),
                expected,
                "{said}"
            );
        }
        for (said, expected) in [
            ("for=192.0.2.1;proto=https", Some(true)),
            (
                "for=192.0.2.1;proto=http, for=10.0.0.2;proto=https",
                Some(false),
            ),
            ("for=192.0.2.1, for=10.0.0.2;proto=https", None),
        ] {
            assert_eq!(
                secure(ClientHeader::Forwarded, &[("forwarded", said)]),
                expected,
                "{said}"
            );
        }
    }

    #[test]
    fn whose_word_counts_is_said_by_the_connection() {
        let limits = limits(ClientHeader::default());
        let at = |text: &str| Some(text.parse().unwrap());
        assert_eq!(is_trusted(&limits, at("10.0.0.1:1")), Some(true));
        assert_eq!(is_trusted(&limits, at("[::ffff:10.0.0.1]:1")), Some(true));
        assert_eq!(is_trusted(&limits, at("192.0.2.1:1")), Some(false));
        assert_eq!(is_trusted(&limits, None), Some(true));
        assert_eq!(is_trusted(&Limits::default(), at("10.0.0.1:1")), None);
    }
}
