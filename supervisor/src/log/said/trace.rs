//! What belongs to a trace without being indented, in the words of the usual runtimes.

/// Whether the next line that is not indented ends what this one begins: Python says what
/// was raised after its frames, Rust why it panicked after where.
pub(super) fn has_an_end(line: &str) -> bool {
    line.starts_with("Traceback (most recent call last)")
        || (line.starts_with("thread '") && line.contains(" panicked at "))
}

/// Whether a line stands between parts of a trace.
pub(super) fn is_between(line: &str) -> bool {
    const WORDS: [&str; 6] = [
        "Caused by:",
        "During handling of the above exception",
        "The above exception was the direct cause",
        "stack backtrace:",
        "note: run with `RUST_BACKTRACE",
        "goroutine ",
    ];
    line.is_empty() || WORDS.iter().any(|words| line.starts_with(words))
}

/// How long the first line of these bytes is, together with the indented ones that come
/// right after it; none where the first has no end here.
pub(crate) fn length_of_block(bytes: &[u8]) -> Option<usize> {
    let line = |bytes: &[u8]| Some(bytes.iter().position(|byte| *byte == b'\n')? + 1);
    let mut length = line(bytes)?;
    while let Some(b' ' | b'\t') = bytes.get(length)
        && let Some(more) = line(&bytes[length..])
    {
        length += more;
    }
    Some(length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indented_lines_belong_to_the_one_before_them() {
        for (bytes, block) in [
            ("one\ntwo\n", Some("one\n")),
            ("one\n  at a\n\tat b\ntwo\n", Some("one\n  at a\n\tat b\n")),
            ("one\n  at a\n  at", Some("one\n  at a\n")),
            ("  at a\n  at b\n", Some("  at a\n  at b\n")),
            ("one", None),
            ("", None),
        ] {
            let length = length_of_block(bytes.as_bytes());
            assert_eq!(length.map(|length| &bytes[..length]), block, "{bytes:?}");
        }
    }
}
