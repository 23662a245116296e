//! Certificates: what is taken of the files, and what each mistake is told as.

use std::fs;
use std::time::{Duration, SystemTime};

use prefork_proto::tls::TlsVersion;
use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ED25519, date_time_ymd};
use tempfile::TempDir;

use super::*;

/// A directory with a configuration's certificates.
struct Files(TempDir);

impl Files {
    fn new() -> Self {
        let files = Self(tempfile::tempdir().unwrap());
        files.issue(
            "a",
            &["www.example.org", "example.org"],
            &PKCS_ECDSA_P256_SHA256,
        );
        files.issue("b", &["*.shop.example"], &PKCS_ECDSA_P256_SHA256);
        files
    }

    fn write(&self, name: &str, content: &str) {
        fs::write(self.0.path().join(name), content).unwrap();
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.0.path().join(name)).unwrap()
    }

    fn read_bytes(&self, name: &str) -> Vec<u8> {
        fs::read(self.0.path().join(name)).unwrap()
    }

    fn issue(&self, name: &str, names: &[&str], algorithm: &'static rcgen::SignatureAlgorithm) {
        self.issue_until(name, names, algorithm, 4000);
    }

    fn issue_until(
        &self,
        name: &str,
        names: &[&str],
        algorithm: &'static rcgen::SignatureAlgorithm,
        year: i32,
    ) {
        let names: Vec<String> = names.iter().copied().map(str::to_owned).collect();
        let key = KeyPair::generate_for(algorithm).unwrap();
        let mut params = CertificateParams::new(names).unwrap();
        params.not_before = date_time_ymd(2000, 1, 1);
        params.not_after = date_time_ymd(year, 2, 3);
        let certificate = params.self_signed(&key).unwrap();
        self.write(&format!("{name}.pem"), &certificate.pem());
        self.write(&format!("{name}.key"), &key.serialize_pem());
    }

    fn parse(&self, tls: &str) -> Result<Config, ConfigError> {
        let text = format!("[pool.web]\nlisten = [{{ address = \"[::]:1\", tls = {tls} }}]\n");
        let host = Host {
            directory: self.0.path().to_owned(),
            ..host()
        };
        parse(&text, "prefork.toml", &host)
    }

    fn valid(&self, tls: &str) -> Config {
        self.parse(tls).unwrap_or_else(|error| panic!("{error}"))
    }

    /// What is wrong, with the directory left out of it.
    fn message(&self, tls: &str) -> String {
        let error = self.parse(tls).expect_err(tls);
        let ConfigError::Invalid { problems, .. } = error else {
            panic!("{error}");
        };
        let [problem] = problems.as_slice() else {
            panic!("{tls}: one problem, not {problems:#?}");
        };
        let place = problem.place.as_ref().expect("a place");
        let help = problem.help.as_deref().unwrap_or("no help");
        let message = format!(
            "{}:{}: {} ({help})",
            place.line, place.column, problem.message
        );
        message.replace(&format!("{}/", self.0.path().display()), "")
    }
}

#[test]
fn a_certificate_is_known_by_what_is_in_its_file() {
    let files = Files::new();
    let config = files.valid("{ cert = \"a.pem\", key = \"a.key\" }");
    let tls = config.pools[0].listen[0].tls.clone().unwrap();
    assert_eq!(tls.min_version, TlsVersion::V1_2);
    let certificate = &tls.certificates[0];
    assert_eq!(certificate.cert, files.0.path().join("a.pem"));
    assert_eq!(certificate.names, ["www.example.org", "example.org"]);
    assert_eq!(certificate.not_before, 946_684_800);
    assert_eq!(certificate.fingerprint.len(), 64);
    let pem = certificate.pem.as_ref().unwrap();
    assert_eq!(
        (&pem.chain, &pem.key),
        (&files.read("a.pem"), &files.read("a.key"))
    );

    let both = "{ certificates = [{ cert = \"a.pem\", key = \"a.key\" }, \
                { cert = \"b.pem\", key = \"b.key\" }], min_version = \"1.3\" }";
    let tls = files.valid(both).pools[0].listen[0].tls.clone().unwrap();
    assert_eq!(tls.min_version, TlsVersion::V1_3);
    assert_eq!(tls.certificates[1].names, ["*.shop.example"]);
}

#[test]
fn what_stands_around_the_parts_of_a_file_may_be_in_any_encoding() {
    let files = Files::new();
    let plain = files.valid("{ cert = \"a.pem\", key = \"a.key\" }");
    for name in ["a.pem", "a.key"] {
        let path = files.0.path().join(name);
        let part = fs::read(&path).unwrap();
        // Latin-1, a byte that is in no encoding, and a mark of the byte order.
        let text = [&b"\xef\xbb\xbfM\xfcller \xff\r\n"[..], &part, b"\xfc\n"].concat();
        fs::write(path, text).unwrap();
    }
    let commented = files.valid("{ cert = \"a.pem\", key = \"a.key\" }");
    let of = |config: &Config| config.pools[0].listen[0].tls.clone().unwrap();
    let (plain, commented) = (of(&plain), of(&commented));
    assert_eq!(
        plain.certificates[0].fingerprint,
        commented.certificates[0].fingerprint
    );
    let part = files.read_bytes("a.pem");
    let broken = String::from_utf8_lossy(&part).replace("MI", "M\u{fc}");
    fs::write(files.0.path().join("a.pem"), broken).unwrap();
    let message = files.message("{ cert = \"a.pem\", key = \"a.key\" }");
    assert!(message.contains("a.pem is no PEM"), "{message}");
}

#[test]
fn no_private_key_is_in_what_is_shown_or_written_down() {
    let files = Files::new();
    let config = files.valid("{ cert = \"a.pem\", key = \"a.key\" }");
    let key = files.read("a.key");
    let secret = key.lines().nth(1).unwrap();
    for shown in [
        format!("{config:?}"),
        serde_json::to_string(&config).unwrap(),
        checked_json(&config).to_string(),
        render_checked(&config),
    ] {
        assert!(
            shown.contains("www.example.org") && !shown.contains(secret),
            "{shown}"
        );
    }
    let written = serde_json::to_string(&config).unwrap();
    let read: Config = serde_json::from_str(&written).unwrap();
    assert_eq!(read, config);
}

#[test]
fn each_mistake_is_told_at_its_place_with_what_would_be_right() {
    let files = Files::new();
    files.write("empty.pem", "");
    files.write("der.pem", "\u{0}");
    fs::write(files.0.path().join("binary.pem"), [0x30, 0x82, 0xff, 0xfe]).unwrap();
    files.write(
        "encrypted.key",
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n",
    );
    files.issue("ip", &["127.0.0.1"], &PKCS_ECDSA_P256_SHA256);
    files.issue("again", &["example.org"], &PKCS_ECDSA_P256_SHA256);
    let example = "tls = { cert = \"www.pem\", key = \"www.key\" }";
    let pem = "a PEM file with -----BEGIN CERTIFICATE-----, the server's own first";
    for (tls, expected) in [
        ("{}", format!("2:39: `tls` has no certificate ({example})")),
        (
            "{ certificates = [] }",
            format!("2:56: `certificates` is empty ({example})"),
        ),
        (
            "{ cert = \"a.pem\" }",
            format!("2:39: `cert` needs `key` ({example})"),
        ),
        (
            "{ certificates = [{}] }",
            format!("2:57: a certificate has neither `cert` nor `key` ({example})"),
        ),
        (
            "{ cert = \"none.pem\", key = \"a.key\" }",
            "2:48: `cert`: cannot read the certificate none.pem: No such file or directory \
             (os error 2) (relative paths start at the file's directory)"
                .to_owned(),
        ),
        (
            "{ cert = \"a.pem\", key = \"none.key\" }",
            "2:63: `key`: cannot read the private key none.key: No such file or directory \
             (os error 2) (relative paths start at the file's directory)"
                .to_owned(),
        ),
        (
            "{ cert = \"empty.pem\", key = \"a.key\" }",
            format!("2:48: `cert`: empty.pem holds no certificate ({pem})"),
        ),
        (
            "{ cert = \"a.key\", key = \"a.key\" }",
            format!("2:48: `cert`: a.key holds no certificate ({pem})"),
        ),
        (
            "{ cert = \"binary.pem\", key = \"a.key\" }",
            "2:48: `cert`: binary.pem is no text, so no certificate in PEM (DER is made PEM by \
             `openssl x509 -inform der` or `openssl pkey -inform der`)"
                .to_owned(),
        ),
        (
            "{ cert = \"a.pem\", key = \"a.pem\" }",
            "2:63: `key`: a.pem holds no private key (a PEM file with -----BEGIN PRIVATE KEY-----)"
                .to_owned(),
        ),
        (
            "{ cert = \"a.pem\", key = \"encrypted.key\" }",
            "2:63: `key`: the key in encrypted.key is encrypted (decrypt it with \
             `openssl pkey -in FILE -out FILE`, for prefork's user alone)"
                .to_owned(),
        ),
        (
            "{ cert = \"a.pem\", key = \"b.key\" }",
            "2:63: `key`: the key in b.key is not the one of the certificate in a.pem (the file \
             with the key that the certificate was asked for with; where there are several \
             certificates in the other file, the server's own comes first)"
                .to_owned(),
        ),
        (
            "{ cert = \"a.pem\", key = \"a.key\", min_version = \"1.1\" }",
            "2:86: `min_version`: expected \"1.2\" or \"1.3\", found \"1.1\"".to_owned(),
        ),
        (
            "{ cert = \"a.pem\", key = \"a.key\", minimum = 3 }",
            "2:72: unknown key `minimum` in `tls` of a listener (valid keys: min_version, \
             client_auth, client_ca, certificates, cert, key)"
                .to_owned(),
        ),
        (
            "{ cert = \"a.pem\", key = \"a.key\", client_ca = \"a.key\" }",
            "2:84: `client_ca`: a.key holds no certificate (a PEM file with the certificates of \
             those who issue the clients')"
                .to_owned(),
        ),
        (
            "{ cert = \"a.pem\", key = \"a.key\", client_auth = \"optional\" }",
            "2:86: `client_auth`: `client_auth` needs `client_ca` (say who has issued the \
             certificates: client_ca = \"clients.pem\")"
                .to_owned(),
        ),
        (
            "{ cert = \"a.pem\", key = \"a.key\", client_ca = \"b.pem\", client_auth = true }",
            "2:107: `client_auth`: expected \"required\" or \"optional\", found boolean true"
                .to_owned(),
        ),
        (
            "{ cert = \"a.pem\", key = \"a.key\", certificates = [] }",
            "2:39: `tls` has both `cert` and `certificates` (write the first one as another \
             element of `certificates`)"
                .to_owned(),
        ),
        (
            "{ certificates = [{ cert = \"a.pem\", key = \"a.key\" }, \
             { cert = \"again.pem\", key = \"again.key\" }] }",
            "2:101: the certificate in again.pem would never be used: those before it are for \
             example.org (leave one of them out; only keys of two kinds (RSA and ECDSA) can share \
             a name)"
                .to_owned(),
        ),
        (
            "{ certificates = [{ cert = \"a.pem\", key = \"a.key\" }, \
             { cert = \"ip.pem\", key = \"ip.key\" }] }",
            "2:101: the certificate in ip.pem is for no DNS name (only the first one can do \
             without: it is for whoever names none)"
                .to_owned(),
        ),
    ] {
        let told = files.message(tls);
        let told = told.strip_suffix(" (no help)").unwrap_or(&told);
        assert_eq!(told, expected, "{tls}");
    }
}

/// So many seconds after the Unix epoch.
fn time(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}

#[test]
fn two_kinds_of_key_may_share_a_name() {
    let files = Files::new();
    files.issue("ed", &["example.org"], &PKCS_ED25519);
    let tls = "{ certificates = [{ cert = \"a.pem\", key = \"a.key\" }, \
               { cert = \"ed.pem\", key = \"ed.key\" }] }";
    assert_eq!(
        warnings(&files.valid(tls), time(1_000_000_000)),
        Vec::<String>::new()
    );
}

#[test]
fn what_is_used_all_the_same_is_warned_of() {
    let files = Files::new();
    files.issue_until("old", &["old.example"], &PKCS_ECDSA_P256_SHA256, 2001);
    files.issue(
        "more",
        &["example.org", "api.example.org"],
        &PKCS_ECDSA_P256_SHA256,
    );
    let tls = "{ certificates = [{ cert = \"a.pem\", key = \"a.key\" }, \
               { cert = \"old.pem\", key = \"old.key\" }, \
               { cert = \"more.pem\", key = \"more.key\" }] }";
    let config = files.valid(tls);
    let directory = format!("{}/", files.0.path().display());
    let at = |now| -> Vec<String> {
        let warnings = warnings(&config, time(now)).into_iter();
        warnings.map(|it| it.replace(&directory, "")).collect()
    };
    let shared = "listener [::]:1: the certificate in more.pem is not used for example.org: a.pem \
                  comes first";
    let expired = "listener [::]:1: the certificate in old.pem for old.example has expired on \
                   2001-02-03";
    assert_eq!(at(950_000_000), [shared]);
    assert_eq!(at(1_000_000_000), [expired, shared]);
    assert!(at(0)[0].ends_with("for www.example.org is not valid before 2000-01-01"));
    let shown = render_checked(&config);
    assert!(
        shown.contains("old.example until 2001-02-03 (sha256 "),
        "{shown}"
    );
}

#[test]
fn other_certificates_can_be_taken_in_place_and_tls_itself_can_not() {
    let files = Files::new();
    let tls = "{ cert = \"a.pem\", key = \"a.key\" }";
    let old = files.valid(tls);
    files.issue("a", &["www.example.org"], &PKCS_ECDSA_P256_SHA256);
    let new = files.valid(tls);
    let told: Vec<String> = diff(&old, &new).iter().map(Change::to_string).collect();
    assert!(told[0].starts_with("listener [::]:1: tls 1.2+ www.example.org example.org until"));
    assert!(
        told[1].contains("would take the new settings in place"),
        "{told:?}"
    );
    let taken = taken_in_place(&old.pools[0], &new.pools[0]).unwrap();
    assert_eq!((taken.app, taken.tls), (false, true));

    let oldest = files.valid("{ cert = \"a.pem\", key = \"a.key\", min_version = \"1.3\" }");
    assert!(taken_in_place(&new.pools[0], &oldest.pools[0]).is_some());
    let mut without = new.clone();
    without.pools[0].listen[0].tls = None;
    for (old, new) in [(&new, &without), (&without, &new), (&new, &new)] {
        assert_eq!(taken_in_place(&old.pools[0], &new.pools[0]), None);
    }
}
