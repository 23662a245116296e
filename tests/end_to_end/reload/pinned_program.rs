//! A crash between two deploys restarts the code that was serving, whatever
//! lies on the disk by then.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use nix::sys::signal::Signal;

use crate::harness::load::Load;
use crate::harness::{Pool, Prefork, cli, directory, processes};
use crate::http::serving::pid_on_page;

/// Installs the service as a program of its own, as a package would.
fn install(dir: &Path) -> PathBuf {
    let program = dir.join("shop");
    let draft = dir.join("shop.new");
    cli::install(&cli::example("service"), &draft);
    fs::rename(draft, &program).expect("the directory is ours");
    program
}

/// Puts something in the program's place that is no program.
fn install_garbage(program: &Path) {
    let draft = program.with_extension("new");
    fs::write(&draft, "\u{7f}ELF, but not really").expect("the directory is ours");
    fs::set_permissions(&draft, Permissions::from_mode(0o755)).expect("it is ours");
    fs::rename(draft, program).expect("the directory is ours");
}

/// What `status` and `describe` say of the program's file.
fn on_disk(prefork: &Prefork) -> [Option<String>; 2] {
    let status = prefork.pool("web").program_on_disk;
    [status, prefork.describe("web", 0).program_on_disk]
}

#[test]
fn a_crash_restarts_the_code_that_was_serving() {
    let dir = directory();
    let program = install(dir.path());
    let pool = || {
        let program = program.to_str().expect("the path is text");
        Pool::command("web", &[program], 2).text("min_ready", "50ms")
    };
    let prefork = Prefork::start(&[pool()]);
    let address = prefork.address("web");
    let crash = |slot| {
        let old = prefork.ready_pid("web", slot);
        processes::send(old, Signal::SIGKILL);
        prefork.replaced("web", slot, old)
    };
    assert_eq!(on_disk(&prefork), [None, None]);

    install_garbage(&program);
    let fresh = [crash(0), crash(1)];
    assert!(fresh.contains(&pid_on_page(address)));
    assert_eq!(
        on_disk(&prefork),
        [(); 2].map(|()| Some("changed".to_owned()))
    );
    assert!(prefork.done(&["status"]).contains("changed"));
    assert!(prefork.done(&["describe", "web/0"]).contains("changed"));

    let load = Load::start(address, 2);
    let output = prefork.cli(&["reload"]);
    assert!([1, 78].contains(&output.code), "{output:?}");
    assert_eq!(prefork.ready_pids("web"), fresh, "{output:?}");

    fs::remove_file(&program).expect("it is there");
    assert_eq!(
        on_disk(&prefork),
        [(); 2].map(|()| Some("removed".to_owned()))
    );
    load.serves(10);
    load.stop_flawless();
    let fresh = [crash(0), crash(1)];
    assert!(fresh.contains(&pid_on_page(address)));

    install(dir.path());
    prefork.done(&["reload"]);
    assert_eq!(on_disk(&prefork), [None, None]);
    let after = prefork.ready_pids("web");
    assert!(after.contains(&pid_on_page(address)));
}
