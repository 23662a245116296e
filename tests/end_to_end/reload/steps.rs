//! Commands around a reload: what they are told, what they can refuse, and that they are
//! run once, whatever becomes of them and of the supervisor.

use std::fs;

use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

use crate::harness::deadline::{PATIENCE, eventually_some};
use crate::harness::{Pool, Prefork, processes};

fn two_pools() -> Prefork {
    Prefork::start(&[Pool::service("web", 1), Pool::service("api", 1)])
}

fn script(text: &str) -> String {
    format!("[\"/bin/sh\", \"-c\", '{text}']")
}

fn written(prefork: &Prefork, name: &str) -> String {
    fs::read_to_string(prefork.dir().join(name)).unwrap_or_default()
}

#[test]
fn steps_are_run_once_before_and_after_and_the_answer_has_what_they_said() {
    let prefork = two_pools();
    let dir = prefork.dir().display();
    let before = script(&format!(
        "echo $PREFORK_GENERATION $PREFORK_CHANGED $NOTIFY_SOCKET >> {dir}/before; echo all is migrated"
    ));
    let after = script(&format!(
        "echo $PREFORK_GENERATION >> {dir}/after; echo warm >&2"
    ));
    let pids = [prefork.ready_pids("web"), prefork.ready_pids("api")];
    prefork.configure(&[
        Pool::service("web", 1).text("drain_timeout", "77s"),
        Pool::service("api", 1),
    ]);
    prefork.append_to_configuration(&format!(
        "\n[reload]\nbefore = [{before}]\nafter = [{after}, {after}]\n"
    ));
    let planned = prefork.done(&["reload", "--dry-run"]);
    assert!(planned.contains("[reload] before = none"), "{planned}");
    assert_eq!(written(&prefork, "before"), "", "nothing was to be touched");

    let output = prefork.cli(&["reload"]);
    assert_eq!(output.stdout, "generation 2 is in force\n", "{output:?}");
    for said in [
        "exited with code 0 after ",
        "before: all is migrated\n",
        "after: warm\n",
    ] {
        assert!(output.stderr.contains(said), "no {said:?} in {output:?}");
    }
    assert_eq!(written(&prefork, "before"), "2 web\n");
    assert_eq!(written(&prefork, "after"), "2\n2\n");
    assert_ne!(prefork.ready_pids("web"), pids[0]);
    assert_eq!(prefork.ready_pids("api"), pids[1]);
    let checked = prefork.done(&["check", "--config", &format!("{dir}/prefork.toml")]);
    assert!(checked.contains("all is migrated"), "{checked}");
}

#[test]
fn a_step_before_that_fails_refuses_the_reload_and_nothing_is_touched() {
    let cases = [
        ("echo no database; exit 3", "exited with code 3 after "),
        ("kill -9 $$", "was ended by signal 9 after "),
        ("echo $$ > pid; sleep 600 & wait", "was not done after "),
    ];
    for (text, says) in cases {
        let prefork = two_pools();
        let dir = prefork.dir().display().to_string();
        let failing = script(&format!("cd {dir}; {text}"));
        let never = script(&format!("touch {dir}/never"));
        let timeout = if says.starts_with("was not") {
            "300ms"
        } else {
            "60s"
        };
        let steps = format!(
            "\n[reload]\nbefore = [{failing}, {never}]\nafter = [{never}]\ntimeout = \"{timeout}\"\n"
        );
        prefork.append_to_configuration(&steps);
        let before = prefork.ready_pids("web");
        let refused = prefork.cli(&["reload", "--force"]);
        assert_eq!(refused.code, 1, "{refused:?}");
        for said in [
            "before the reload, step 1 (/bin/sh) ",
            says,
            "; nothing was touched",
        ] {
            assert!(refused.stderr.contains(said), "no {said:?} in {refused:?}");
        }
        assert_eq!(
            refused.stderr.contains("no database"),
            text.contains("no database")
        );
        assert_eq!(prefork.ready_pids("web"), before);
        assert_eq!(prefork.status().generation, 1);
        assert!(!prefork.dir().join("never").exists());
        // Some arguments are passwords.
        assert!(!prefork.log().contains(text), "{}", prefork.log());
        if let Ok(pid) = written(&prefork, "pid").trim().parse() {
            processes::gone(pid);
        }
        // The next one is served, without the steps that are gone.
        prefork.configure(&[Pool::service("web", 1), Pool::service("api", 1)]);
        prefork.done(&["reload", "--force"]);
        assert_ne!(prefork.ready_pids("web"), before);
    }
}

#[test]
fn much_output_and_a_process_that_is_left_behind_hold_nobody_up() {
    let text =
        "yes a line | head -c 10000000; echo; sleep 600 & echo $! > {dir}/left; echo the end";
    let prefork = two_pools();
    let dir = prefork.dir().display().to_string();
    let step = script(&text.replace("{dir}", &dir));
    prefork.append_to_configuration(&format!("\n[reload]\nbefore = [{step}]\n"));
    let output = prefork.cli(&["reload"]);
    assert_eq!(output.code, 0, "{}", output.stdout);
    assert!(output.stderr.contains("before: the end\n"));
    assert!(output.stderr.len() < 64 << 10, "{}", output.stderr.len());
    let left: i32 = written(&prefork, "left").trim().parse().expect("a pid");
    processes::send(left, nix::sys::signal::Signal::SIGKILL);
}

#[test]
fn a_step_after_that_fails_is_told_and_leaves_the_generation_in_force() {
    let prefork = two_pools();
    let failing = script("echo cold; exit 4");
    prefork.append_to_configuration(&format!("\n[reload]\nafter = [{failing}]\n"));
    let before = prefork.ready_pids("web");
    let output = prefork.cli(&["reload", "--force"]);
    assert_eq!(output.code, 1, "{output:?}");
    for said in [
        "generation 2 is in force",
        "; but after the reload, step 1 (/bin/sh) exited with code 4 ",
        "cold",
    ] {
        assert!(output.stderr.contains(said), "no {said:?} in {output:?}");
    }
    assert_eq!(prefork.status().generation, 2);
    assert!(prefork.status().last_reload.expect("just now").ok);
    assert_ne!(prefork.ready_pids("web"), before);
}

#[test]
fn what_is_left_of_a_reload_whose_supervisor_is_killed_is_not_done() {
    let mut prefork = two_pools();
    let dir = prefork.dir().display().to_string();
    mkfifo(&prefork.dir().join("go"), Mode::S_IRWXU).expect("there is room");
    let first = script(&format!(
        "echo $PPID > {dir}/runner; echo ran >> {dir}/log; read line < {dir}/go; echo ended >> {dir}/log"
    ));
    let second = script(&format!("echo second >> {dir}/log"));
    prefork.append_to_configuration(&format!("\n[reload]\nbefore = [{first}, {second}]\n"));
    let before = prefork.ready_pids("web");
    prefork.done(&["reload", "--force", "--no-wait"]);
    let runner: i32 = eventually_some("the first has begun", PATIENCE, || {
        let begun = written(&prefork, "log") == "ran\n";
        written(&prefork, "runner")
            .trim()
            .parse()
            .ok()
            .filter(|_| begun)
    });
    prefork.killed();
    prefork.start_again();
    prefork.wait_until_ready();
    fs::write(prefork.dir().join("go"), "go\n").expect("it is read");
    processes::gone(runner);
    assert_eq!(written(&prefork, "log"), "ran\nended\n");
    assert_eq!(prefork.ready_pids("web"), before);
    assert_eq!(prefork.status().generation, 1);
}
