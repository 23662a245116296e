//! The syntax of a host and its port, as `Host` and a request's target name it.

/// Whether it is a host and perhaps a port (RFC 3986, 3.2.2); an empty host is
/// one, too. Every request comes by here: a name is read once.
pub(crate) fn is_authority(text: &[u8]) -> bool {
    if let Some(rest) = text.strip_prefix(b"[") {
        return is_address(rest);
    }
    // Four at a time, as far as that goes.
    let (fours, _) = text.as_chunks::<4>();
    let are_in_names =
        |four: &&[u8; 4]| four.iter().fold(true, |all, byte| all & is_in_names(*byte));
    let begun = fours.iter().take_while(are_in_names).count() * 4;
    let rest = &text[begun..];
    let end = rest.iter().position(|byte| !is_in_names(*byte));
    end.is_none_or(|end| is_port(&rest[end..]))
}

/// An IPv6 address or a later one, without the bracket that it begins with,
/// and perhaps a port.
fn is_address(text: &[u8]) -> bool {
    let Some(end) = text.iter().position(|byte| *byte == b']') else {
        return false;
    };
    let address = |byte: &u8| byte.is_ascii_hexdigit() || b":.v".contains(byte);
    end > 0 && text[..end].iter().all(address) && is_port(&text[end + 1..])
}

fn is_port(rest: &[u8]) -> bool {
    match rest.split_first() {
        None => true,
        Some((b':', port)) => port.iter().all(u8::is_ascii_digit),
        Some(_) => false,
    }
}

/// Whether it names a host and the number of a port that there can be, as the
/// target of a CONNECT has to (RFC 9110, 9.3.6).
pub(crate) fn names_port(text: &str) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else {
        return false;
    };
    let is_number = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    !host.is_empty()
        && is_number
        && port.parse::<u16>().is_ok_and(|port| port > 0)
        && is_authority(text.as_bytes())
}

/// Whether both name the same host and port: names know no case, and a port that
/// is absent or empty is the scheme's own (RFC 3986, 6.2.2.1 and 6.2.3).
pub(crate) fn is_same(one: &[u8], other: &[u8], scheme: Option<&str>) -> bool {
    let usual = match scheme {
        Some("http") => &b"80"[..],
        Some("https") => b"443",
        _ => b"",
    };
    let ((host, port), (other_host, other_port)) = (split(one), split(other));
    let number = |port: &[u8]| {
        let digits = if port.is_empty() { usual } else { port };
        let zeros = digits.iter().take_while(|digit| **digit == b'0').count();
        digits[zeros..].to_vec()
    };
    is_authority(one)
        && is_authority(other)
        && host.eq_ignore_ascii_case(other_host)
        && number(port) == number(other_port)
}

/// The host, an address in its brackets, and the port, which may be empty.
fn split(authority: &[u8]) -> (&[u8], &[u8]) {
    let address = authority.iter().rposition(|byte| *byte == b']');
    let from = address.unwrap_or(0);
    match authority[from..].iter().position(|byte| *byte == b':') {
        Some(colon) => (&authority[..from + colon], &authority[from + colon + 1..]),
        None => (authority, &[]),
    }
}

fn is_in_names(byte: u8) -> bool {
    IN_NAMES[usize::from(byte)]
}

/// What a registered name is written with: unreserved, sub-delims and `%`.
const IN_NAMES: [bool; 256] = {
    let mut table = [false; 256];
    let others = b"-._~!$&'()*+,;=%";
    let mut index = 0;
    while index < table.len() {
        table[index] = (index as u8).is_ascii_alphanumeric();
        index += 1;
    }
    let mut index = 0;
    while index < others.len() {
        table[others[index] as usize] = true;
        index += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_a_name_or_an_address_and_perhaps_a_port() {
        for good in [
            "",
            "a",
            "shop.example",
            "shop.example:80",
            "shop.example:",
            "127.0.0.1:8080",
            "[::1]",
            "[::1]:8080",
            "[v1.fe]",
            "a%20b",
            "under_score",
        ] {
            assert!(is_authority(good.as_bytes()), "{good}");
        }
        for bad in [
            "a b", "a/b", "user@a", "a:b", "a:80:80", "[::1", "[::1]x", "[]", "[g]", "a?b", "a#b",
            "ä", "a\\b", "a\"b", "a:8x", "::1",
        ] {
            assert!(!is_authority(bad.as_bytes()), "{bad}");
        }
    }

    #[test]
    fn a_host_is_the_same_in_any_case_and_with_the_port_that_goes_without_saying() {
        let same = |one: &str, other: &str, scheme| {
            is_same(one.as_bytes(), other.as_bytes(), Some(scheme))
        };
        assert!(same("Shop.Example", "shop.example", "https"));
        assert!(same("shop.example:443", "shop.example", "https"));
        assert!(same("shop.example:", "shop.example:0443", "https"));
        assert!(same("[::1]:80", "[::1]", "http"));
        assert!(same("[FE80::1]", "[fe80::1]:80", "http"));
        for (one, other, scheme) in [
            ("a", "b", "http"),
            ("a:80", "a", "https"),
            ("a:443", "a", "http"),
            ("a:81", "a", "http"),
            ("[::1]", "[::2]", "http"),
            ("a b", "a b", "http"),
            ("a", "a.", "http"),
        ] {
            assert!(!same(one, other, scheme), "{one} {other}");
        }
    }

    #[test]
    fn a_tunnel_has_an_end_that_there_can_be() {
        for good in ["a:1", "a:443", "[::1]:65535", "a:00080"] {
            assert!(names_port(good), "{good}");
        }
        for bad in [
            "a", "a:", "a:0", "a:65536", ":1", "[::1]", "u@a:1", "a:+1", "a:1:2",
        ] {
            assert!(!names_port(bad), "{bad}");
        }
    }
}
