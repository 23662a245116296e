//! What a request asks for: which paths are answered at all, and in what form
//! the file service gets them.

use hyper::Uri;
use percent_encoding::percent_decode_str;

/// The one name with a leading dot that is meant for the public (RFC 8615).
const WELL_KNOWN: &str = ".well-known";

/// Whether a path may name a file, however it is encoded. Not those with
/// - a segment that begins with a dot: `..`, and `.git`, `.env` and the like,
///   except for `/.well-known/` itself;
/// - an encoded slash, which is another path to whoever filters in front;
/// - a backslash, which browsers take for a slash, or a control character, NUL
///   included;
/// - bytes that are not UTF-8.
pub(super) fn is_public(path: &str) -> bool {
    if has_encoded_slash(path) {
        return false;
    }
    let Ok(decoded) = percent_decode_str(path).decode_utf8() else {
        return false;
    };
    if decoded.contains(|c: char| c == '\\' || c.is_control()) {
        return false;
    }
    let names = decoded.trim_start_matches('/').split('/').enumerate();
    names
        .filter(|(_, name)| name.starts_with('.'))
        .all(|(at, name)| at == 0 && name == WELL_KNOWN)
}

fn has_encoded_slash(path: &str) -> bool {
    let bytes = path.as_bytes();
    bytes
        .windows(3)
        .any(|three| three.eq_ignore_ascii_case(b"%2f"))
}

/// The same request target as a path and query, with one slash before it: a
/// redirect is made from it, and one to `//name` would lead to another host.
pub(super) fn origin_form(uri: Uri) -> Uri {
    let target = uri.path_and_query().map_or("/", |target| target.as_str());
    let rest = target.trim_start_matches('/');
    if uri.authority().is_none() && target.len() == rest.len() + 1 {
        return uri;
    }
    // Without its authority and some slashes, what was valid still is.
    format!("/{rest}").parse().unwrap_or_default()
}

/// Whether it looks like a page of an application and not like a file: its
/// last segment has no dot.
pub(super) fn is_route(path: &str) -> bool {
    let last = path.rsplit('/').next().unwrap_or_default();
    !percent_decode_str(last).any(|byte| byte == b'.')
}

/// The path of a file of the site, as a request would write it.
pub(super) fn page(path: &str) -> Option<Uri> {
    let mut target = String::from("/");
    for byte in path.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte) {
            target.push(char::from(byte));
        } else {
            target.push_str(&format!("%{byte:02X}"));
        }
    }
    target.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_for_the_public_is_found_however_it_is_written() {
        for path in [
            "/.env",
            "/a/.git/config",
            "/%2egit",
            "/../etc",
            "/..",
            "/a/%2E%2e/b",
            "/a/./b",
            "/a%2Fb",
            "/a%2f..%2f..%2fetc",
            "/a\\b",
            "/..%5c..%5cetc",
            "/a%00b",
            "/a%0ab",
            "/a%7f",
            "/%ff",
            "/%c0%ae%c0%ae/etc",
            "/.well-known/.git",
            "/a/.well-known/b",
            "/.well-known-not",
            "//.git",
        ] {
            assert!(!is_public(path), "{path}");
        }
        for path in [
            "/",
            "//",
            "/a.b",
            "/a./b",
            "/a..b",
            "/style.min.css",
            "/a%20.b",
            "/%252e%252e",
            "/.well-known/security.txt",
            "/%2ewell-known/acme-challenge/x",
            "/caf%C3%A9",
        ] {
            assert!(is_public(path), "{path}");
        }
    }

    #[test]
    fn the_file_service_gets_a_path_and_query_with_one_slash() {
        for (target, wanted) in [
            ("/a?b=/c", "/a?b=/c"),
            ("//evil.test/a", "/evil.test/a"),
            ("///a", "/a"),
            ("http://host.test/a?b", "/a?b"),
            ("http://host.test", "/"),
            ("/", "/"),
        ] {
            assert_eq!(origin_form(target.parse().unwrap()), wanted, "{target}");
        }
    }

    #[test]
    fn a_route_has_no_dot_in_its_last_segment() {
        assert!(is_route("/"));
        assert!(is_route("/v1.2/users"));
        assert!(!is_route("/app.js"));
        assert!(!is_route("/app%2ejs"));
    }

    #[test]
    fn a_page_is_written_as_a_request_would_write_it() {
        assert_eq!(page("a b/ä?.html").unwrap(), "/a%20b/%C3%A4%3F.html");
    }
}
