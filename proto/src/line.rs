//! One line of the channel: bytes in, a typed message out.

use std::borrow::Cow;
use std::os::fd::RawFd;

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::error::Category;

use crate::error::ChannelError;
use crate::message::Message;

/// The longest line, in bytes, with its newline.
pub const LINE_LIMIT: usize = 64 * 1024;

/// The most descriptors that one line announces in protocol 1.
pub(crate) const FDS_PER_LINE: u32 = 1;

/// How much of what the other side wrote goes into an error or an unknown kind.
const EXCERPT_CHARS: usize = 120;

/// A line that follows the rules.
#[derive(Debug)]
pub(crate) enum Line<In> {
    /// Of a `type` that this version knows.
    Known {
        /// The message.
        message: In,
        /// The index of its `type` in `In::KINDS`.
        kind: usize,
        /// How many descriptors it announces.
        fds: u32,
        /// Which of those that its receiver was born with that is, if none is sent.
        inherited: Option<RawFd>,
    },
    /// Of any other `type`.
    Unknown {
        /// The start of its `type`.
        kind: String,
        /// Its `id`, if it wants an answer.
        id: Option<u64>,
        /// How many descriptors it announces.
        fds: u32,
    },
}

/// The fields that mean the same in every object.
#[derive(Deserialize)]
struct Head<'a> {
    #[serde(rename = "type", borrow, default)]
    kind: Cow<'a, str>,
    #[serde(default)]
    id: Option<u64>,
    #[serde(default)]
    fds: u32,
    #[serde(default)]
    inherited: Option<RawFd>,
}

/// Reads one line, without its newline.
///
/// The line is read twice: the head tells an unknown `type` from a broken
/// message and skips the rest without building it; then the typed message.
pub(crate) fn parse<In: Message>(bytes: &[u8]) -> Result<Line<In>, ChannelError> {
    let text = std::str::from_utf8(bytes).map_err(|error| ChannelError::NotUtf8 {
        at: error.valid_up_to(),
    })?;
    // A sequence would do for a struct's fields too, as far as serde is concerned.
    if !text.trim_ascii_start().starts_with('{') {
        return Err(match serde_json::from_str::<IgnoredAny>(text) {
            Ok(_) => ChannelError::NotObject,
            Err(error) => not_json(&error),
        });
    }
    let head: Head<'_> = serde_json::from_str(text).map_err(|error| broken(&error))?;
    if head.kind.is_empty() {
        return Err(ChannelError::NoType);
    }
    if head.inherited.is_some() && head.fds == 0 {
        return Err(ChannelError::BadField {
            detail: "`inherited` is there, and `fds` is not".to_owned(),
        });
    }
    if head.fds > FDS_PER_LINE {
        return Err(ChannelError::BadField {
            detail: format!("`fds` is {}, at most {FDS_PER_LINE} is allowed", head.fds),
        });
    }
    let Some(kind) = In::index_of(&head.kind) else {
        return Ok(Line::Unknown {
            kind: excerpt(&head.kind),
            id: head.id,
            // One that was born with stays where it is.
            fds: head.inherited.map_or(head.fds, |_| 0),
        });
    };
    let expected = u32::from(In::KINDS_WITH_FD.contains(&In::KINDS[kind]));
    if head.fds != expected {
        return Err(ChannelError::BadField {
            detail: format!("`fds` of `{}` is {}, not {expected}", head.kind, head.fds),
        });
    }
    let message = In::read(&head.kind, text).map_err(|error| broken(&error))?;
    Ok(Line::Known {
        message,
        kind,
        fds: head.fds,
        inherited: head.inherited,
    })
}

fn broken(error: &serde_json::Error) -> ChannelError {
    match error.classify() {
        Category::Data => ChannelError::BadField {
            detail: excerpt(&error.to_string()),
        },
        Category::Syntax | Category::Eof | Category::Io => not_json(error),
    }
}

fn not_json(error: &serde_json::Error) -> ChannelError {
    ChannelError::NotJson {
        detail: excerpt(&error.to_string()),
    }
}

/// The start of a text that the other side chose: bounded, and without the
/// control characters that could forge a line in a log.
fn excerpt(text: &str) -> String {
    let shown = |c: char| if c.is_control() { '\u{fffd}' } else { c };
    let mut excerpt: String = text.chars().take(EXCERPT_CHARS).map(shown).collect();
    if text.chars().nth(EXCERPT_CHARS).is_some() {
        excerpt.push('…');
    }
    excerpt
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::ToSupervisor;

    #[test]
    fn what_is_read_at_once_is_what_derived_code_makes_of_it() {
        for line in [
            r#"{"type":"health","seq":1,"in_flight":2,"connections":3,"loop_lag_us":4}"#,
            r#"{"seq":1,"novel":[{"type":7}],"in_flight":2,"connections":3,"loop_lag_us":4,"status":"s","type":"health"}"#,
            r#"{"type":"health","seq":1}"#,
            r#"{"type":"health","seq":-1,"in_flight":2,"connections":3,"loop_lag_us":4}"#,
            r#"{"type":"health","seq":1,"seq":1,"in_flight":2,"connections":3,"loop_lag_us":4}"#,
            r#"{"type":"reply","id":7,"ok":true,"data":{"a":[1,null]}}"#,
            r#"{"type":"reply","id":7,"ok":false,"error":{"code":"c","message":"m"}}"#,
            r#"{"type":"reply","ok":true}"#,
            r#"{"type":"metrics","seq":1,"families":[{"name":"n","type":"gauge","series":[]}]}"#,
            r#"{"type":"metrics","seq":1,"families":[{"name":"n","series":[]}]}"#,
            r#"{"type":"ready"}"#,
            r#"{"type":"bye","reason":"r"}"#,
        ] {
            let kind = serde_json::from_str::<Head<'_>>(line).unwrap().kind;
            let read = ToSupervisor::read(&kind, line);
            match serde_json::from_str::<ToSupervisor>(line) {
                Ok(derived) => assert_eq!(read.unwrap(), derived, "{line}"),
                Err(derived) => {
                    let (said, derived) = (read.unwrap_err(), derived.to_string());
                    // What is read at once also knows where it went wrong.
                    assert!(said.to_string().starts_with(&derived), "{said}: {derived}");
                    assert_eq!(said.classify(), Category::Data, "{line}");
                }
            }
        }
    }
}
