//! Answers to requests.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The answer to a request: `ok` with `data`, or not `ok` with `error`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Reply {
    /// The request's id.
    pub id: u64,
    /// Whether it was done.
    pub ok: bool,
    /// What the request asked for.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub data: Value,
    /// Why it was not done; absent when `ok`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<ReplyError>,
}

impl Reply {
    /// A reply that says it is done, with what was asked for.
    pub fn done(id: u64, data: Value) -> Self {
        Self {
            id,
            ok: true,
            data,
            error: None,
        }
    }

    /// A reply that says why it was not done.
    pub fn failed(id: u64, code: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            id,
            ok: false,
            data: Value::Null,
            error: Some(ReplyError {
                code: code.into(),
                message: message.into(),
            }),
        }
    }
}

/// Why a request was not done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ReplyError {
    /// For programs: `unknown_type`, `unknown_command`, or the application's own.
    pub code: String,
    /// For people.
    pub message: String,
}
