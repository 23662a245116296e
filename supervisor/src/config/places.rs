//! Where each key of a file stands.

use std::collections::HashMap;

use toml::de::{DeTable, DeValue};

/// The line of each key, by its path: `pool.web.listen[0].address`.
#[derive(Debug)]
pub(super) struct Places {
    lines: HashMap<String, usize>,
}

impl Places {
    /// Those of a text that was read before; of one that is no TOML there are none.
    pub(super) fn of(text: &str) -> Self {
        let (root, _) = DeTable::parse_recoverable(text);
        let mut offsets = HashMap::new();
        collect(root.get_ref(), "", &mut offsets);
        let starts: Vec<usize> = text.match_indices('\n').map(|(at, _)| at).collect();
        let line = |offset| starts.partition_point(|newline| *newline < offset) + 1;
        let lines = offsets.into_iter();
        Self {
            lines: lines.map(|(path, offset)| (path, line(offset))).collect(),
        }
    }

    /// The line of a key, from 1; `None` where the file does not have it.
    pub(super) fn line(&self, path: &str) -> Option<usize> {
        self.lines.get(path).copied()
    }
}

fn collect(table: &DeTable<'_>, prefix: &str, offsets: &mut HashMap<String, usize>) {
    for (key, value) in table {
        let path = match prefix {
            "" => key.get_ref().to_string(),
            prefix => format!("{prefix}.{}", key.get_ref()),
        };
        inside(value.get_ref(), &path, offsets);
        offsets.insert(path, key.span().start);
    }
}

/// What stands in a table or in an array.
fn inside(value: &DeValue<'_>, path: &str, offsets: &mut HashMap<String, usize>) {
    match value {
        DeValue::Table(table) => collect(table, path, offsets),
        DeValue::Array(elements) => {
            for (index, element) in elements.iter().enumerate() {
                let path = format!("{path}[{index}]");
                inside(element.get_ref(), &path, offsets);
                offsets.insert(path, element.span().start);
            }
        }
        _ => {}
    }
}
