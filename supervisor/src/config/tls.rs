//! `tls` of a listener: certificates with their keys, and the oldest version.

use std::path::PathBuf;
use std::time::SystemTime;

use prefork_proto::tls::TlsVersion;
use toml::de::DeValue;

use super::checked::{Config, Tls};
use super::error::{Fault, Span};
use super::host::Host;
use super::section::{Section, Setting, expected, string};
use super::units;
use crate::tls::{self, Certificate, ClientAuthorities};

const FILE: &str = "a file such as \"/etc/ssl/www.pem\"";

const EXAMPLE: &str = "tls = { cert = \"www.pem\", key = \"www.key\" }";

/// Reads the table. `None` where it has no usable certificate.
pub(super) fn read(mut section: Section<'_>, host: &Host) -> Option<Tls> {
    let min_version = section.take_or("min_version", TlsVersion::default(), version);
    let certificates = if section.has("cert") || section.has("key") {
        if section.has("certificates") {
            let fault = Fault::new("`tls` has both `cert` and `certificates`");
            let help = "write the first one as another element of `certificates`";
            section.fault(section.span.clone(), fault.help(help));
        }
        // Known, whatever it holds.
        section.take("certificates", |_| Ok(()));
        read_pair(&mut section, host).into_iter().collect()
    } else {
        read_list(&mut section, host)
    };
    let clients = read_clients(&mut section, host);
    check_names(&section, &certificates);
    section.finish();
    let certificates: Vec<_> = certificates.into_iter().map(|it| it.value).collect();
    (!certificates.is_empty()).then_some(Tls {
        certificates,
        min_version: min_version.value,
        clients,
    })
}

fn read_list(section: &mut Section<'_>, host: &Host) -> Vec<Setting<Certificate>> {
    let problems = section.problems;
    let what = "an array such as [{ cert = \"www.pem\", key = \"www.key\" }]";
    let list = section.list("certificates", what, |element| match element.get_ref() {
        DeValue::Table(table) => {
            let mut section = Section::new("a certificate", table, element.span(), problems);
            let read = read_pair(&mut section, host);
            section.finish();
            Ok(read)
        }
        other => Err(expected("a table with `cert` and `key`", other)),
    });
    // The short form is not asked for, and is no unknown key.
    section.take("cert", |_| Ok(()));
    section.take("key", |_| Ok(()));
    match list {
        Some(list) => {
            if list.sound && list.value.is_empty() {
                let fault = Fault::new("`certificates` is empty");
                section.fault(list.span, fault.help(EXAMPLE));
            }
            list.value.into_iter().filter_map(|it| it.value).collect()
        }
        None => {
            if !section.has("certificates") {
                let fault = Fault::new("`tls` has no certificate");
                section.fault(section.span.clone(), fault.help(EXAMPLE));
            }
            Vec::new()
        }
    }
}

/// A certificate and its key, from this section's `cert` and `key`.
fn read_pair(section: &mut Section<'_>, host: &Host) -> Option<Setting<Certificate>> {
    let path = |value| Ok(host.resolve(string(value, FILE)?.as_ref()));
    let cert: Setting<Option<PathBuf>> = section.take("cert", path);
    let key: Setting<Option<PathBuf>> = section.take("key", path);
    let missing = match (section.has("cert"), section.has("key")) {
        (true, true) => None,
        (true, false) => Some("`cert` needs `key`"),
        (false, true) => Some("`key` needs `cert`"),
        (false, false) => Some("a certificate has neither `cert` nor `key`"),
    };
    if let Some(missing) = missing {
        let fault = Fault::new(missing).help(EXAMPLE);
        section.fault(section.span.clone(), fault);
    }
    match tls::read(&cert.value?, &key.value?) {
        Ok(value) => Some(Setting {
            value,
            span: cert.span,
            sound: true,
        }),
        Err(error) => {
            let (name, span) = match error.of_key {
                true => ("key", key.span),
                false => ("cert", cert.span),
            };
            let fault = Fault::new(error.problem).help(error.help).of_key(name);
            section.fault(span, fault);
            None
        }
    }
}

/// Whose certificates clients prove with who they are.
fn read_clients(section: &mut Section<'_>, host: &Host) -> Option<Box<ClientAuthorities>> {
    let file = section.take("client_ca", |value| {
        Ok(host.resolve(string(value, FILE)?.as_ref()))
    });
    let required = section.take_or("client_auth", true, is_required);
    if section.has("client_auth") && !section.has("client_ca") {
        let fault = Fault::new("`client_auth` needs `client_ca`").of_key("client_auth");
        let help = "say who has issued the certificates: client_ca = \"clients.pem\"";
        section.fault(required.span.clone(), fault.help(help));
    }
    match tls::read_authorities(&file.value?, required.value) {
        Ok(clients) => Some(Box::new(clients)),
        Err(error) => {
            let fault = Fault::new(error.problem).help(error.help);
            section.fault(file.span, fault.of_key("client_ca"));
            None
        }
    }
}

fn is_required(value: &DeValue<'_>) -> Result<bool, Fault> {
    const WORDS: &str = "\"required\" or \"optional\"";
    match string(value, WORDS)? {
        "required" => Ok(true),
        "optional" => Ok(false),
        other => Err(Fault::new(format!(
            "expected {WORDS}, found \"{}\"",
            other.escape_debug()
        ))),
    }
}

fn version(value: &DeValue<'_>) -> Result<TlsVersion, Fault> {
    const VERSIONS: &str = "\"1.2\" or \"1.3\"";
    match string(value, VERSIONS)? {
        "1.2" => Ok(TlsVersion::V1_2),
        "1.3" => Ok(TlsVersion::V1_3),
        other => Err(Fault::new(format!(
            "expected {VERSIONS}, found \"{}\"",
            other.escape_debug()
        ))),
    }
}

/// Reports certificates that no client would ever get.
fn check_names(section: &Section<'_>, certificates: &[Setting<Certificate>]) {
    for (index, certificate) in certificates.iter().enumerate().skip(1) {
        let before = &certificates[..index];
        let fault = |problem: String, help: &str| {
            let span: Span = certificate.span.clone();
            section.fault(span, Fault::new(problem).help(help));
        };
        let ours = &certificate.value;
        let path = ours.cert.display();
        if ours.names.is_empty() {
            let problem = format!("the certificate in {path} is for no DNS name");
            fault(
                problem,
                "only the first one can do without: it is for whoever names none",
            );
        } else if ours.names.iter().all(|name| taken(name, ours, before)) {
            let problem = format!(
                "the certificate in {path} would never be used: those before it are for {}",
                ours.names.join(", ")
            );
            let help = "leave one of them out; only keys of two kinds (RSA and ECDSA) can \
                        share a name";
            fault(problem, help);
        }
    }
}

/// Whether one of the certificates before is for the name and can be used by the
/// same clients.
fn taken(name: &String, certificate: &Certificate, before: &[Setting<Certificate>]) -> bool {
    before
        .iter()
        .any(|it| it.value.kind == certificate.kind && it.value.names.contains(name))
}

/// What an operator should know at this time of certificates that can be used
/// all the same.
pub fn warnings(config: &Config, now: SystemTime) -> Vec<String> {
    let now = now.duration_since(SystemTime::UNIX_EPOCH);
    let now = now.map_or(0, |now| i64::try_from(now.as_secs()).unwrap_or(i64::MAX));
    let mut warnings = Vec::new();
    for listen in config.pools.iter().flat_map(|pool| &pool.listen) {
        let Some(tls) = &listen.tls else { continue };
        for (index, certificate) in tls.certificates.iter().enumerate() {
            let path = certificate.cert.display();
            let title = certificate.title();
            let mut warn = |what: String| {
                let name = &listen.name;
                warnings.push(format!("listener {name}: the certificate in {path} {what}"));
            };
            if certificate.not_after < now {
                let day = units::show_day(certificate.not_after);
                warn(format!("for {title} has expired on {day}"));
            } else if certificate.not_before > now {
                let day = units::show_day(certificate.not_before);
                warn(format!("for {title} is not valid before {day}"));
            }
            for name in &certificate.names {
                let mut before = tls.certificates[..index].iter();
                let first = before
                    .find(|it| it.kind == certificate.kind && it.names.contains(name))
                    .map(|first| first.cert.display());
                if let Some(first) = first {
                    warn(format!("is not used for {name}: {first} comes first"));
                }
            }
        }
    }
    warnings
}

/// What a listener speaks TLS with, in a few words.
pub(super) fn show(tls: Option<&Tls>) -> String {
    let Some(tls) = tls else {
        return "none".to_owned();
    };
    let certificates = tls.certificates.iter().map(|certificate| {
        let names = match certificate.names.as_slice() {
            [] => "no name".to_owned(),
            names => names.join(" "),
        };
        let day = units::show_day(certificate.not_after);
        // As much of it as tells it from the one before.
        let fingerprint = certificate.fingerprint.get(..16).unwrap_or_default();
        format!("{names} until {day} (sha256 {fingerprint}…)")
    });
    let certificates: Vec<_> = certificates.collect();
    let clients = tls.clients.as_ref().map(|clients| {
        let fingerprint = clients.fingerprint();
        let fingerprint = fingerprint.get(..16).unwrap_or_default().to_owned();
        let (asked, count) = (clients.asked(), clients.count);
        let file = clients.file.display();
        format!("; certificates of clients {asked}, by {count} in {file} (sha256 {fingerprint}…)")
    });
    format!(
        "{}+ {}{}",
        tls.min_version.as_str(),
        certificates.join("; "),
        clients.unwrap_or_default()
    )
}
