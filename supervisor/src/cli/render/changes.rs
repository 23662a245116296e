//! `prefork reload --dry-run`.

use crate::cli::table::{Align, Table};

/// A row per change: what kind of thing it is, and a sentence.
pub(in crate::cli) fn changes(changes: &[(String, String)], color: bool) -> String {
    let mut table = Table::new([("WHAT", Align::Left), ("CHANGE", Align::Left)]);
    for (what, message) in changes {
        table.row([what.into(), message.into()]);
    }
    table.render(color)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_per_change() {
        let change = |what: &str, message: &str| (what.to_owned(), message.to_owned());
        let shown = changes(
            &[
                change("setting", "pool web: drain_timeout 30s → 10s"),
                change("listener", "0.0.0.0:8081 would be bound"),
            ],
            false,
        );
        assert_eq!(
            shown,
            "\
WHAT      CHANGE
setting   pool web: drain_timeout 30s → 10s
listener  0.0.0.0:8081 would be bound
"
        );
    }
}
