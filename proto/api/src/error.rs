//! Errors: the kinds of refusal, with their exit codes and HTTP statuses.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Why the API did not do what was asked; the body of every answer over 399.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiError {
    /// For programs.
    pub code: ErrorCode,
    /// For people: what is wrong, where, what would be right.
    pub message: String,
    /// The death certificate's stderr, where a worker is the reason.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub stderr: String,
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for ApiError {}

impl ApiError {
    /// An error without a worker's stderr.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            stderr: String::new(),
        }
    }
}

/// The kinds of refusal; each has one exit code and one HTTP status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    /// Refused, or tried and failed.
    Failed,
    /// The request itself is wrong.
    Usage,
    /// No such pool, slot or path.
    NotFound,
    /// It was not done in time.
    TimedOut,
    /// The peer may not.
    Permission,
    /// The configuration is invalid.
    Config,
}

impl ErrorCode {
    /// The command line's exit code.
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Failed => 1,
            Self::Usage => 2,
            Self::NotFound => 4,
            Self::TimedOut => 5,
            Self::Permission => 77,
            Self::Config => 78,
        }
    }

    /// The HTTP status of an answer that is this error.
    pub fn http_status(self) -> u16 {
        match self {
            Self::Failed => 409,
            Self::Usage => 400,
            Self::NotFound => 404,
            Self::TimedOut => 504,
            Self::Permission => 403,
            Self::Config => 422,
        }
    }
}
