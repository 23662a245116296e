//! Settings that people know from other servers, or that stand in another table here.
//!
//! Whoever moves a service writes `graceful_timeout` by habit. The error then names the
//! setting that does the same here, and the table that it stands in.

mod counterparts;

use toml::de::DeValue;

use super::{defaults, diff, summary};
use counterparts::COUNTERPARTS;

/// Keys of a pool that have no default, or one of another kind.
const OF_A_POOL: [&str; 5] = ["workers", "program", "listen", "group", "app"];

/// What to say of a key that `section` does not have; `None` where it is not known
/// from anywhere.
pub(super) fn answer(key: &str, value: &DeValue<'_>, section: &str) -> Option<String> {
    let pool = pool_of(section);
    if let Some(home) = home(key) {
        return Some(format!("it stands in {}", in_pool(home, pool)));
    }
    let found = names(key, value).into_iter().find_map(|name| {
        COUNTERPARTS
            .iter()
            .find(|it| it.theirs.contains(&name.as_str()))
    })?;
    if found.ours.is_empty() {
        return Some(found.note.to_owned());
    }
    let ours: Vec<String> = found.ours.iter().map(|path| show(path, pool)).collect();
    let ours = format!("here it is {}", ours.join(" or "));
    Some(match found.note {
        "" => ours,
        note => format!("{ours}: {note}"),
    })
}

/// What a key may be known as: with the first key of its table, and alone.
fn names(key: &str, value: &DeValue<'_>) -> Vec<String> {
    let usual = |key: &str| key.to_ascii_lowercase().replace('-', "_");
    let key = usual(key);
    let inner = value.as_table().into_iter().flat_map(|table| table.iter());
    let mut names: Vec<String> = inner
        .map(|(inner, _)| format!("{key}.{}", usual(inner.get_ref())))
        .collect();
    names.push(key);
    names
}

/// The name of the pool that a section belongs to.
fn pool_of(section: &str) -> &str {
    let name = section.split_once("[pool.").map(|(_, rest)| rest);
    name.and_then(|rest| rest.split_once(']'))
        .map_or("NAME", |(name, _)| name)
}

/// A key of ours with the table that it stands in.
fn show(path: &str, pool: &str) -> String {
    let (table, key) = path.rsplit_once('.').unwrap_or(("", path));
    format!("`{key}` in {}", in_pool(table, pool))
}

/// The header of a table; of a pool's own where its name is empty.
fn in_pool(table: &str, pool: &str) -> String {
    match table {
        "" => format!("[pool.{pool}]"),
        table if table.starts_with('[') => table.to_owned(),
        table => format!("[pool.{pool}.{table}]"),
    }
}

/// The table that a key of ours stands in, as [`in_pool`] takes it.
fn home(key: &str) -> Option<&'static str> {
    if OF_A_POOL.contains(&key) {
        return Some("");
    }
    let supervisor = defaults::supervisor(Default::default());
    let mut keys = diff::supervisor_keys(&supervisor).into_iter();
    if keys.any(|(known, _)| known == key) {
        return Some("[supervisor]");
    }
    let settings = summary::settings(&defaults::pool("", 1));
    settings.into_iter().find_map(|(path, _)| {
        let (table, known) = path.rsplit_once('.').unwrap_or(("", path));
        (known == key).then_some(table)
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn each_answer_names_a_setting_that_there_is() {
        for counterpart in COUNTERPARTS {
            assert!(
                !counterpart.ours.is_empty() || !counterpart.note.is_empty(),
                "{:?} has no answer",
                counterpart.theirs
            );
            for path in counterpart.ours {
                let (table, key) = path.rsplit_once('.').unwrap_or(("", path));
                assert_eq!(home(key), Some(table), "{path}");
            }
        }
    }

    #[test]
    fn no_name_has_two_answers_or_is_written_so_that_it_is_never_found() {
        let mut seen = BTreeSet::new();
        for name in COUNTERPARTS.iter().flat_map(|it| it.theirs) {
            assert!(seen.insert(name), "{name} is there twice");
            assert_eq!(*name, name.to_ascii_lowercase().replace('-', "_"));
            assert_eq!(home(name), None, "{name} is a key of ours");
        }
    }

    /// The names in backticks of a table's cell.
    fn quoted(cell: &str) -> Vec<&str> {
        cell.split('`').skip(1).step_by(2).collect()
    }

    #[test]
    fn the_page_for_who_comes_from_elsewhere_says_what_an_error_would() {
        let page = include_str!("../../../docs/coming-from.md");
        let mut rows = 0;
        let mut of_settings = false;
        for line in page.lines() {
            let cells: Vec<&str> = line.split('|').map(str::trim).collect();
            let [_, theirs, ours, _] = cells[..] else {
                of_settings = false;
                continue;
            };
            if ours == "here" {
                of_settings = theirs == "setting";
            } else if let (true, [theirs]) = (of_settings, &quoted(theirs)[..]) {
                let nothing = DeValue::Boolean(false);
                let name = names(theirs, &nothing).remove(0);
                let found = COUNTERPARTS
                    .iter()
                    .find(|it| it.theirs.contains(&name.as_str()));
                let answer = found.map_or(vec![name.as_str()], |it| it.ours.to_vec());
                let shown = quoted(ours);
                let same = shown.iter().any(|it| answer.contains(it));
                assert!(same, "{line}: an error says {answer:?}");
                rows += 1;
            }
        }
        assert!(rows > 50, "{rows} rows");
    }
}
