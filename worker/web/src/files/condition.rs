//! What a request makes its answer depend on: which version it knows (RFC 9110,
//! 13), and which part of the file it wants (14.2), as far as the file service leaves
//! that to us.

use std::time::SystemTime;

use hyper::header::{
    CONTENT_RANGE, ETAG, HeaderMap, HeaderName, HeaderValue, IF_MATCH, IF_MODIFIED_SINCE,
    IF_NONE_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE, LAST_MODIFIED, RANGE,
};
use hyper::{Method, Response, StatusCode};

use super::validators::Version;

/// The conditions of a request for a file.
#[derive(Debug, Default)]
pub(super) struct Conditions {
    /// Each of its lines; there may be any number of them.
    matches: Vec<HeaderValue>,
    none_matches: Vec<HeaderValue>,
    unmodified_since: Option<SystemTime>,
    modified_since: Option<SystemTime>,
}

impl Conditions {
    /// Takes the conditions out of a request, as the file service knows tags of
    /// another kind.
    pub(super) fn take(headers: &mut HeaderMap) -> Self {
        Self {
            matches: lines(headers, &IF_MATCH),
            none_matches: lines(headers, &IF_NONE_MATCH),
            unmodified_since: date(headers, &IF_UNMODIFIED_SINCE),
            modified_since: date(headers, &IF_MODIFIED_SINCE),
        }
    }

    /// What to answer in the place of a file of this version, in the order of RFC
    /// 9110, 13.2.2.
    pub(super) fn judge(&self, version: &Version) -> Option<StatusCode> {
        let tag = version.tag.as_ref().map(HeaderValue::as_bytes);
        let is_stale = if self.matches.is_empty() {
            let since = self.unmodified_since.zip(version.modified);
            since.is_some_and(|(since, modified)| modified > since)
        } else {
            // Strong tags are equal to strong ones only (8.8.3.2), and ours all are.
            !any(&self.matches, |named| Some(named) == tag)
        };
        if is_stale {
            return Some(StatusCode::PRECONDITION_FAILED);
        }
        let is_known = if self.none_matches.is_empty() {
            let since = self.modified_since.zip(version.modified);
            since.is_some_and(|(since, modified)| modified <= since)
        } else {
            any(&self.none_matches, |named| {
                Some(named.strip_prefix(b"W/").unwrap_or(named)) == tag
            })
        };
        is_known.then_some(StatusCode::NOT_MODIFIED)
    }
}

fn lines(headers: &mut HeaderMap, name: &HeaderName) -> Vec<HeaderValue> {
    if !headers.contains_key(name) {
        return Vec::new();
    }
    let lines = headers.get_all(name).iter().cloned().collect();
    headers.remove(name);
    lines
}

/// A header's date; several are none, as is what is no date.
fn date(headers: &mut HeaderMap, name: &HeaderName) -> Option<SystemTime> {
    let mut lines = lines(headers, name).into_iter();
    let only = lines.next().filter(|_| lines.next().is_none())?;
    httpdate::parse_http_date(only.to_str().ok()?).ok()
}

/// Whether any of the tags that the lines name is the one; `*` is every one.
fn any(lines: &[HeaderValue], is_it: impl Fn(&[u8]) -> bool) -> bool {
    let mut tags = lines.iter().flat_map(|line| Tags(line.as_bytes()));
    tags.any(|tag| tag == b"*" || is_it(tag))
}

/// The members of a list of tags. A comma inside quotes is part of a tag.
struct Tags<'a>(&'a [u8]);

impl<'a> Iterator for Tags<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        while !self.0.is_empty() {
            let mut quoted = false;
            let end = self.0.iter().position(|byte| {
                quoted ^= *byte == b'"';
                *byte == b',' && !quoted
            });
            let (tag, rest) = match end {
                Some(end) => (&self.0[..end], &self.0[end + 1..]),
                None => (self.0, &[][..]),
            };
            self.0 = rest;
            let tag = tag.trim_ascii();
            if !tag.is_empty() {
                return Some(tag);
            }
        }
        None
    }
}

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
    /// Which range to ask for instead of the same file, and none for the whole,
    /// where this is not the answer. It is the answer that is looked at and not the
    /// file beforehand, which might be another one by then.
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
    fn a_list_of_tags_is_taken_apart() {
        for (list, tags) in [
            ("", &[][..]),
            (" , ,", &[]),
            ("*", &["*"]),
            ("\"a\"", &["\"a\""]),
            ("\"a,b\" ,W/\"c\",", &["\"a,b\"", "W/\"c\""]),
            ("\"a", &["\"a"]),
        ] {
            let found: Vec<&[u8]> = Tags(list.as_bytes()).collect();
            let wanted: Vec<&[u8]> = tags.iter().map(|tag| tag.as_bytes()).collect();
            assert_eq!(found, wanted, "{list}");
        }
    }

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
