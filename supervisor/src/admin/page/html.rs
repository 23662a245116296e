//! Words of strangers as HTML: nothing that a worker or its clients say is markup, turns
//! the writing direction, or fills the page.

use crate::sanitize::{cut, one_line};

/// A text with nothing in it that HTML takes for markup.
pub(super) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            plain => escaped.push(plain),
        }
    }
    escaped
}

/// A stranger's words: on one line, `most` characters at most, with what hides shown by
/// its number.
pub(super) fn words(text: &str, most: usize) -> String {
    escape(&one_line(&cut(text, most)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_no_markup_and_have_an_end() {
        assert_eq!(
            words("<script>alert('1')</script>", 99),
            "&lt;script&gt;alert(&#39;1&#39;)&lt;/script&gt;"
        );
        assert_eq!(
            words("a\u{202e}b\0\n\"&", 99),
            "a\\u{202e}b\\u{0}\\n&quot;&amp;"
        );
        assert_eq!(words(&"é".repeat(65_536), 3), "ééé…");
    }
}
