//! What a program is told of the certificate with which a client has proved who it is:
//! the whole of it (`Client-Cert`, RFC 9440), its subject and its fingerprint.

use std::fmt::Write as _;

use data_encoding::{BASE64, HEXLOWER};
use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use ring::digest::{SHA256, digest};
use x509_parser::asn1_rs::Any;
use x509_parser::objects::{oid_registry, oid2abbrev};
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::x509::{AttributeTypeAndValue, X509Name};

const CLIENT_CERT: HeaderName = HeaderName::from_static("client-cert");
const SUBJECT: HeaderName = HeaderName::from_static("x-client-cert-subject");
const FINGERPRINT: HeaderName = HeaderName::from_static("x-client-cert-sha256");

/// Says what there is of a certificate in DER.
pub(super) fn say(headers: &mut HeaderMap, der: &[u8]) {
    let mut say = |name, value: String| {
        if let Ok(value) = HeaderValue::try_from(value) {
            headers.insert(name, value);
        }
    };
    say(CLIENT_CERT, format!(":{}:", BASE64.encode(der)));
    say(FINGERPRINT, HEXLOWER.encode(digest(&SHA256, der).as_ref()));
    if let Ok((_, certificate)) = X509Certificate::from_der(der) {
        say(SUBJECT, subject(certificate.subject()));
    }
}

/// A name as RFC 4514 writes it, in printable ASCII: the most particular part first, and
/// whatever could be taken for another part, or is no ASCII, escaped.
fn subject(name: &X509Name<'_>) -> String {
    let parts: Vec<_> = name.iter_rdn().collect();
    let parts = parts.into_iter().rev().map(|part| {
        let attributes: Vec<_> = part.iter().map(attribute).collect();
        attributes.join("+")
    });
    parts.collect::<Vec<_>>().join(",")
}

fn attribute(attribute: &AttributeTypeAndValue<'_>) -> String {
    let kind = attribute.attr_type();
    let kind = match oid2abbrev(kind, oid_registry()) {
        Ok(short) => short.to_owned(),
        Err(_) => kind.to_id_string(),
    };
    match attribute.as_str() {
        Ok(text) => format!("{kind}={}", escaped(text)),
        Err(_) => format!("{kind}=#{}", encoded(attribute.attr_value())),
    }
}

fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for (at, byte) in text.bytes().enumerate() {
        let is_edge = at == 0 || at + 1 == text.len();
        match byte {
            b',' | b'+' | b'"' | b'\\' | b'<' | b'>' | b';' | b'=' => {
                escaped.extend(['\\', char::from(byte)]);
            }
            b'#' if at == 0 => escaped.push_str("\\#"),
            b' ' if !is_edge => escaped.push(' '),
            b'!'..=b'~' => escaped.push(char::from(byte)),
            other => {
                // Nothing can fail to be written to a string.
                let _ = write!(escaped, "\\{other:02X}");
            }
        }
    }
    escaped
}

/// A value that is no text.
fn encoded(value: &Any<'_>) -> String {
    HEXLOWER.encode(value.data)
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};

    use super::*;

    fn issued(common: &str, organization: &str) -> Vec<u8> {
        let mut parameters = CertificateParams::new(Vec::new()).unwrap();
        parameters.distinguished_name = DistinguishedName::new();
        let name = &mut parameters.distinguished_name;
        name.push(DnType::OrganizationName, organization);
        name.push(DnType::CommonName, common);
        let key = KeyPair::generate().unwrap();
        parameters.self_signed(&key).unwrap().der().to_vec()
    }

    fn told(der: &[u8]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        say(&mut headers, der);
        headers
    }

    #[test]
    fn the_certificate_its_subject_and_its_fingerprint_are_told() {
        let der = issued("alice", "Shop");
        let headers = told(&der);
        let whole = headers[CLIENT_CERT].to_str().unwrap();
        let inner = whole.strip_prefix(':').and_then(|it| it.strip_suffix(':'));
        assert_eq!(BASE64.decode(inner.unwrap().as_bytes()).unwrap(), der);
        assert_eq!(headers[SUBJECT], "CN=alice,O=Shop");
        assert_eq!(headers[FINGERPRINT].len(), 64);
    }

    #[test]
    fn no_subject_can_be_taken_for_another() {
        for (common, shown) in [
            ("alice,O=Admins", "CN=alice\\,O\\=Admins,O=Shop"),
            ("alice+CN=bob", "CN=alice\\+CN\\=bob,O=Shop"),
            ("a\\,b", "CN=a\\\\\\,b,O=Shop"),
            (" a b ", "CN=\\20a b\\20,O=Shop"),
            ("#04", "CN=\\#04,O=Shop"),
            (
                "a\r\nx-client-cert-subject: b",
                "CN=a\\0D\\0Ax-client-cert-subject: b,O=Shop",
            ),
            ("\u{e9}", "CN=\\C3\\A9,O=Shop"),
        ] {
            assert_eq!(told(&issued(common, "Shop"))[SUBJECT], shown, "{common:?}");
        }
    }
}
