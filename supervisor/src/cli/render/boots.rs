//! `prefork check --boot`.

use crate::boot_check::Check;
use crate::cli::table::{Align, Cell, Style, Table};
use crate::cli::units::{bytes, seconds};

/// A row per pool.
pub(in crate::cli) fn boots(checks: &[Check], color: bool) -> String {
    let mut table = Table::new([
        ("POOL", Align::Left),
        ("BOOT", Align::Left),
        ("TIME", Align::Right),
        ("MEMORY", Align::Right),
        ("GET /", Align::Right),
    ]);
    for check in checks {
        let boot = check.result.as_ref().ok();
        let outcome = match boot {
            Some(_) => Cell::styled("ok", Style::Good),
            None => Cell::styled("failed", Style::Bad),
        };
        table.row([
            Cell::from(&check.pool),
            outcome,
            Cell::or_dash(boot.map(|boot| seconds(boot.seconds))),
            Cell::or_dash(boot.and_then(|boot| boot.resident_bytes).map(bytes)),
            Cell::or_dash(boot.and_then(|boot| boot.status)),
        ]);
    }
    table.render(color)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::boot_check::{Boot, BootError};

    #[test]
    fn a_row_per_pool_also_where_nothing_came_up() {
        let check = |pool: &str, result| Check {
            pool: pool.to_owned(),
            result,
            log: String::new(),
        };
        let boot = Boot {
            seconds: 0.0123,
            resident_bytes: Some(8_400_000),
            status: Some(404),
        };
        let shown = boots(
            &[
                check("web", Ok(boot)),
                check("api", Err(BootError::Interrupted)),
            ],
            false,
        );
        assert_eq!(
            shown,
            "\
POOL  BOOT      TIME   MEMORY  GET /
web   ok      12.3ms  8.0 MiB    404
api   failed       -        -      -
"
        );
    }
}
