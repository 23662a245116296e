//! `[pool.NAME.app]` of a pool that runs the bundled web server.

use std::path::PathBuf;

use serde_json::Value;

/// The keys that there are.
const KEYS: [&str; 1] = ["root"];

/// Checked settings.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Settings {
    /// The directory to serve; a welcome page without one.
    pub(super) root: Option<PathBuf>,
}

/// What is wrong with the settings.
#[derive(Debug, thiserror::Error)]
pub(super) enum SettingsError {
    #[error("the web server's settings are a table, not {0}")]
    NotATable(Value),

    #[error("the web server has no setting {key:?}; did you mean {nearest:?}?")]
    UnknownKey { key: String, nearest: &'static str },

    #[error("`root` is the path of a directory, not {0}")]
    NotAPath(Value),

    #[error("cannot serve root {path}: {problem}", path = path.display())]
    Root { path: PathBuf, problem: String },
}

impl Settings {
    pub(super) fn from_app(app: Value) -> Result<Self, SettingsError> {
        let table = match app {
            Value::Object(table) => table,
            Value::Null => return Ok(Self::default()),
            other => return Err(SettingsError::NotATable(other)),
        };
        let mut settings = Self::default();
        for (key, value) in table {
            match (key.as_str(), value) {
                ("root", Value::String(path)) => settings.root = Some(path.into()),
                ("root", other) => return Err(SettingsError::NotAPath(other)),
                _ => {
                    let nearest = nearest(&key);
                    return Err(SettingsError::UnknownKey { key, nearest });
                }
            }
        }
        Ok(settings)
    }
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
        assert_eq!(Settings::from_app(json!({})).unwrap().root, None);
        assert_eq!(Settings::from_app(Value::Null).unwrap().root, None);
    }

    #[test]
    fn what_is_wrong_is_named_with_what_would_be_right() {
        let say = |app| Settings::from_app(app).unwrap_err().to_string();
        assert_eq!(
            say(json!({ "rot": "public" })),
            "the web server has no setting \"rot\"; did you mean \"root\"?"
        );
        assert!(say(json!({ "root": 7 })).contains("not 7"));
        assert!(say(json!(["root"])).contains("a table"));
    }
}
