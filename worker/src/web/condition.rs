//! `Range` and `If-Range`, as far as the file service leaves them to us.

use hyper::header::{CONTENT_RANGE, ETAG, HeaderMap, HeaderValue, IF_RANGE, LAST_MODIFIED, RANGE};
use hyper::{Method, Response, StatusCode};

/// The whole as a range.
const WHOLE: HeaderValue = HeaderValue::from_static("bytes=0-");

/// A part of a file that was asked for.
#[derive(Debug)]
pub(super) struct Part {
    if_range: Option<HeaderValue>,
    /// Whether it is the last so many bytes.
    is_suffix: bool,
}

/// Takes out of a request what is not to be obeyed: a range of anything but a
/// GET, of another unit, or of no valid form (RFC 9110, 14.2). Several ranges
/// are not obeyed either, which the same section allows: the whole file goes
/// out. Gives back what is left.
pub(super) fn prepare(method: &Method, headers: &mut HeaderMap) -> Option<Part> {
    let mut ranges = headers.get_all(RANGE).iter();
    let range = ranges.next()?;
    let only = ranges.next().is_none() && method == Method::GET;
    let Some(range) = range.to_str().ok().filter(|_| only).and_then(Range::parse) else {
        headers.remove(RANGE);
        return None;
    };
    let part = Part {
        if_range: headers.get(IF_RANGE).cloned(),
        is_suffix: matches!(range, Range::Last(1..)),
    };
    headers.insert(RANGE, range.to_header()?);
    Some(part)
}

impl Part {
    /// Which range to ask for instead, and none for the whole, where this is
    /// not the answer. Each answer is of one version of the file, so it is the
    /// answer that is looked at and not the file beforehand.
    pub(super) fn second_try<B>(&self, response: &Response<B>) -> Option<Option<HeaderValue>> {
        let partial = matches!(
            response.status(),
            StatusCode::PARTIAL_CONTENT | StatusCode::RANGE_NOT_SATISFIABLE
        );
        if !partial {
            return None;
        }
        let refused = response.status() == StatusCode::RANGE_NOT_SATISFIABLE;
        let range = response.headers().get(CONTENT_RANGE);
        let is_empty = range.is_some_and(|range| range.as_bytes().ends_with(b"/0"));
        if self.names_another_version(response) || (is_empty && !refused) {
            Some(None)
        } else if refused && self.is_suffix {
            // More than there is: that is all of it (RFC 9110, 14.1.2).
            Some(Some(WHOLE).filter(|_| !is_empty))
        } else {
            None
        }
    }

    /// Whether `If-Range` names another version than this answer is of. The
    /// comparison is a strong one, as all our tags are strong.
    fn names_another_version<B>(&self, response: &Response<B>) -> bool {
        let Some(wanted) = &self.if_range else {
            return false;
        };
        let is_tag = wanted.as_bytes().ends_with(b"\"");
        let name = if is_tag { ETAG } else { LAST_MODIFIED };
        response.headers().get(name) != Some(wanted)
    }
}

/// One range of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Range {
    From(u64),
    Between(u64, u64),
    Last(u64),
}

impl Range {
    /// Reads `bytes=0-9`, `bytes=10-` or `bytes=-10`; positions may be any
    /// number of digits.
    fn parse(range: &str) -> Option<Self> {
        let (unit, set) = range.split_once('=')?;
        let (first, last) = set.trim_matches([' ', '\t']).split_once('-')?;
        if !unit.eq_ignore_ascii_case("bytes") {
            return None;
        }
        match (first, last) {
            ("", "") => None,
            ("", last) => Some(Self::Last(number(last)?)),
            (first, "") => Some(Self::From(number(first)?)),
            (first, last) => {
                let (first, last) = (number(first)?, number(last)?);
                (first <= last).then_some(Self::Between(first, last))
            }
        }
    }

    fn to_header(self) -> Option<HeaderValue> {
        let range = match self {
            Self::From(first) | Self::Between(first, u64::MAX) => format!("bytes={first}-"),
            Self::Between(first, last) => format!("bytes={first}-{last}"),
            Self::Last(length) => format!("bytes=-{length}"),
        };
        range.parse().ok()
    }
}

/// A number of decimal digits; what does not fit is beyond every file's end.
fn number(digits: &str) -> Option<u64> {
    let is_number = digits.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| digits.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_range_is_told_from_all_else() {
        for (text, range) in [
            ("bytes=0-0", Range::Between(0, 0)),
            ("bytes=0-", Range::From(0)),
            ("bytes=-5", Range::Last(5)),
            ("Bytes=9-10", Range::Between(9, 10)),
            (
                "bytes=0-99999999999999999999999",
                Range::Between(0, u64::MAX),
            ),
        ] {
            assert_eq!(Range::parse(text), Some(range), "{text}");
        }
        for text in [
            "bytes=",
            "bytes=-",
            "bytes=5-4",
            "bytes=a-b",
            "bytes=1-2,4-5",
            "bytes=0-0,",
            "bytes=+1-2",
            "bytes=1--2",
            "bytes 1-2",
            "items=0-1",
            "",
        ] {
            assert_eq!(Range::parse(text), None, "{text}");
        }
    }
}
