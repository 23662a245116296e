//! `[pool.NAME.app]`: any TOML, as the JSON that the workers get.

use serde_json::{Map, Number, Value};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::error::{Fault, Problems};

/// The most that the settings may take as JSON, in bytes: they travel in a
/// `welcome` line, which may have 64 KiB in all.
const MOST_BYTES: usize = 60 * 1024;

/// Converts the table. What JSON cannot hold is reported and left out.
pub(super) fn to_json(table: &DeTable<'_>, problems: &Problems<'_>) -> Map<String, Value> {
    let entry = |(key, value): (&Spanned<_>, &Spanned<DeValue<'_>>)| {
        let key: &std::borrow::Cow<'_, str> = key.get_ref();
        (key.clone().into_owned(), value_to_json(value, problems))
    };
    table.iter().map(entry).collect()
}

/// Whether the settings fit the line that carries them.
pub(super) fn fits(app: &Value) -> Result<(), Fault> {
    let bytes = app.to_string().len();
    if bytes <= MOST_BYTES {
        return Ok(());
    }
    Err(Fault::new(format!(
        "the settings take {bytes} bytes as JSON; at most {MOST_BYTES} reach a worker"
    ))
    .help("put them into a file and its path here"))
}

fn value_to_json(value: &Spanned<DeValue<'_>>, problems: &Problems<'_>) -> Value {
    match value.get_ref() {
        DeValue::String(text) => Value::from(text.as_ref()),
        DeValue::Boolean(flag) => Value::from(*flag),
        DeValue::Datetime(time) => Value::from(time.to_string()),
        DeValue::Array(elements) => {
            let elements = elements
                .iter()
                .map(|element| value_to_json(element, problems));
            Value::Array(elements.collect())
        }
        DeValue::Table(table) => Value::Object(to_json(table, problems)),
        DeValue::Integer(raw) => i64::from_str_radix(raw.as_str(), raw.radix())
            .map(Value::from)
            .unwrap_or_else(|_| unfit(value, format!("{raw} does not fit 64 bits"), problems)),
        DeValue::Float(raw) => raw
            .as_str()
            .parse::<f64>()
            .ok()
            .and_then(Number::from_f64)
            .map(Value::Number)
            .unwrap_or_else(|| unfit(value, format!("JSON has no number {raw}"), problems)),
    }
}

fn unfit(value: &Spanned<DeValue<'_>>, why: String, problems: &Problems<'_>) -> Value {
    problems.at(value.span(), Fault::new(why));
    Value::Null
}
