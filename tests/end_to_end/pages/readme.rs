//! README.md, read by somebody who pastes it, and its translation.

use std::fs;
use std::path::Path;

use super::runner::{Reader, is_there, repository};
use crate::harness::{cli, directory};

/// Where the page has its shop, and the program.
const SHOP: &str = "/tmp/shop";
const PROGRAMS: &str = "$PWD/target/release";

fn page(name: &str) -> String {
    fs::read_to_string(repository().join(name)).expect("the page is there")
}

/// Whether there is what the page says that the tour takes.
fn can_be_toured() -> bool {
    is_there("curl") && is_there("jq")
}

fn reader(dir: &Path) -> Reader {
    let shop = dir.join("shop");
    Reader::new(&repository(), dir, &[])
        .with(SHOP, shop.to_str().expect("the path is text"))
        .with_ports(&[8080, 8090, 9919])
}

#[test]
fn the_tour_can_be_pasted_and_shows_what_it_says() {
    if !can_be_toured() {
        return;
    }
    let dir = directory();
    let binary = cli::binary();
    let programs = binary.parent().expect("the binary lies in a directory");
    let mut reader =
        reader(dir.path()).with(PROGRAMS, programs.to_str().expect("the path is text"));
    let run = reader.reads("README.md", &page("README.md"));
    assert!(run >= 12, "{run} blocks were run");
}

/// The same with the program that the page has one build.
#[test]
#[ignore = "takes minutes"]
fn in_full_the_tour_can_be_pasted_from_its_build_on() {
    if !can_be_toured() {
        return;
    }
    let dir = directory();
    let run = reader(dir.path())
        .in_full()
        .reads("README.md", &page("README.md"));
    assert!(run >= 13, "{run} blocks were run");
}

/// The lines of the page's blocks, and a sign for each heading by its depth and for each row of a table.
fn outline(page: &str) -> Vec<&str> {
    let mut is_code = false;
    let mut outline = Vec::new();
    for line in page.lines() {
        is_code ^= line.starts_with("```");
        if is_code || line.starts_with("<!--") {
            outline.push(line);
        } else if line.starts_with('#') {
            outline.push(line.split(' ').next().expect("it begins with #"));
        } else if line.starts_with('|') {
            outline.push("|");
        } else if line.starts_with("- **") {
            outline.push("-");
        }
    }
    outline
}

#[test]
fn the_readme_in_chinese_has_the_same_parts_and_the_same_commands() {
    let (english, chinese) = (page("README.md"), page("README.zh-CN.md"));
    assert!(outline(&english).len() > 100);
    assert_eq!(outline(&english), outline(&chinese));
}

#[test]
fn its_measurements_are_those_of_the_results() {
    let results = page("tests/bench/RESULTS.md");
    for name in ["README.md", "README.zh-CN.md"] {
        let page = page(name);
        let measured: Vec<_> = page
            .lines()
            .filter_map(|line| line.rsplit('|').nth(1))
            .map(str::trim)
            .filter(|cell| {
                cell.starts_with(|first: char| first.is_ascii_digit()) && cell.ends_with(')')
            })
            .collect();
        assert_eq!(measured.len(), 5, "{name}: {measured:?}");
        for cell in measured {
            assert!(results.contains(&format!("| {cell} ")), "{name}: {cell}");
        }
    }
}
