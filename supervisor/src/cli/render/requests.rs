//! `prefork requests`.

use prefork_api::{Requests, RunningRequest, WorkerRequest};

use crate::cli::table::{Align, Cell, Style, Table};
use crate::cli::units::seconds;

/// A row per request, the oldest first, and what is not among them.
pub(in crate::cli) fn requests(answer: &Requests, color: bool) -> String {
    let mut out = match answer.requests.is_empty() {
        true => "no requests\n".to_owned(),
        false => table(&answer.requests, color),
    };
    let remarks = [
        (answer.more, "more, younger ones, are not shown"),
        (
            answer.unlisted,
            "more are served, for which their workers' tables have no room",
        ),
        (answer.silent_workers, "workers note no requests"),
    ];
    for (number, remark) in remarks {
        if number > 0 {
            out.push_str(&Style::Faint.paint(&format!("{number} {remark}"), color));
            out.push('\n');
        }
    }
    out
}

/// A row per request.
fn table(requests: &[WorkerRequest], color: bool) -> String {
    let mut table = Table::new([
        ("WORKER", Align::Left),
        ("PID", Align::Right),
        ("AGE", Align::Right),
        ("STAGE", Align::Left),
        ("CLIENT", Align::Left),
        ("REQUEST", Align::Left),
        ("ID", Align::Left),
    ]);
    for WorkerRequest {
        pool,
        slot,
        pid,
        request,
    } in requests
    {
        table.row([
            format!("{pool}/{slot}").into(),
            (*pid).into(),
            age(request).into(),
            request.stage.as_str().into(),
            client(request).into(),
            format!("{} {}", request.method, request.target).into(),
            Cell::or_dash(request.id.as_deref()),
        ]);
    }
    table.render(color)
}

/// A request on one line, as a death certificate has it.
pub(super) fn one(request: &RunningRequest) -> String {
    let id = request.id.as_ref().map(|id| format!(", id {id}"));
    format!(
        "{} {} from {}, {}, {} old{}",
        request.method,
        request.target,
        client(request),
        request.stage.as_str(),
        age(request),
        id.unwrap_or_default(),
    )
}

fn client(request: &RunningRequest) -> &str {
    request.client.as_deref().unwrap_or("a unix socket")
}

fn age(request: &RunningRequest) -> String {
    seconds(request.age_ms as f64 / 1000.0)
}

#[cfg(test)]
mod tests {
    use prefork_api::{RequestStage, SCHEMA};

    use super::*;

    fn request() -> RunningRequest {
        RunningRequest {
            method: "GET".to_owned(),
            target: "/slow".to_owned(),
            client: Some("192.0.2.7:4711".to_owned()),
            id: Some("7b3b".to_owned()),
            stage: RequestStage::Working,
            age_ms: 2100,
            sent_bytes: 0,
        }
    }

    fn document() -> Requests {
        Requests {
            schema: SCHEMA,
            requests: vec![WorkerRequest {
                pool: "web".to_owned(),
                slot: 0,
                pid: 4711,
                request: request(),
            }],
            more: 0,
            unlisted: 0,
            silent_workers: 0,
        }
    }

    #[test]
    fn a_row_per_request() {
        assert_eq!(
            requests(&document(), false),
            "\
WORKER   PID   AGE  STAGE    CLIENT          REQUEST    ID
web/0   4711  2.1s  working  192.0.2.7:4711  GET /slow  7b3b
"
        );
    }

    #[test]
    fn what_is_not_shown_is_said() {
        let answer = Requests {
            requests: Vec::new(),
            unlisted: 3,
            silent_workers: 2,
            ..document()
        };
        assert_eq!(
            requests(&answer, false),
            "\
no requests
3 more are served, for which their workers' tables have no room
2 workers note no requests
"
        );
    }

    #[test]
    fn a_certificate_has_a_request_on_a_line() {
        let of_a_socket = RunningRequest {
            client: None,
            id: None,
            ..request()
        };
        assert_eq!(
            [one(&request()), one(&of_a_socket)],
            [
                "GET /slow from 192.0.2.7:4711, working, 2.1s old, id 7b3b",
                "GET /slow from a unix socket, working, 2.1s old"
            ]
        );
    }
}
