//! `prefork check --all`.

use crate::cli::table::{Align, Cell, Style, Table};
use crate::config::{InForce, Origin};

/// A row per setting; those that somebody has set stand out.
pub(in crate::cli) fn in_force(source: &str, settings: &[InForce], color: bool) -> String {
    let mut table = Table::new([
        ("SETTING", Align::Left),
        ("VALUE", Align::Left),
        ("FROM", Align::Left),
    ]);
    for InForce {
        setting,
        value,
        origin,
    } in settings
    {
        let style = match origin {
            Origin::Default => Style::Faint,
            _ => Style::Plain,
        };
        let from = Cell::styled(origin.to_string(), style);
        table.row([
            Cell::styled(setting, style),
            Cell::styled(value, style),
            from,
        ]);
    }
    format!("{source}: valid\n\n{}", table.render(color))
}
