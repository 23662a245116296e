//! The PROXY protocol, versions 1 and 2: what a proxy says of the client before the
//! client's own bytes
//! (<https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt>).
//!
//! A header is required where a listener takes them, and never guessed. A client that
//! reaches such a listener by itself is turned away at its first wrong byte.

use std::cell::Cell;
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use crate::connection::peer::Origin;
use crate::connection::timeouts::beginning_ends;
use crate::output::rate_limit::Sparing;
use crate::process::Serving;
use crate::request::forwarded;
use crate::transport::stream::Stream;

/// The longest header that is read. Version 2 allows 64 KiB, for extensions that
/// nobody needs before the first request; proxies send some hundreds of bytes.
pub(crate) const LONGEST: usize = 4096;

/// The longest line of version 1, with its end (section 2.1).
const LONGEST_LINE: usize = 107;

/// What a line of version 1 begins with.
const V1: &[u8] = b"PROXY ";

/// What a header of version 2 begins with (section 2.2).
const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// Version, command, family and length, after the signature.
const V2_FIXED: usize = V2.len() + 4;

/// Between two lines of the log on connections that began with no header: whoever can
/// reach the listener can make them.
const COMPLAINTS: Duration = Duration::from_secs(10);

/// Takes the header from the beginning of a connection, within the time that a client
/// has for the head of a request. Gives the client's address, if the proxy knows one;
/// `None` where there is no header: the connection is to be closed.
pub(crate) async fn read(
    stream: &mut Stream,
    serving: &'static Serving,
    origin: &Origin,
) -> Option<Option<SocketAddr>> {
    if forwarded::is_trusted(&stream.rules().limits, origin.address) == Some(false) {
        complain(origin, &"it comes from none of `trusted_proxies`");
        return None;
    }
    let mut buffer = vec![0; LONGEST];
    let mut client = None;
    let has_begun = Cell::new(false);
    let judge = |bytes: &[u8]| -> io::Result<Option<usize>> {
        has_begun.set(true);
        let header = parse(bytes)?;
        client = header.as_ref().and_then(|header| header.client);
        Ok(header.map(|header| header.length))
    };
    let traffic = stream.traffic();
    let taken = tokio::select! {
        biased;
        taken = stream.wire().take_whole(&mut buffer, judge) => taken,
        _ = beginning_ends(serving, || has_begun.get()) => return None,
    };
    match taken {
        Ok(()) => {
            if let Some(client) = client {
                traffic.comes_from(client.ip());
            }
            Some(client)
        }
        Err(error) => {
            if error.kind() == io::ErrorKind::InvalidData {
                complain(origin, &error);
            }
            None
        }
    }
}

/// Says who was turned away, and where: it may be a proxy that sends no header.
fn complain(origin: &Origin, why: &dyn fmt::Display) {
    static TURNED_AWAY: Sparing = Sparing::of(1, COMPLAINTS);
    let from = origin
        .address
        .map_or_else(|| "a unix socket".to_owned(), |it| it.to_string());
    let listener = &origin.listener;
    TURNED_AWAY.say(format_args!(
        "a connection from {from} to {listener}, where `proxy_protocol` is on, was closed: {why}"
    ));
}

/// A whole header.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Header {
    /// Its bytes; the client's own come after them.
    pub(crate) length: usize,
    /// Who the client is; `None` where the proxy speaks for itself, as in its health
    /// checks, or does not know.
    pub(crate) client: Option<SocketAddr>,
}

/// Reads the header at the beginning of what has come so far; `None` if more of it
/// has to come.
///
/// # Errors
/// `InvalidData` with the reason, if this begins no header.
pub(crate) fn parse(bytes: &[u8]) -> io::Result<Option<Header>> {
    if begins(bytes, V2) {
        return parse_v2(bytes);
    }
    if begins(bytes, V1) {
        return parse_v1(bytes);
    }
    refuse("it does not begin with a header of the PROXY protocol")
}

/// Whether `bytes` begin as `signature` does, as far as there are any.
fn begins(bytes: &[u8], signature: &[u8]) -> bool {
    let known = bytes.len().min(signature.len());
    bytes[..known] == signature[..known]
}

fn refuse<T>(why: &str) -> io::Result<T> {
    Err(io::Error::new(io::ErrorKind::InvalidData, why))
}

fn parse_v1(bytes: &[u8]) -> io::Result<Option<Header>> {
    let line = &bytes[..bytes.len().min(LONGEST_LINE)];
    let Some(end) = line.windows(2).position(|two| two == b"\r\n") else {
        return match line.len() {
            LONGEST_LINE => refuse("its PROXY line is longer than 107 bytes"),
            _ => Ok(None),
        };
    };
    let Ok(text) = std::str::from_utf8(&line[V1.len()..end]) else {
        return refuse("its PROXY line is no ASCII");
    };
    let words: Vec<&str> = text.split(' ').collect();
    let client = match words[..] {
        ["UNKNOWN", ..] => None,
        ["TCP4", from, to, from_port, to_port] => {
            Some(endpoint::<Ipv4Addr>(from, to, from_port, to_port)?)
        }
        ["TCP6", from, to, from_port, to_port] => {
            Some(endpoint::<Ipv6Addr>(from, to, from_port, to_port)?)
        }
        _ => {
            return refuse(
                "its PROXY line is not TCP4, TCP6 or UNKNOWN with two addresses and ports",
            );
        }
    };
    Ok(Some(Header {
        length: end + 2,
        client,
    }))
}

/// The client's address of version 1. That of the proxy's end has to be one, too.
fn endpoint<A>(from: &str, to: &str, from_port: &str, to_port: &str) -> io::Result<SocketAddr>
where
    A: std::str::FromStr + Into<IpAddr>,
{
    let (Ok(address), Ok(_)) = (from.parse::<A>(), to.parse::<A>()) else {
        return refuse("its PROXY line has an address that is none of its family");
    };
    let (Some(port), Some(_)) = (port(from_port), port(to_port)) else {
        return refuse("its PROXY line has a port that is no number from 0 to 65535");
    };
    Ok(SocketAddr::new(address.into(), port))
}

/// A port as the protocol writes it: digits, without a sign or leading zeros.
fn port(text: &str) -> Option<u16> {
    let is_canonical = text == "0" || !text.starts_with(['0', '+']);
    text.parse().ok().filter(|_| is_canonical)
}

fn parse_v2(bytes: &[u8]) -> io::Result<Option<Header>> {
    let Some((fixed, rest)) = bytes.split_at_checked(V2_FIXED) else {
        return Ok(None);
    };
    let [command, family, high, low] = fixed[V2.len()..] else {
        return Ok(None);
    };
    let extent = usize::from(u16::from_be_bytes([high, low]));
    let length = V2_FIXED + extent;
    if length > LONGEST {
        return refuse("its PROXY header is longer than 4096 bytes");
    }
    let is_local = match command {
        0x20 => true,
        0x21 => false,
        _ => return refuse("its PROXY header is not version 2 with the command LOCAL or PROXY"),
    };
    // A datagram's is refused: what comes is a stream.
    let addresses = match family {
        _ if is_local => 0,
        0x00 => 0,
        0x11 => 12,
        0x21 => 36,
        0x31 => 216,
        _ => return refuse("its PROXY header is of no family of streams"),
    };
    if extent < addresses {
        return refuse("its PROXY header is shorter than its addresses");
    }
    if rest.len() < extent {
        return Ok(None);
    }
    let client = match family {
        0x11 if !is_local => address_v4(rest),
        0x21 if !is_local => address_v6(rest),
        _ => None,
    };
    Ok(Some(Header { length, client }))
}

/// Source, destination, source port, destination port.
fn address_v4(bytes: &[u8]) -> Option<SocketAddr> {
    let address: [u8; 4] = *bytes.first_chunk()?;
    let port: [u8; 2] = *bytes.get(8..)?.first_chunk()?;
    Some((address, u16::from_be_bytes(port)).into())
}

fn address_v6(bytes: &[u8]) -> Option<SocketAddr> {
    let address: [u8; 16] = *bytes.first_chunk()?;
    let port: [u8; 2] = *bytes.get(32..)?.first_chunk()?;
    Some((address, u16::from_be_bytes(port)).into())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn v2(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
        let length = u16::try_from(body.len()).unwrap().to_be_bytes();
        [V2, &[command, family], &length, body].concat()
    }

    fn addresses_v4() -> Vec<u8> {
        [
            &[192, 0, 2, 7][..],
            &[10, 0, 0, 1],
            &4711u16.to_be_bytes(),
            &443u16.to_be_bytes(),
        ]
        .concat()
    }

    fn client(bytes: &[u8]) -> Option<SocketAddr> {
        parse(bytes).unwrap().expect("it is whole").client
    }

    #[test]
    fn a_line_of_version_1_names_the_client() {
        let line = b"PROXY TCP4 192.0.2.7 10.0.0.1 4711 443\r\nGET / HTTP/1.1\r\n";
        let header = parse(line).unwrap().unwrap();
        assert_eq!(&line[header.length..], b"GET / HTTP/1.1\r\n");
        assert_eq!(header.client, Some("192.0.2.7:4711".parse().unwrap()));
        let line = b"PROXY TCP6 2001:db8::7 ::1 0 65535\r\n";
        assert_eq!(client(line), Some("[2001:db8::7]:0".parse().unwrap()));
        assert_eq!(client(b"PROXY UNKNOWN\r\n"), None);
        assert_eq!(client(b"PROXY UNKNOWN ffff:: x 1 2 whatever\r\n"), None);
    }

    #[test]
    fn a_header_of_version_2_names_the_client_and_its_extensions_are_passed_over() {
        let expected = Some("192.0.2.7:4711".parse().unwrap());
        assert_eq!(client(&v2(0x21, 0x11, &addresses_v4())), expected);
        let extended = [addresses_v4(), vec![0x04, 0, 3, 1, 2, 3]].concat();
        let bytes = [v2(0x21, 0x11, &extended), b"GET".to_vec()].concat();
        let header = parse(&bytes).unwrap().unwrap();
        assert_eq!(
            (header.client, &bytes[header.length..]),
            (expected, &b"GET"[..])
        );
        let mut six = vec![0; 36];
        six[15] = 1;
        six[32..34].copy_from_slice(&80u16.to_be_bytes());
        assert_eq!(
            client(&v2(0x21, 0x21, &six)),
            Some("[::1]:80".parse().unwrap())
        );
        // A proxy that speaks for itself, of a unix socket, or of what it does not know.
        assert_eq!(client(&v2(0x20, 0x11, &addresses_v4())), None);
        assert_eq!(client(&v2(0x20, 0x00, b"")), None);
        assert_eq!(client(&v2(0x21, 0x31, &[0; 216])), None);
        assert_eq!(client(&v2(0x21, 0x00, b"")), None);
    }

    #[test]
    fn what_is_no_header_is_refused_and_says_why() {
        let long = format!("PROXY UNKNOWN {}", "x".repeat(100));
        let cases: &[(&[u8], &str)] = &[
            (b"GET / HTTP/1.1\r\n", "does not begin"),
            (b"\x16\x03\x01", "does not begin"),
            (b"PRI * HTTP/2.0\r\n", "does not begin"),
            (b"proxy TCP4 1.1.1.1 1.1.1.1 1 1\r\n", "does not begin"),
            (b"PROXY\tTCP4 1.1.1.1 1.1.1.1 1 1\r\n", "does not begin"),
            (long.as_bytes(), "longer than 107"),
            (b"PROXY TCP4 1.1.1.1 1.1.1.1 1 1 \r\n", "two addresses"),
            (b"PROXY TCP4  1.1.1.1 1.1.1.1 1 1\r\n", "two addresses"),
            (b"PROXY TCP5 1.1.1.1 1.1.1.1 1 1\r\n", "two addresses"),
            (b"PROXY \r\n", "two addresses"),
            (b"PROXY TCP4 1.1.1 1.1.1.1 1 1\r\n", "of its family"),
            (b"PROXY TCP4 ::1 ::1 1 1\r\n", "of its family"),
            (b"PROXY TCP6 1.1.1.1 1.1.1.1 1 1\r\n", "of its family"),
            (b"PROXY TCP4 1.1.1.1 x 1 1\r\n", "of its family"),
            (b"PROXY TCP4 1.1.1.1 1.1.1.1 65536 1\r\n", "a port"),
            (b"PROXY TCP4 1.1.1.1 1.1.1.1 1 01\r\n", "a port"),
            (b"PROXY TCP4 1.1.1.1 1.1.1.1 +1 1\r\n", "a port"),
            (b"PROXY TCP4 1.1.1.1 1.1.1.1 -1 1\r\n", "a port"),
            (b"PROXY \xff\r\n", "ASCII"),
            (&v2(0x11, 0x11, &addresses_v4()), "version 2"),
            (&v2(0x22, 0x11, &addresses_v4()), "version 2"),
            (&v2(0x21, 0x12, &addresses_v4()), "streams"),
            (&v2(0x21, 0x41, &addresses_v4()), "streams"),
            (&v2(0x21, 0x11, &addresses_v4()[..11]), "shorter"),
            (&v2(0x21, 0x21, &addresses_v4()), "shorter"),
            (&v2(0x21, 0x11, &[0; 5000]), "longer than 4096"),
        ];
        for (bytes, why) in cases {
            let shown = String::from_utf8_lossy(bytes);
            let error = parse(bytes).expect_err(&shown);
            assert!(error.to_string().contains(why), "{shown}: {error}");
        }
    }

    proptest! {
        #[test]
        fn every_part_of_a_header_waits_for_the_rest(cut in 0usize..1000) {
            for whole in [
                b"PROXY TCP4 192.0.2.7 10.0.0.1 4711 443\r\n".to_vec(),
                b"PROXY UNKNOWN\r\n".to_vec(),
                v2(0x21, 0x11, &addresses_v4()),
                v2(0x21, 0x31, &[7; 300]),
            ] {
                let part = &whole[..cut % whole.len()];
                prop_assert_eq!(parse(part).unwrap(), None);
                prop_assert_eq!(parse(&whole).unwrap().unwrap().length, whole.len());
            }
        }

        #[test]
        fn whatever_comes_is_judged(begin in 0usize..3, bytes: Vec<u8>) {
            let bytes = [[b"".as_slice(), V1, V2][begin], &bytes].concat();
            if let Ok(Some(header)) = parse(&bytes) {
                prop_assert!(header.length <= bytes.len() && header.length <= LONGEST);
            }
        }
    }
}
