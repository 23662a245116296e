//! `[pool.NAME.check]`: what a new worker has to answer before it is ready.

use std::collections::BTreeMap;
use std::time::Duration;

use hyper::header::{HeaderName, HeaderValue};
use hyper::http::uri::PathAndQuery;
use serde::{Deserialize, Serialize};
use toml::de::DeValue;

use super::adapter::{Adapter, SocketKind};
use super::error::Fault;
use super::section::{Section, expected, integer, string};
use super::units;

const PATH: &str = "a path such as \"/healthz\"";
const BODY: &str = "text that the answer has to contain";
const HEADERS: &str = "header fields and their values, such as { host = \"shop.example\" }";

/// How long an answer may take by default.
const TIMEOUT: Duration = Duration::from_secs(5);

/// What a new worker is asked, and what it has to answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// What is asked for by GET.
    pub path: String,
    /// Header fields of the request.
    pub headers: BTreeMap<String, String>,
    /// The status that it has to answer with; any of 200 to 299 without one.
    pub status: Option<u16>,
    /// What the body of the answer has to contain.
    pub body: Option<String>,
    /// From the question to the end of the answer.
    pub timeout: Duration,
}

impl Check {
    /// As the summary and a reload's changes show it.
    pub(super) fn show(&self) -> String {
        let status = self
            .status
            .map_or_else(|| "2xx".to_owned(), |it| it.to_string());
        let headers: String = self
            .headers
            .iter()
            .map(|(name, value)| format!(" {name}: {value}"))
            .collect();
        let body = self
            .body
            .as_ref()
            .map_or_else(String::new, |body| format!(" with {body:?}"));
        let timeout = units::show_duration(self.timeout);
        format!(
            "GET {}{headers}: {status}{body} within {timeout}",
            self.path
        )
    }
}

/// Reads the table, if there is one.
pub(super) fn read(pool: &mut Section<'_>, adapter: Option<&Adapter>) -> Option<Check> {
    let name = format!("`check` of {}", pool.name);
    let mut section = pool.section("check", name)?;
    if adapter.is_some_and(|it| it.socket == SocketKind::Listeners) {
        let fault = Fault::new("a program that accepts from `listen` itself cannot be asked alone");
        let help = "leave `listen` out and put the pool behind a front, \
                    or have the adapter ask: ready = \"http:/healthz\"";
        section.fault(section.span.clone(), fault.help(help));
    }
    let path = section.take("path", path);
    if path.sound && path.value.is_none() {
        let fault = Fault::new(format!("{} has no `path`", section.name));
        section.fault(section.span.clone(), fault.help("path = \"/healthz\""));
    }
    let headers = section.take_or("headers", BTreeMap::new(), headers);
    let status = section.take("status", status);
    let body = section.take("body", |value| string(value, BODY).map(str::to_owned));
    let range = Duration::from_millis(1)..=Duration::from_secs(600);
    let timeout = section.duration("timeout", TIMEOUT, range);
    section.finish();
    path.value.map(|path| Check {
        path,
        headers: headers.value,
        status: status.value,
        body: body.value,
        timeout: timeout.value,
    })
}

fn path(value: &DeValue<'_>) -> Result<String, Fault> {
    let text = string(value, PATH)?;
    let is_one = text.starts_with('/') && text.parse::<PathAndQuery>().is_ok();
    is_one
        .then(|| text.to_owned())
        .ok_or_else(|| expected(PATH, value))
}

fn status(value: &DeValue<'_>) -> Result<u16, Fault> {
    integer(value, &(200..=599)).map(|status| u16::try_from(status).unwrap_or(u16::MAX))
}

fn headers(value: &DeValue<'_>) -> Result<BTreeMap<String, String>, Fault> {
    let DeValue::Table(table) = value else {
        return Err(expected(HEADERS, value));
    };
    let fields = table.iter().map(|(name, value)| {
        let name: &str = name.get_ref();
        let text = string(value.get_ref(), "the text of a header field")?;
        if HeaderName::try_from(name).is_err() || HeaderValue::try_from(text).is_err() {
            return Err(Fault::new(format!("{name:?} is no header field")));
        }
        Ok((name.to_owned(), text.to_owned()))
    });
    fields.collect()
}
