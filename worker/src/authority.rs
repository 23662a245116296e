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
}
