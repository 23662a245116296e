//! `[pool.NAME.app]` of a pool that runs the bundled web server. The server
//! reads its settings by itself; here they are held against the same rules
//! while there is still a place in the file to point at.

use std::ffi::OsStr;
use std::io;
use std::path::{Component, Path};

use serde_json::{Map, Value};
use toml::de::DeValue;

use super::error::Fault;
use super::forward;
use super::host::Host;
use super::section::{Section, Setting, expected, string};

const PAGE: &str = "the path of a file in the root, such as \"404.html\"";
const LINKS: [&str; 2] = ["inside", "anywhere"];

/// Checks the settings, and makes the root an absolute path in `json`, which
/// has them all; the pools that they forward to.
pub(super) fn check(
    mut table: Section<'_>,
    json: &mut Map<String, Value>,
    host: &Host,
) -> Vec<Setting<String>> {
    let root = table.take("root", |value| {
        root(
            string(value, "a directory such as \"./public\"")?.as_ref(),
            host,
        )
    });
    for key in ["not_found", "fallback"] {
        let page = table.take(key, |value| page(value, root.value.as_deref()));
        if page.value.is_some() && root.sound && root.value.is_none() {
            let fault = Fault::new(format!("`{key}` needs `root`"));
            table.fault(page.span, fault.help("add root = \"./public\""));
        }
    }
    let links = table.take("symlinks", symlinks);
    let confine = table.take("confine", confine);
    if let (Some(true), Some(true)) = (links.value, confine.value) {
        let fault =
            Fault::new("`confine = \"required\"` does not go with `symlinks = \"anywhere\"`");
        table.fault(confine.span, fault.help("leave one of the two out"));
    }
    table.take("cache_control", cache_control);
    if let Some(root) = root.value {
        json.insert("root".to_owned(), Value::from(root));
    }
    let targets = forward::read(&mut table, json);
    table.finish();
    targets
}

/// The directory that is served, absolute.
pub(super) fn root(path: &OsStr, host: &Host) -> Result<String, Fault> {
    let path = host.resolve(Path::new(path));
    let fault = |why: String| Fault::new(format!("{}: {why}", path.display()));
    let metadata = path.metadata().map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => fault("no such directory".to_owned()),
        _ => fault(error.to_string()),
    })?;
    if !metadata.is_dir() {
        return Err(fault("not a directory".to_owned()));
    }
    path.to_str()
        .map(str::to_owned)
        .ok_or_else(|| fault("not valid UTF-8".to_owned()))
}

fn page(value: &DeValue<'_>, root: Option<&str>) -> Result<(), Fault> {
    let page = string(value, PAGE)?;
    let is_name = |part| matches!(part, Component::Normal(_));
    if page.is_empty() || !Path::new(page).components().all(is_name) {
        return Err(expected(PAGE, value));
    }
    let Some(root) = root else { return Ok(()) };
    let path = Path::new(root).join(page);
    match path.metadata() {
        Ok(metadata) if metadata.is_file() => Ok(()),
        Ok(_) => Err(Fault::new(format!("{}: not a file", path.display()))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Err(Fault::new(format!("{}: no such file", path.display())))
        }
        Err(error) => Err(Fault::new(format!("{}: {error}", path.display()))),
    }
}

/// Whether it is required.
fn confine(value: &DeValue<'_>) -> Result<bool, Fault> {
    match value {
        DeValue::Boolean(_) => Ok(false),
        DeValue::String(word) if word == "required" => Ok(true),
        other => Err(expected("true, false or \"required\"", other)),
    }
}

/// Whether they may lead anywhere.
fn symlinks(value: &DeValue<'_>) -> Result<bool, Fault> {
    match value {
        DeValue::String(word) if LINKS.contains(&word.as_ref()) => Ok(word != "inside"),
        other => Err(expected("\"inside\" or \"anywhere\"", other)),
    }
}

fn cache_control(value: &DeValue<'_>) -> Result<(), Fault> {
    const WHAT: &str = "a header's value such as \"max-age=3600\", or a table of them by path";
    let header = |value: &DeValue<'_>| {
        let text = string(value, WHAT)?;
        let printable = |c: char| c == '\t' || (c >= ' ' && c != '\x7f');
        if text.chars().all(printable) {
            Ok(())
        } else {
            Err(expected(WHAT, value))
        }
    };
    let DeValue::Table(table) = value else {
        return header(value);
    };
    for (path, value) in table {
        let path = path.get_ref();
        if !path.starts_with('/') {
            let fault = Fault::new(format!("\"{}\" is no path", path.escape_debug()));
            return Err(fault.help("a path begins with a slash: \"/assets/\""));
        }
        header(value.get_ref())?;
    }
    Ok(())
}
