//! `prefork new worker`: what it writes builds, passes its own test and serves.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::harness::cli::{finish, run_alone};
use crate::harness::directory;

const SDK: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../worker");

/// For a build of everything that a worker is made of, on a machine with much to do.
const BUILD: Duration = Duration::from_secs(1200);

#[test]
fn a_new_worker_is_written_once_and_where_it_was_said() {
    let dir = directory();
    let new = |args: &[&str]| run_alone(dir.path(), &[&["new", "worker"], args].concat());
    let made = new(&["shop", "--sdk", SDK]);
    assert_eq!(made.code, 0, "{made:?}");
    for file in made.stdout.lines() {
        assert!(dir.path().join(file).is_file(), "{file}");
    }
    assert!(made.stdout.contains("shop/deploy/shop.service"), "{made:?}");
    assert!(made.stderr.contains("cd shop"), "{made:?}");
    let again = new(&["shop", "--sdk", SDK]);
    assert_eq!(again.code, 1, "{again:?}");
    let elsewhere = new(&["other", "--sdk", "/"]);
    assert_eq!(elsewhere.code, 2, "{elsewhere:?}");
    assert!(elsewhere.stderr.contains("prefork-worker"), "{elsewhere:?}");
    assert_eq!(new(&["../shop", "--sdk", SDK]).code, 2);
}

#[test]
#[ignore = "builds a crate and all that it depends on"]
fn in_full_a_new_worker_builds_passes_its_test_and_serves() {
    let dir = directory();
    // Without --sdk: this program lies in the sources.
    let made = run_alone(dir.path(), &["new", "worker", "shop"]);
    assert_eq!(made.code, 0, "{made:?}");
    let folder = dir.path().join("shop");
    // Those versions that are on this machine.
    let lock = Path::new(SDK).join("../Cargo.lock");
    std::fs::copy(lock, folder.join("Cargo.lock")).expect("it is there");
    let mut cargo = Command::new(option_env!("CARGO").unwrap_or("cargo"));
    cargo
        .args(["test", "--offline"])
        .env_remove("CARGO_TARGET_DIR");
    let tested = finish(cargo.current_dir(&folder), BUILD);
    assert_eq!(tested.code, 0, "{tested:?}");
    assert!(tested.stdout.contains("it_answers ... ok"), "{tested:?}");
    let boot = run_alone(&folder, &["check", "--boot"]);
    assert_eq!(boot.code, 0, "{boot:?}");
    assert!(boot.stdout.contains("shop"), "{boot:?}");
}
