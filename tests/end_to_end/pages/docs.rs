//! The pages of docs/ and deploy/deploying.md: blocks, commands within the text, configurations and links.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use super::markdown::{blocks, inline_code, links};
use super::runner::{Reader, repository};
use crate::harness::{Pool, Prefork, cli, directory};

/// Pages whose blocks and commands are for a supervisor that runs.
const PAGES: [&str; 8] = [
    "deploy/deploying.md",
    "docs/coming-from.md",
    "docs/concepts.md",
    "docs/debugging.md",
    "docs/faq.md",
    "docs/programs.md",
    "docs/sizing.md",
    "docs/troubleshooting.md",
];

fn text(page: &str) -> String {
    fs::read_to_string(repository().join(page)).expect("the page is there")
}

/// A supervisor with the pools that the pages speak of, and another configuration for its next reload, so that there is
/// something to go back to.
fn supervisor() -> Prefork {
    let pools = |drain_timeout| {
        [
            Pool::bundled("web", 2),
            Pool::bundled("app", 1),
            Pool::bundled("shop", 1).text("drain_timeout", drain_timeout),
        ]
    };
    let prefork = Prefork::start(&pools("10s"));
    prefork.configure(&pools("20s"));
    prefork
}

#[test]
fn the_blocks_of_each_page_run_and_show_what_they_say() {
    let prefork = supervisor();
    let configuration = prefork.dir().join("prefork.toml");
    let mut run = 0;
    for page in PAGES {
        let variables = [("PREFORK_RUNTIME_DIR", &*prefork.runtime_dir())];
        run += Reader::new(prefork.dir(), prefork.dir(), &variables)
            .with(
                "/etc/prefork/prefork.toml",
                configuration.to_str().expect("the path is text"),
            )
            .reads(page, &text(page));
    }
    assert!(run >= 5, "{run} blocks were run");
}

#[test]
fn the_page_of_the_web_server_can_be_pasted() {
    let dir = directory();
    let runtime_dir = dir.path().join("run");
    let page = "docs/web-server.md";
    Reader::new(
        dir.path(),
        dir.path(),
        &[("PREFORK_RUNTIME_DIR", &runtime_dir)],
    )
    .with_ports(&[8443, 9919])
    .reads(page, &text(page));
}

/// How a command within a text of the pages is run.
enum How {
    /// To its end, which is this exit code.
    Ends(i32),
    /// Until it has printed something.
    GoesOn,
    /// Not here, since it starts a supervisor or wants a terminal. Other tests have those.
    Elsewhere,
}

fn how(command: &str) -> How {
    match command {
        // No canary is being judged.
        "prefork abort" | "prefork promote" => How::Ends(1),
        "prefork top" => How::Elsewhere,
        _ if command.starts_with("prefork run") => How::Elsewhere,
        _ if command.ends_with(" --follow") || command.ends_with(" --watch") => How::GoesOn,
        _ => How::Ends(0),
    }
}

/// The commands within the texts of all pages, each once.
fn commands() -> BTreeSet<String> {
    let pages = PAGES.into_iter().chain(["README.md", "docs/web-server.md"]);
    let mut commands = BTreeSet::new();
    for page in pages {
        let text = text(page);
        let found = inline_code(&text).into_iter();
        commands.extend(
            found
                .filter(|code| code.starts_with("prefork "))
                .map(str::to_owned),
        );
    }
    commands
}

#[test]
fn each_command_within_a_text_does_what_it_is_there_for() {
    let mut prefork = supervisor();
    let variables = [("PREFORK_RUNTIME_DIR", &*prefork.runtime_dir())];
    let mut reader = Reader::new(prefork.dir(), prefork.dir(), &variables);
    let commands = commands();
    assert!(commands.len() >= 40, "{commands:?}");
    for command in &commands {
        match how(command) {
            How::Ends(code) => reader.ends_with(command, code),
            How::GoesOn => reader.prints(command),
            How::Elsewhere => continue,
        }
        if command.starts_with("prefork stop") {
            assert_eq!(prefork.exit_code(), 0, "{command}");
            prefork.ready_again();
        }
    }
}

/// What a page's configuration is without the rest of it: a pool whose table is elsewhere has one, and programs that are
/// somewhere else are something here.
fn whole(configuration: &str) -> String {
    let mut pools = BTreeSet::new();
    for line in configuration.lines() {
        if let Some(name) = line.strip_prefix("[pool.") {
            let end = name.find(['.', ']']).expect("the table has an end");
            pools.insert(&name[..end]);
        }
    }
    let mut whole = String::new();
    for pool in pools {
        let table = format!("[pool.{pool}]");
        if !configuration.lines().any(|line| line == table) {
            whole += &format!("{table}\nlisten = [\"127.0.0.1:0\"]\n");
        }
    }
    for word in configuration.split_inclusive('"') {
        let is_program = whole.ends_with("program = [\"");
        whole += if is_program { "/bin/true\"" } else { word };
    }
    whole
}

#[test]
fn each_configuration_of_the_pages_is_valid() {
    let dir = directory();
    let public = dir.path().join("public");
    fs::create_dir(&public).expect("the directory is writable");
    fs::write(public.join("index.html"), "").expect("the directory is writable");
    let mut checked = 0;
    for page in PAGES.into_iter().chain(["docs/web-server.md"]) {
        for block in blocks(&text(page)) {
            if block.language != "toml" {
                continue;
            }
            let file = dir.path().join("prefork.toml");
            fs::write(&file, whole(&block.text)).expect("the directory is writable");
            let checks = cli::run_alone(dir.path(), &["check", "--config", "prefork.toml"]);
            assert_eq!(checks.code, 0, "{page}:{}: {checks:#?}", block.line);
            checked += 1;
        }
    }
    assert!(checked >= 7, "{checked} were checked");
}

/// Every page of the repository.
fn all_pages(dir: &Path) -> Vec<PathBuf> {
    let mut pages = Vec::new();
    for entry in fs::read_dir(dir).expect("it is a directory").flatten() {
        let path = entry.path();
        let name = entry.file_name();
        let is_dir = entry.file_type().expect("it has a type").is_dir();
        if is_dir && name != "target" && !name.to_string_lossy().starts_with('.') {
            pages.extend(all_pages(&path));
        } else if path.extension().is_some_and(|extension| extension == "md") {
            pages.push(path);
        }
    }
    pages
}

#[test]
fn each_link_of_a_page_leads_to_a_file() {
    let pages = all_pages(&repository());
    assert!(pages.len() > 50, "{pages:?}");
    for page in pages {
        let text = fs::read_to_string(&page).expect("the page is there");
        let dir = page.parent().expect("it lies in a directory");
        for link in links(&text) {
            assert!(dir.join(link).exists(), "{}: {link}", page.display());
        }
    }
}

#[test]
fn each_block_of_commands_is_one_that_is_run() {
    let pages = PAGES
        .into_iter()
        .chain(["README.md", "docs/simulation.md", "docs/web-server.md"]);
    for page in pages {
        for block in blocks(&text(page)) {
            assert_ne!(
                block.language, "console",
                "{page}:{}: it is not run",
                block.line
            );
        }
    }
}
