//! Text of strangers, made harmless where people read it: in the log, in tables,
//! on a terminal.
//!
//! Workers and their clients choose some of what is shown. What drives a terminal,
//! moves the writing direction or can't be seen is shown by its number instead.

use std::borrow::Cow;

/// Whether a character does something to those around it, or hides.
fn is_hidden(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            // The soft hyphen, joiners and spaces of no width.
            '\u{ad}' | '\u{34f}' | '\u{180e}' | '\u{200b}'..='\u{200d}' | '\u{2060}'..='\u{2065}'
            | '\u{feff}'
            // Marks, embeddings, overrides and isolates of direction (UAX #9).
            | '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}'
            | '\u{2066}'..='\u{206f}'
            // Line and paragraph separators, annotations, tags.
            | '\u{2028}' | '\u{2029}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}'
        )
}

/// The text with nothing hidden in it. Newlines and tabs stay.
pub(crate) fn harmless(text: &str) -> Cow<'_, str> {
    escaped(text, |c| is_hidden(c) && c != '\n' && c != '\t')
}

/// The same on one line.
pub(crate) fn one_line(text: &str) -> Cow<'_, str> {
    escaped(text, is_hidden)
}

/// The same for a line of a log, where a tab is a space.
pub(crate) fn log_line(text: &str) -> Cow<'_, str> {
    escaped(text, |c| is_hidden(c) && c != '\t')
}

/// The first characters, and whether there were more.
pub(crate) fn cut(text: &str, most: usize) -> Cow<'_, str> {
    match text.char_indices().nth(most) {
        None => Cow::Borrowed(text),
        Some((end, _)) => Cow::Owned(format!("{}…", &text[..end])),
    }
}

fn escaped(text: &str, is_harmful: impl Fn(char) -> bool) -> Cow<'_, str> {
    let Some(first) = text.find(&is_harmful) else {
        return Cow::Borrowed(text);
    };
    let mut safe = String::with_capacity(text.len() + 16);
    safe.push_str(&text[..first]);
    for character in text[first..].chars() {
        if is_harmful(character) {
            safe.extend(character.escape_default());
        } else {
            safe.push(character);
        }
    }
    Cow::Owned(safe)
}

/// The text without the escape sequences that set colours and move the cursor
/// (ECMA-48): what a program writes that believes to write to a terminal.
pub(crate) fn without_colours(text: &str) -> Cow<'_, str> {
    if !text.contains('\x1b') {
        return Cow::Borrowed(text);
    }
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find('\x1b') {
        plain.push_str(&rest[..start]);
        let sequence = &rest[start..];
        match sequence_length(sequence) {
            Some(length) => rest = &sequence[length..],
            None => {
                // It is none: it stays, and is shown as what it is.
                plain.push('\x1b');
                rest = &sequence[1..];
            }
        }
    }
    plain.push_str(rest);
    Cow::Owned(plain)
}

/// How long the control sequence is that a text begins with, where it is a whole one:
/// CSI, parameters, intermediate bytes and a final one.
fn sequence_length(text: &str) -> Option<usize> {
    let body = text.strip_prefix("\x1b[")?;
    let length = body.find(|c: char| !matches!(c, '\x20'..='\x3f'))?;
    let last = body[length..].chars().next()?;
    matches!(last, '\x40'..='\x7e').then_some("\x1b[".len() + length + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_worker_says_cannot_drive_the_terminal() {
        assert_eq!(harmless("\x1b[2Jgone\n\tx"), "\\u{1b}[2Jgone\n\tx");
        assert_eq!(harmless("\u{9b}2J"), "\\u{9b}2J", "C1 controls too");
        assert_eq!(one_line("a\nb\x07"), "a\\nb\\u{7}");
        assert_eq!(log_line("a\rb\0\tc"), "a\\rb\\u{0}\tc");
    }

    #[test]
    fn what_cannot_be_seen_or_turns_the_text_around_is_shown() {
        for hidden in ['\u{202e}', '\u{2066}', '\u{200b}', '\u{feff}', '\u{e0041}'] {
            let text = format!("a{hidden}b");
            let shown = format!("a{}b", hidden.escape_default());
            assert_eq!(harmless(&text), shown);
        }
        assert_eq!(log_line("grüß dich, 世界 ✓"), "grüß dich, 世界 ✓");
    }

    #[test]
    fn what_is_cut_says_so() {
        assert_eq!(cut("ééé", 3), "ééé");
        assert_eq!(cut(&"é".repeat(65_536), 3), "ééé…");
    }

    #[test]
    fn colours_are_taken_away_and_nothing_else() {
        assert_eq!(
            without_colours("\x1b[2m12:00\x1b[0m \x1b[38;5;1mred"),
            "12:00 red"
        );
        assert_eq!(without_colours("none"), "none");
        for kept in ["\x1b", "\x1b[", "\x1b[31", "\x1b]0;title\x07", "\x1b[é"] {
            assert_eq!(without_colours(kept), kept);
        }
    }
}
