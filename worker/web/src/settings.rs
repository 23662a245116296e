//! `[pool.NAME.app]` of a pool that runs the bundled web server.

use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use hyper::header::HeaderValue;
use serde_json::Value;

use crate::files::Links;
use crate::forward::{Routes, Waits};

/// The keys that there are.
const KEYS: [&str; 10] = [
    "root",
    "symlinks",
    "not_found",
    "fallback",
    "cache_control",
    "confine",
    "forward",
    "queue_timeout",
    "max_queue",
    "upstream_timeout",
];

/// Checked settings.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Settings {
    /// The directory to serve; a welcome page without one.
    pub(crate) root: Option<PathBuf>,
    /// Where symbolic links may lead.
    pub(crate) symlinks: Links,
    /// The file that is shown, with status 404, where there is none.
    pub(crate) not_found: Option<String>,
    /// The file that answers for every route that is no file.
    pub(crate) fallback: Option<String>,
    /// `Cache-Control` by the beginning of the path, the longest first.
    pub(crate) cache_control: Vec<(String, HeaderValue)>,
    /// Whether the server gives up the right to reach more than its root.
    pub(crate) confine: Confinement,
    /// Which pools answer for what is no file.
    pub(crate) forward: Option<Routes>,
    /// How long what is forwarded may wait.
    pub(crate) waits: Waits,
}

/// Whether the server gives up the right to reach more than its root.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Confinement {
    /// It does not.
    Off,
    /// It does, as far as the kernel has the means.
    #[default]
    AsFarAsPossible,
    /// It does all of it, or does not serve.
    Required,
}

/// What is wrong with the settings.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SettingsError {
    #[error("the web server's settings are a table, not {0}")]
    NotATable(Value),

    #[error("the web server has no setting {key:?}; did you mean {nearest:?}?")]
    UnknownKey { key: String, nearest: &'static str },

    #[error("`confine = \"required\"` does not go with `symlinks = \"anywhere\"`")]
    LinksLeadOut,

    #[error("`{key}` is {expected}, not {found}")]
    Wrong {
        key: &'static str,
        expected: &'static str,
        found: Value,
    },

    #[error("`{0}` needs `root`")]
    NeedsRoot(&'static str),

    #[error("`{0}` needs `forward`")]
    NeedsForward(&'static str),

    #[error("cannot serve root {path}: {problem}", path = path.display())]
    Root { path: PathBuf, problem: String },

    #[error("`{key}`: cannot open {page:?} in the root: {problem}")]
    Page {
        key: &'static str,
        page: String,
        problem: String,
    },
}

const ROOT: &str = "the path of a directory";
const SYMLINKS: &str = "\"inside\" or \"anywhere\"";
const PAGE: &str = "the path of a file in the root, such as \"404.html\"";
const CACHE_CONTROL: &str = "a header's value such as \"max-age=3600\", or a table of them by path such as { \"/\" = \"no-cache\" }";

const FORWARD: &str =
    "the name of a pool, or a table of them by path such as { \"/api/\" = \"api\" }";
const TIME: &str = "a duration such as \"30s\"";
const NUMBER: &str = "a number";

impl Settings {
    pub(crate) fn from_app(app: Value) -> Result<Self, SettingsError> {
        let table = match app {
            Value::Object(table) => table,
            Value::Null => return Ok(Self::default()),
            other => return Err(SettingsError::NotATable(other)),
        };
        let mut settings = Self::default();
        let mut waits = None;
        for (key, value) in table {
            match key.as_str() {
                "root" => settings.root = Some(text("root", ROOT, value)?.into()),
                "symlinks" => settings.symlinks = links(value)?,
                "not_found" => settings.not_found = Some(page("not_found", value)?),
                "fallback" => settings.fallback = Some(page("fallback", value)?),
                "confine" => settings.confine = confinement(value)?,
                "cache_control" => settings.cache_control = cache_control(value)?,
                "forward" => settings.forward = Some(routes(value)?),
                "queue_timeout" => {
                    settings.waits.queue_timeout = time("queue_timeout", value)?;
                    waits = Some("queue_timeout");
                }
                "upstream_timeout" => {
                    settings.waits.upstream_timeout = time("upstream_timeout", value)?;
                    waits = Some("upstream_timeout");
                }
                "max_queue" => {
                    settings.waits.max_queue = number("max_queue", value)?;
                    waits = Some("max_queue");
                }
                _ => {
                    let nearest = nearest(&key);
                    return Err(SettingsError::UnknownKey { key, nearest });
                }
            }
        }
        if let (None, Some(key)) = (&settings.forward, waits) {
            return Err(SettingsError::NeedsForward(key));
        }
        if (settings.confine, settings.symlinks) == (Confinement::Required, Links::Anywhere) {
            return Err(SettingsError::LinksLeadOut);
        }
        match (&settings.root, &settings.not_found, &settings.fallback) {
            (None, Some(_), _) => Err(SettingsError::NeedsRoot("not_found")),
            (None, _, Some(_)) => Err(SettingsError::NeedsRoot("fallback")),
            _ => Ok(settings),
        }
    }

    /// Whether the server is to reach its root alone, which it can't where a
    /// link may lead out of it.
    pub(crate) fn confinement(&self) -> Confinement {
        match self.symlinks {
            Links::Inside => self.confine,
            Links::Anywhere => Confinement::Off,
        }
    }
}

fn wrong(key: &'static str, expected: &'static str, found: Value) -> SettingsError {
    SettingsError::Wrong {
        key,
        expected,
        found,
    }
}

fn text(key: &'static str, expected: &'static str, value: Value) -> Result<String, SettingsError> {
    match value {
        Value::String(text) => Ok(text),
        other => Err(wrong(key, expected, other)),
    }
}

fn confinement(value: Value) -> Result<Confinement, SettingsError> {
    match &value {
        Value::Bool(false) => Ok(Confinement::Off),
        Value::Bool(true) => Ok(Confinement::AsFarAsPossible),
        Value::String(word) if word == "required" => Ok(Confinement::Required),
        _ => Err(wrong("confine", "true, false or \"required\"", value)),
    }
}

fn links(value: Value) -> Result<Links, SettingsError> {
    match value.as_str() {
        Some("inside") => Ok(Links::Inside),
        Some("anywhere") => Ok(Links::Anywhere),
        _ => Err(wrong("symlinks", SYMLINKS, value)),
    }
}

fn routes(value: Value) -> Result<Routes, SettingsError> {
    Routes::from_setting(&value).ok_or_else(|| wrong("forward", FORWARD, value))
}

fn number(key: &'static str, value: Value) -> Result<usize, SettingsError> {
    let number = value.as_u64().and_then(|it| usize::try_from(it).ok());
    number.ok_or_else(|| wrong(key, NUMBER, value))
}

/// A whole number of milliseconds, seconds or minutes, more than none.
fn time(key: &'static str, value: Value) -> Result<Duration, SettingsError> {
    const UNITS: [(&str, u64); 3] = [("ms", 1), ("s", 1000), ("m", 60_000)];
    let text = value.as_str().unwrap_or_default();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let unit = UNITS.into_iter().find(|(name, _)| *name == unit);
    let millis = unit.and_then(|(_, millis)| number.parse::<u64>().ok()?.checked_mul(millis));
    match millis {
        Some(millis) if millis > 0 => Ok(Duration::from_millis(millis)),
        _ => Err(wrong(key, TIME, value)),
    }
}

fn page(key: &'static str, value: Value) -> Result<String, SettingsError> {
    let page = text(key, PAGE, value)?;
    let names = |part| matches!(part, Component::Normal(_));
    if page.is_empty() || !Path::new(&page).components().all(names) {
        return Err(wrong(key, PAGE, page.into()));
    }
    Ok(page)
}

fn cache_control(value: Value) -> Result<Vec<(String, HeaderValue)>, SettingsError> {
    const KEY: &str = "cache_control";
    let table = match value {
        Value::String(_) => [("/".to_owned(), value)].into_iter().collect(),
        Value::Object(table) => table,
        other => return Err(wrong(KEY, CACHE_CONTROL, other)),
    };
    let mut rules = Vec::new();
    for (path, value) in table {
        let header = value.as_str().and_then(|text| text.parse().ok());
        match header {
            Some(header) if path.starts_with('/') => rules.push((path, header)),
            Some(_) => return Err(wrong(KEY, CACHE_CONTROL, path.into())),
            None => return Err(wrong(KEY, CACHE_CONTROL, value)),
        }
    }
    rules.sort_by_key(|(path, _)| std::cmp::Reverse(path.len()));
    Ok(rules)
}

fn nearest(key: &str) -> &'static str {
    KEYS.into_iter()
        .min_by_key(|known| strsim::damerau_levenshtein(key, known))
        .expect("there is a key")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_root_is_a_path_and_its_absence_means_the_welcome_page() {
        let settings = Settings::from_app(json!({ "root": "public" })).unwrap();
        assert_eq!(settings.root, Some(PathBuf::from("public")));
        let open = Settings::from_app(json!({ "confine": false })).unwrap();
        assert_eq!(settings.confinement(), Confinement::AsFarAsPossible);
        assert_eq!(open.confinement(), Confinement::Off);
        let required = Settings::from_app(json!({ "confine": "required" })).unwrap();
        assert_eq!(required.confinement(), Confinement::Required);
        assert_eq!(Settings::from_app(json!({})).unwrap().root, None);
        assert_eq!(Settings::from_app(Value::Null).unwrap().root, None);
    }

    #[test]
    fn what_is_forwarded_may_wait_as_long_as_the_settings_say() {
        let app = json!({
            "forward": "shop",
            "queue_timeout": "250ms",
            "upstream_timeout": "2m",
            "max_queue": 7,
        });
        let settings = Settings::from_app(app).unwrap();
        assert_eq!(settings.waits.queue_timeout, Duration::from_millis(250));
        assert_eq!(settings.waits.upstream_timeout, Duration::from_secs(120));
        assert_eq!(settings.waits.max_queue, 7);
    }

    #[test]
    fn the_longest_path_comes_first() {
        let app = json!({ "cache_control": { "/": "no-cache", "/assets/": "immutable" } });
        let rules = Settings::from_app(app).unwrap().cache_control;
        let paths: Vec<_> = rules.iter().map(|(path, _)| path.as_str()).collect();
        assert_eq!(paths, ["/assets/", "/"]);
    }

    #[test]
    fn what_is_wrong_is_named_with_what_would_be_right() {
        let say = |app| Settings::from_app(app).unwrap_err().to_string();
        assert_eq!(
            say(json!({ "rot": "public" })),
            "the web server has no setting \"rot\"; did you mean \"root\"?"
        );
        assert!(say(json!({ "root": 7 })).contains("not 7"));
        assert!(say(json!({ "confine": 7 })).contains("true, false or \"required\", not 7"));
        let both = json!({ "confine": "required", "symlinks": "anywhere" });
        assert!(say(both).contains("does not go with"));
        assert!(say(json!(["root"])).contains("a table"));
        assert!(say(json!({ "symlinks": true })).contains("\"inside\" or \"anywhere\", not true"));
        for forward in [json!(7), json!({ "api": "api" })] {
            assert!(say(json!({ "forward": forward })).contains("the name of a pool"));
        }
        for wait in ["", "s", "10", "0s", "10 s", "1h"] {
            let app = json!({ "forward": "shop", "queue_timeout": wait });
            assert!(say(app).contains("a duration such as"), "{wait}");
        }
        assert_eq!(
            say(json!({ "max_queue": 7 })),
            "`max_queue` needs `forward`"
        );
        for page in ["", "../404.html", "/404.html", "a/../b"] {
            let app = json!({ "root": ".", "not_found": page });
            assert!(say(app).contains("a file in the root"), "{page}");
        }
        assert_eq!(
            say(json!({ "fallback": "index.html" })),
            "`fallback` needs `root`"
        );
        for rules in [
            json!(1),
            json!({ "/": 1 }),
            json!({ "a": "b" }),
            json!("\n"),
        ] {
            let app = json!({ "cache_control": rules });
            assert!(say(app).contains("a header's value"), "{rules}");
        }
    }
}
