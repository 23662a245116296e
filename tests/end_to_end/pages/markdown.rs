//! The fenced blocks of a page, and what it says of them in comments.

/// A fenced block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Block<'a> {
    /// The number of its first line in the page.
    pub(super) line: usize,
    /// What the fence says it is: `sh`, `text`, `toml`.
    pub(super) language: &'a str,
    /// Its lines.
    pub(super) text: String,
    /// The comments directly above it, without their marks.
    pub(super) notes: Vec<&'a str>,
    /// Whether nothing but empty lines lies between it and the block before.
    pub(super) follows: bool,
}

/// The blocks of a page, in order.
pub(super) fn blocks(page: &str) -> Vec<Block<'_>> {
    let mut blocks = Vec::new();
    let mut open: Option<Block<'_>> = None;
    let mut notes = Vec::new();
    let mut follows = false;
    for (index, line) in page.lines().enumerate() {
        let trimmed = line.trim_start();
        if let Some(language) = trimmed.strip_prefix("```") {
            match open.take() {
                Some(block) => {
                    blocks.push(block);
                    follows = true;
                }
                None => {
                    open = Some(Block {
                        line: index + 1,
                        language,
                        text: String::new(),
                        notes: std::mem::take(&mut notes),
                        follows,
                    });
                }
            }
        } else if let Some(block) = &mut open {
            block.text.push_str(line);
            block.text.push('\n');
        } else if let Some(note) = comment(trimmed) {
            notes.push(note);
        } else if !trimmed.is_empty() {
            notes.clear();
            follows = false;
        }
    }
    assert_eq!(open, None, "a block has no end");
    blocks
}

fn comment(line: &str) -> Option<&str> {
    Some(line.strip_prefix("<!--")?.strip_suffix("-->")?.trim())
}

/// What stands between backticks outside of blocks.
pub(super) fn inline_code(page: &str) -> Vec<&str> {
    let mut is_block = false;
    let lines = page.lines().filter(|line| {
        let is_fence = line.trim_start().starts_with("```");
        is_block ^= is_fence;
        !is_block && !is_fence
    });
    lines
        .flat_map(|line| line.split('`').skip(1).step_by(2))
        .collect()
}

/// Where the page's links lead that are paths from it, without their anchors.
pub(super) fn links(page: &str) -> Vec<&str> {
    let targets = page
        .split("](")
        .skip(1)
        .filter_map(|rest| Some(rest.split_once(')')?.0));
    targets
        .map(|target| target.split('#').next().unwrap_or_default())
        .filter(|target| !target.is_empty() && !target.contains("://"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "\
Do `this`:

<!-- shell 1 -->
```sh
prefork run
```

```text
a `line`
```

Then:

```toml
```
";

    #[test]
    fn a_block_has_its_notes_and_knows_what_it_follows() {
        let blocks = blocks(PAGE);
        let of = |language| {
            let mut blocks = blocks.iter().filter(|block| block.language == language);
            blocks.next().expect("it is there")
        };
        assert_eq!(of("sh").notes, ["shell 1"]);
        assert_eq!(of("sh").text, "prefork run\n");
        assert_eq!(of("sh").line, 4);
        assert!(!of("sh").follows);
        assert!(of("text").follows);
        assert!(of("text").notes.is_empty());
        assert!(!of("toml").follows);
    }

    #[test]
    fn code_between_backticks_is_that_outside_of_blocks() {
        assert_eq!(inline_code(PAGE), ["this"]);
    }

    #[test]
    fn links_are_those_to_files() {
        let page = "[a](b.md#c) ![d](e.png) [f](https://g) [h](#i)";
        assert_eq!(links(page), ["b.md", "e.png"]);
    }
}
