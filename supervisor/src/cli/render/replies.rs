//! `prefork tell`.

use prefork_api::{TellOutcome, TellReply};

use crate::cli::table::{Align, Cell, Style, Table};
use crate::cli::units::seconds;

/// A row per worker.
pub(in crate::cli) fn replies(replies: &[TellReply], color: bool) -> String {
    let mut table = Table::new([
        ("WORKER", Align::Left),
        ("PID", Align::Right),
        ("OUTCOME", Align::Left),
        ("TIME", Align::Right),
        ("ANSWER", Align::Left),
    ]);
    for reply in replies {
        let (word, style) = match reply.outcome {
            TellOutcome::Ok => ("ok", Style::Good),
            TellOutcome::Failed => ("failed", Style::Bad),
            TellOutcome::Timeout => ("timeout", Style::Bad),
            TellOutcome::Gone => ("gone", Style::Busy),
        };
        let answer = match &reply.error {
            Some(error) => error.clone(),
            None if reply.data.is_null() => String::new(),
            None => reply.data.to_string(),
        };
        table.row([
            format!("{}/{}", reply.pool, reply.slot).into(),
            Cell::or_dash(reply.pid),
            Cell::styled(word, style),
            seconds(reply.seconds).into(),
            answer.into(),
        ]);
    }
    table.render(color)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn a_row_per_worker_with_what_it_answered() {
        let reply = |slot, outcome, data, error: Option<&str>, seconds| TellReply {
            pool: "web".to_owned(),
            slot,
            pid: Some(4713),
            outcome,
            data,
            error: error.map(str::to_owned),
            seconds,
        };
        let shown = replies(
            &[
                reply(0, TellOutcome::Ok, json!({"flushed": 12}), None, 0.0012),
                reply(1, TellOutcome::Ok, Value::Null, None, 0.0012),
                reply(2, TellOutcome::Failed, Value::Null, Some("no cache"), 0.002),
                reply(3, TellOutcome::Timeout, Value::Null, None, 9.5),
            ],
            false,
        );
        assert_eq!(
            shown,
            "\
WORKER   PID  OUTCOME   TIME  ANSWER
web/0   4713  ok       1.2ms  {\"flushed\":12}
web/1   4713  ok       1.2ms
web/2   4713  failed   2.0ms  no cache
web/3   4713  timeout   9.5s
"
        );
    }
}
