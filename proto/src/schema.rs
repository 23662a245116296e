//! Keeps `schema/channel-1.json` and `README.md` equal to the types.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::{env, fs};

use schemars::generate::SchemaSettings;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use crate::line::{self, Line};
use crate::message::{Message, PROTOCOL, ToSupervisor, ToWorker};
use crate::tls::TlsSettings;

const README: &str = include_str!("../README.md");

fn schema_file() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("schema/channel-{PROTOCOL}.json"))
}

/// The schema of one line, whichever way it goes.
fn schema() -> Value {
    let mut generator = SchemaSettings::draft2020_12().into_generator();
    let directions = [
        generator.subschema_for::<ToWorker>(),
        generator.subschema_for::<ToSupervisor>(),
    ];
    // Not a line: what the memory holds that comes with `tls`.
    let _ = generator.subschema_for::<TlsSettings>();
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": format!("prefork channel protocol {PROTOCOL}: one line"),
        "anyOf": directions,
        "$defs": generator.take_definitions(true),
    })
}

#[test]
fn the_schema_file_is_what_the_types_say() {
    let mut generated = serde_json::to_string_pretty(&schema()).unwrap();
    generated.push('\n');
    if env::var_os("UPDATE_SCHEMA").is_some() {
        fs::write(schema_file(), &generated).unwrap();
    }
    let stored = fs::read_to_string(schema_file()).unwrap_or_default();
    assert!(
        stored == generated,
        "{} is not what the types say; if the change is meant, and only adds, run\n    \
         UPDATE_SCHEMA=1 cargo test -p prefork-proto schema",
        schema_file().display()
    );
}

#[test]
fn the_schema_has_every_type_of_message() {
    let text = schema().to_string();
    for kind in ToWorker::KINDS.iter().chain(ToSupervisor::KINDS) {
        let constant = format!("\"const\":\"{kind}\"");
        assert!(text.contains(&constant), "`{kind}` is not in the schema");
    }
}

/// The names of all `properties` anywhere in a schema.
fn properties(schema: &Value, names: &mut BTreeSet<String>) {
    match schema {
        Value::Object(object) => {
            if let Some(Value::Object(properties)) = object.get("properties") {
                names.extend(properties.keys().cloned());
            }
            object.values().for_each(|value| properties(value, names));
        }
        Value::Array(array) => array.iter().for_each(|value| properties(value, names)),
        _ => {}
    }
}

#[test]
fn the_specification_explains_every_field() {
    let mut names = BTreeSet::new();
    properties(&schema(), &mut names);
    assert!(names.contains("duration_sum_us"), "{names:?}");
    for name in names {
        assert!(README.contains(&format!("`{name}`")), "`{name}` is missing");
    }
}

/// The lines of the `json` blocks between one heading and the next of its level.
fn examples(heading: &str) -> Vec<&'static str> {
    let (_, after) = README.split_once(heading).expect("the heading is there");
    let section = after.split("\n## ").next().unwrap_or(after);
    let mut lines = Vec::new();
    for block in section.split("```json\n").skip(1) {
        let (block, _) = block.split_once("```").expect("the block ends");
        lines.extend(block.lines());
    }
    lines
}

/// Reads each example as a message and checks that no field of it is ignored.
fn check_examples<M: Message + DeserializeOwned>(heading: &str) {
    let mut kinds = BTreeSet::new();
    for text in examples(heading) {
        let parsed = line::parse::<M>(text.as_bytes()).unwrap_or_else(|e| panic!("{text}: {e}"));
        let Line::Known { message, .. } = parsed else {
            panic!("the type is unknown: {text}");
        };
        kinds.insert(message.kind());
        let example: Map<String, Value> = serde_json::from_str(text).unwrap();
        let understood = serde_json::to_value(&message).unwrap();
        for (name, value) in &example {
            assert_eq!(understood.get(name), Some(value), "`{name}` in {text}");
        }
    }
    let all: BTreeSet<_> = M::KINDS.iter().copied().collect();
    assert_eq!(kinds, all, "every type has an example under {heading:?}");
}

#[test]
fn every_example_of_the_specification_is_understood_whole() {
    check_examples::<ToWorker>("\n## Supervisor to worker\n");
    check_examples::<ToSupervisor>("\n## Worker to supervisor\n");
}
