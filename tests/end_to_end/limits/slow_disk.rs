//! A file system that does not answer: a reload that names something on it waits for
//! it while everything else goes on, and changes nothing.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use crate::harness::{Pool, Prefork, http};

/// A mounted file system whose server, this test, answers nothing.
struct Dead {
    directory: PathBuf,
    /// What waits for it fails when this is closed.
    server: Option<File>,
}

impl Dead {
    /// Mounts it, where that may be done.
    fn mount(directory: &Path) -> Option<Self> {
        fs::create_dir(directory).expect("there is room");
        let server = File::options().read(true).write(true).open("/dev/fuse");
        let mounted = server.and_then(|server| {
            let options = "fd=0,rootmode=40000,user_id=0,group_id=0";
            let mount = Command::new("mount")
                .args(["-i", "-t", "fuse", "-o", options, "dead"])
                .arg(directory)
                .stdin(server.try_clone()?)
                .status()?;
            Ok(mount.success().then_some(server))
        });
        let Ok(Some(server)) = mounted else {
            eprintln!("SKIPPED: no FUSE file system can be mounted");
            return None;
        };
        Some(Self {
            directory: directory.to_owned(),
            server: Some(server),
        })
    }
}

impl Drop for Dead {
    fn drop(&mut self) {
        drop(self.server.take());
        let unmounted = Command::new("umount")
            .arg("-l")
            .arg(&self.directory)
            .status();
        assert!(unmounted.is_ok_and(|status| status.success()));
    }
}

/// What is asked while a reload waits for something there.
fn everything_goes_on_while_it_waits(pool: fn(&str) -> Pool) {
    let prefork = Prefork::start(&[Pool::bundled("web", 1)]);
    let Some(dead) = Dead::mount(&prefork.dir().join("dead")) else {
        return;
    };
    let there = dead.directory.join("there");
    prefork.configure(&[pool(there.to_str().expect("it is text"))]);
    let worker = prefork.ready_pid("web", 0);
    thread::scope(|scope| {
        let reload = scope.spawn(|| prefork.cli(&["reload"]));
        prefork.logged(&["audit: reload"]);
        for _ in 0..3 {
            prefork.done(&["status"]);
            prefork.done(&["scale", "web", "1"]);
        }
        let answer = http::get(prefork.address("web"), "/").expect("it serves");
        assert_eq!(answer.status, 200);
        let output = reload.join().expect("it runs");
        assert_eq!(output.code, 5, "{output:#?}");
        assert!(output.stderr.contains("does not answer"), "{output:#?}");
    });
    assert_eq!(prefork.status().generation, 1);
    assert_eq!(prefork.ready_pid("web", 0), worker);
}

#[test]
fn roots_directories_and_logs_are_waited_for_beside_the_loop() {
    let pools: [fn(&str) -> Pool; 3] = [
        |there| Pool::bundled("web", 1).set("app", format!("{{ root = {there:?} }}")),
        |there| Pool::bundled("web", 1).text("working_directory", there),
        |there| Pool::bundled("web", 1).set("access_log", format!("{{ path = {there:?} }}")),
    ];
    // Side by side: each waits until the supervisor has lost its patience.
    thread::scope(|scope| {
        for pool in pools {
            scope.spawn(move || everything_goes_on_while_it_waits(pool));
        }
    });
}
