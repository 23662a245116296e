//! METRICS.md against the exposition, in both directions.

use std::collections::BTreeSet;

use super::super::families::{FAMILIES, Together, Value};
use super::*;

const PAGE: &str = include_str!("../../../METRICS.md");

/// What page and exposition both say of a family.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Described {
    kind: String,
    labels: BTreeSet<String>,
    meaning: String,
}

/// A row of the page.
#[derive(Debug)]
struct Row {
    described: Described,
    unit: String,
    by_pool: String,
    advice: String,
}

/// The page's families: rows that begin with a name and its labels.
fn page() -> BTreeMap<String, Row> {
    let mut rows = BTreeMap::new();
    for line in PAGE.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<&str> = line.trim_matches('|').split(" | ").map(str::trim).collect();
        let [series, kind, unit, by_pool, meaning, advice] = cells.as_slice() else {
            panic!("a row has six cells: {line}");
        };
        let series = series.trim_matches('`').trim_end_matches('}');
        let (name, labels) = series.split_once('{').unwrap_or((series, ""));
        let labels = labels.split(',').filter(|label| !label.is_empty());
        let described = Described {
            kind: (*kind).to_owned(),
            labels: labels.map(str::to_owned).collect(),
            meaning: (*meaning).to_owned(),
        };
        let row = Row {
            described,
            unit: (*unit).to_owned(),
            by_pool: (*by_pool).to_owned(),
            advice: (*advice).to_owned(),
        };
        assert!(rows.insert(name.to_owned(), row).is_none(), "{name} twice");
    }
    rows
}

/// The exposition's families.
fn exposition(detail: Detail) -> BTreeMap<String, Described> {
    let mut metrics = metrics();
    metrics.set_detail(detail);
    metrics.pool("web");
    metrics.slot("web", 0);
    let listener = metrics.listener("0.0.0.0:80", "web", "0.0.0.0:80", "shared");
    listener.backlog(Some(0), 4096);
    listener.certificates([("a.example".to_owned(), 1)].into());
    let text = metrics.encode();
    let mut families = BTreeMap::new();
    for line in text.lines() {
        let words: Vec<&str> = line.splitn(4, ' ').collect();
        match words.as_slice() {
            ["#", "HELP", name, help] => {
                let described = Described {
                    kind: String::new(),
                    labels: BTreeSet::new(),
                    meaning: (*help).to_owned(),
                };
                families.insert((*name).to_owned(), described);
            }
            ["#", "TYPE", name, kind] => {
                let family = families.get_mut(*name).expect("HELP comes first");
                family.kind = (*kind).to_owned();
            }
            _ => add_labels(line, &mut families),
        }
    }
    families
}

/// Notes the names of a sample's labels with its family; a histogram's bounds
/// are no label of the family.
fn add_labels(sample: &str, families: &mut BTreeMap<String, Described>) {
    let (series, _) = sample.rsplit_once(' ').expect("a sample has a value");
    let (name, labels) = series.split_once('{').unwrap_or((series, ""));
    let parts = ["_bucket", "_sum", "_count"];
    let whole = parts.iter().find_map(|part| name.strip_suffix(part));
    let family = match whole {
        Some(whole) if families.contains_key(whole) => whole,
        _ => name,
    };
    let family = families.get_mut(family).expect("TYPE comes first");
    let names = labels
        .split(',')
        .filter_map(|label| label.split_once("=\""));
    let names = names.map(|(name, _)| name.to_owned());
    family.labels.extend(names.filter(|name| name != "le"));
}

#[test]
fn the_page_describes_every_family_and_no_other() {
    let page = page();
    let exposition = exposition(Detail::Slot);
    assert!(exposition.len() > 50, "{exposition:#?}");
    let described: BTreeMap<_, _> = page
        .iter()
        .map(|(name, row)| (name.clone(), row.described.clone()))
        .collect();
    for (name, exported) in &exposition {
        assert_eq!(described.get(name), Some(exported), "{name} on the page");
    }
    for name in described.keys() {
        assert!(exposition.contains_key(name), "{name} is not exported");
    }
}

#[test]
fn the_page_says_what_becomes_of_a_pools_slots_together() {
    let page = page();
    let mut by_pool: BTreeMap<String, Described> = page
        .iter()
        .filter(|(_, row)| row.by_pool != "left out")
        .map(|(name, row)| (name.clone(), row.described.clone()))
        .collect();
    for described in by_pool.values_mut() {
        described.labels.remove("slot");
    }
    assert_eq!(by_pool, exposition(Detail::Pool));
    for family in FAMILIES {
        let expected = match family.value {
            Value::Gauge(_, Together::Largest) => "largest",
            Value::Gauge(_, Together::Oldest) => "oldest",
            Value::Gauge(_, Together::LeftOut) => "left out",
            _ if family.by_pool => "same",
            _ => "sum",
        };
        assert_eq!(page[family.name].by_pool, expected, "{}", family.name);
    }
    for (name, row) in &page {
        let of_slots = row.described.labels.contains("slot");
        assert_eq!(row.by_pool != "same", of_slots, "{name}");
    }
}

#[test]
fn the_page_gives_every_family_a_unit_that_fits_its_name_and_advice() {
    for (name, row) in page() {
        for unit in ["seconds", "bytes"] {
            let stem = name.trim_end_matches("_total");
            assert_eq!(
                row.unit == unit,
                stem.ends_with(unit),
                "{name}: {}",
                row.unit
            );
        }
        assert!(!row.unit.is_empty(), "{name}");
        assert!(row.advice.len() > 20, "{name}: {}", row.advice);
    }
}
