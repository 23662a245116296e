//! Which path and method ask for what. Pure: no connection, no reactor.

use hyper::Method;
use prefork_api::ErrorCode;

use super::answer::Rejection;

/// Every path, for those who lost their way.
const PATHS: &str = "GET /v1/status, /v1/events?since=N&follow=1, /v1/logs?follow=1, /v1/channels, /v1/requests, /v1/traffic, /v1/metrics, \
     /v1/livez, /v1/readyz, /v1/workers/{pool}/{slot}; \
     POST /v1/pools/{pool}/{scale|restart|tell}, \
     /v1/workers/{pool}/{slot}/{restart|pause|resume|drain|kill|tell}, \
     /v1/reload, /v1/promote, /v1/abort, /v1/rollback, /v1/upgrade, /v1/stop, /v1/log-level, /v1/reopen-logs";

/// What a request wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Route {
    /// To know something.
    Query(Query),
    /// To have something done.
    Order(Order),
}

/// Something to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Query {
    Status,
    Events,
    Logs,
    Channels,
    Requests,
    Traffic,
    Metrics,
    Live,
    Ready,
    Describe { pool: String, slot: u32 },
}

impl Query {
    /// Whether the admin address answers it as well, to anybody.
    pub(super) fn is_public(&self) -> bool {
        match self {
            Self::Status | Self::Metrics | Self::Live | Self::Ready => true,
            Self::Events
            | Self::Logs
            | Self::Channels
            | Self::Requests
            | Self::Traffic
            | Self::Describe { .. } => false,
        }
    }
}

/// Something to have done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Order {
    Scale { pool: String },
    Restart { pool: String, slot: Option<u32> },
    Tell { pool: String, slot: Option<u32> },
    Pause { pool: String, slot: u32 },
    Resume { pool: String, slot: u32 },
    Drain { pool: String, slot: u32 },
    Kill { pool: String, slot: u32 },
    Reload,
    Promote,
    Abort,
    Rollback,
    Upgrade,
    Stop,
    LogLevel,
    ReopenLogs,
}

impl Order {
    /// The command's name, as on the command line, in metrics and in the audit.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Scale { .. } => "scale",
            Self::Restart { .. } => "restart",
            Self::Tell { .. } => "tell",
            Self::Pause { .. } => "pause",
            Self::Resume { .. } => "resume",
            Self::Drain { .. } => "drain",
            Self::Kill { .. } => "kill",
            Self::Reload => "reload",
            Self::Promote => "promote",
            Self::Abort => "abort",
            Self::Rollback => "rollback",
            Self::Upgrade => "upgrade",
            Self::Stop => "stop",
            Self::LogLevel => "log-level",
            Self::ReopenLogs => "reopen-logs",
        }
    }

    /// The pool or worker it is about, as on the command line: `web`, `web/0`.
    pub(super) fn target(&self) -> Option<String> {
        match self {
            Self::Scale { pool }
            | Self::Restart { pool, slot: None }
            | Self::Tell { pool, slot: None } => Some(pool.clone()),
            Self::Restart {
                pool,
                slot: Some(slot),
            }
            | Self::Tell {
                pool,
                slot: Some(slot),
            }
            | Self::Pause { pool, slot }
            | Self::Resume { pool, slot }
            | Self::Drain { pool, slot }
            | Self::Kill { pool, slot } => Some(format!("{pool}/{slot}")),
            Self::Reload
            | Self::Promote
            | Self::Abort
            | Self::Rollback
            | Self::Upgrade
            | Self::Stop
            | Self::LogLevel
            | Self::ReopenLogs => None,
        }
    }
}

/// Finds the way.
pub(super) fn route(method: &Method, path: &str) -> Result<Route, Rejection> {
    let route = resolve(path)?;
    match &route {
        Route::Query(_) if method == Method::GET || method == Method::HEAD => Ok(route),
        Route::Query(_) => Err(Rejection::method("GET, HEAD")),
        Route::Order(_) if method == Method::POST => Ok(route),
        Route::Order(_) => Err(Rejection::method("POST")),
    }
}

fn resolve(path: &str) -> Result<Route, Rejection> {
    let unknown = || {
        Rejection::new(
            ErrorCode::NotFound,
            format!("there is no {path}; there are {PATHS}"),
        )
    };
    let rest = path.strip_prefix("/v1/").ok_or_else(unknown)?;
    let segments: Vec<&str> = rest.split('/').collect();
    let route = match segments.as_slice() {
        ["status"] => Route::Query(Query::Status),
        ["events"] => Route::Query(Query::Events),
        ["logs"] => Route::Query(Query::Logs),
        ["channels"] => Route::Query(Query::Channels),
        ["requests"] => Route::Query(Query::Requests),
        ["traffic"] => Route::Query(Query::Traffic),
        ["metrics"] => Route::Query(Query::Metrics),
        ["livez"] => Route::Query(Query::Live),
        ["readyz"] => Route::Query(Query::Ready),
        ["reload"] => Route::Order(Order::Reload),
        ["promote"] => Route::Order(Order::Promote),
        ["abort"] => Route::Order(Order::Abort),
        ["rollback"] => Route::Order(Order::Rollback),
        ["upgrade"] => Route::Order(Order::Upgrade),
        ["stop"] => Route::Order(Order::Stop),
        ["log-level"] => Route::Order(Order::LogLevel),
        ["reopen-logs"] => Route::Order(Order::ReopenLogs),
        ["pools", pool, verb] => Route::Order(pool_order(pool, verb).ok_or_else(unknown)?),
        ["workers", pool, slot] => Route::Query(Query::Describe {
            pool: (*pool).to_owned(),
            slot: slot_number(slot)?,
        }),
        ["workers", pool, slot, verb] => {
            Route::Order(worker_order(pool, slot_number(slot)?, verb).ok_or_else(unknown)?)
        }
        _ => return Err(unknown()),
    };
    Ok(route)
}

fn pool_order(pool: &str, verb: &str) -> Option<Order> {
    let pool = pool.to_owned();
    match verb {
        "scale" => Some(Order::Scale { pool }),
        "restart" => Some(Order::Restart { pool, slot: None }),
        "tell" => Some(Order::Tell { pool, slot: None }),
        _ => None,
    }
}

fn worker_order(pool: &str, slot: u32, verb: &str) -> Option<Order> {
    let pool = pool.to_owned();
    match verb {
        "restart" => Some(Order::Restart {
            pool,
            slot: Some(slot),
        }),
        "tell" => Some(Order::Tell {
            pool,
            slot: Some(slot),
        }),
        "pause" => Some(Order::Pause { pool, slot }),
        "resume" => Some(Order::Resume { pool, slot }),
        "drain" => Some(Order::Drain { pool, slot }),
        "kill" => Some(Order::Kill { pool, slot }),
        _ => None,
    }
}

fn slot_number(text: &str) -> Result<u32, Rejection> {
    text.parse().map_err(|_| {
        Rejection::new(
            ErrorCode::Usage,
            format!("a slot is a number from 0, as in /v1/workers/web/0; `{text}` is none"),
        )
    })
}

#[cfg(test)]
mod tests {
    use hyper::StatusCode;

    use super::*;

    #[test]
    fn every_documented_path_leads_somewhere() {
        for path in [
            "status", "events", "logs", "channels", "requests", "traffic", "metrics", "livez",
            "readyz",
        ] {
            let path = format!("/v1/{path}");
            assert!(
                matches!(route(&Method::GET, &path), Ok(Route::Query(_))),
                "{path}"
            );
        }
        let orders = [
            ("/v1/pools/web/scale", "scale", Some("web")),
            ("/v1/pools/web/restart", "restart", Some("web")),
            ("/v1/pools/web/tell", "tell", Some("web")),
            ("/v1/workers/web/0/restart", "restart", Some("web/0")),
            ("/v1/workers/web/1/pause", "pause", Some("web/1")),
            ("/v1/workers/web/2/resume", "resume", Some("web/2")),
            ("/v1/workers/web/3/drain", "drain", Some("web/3")),
            ("/v1/workers/web/4/kill", "kill", Some("web/4")),
            ("/v1/workers/web/5/tell", "tell", Some("web/5")),
            ("/v1/reload", "reload", None),
            ("/v1/promote", "promote", None),
            ("/v1/abort", "abort", None),
            ("/v1/rollback", "rollback", None),
            ("/v1/upgrade", "upgrade", None),
            ("/v1/stop", "stop", None),
            ("/v1/log-level", "log-level", None),
            ("/v1/reopen-logs", "reopen-logs", None),
        ];
        for (path, name, target) in orders {
            let Ok(Route::Order(order)) = route(&Method::POST, path) else {
                panic!("{path} leads nowhere");
            };
            assert_eq!(order.name(), name);
            assert_eq!(order.target().as_deref(), target);
        }
    }

    #[test]
    fn unknown_paths_are_404_with_the_way_back() {
        for path in [
            "/",
            "/v1",
            "/v1/",
            "/v2/status",
            "/v1/status/",
            "/v1/pools/web/kill",
            "/v1/workers/web/0/scale",
        ] {
            let rejection = route(&Method::GET, path).unwrap_err();
            assert_eq!(rejection.status, StatusCode::NOT_FOUND, "{path}");
            assert!(rejection.error.message.contains("/v1/status"), "{path}");
        }
    }

    #[test]
    fn a_wrong_method_is_405_with_the_right_one() {
        let rejection = route(&Method::GET, "/v1/stop").unwrap_err();
        assert_eq!(rejection.status, StatusCode::METHOD_NOT_ALLOWED);
        assert_eq!(rejection.allow, Some("POST"));
        let rejection = route(&Method::DELETE, "/v1/workers/web/0").unwrap_err();
        assert_eq!(rejection.allow, Some("GET, HEAD"));
    }

    #[test]
    fn a_slot_that_is_no_number_is_400() {
        for slot in ["x", "-1", "4294967296", ""] {
            let rejection = route(&Method::GET, &format!("/v1/workers/web/{slot}")).unwrap_err();
            assert_eq!(rejection.status, StatusCode::BAD_REQUEST, "{slot}");
            assert!(rejection.error.message.contains("/v1/workers/web/0"));
        }
    }
}
