//! Where a configuration comes from: a file, or the command line.

use std::fs;
use std::path::Path;

use super::*;

fn command_line(options: &Options) -> Result<Config, String> {
    command_line::config(options, &host()).map_err(|error| {
        assert_eq!(error.exit_code(), 2, "{error}");
        error.to_string()
    })
}

fn flags(listen: &[&str], program: &[&str]) -> Options {
    let owned = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
    Options {
        listen: owned(listen),
        program: owned(program),
        ..Options::default()
    }
}

/// A file in its own directory.
fn file(content: &[u8]) -> (tempfile::TempDir, Options) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("prefork.toml");
    fs::write(&path, content).unwrap();
    let options = Options {
        config: Some(path),
        ..Options::default()
    };
    (directory, options)
}

#[test]
fn flags_make_one_pool() {
    let options = Options {
        workers: Some("3".to_owned()),
        ..flags(
            &["127.0.0.1:0", "unix:/run/a.sock"],
            &["sh", "-c", "exec shop"],
        )
    };
    let config = command_line(&options).unwrap();
    assert_eq!(config.source, "command line");
    let [pool] = config.pools.as_slice() else {
        panic!("one pool, not {:?}", config.pools);
    };
    assert_eq!((pool.policy.name.as_str(), pool.policy.workers), ("web", 3));
    assert_eq!(pool.listen.len(), 2);
    assert!(matches!(&pool.program, Program::Command { path, args }
        if path.ends_with("sh") && path.is_absolute() && args == &["-c", "exec shop"]));
}

#[test]
fn root_is_the_bundled_servers_directory() {
    let directory = tempfile::tempdir().unwrap();
    let options = Options {
        root: Some(directory.path().to_owned()),
        ..Options::default()
    };
    let config = command_line(&options).unwrap();
    assert_eq!(config.pools[0].program, Program::Bundled);
    let root = config.pools[0].app["root"].as_str().unwrap();
    assert_eq!(Path::new(root), directory.path());
    let both = Options {
        program: vec!["sh".to_owned()],
        ..options
    };
    assert!(command_line(&both).unwrap_err().contains("--root"));
}

#[test]
fn a_wrong_flag_is_a_usage_error_that_names_it() {
    let workers = |text: &str| Options {
        workers: Some(text.to_owned()),
        ..Options::default()
    };
    let root = Options {
        root: Some("/nowhere".into()),
        ..Options::default()
    };
    let cases = [
        (
            workers("0"),
            "--workers: expected a number of workers or \"auto\", found \"0\"; from 1 to 10000",
        ),
        (
            workers("10001"),
            "--workers: expected a number of workers or \"auto\", found \"10001\"; from 1 to 10000",
        ),
        (root, "--root: /nowhere: no such directory"),
        (
            flags(&[], &["/nowhere/shop"]),
            "-- PROGRAM: /nowhere/shop: no such file",
        ),
        (
            flags(&["1.2.3.4"], &[]),
            "--listen: \"1.2.3.4\" has no port; write \"1.2.3.4:8080\"",
        ),
        (
            flags(&["[::]:80", "[::1]:80"], &[]),
            "--listen: [::1]:80 clashes with [::]:80",
        ),
        (
            flags(&["127.0.0.1:9919"], &[]),
            "--listen: 127.0.0.1:9919 clashes with the admin address 127.0.0.1:9919; \
             give another one with --admin, or \"\" for none",
        ),
    ];
    for (options, expected) in cases {
        assert_eq!(command_line(&options).unwrap_err(), expected);
    }
}

#[test]
fn flags_cannot_go_with_a_file() {
    let options = Options {
        config: Some("prefork.toml".into()),
        ..flags(&["127.0.0.1:0"], &["sh"])
    };
    let error = load(&options).unwrap_err();
    assert_eq!(error.exit_code(), 2);
    let expected = "--listen, -- PROGRAM cannot go with the configuration file prefork.toml: \
                    change the file, or leave out --config and unset PREFORK_CONFIG";
    assert_eq!(error.to_string(), expected);
}

#[test]
fn paths_in_a_file_start_at_its_directory() {
    let text = b"[supervisor]\nruntime_dir = \"run\"\nlog = \"log/prefork.log\"\n\
        [pool.web]\nlisten = [\"unix:web.sock\"]\napp.root = \"public\"\n";
    let (directory, options) = file(text);
    fs::create_dir(directory.path().join("public")).unwrap();
    let config = load(&options).unwrap();
    let within = |path: &str| directory.path().join(path);
    assert_eq!(config.supervisor.runtime_dir, within("run"));
    assert_eq!(config.supervisor.log, Some(within("log/prefork.log")));
    assert_eq!(
        config.pools[0].app["root"],
        within("public").to_str().unwrap()
    );
    assert_eq!(
        config.pools[0].listen[0].address,
        Address::Unix(within("web.sock"))
    );
    assert_eq!(config.source, within("prefork.toml").to_str().unwrap());
}

#[test]
fn the_command_lines_directory_and_admin_go_before_the_files() {
    let (_directory, options) = file(
        b"[supervisor]\nruntime_dir = \"/srv/a\"\nadmin = \"127.0.0.1:1\"\n\
          [pool.web]\nlisten = [\"127.0.0.1:1\"]",
    );
    let options = Options {
        runtime_dir: Some("/srv/b".into()),
        admin: Some(String::new()),
        ..options
    };
    let config = load(&options).unwrap();
    assert_eq!(config.supervisor.runtime_dir, Path::new("/srv/b"));
    assert_eq!(config.supervisor.admin, None);
}

#[test]
fn a_file_that_cannot_be_read_is_not_passed_over() {
    let directory = tempfile::tempdir().unwrap();
    for path in [
        directory.path().join("absent.toml"),
        directory.path().to_owned(),
    ] {
        let options = Options {
            config: Some(path.clone()),
            ..Options::default()
        };
        let error = load(&options).unwrap_err();
        assert!(matches!(error, ConfigError::Unreadable { .. }), "{error}");
        assert_eq!(error.exit_code(), 78);
        assert!(
            error.to_string().starts_with(path.to_str().unwrap()),
            "{error}"
        );
    }
}

#[test]
fn bytes_that_are_not_text_are_shown_where_they_are() {
    let (_directory, options) = file(b"[pool.web]\nlisten = [\"\xff\"]\n");
    let error = load(&options).unwrap_err().to_string();
    assert!(
        error.contains("prefork.toml:2:12: this is not UTF-8"),
        "{error}"
    );
}

#[test]
fn a_pipe_or_an_endless_file_is_refused_at_once() {
    let (directory, options) = file(b"");
    let path = options.config.as_deref().unwrap();
    std::fs::remove_file(path).unwrap();
    nix::unistd::mkfifo(path, nix::sys::stat::Mode::S_IRWXU).unwrap();
    for path in [path, std::path::Path::new("/dev/zero")] {
        let options = Options {
            config: Some(path.to_owned()),
            ..Options::default()
        };
        let error = load(&options).unwrap_err();
        assert!(error.to_string().contains("not a regular file"), "{error}");
        assert_eq!(error.exit_code(), 78);
        // It names no runtime directory either, and that is found out at once, too.
        super::super::likely_runtime_dir(&options);
    }
    drop(directory);
}

#[test]
fn a_file_that_is_too_long_is_refused_before_it_is_parsed() {
    let (_directory, options) = file(&vec![b'#'; 5 << 20]);
    let error = load(&options).unwrap_err().to_string();
    assert!(error.contains("longer than 4194304 bytes"), "{error}");
}

#[test]
fn a_program_with_placeholders_is_behind_a_front_or_takes_the_descriptor_itself() {
    let directory = tempfile::tempdir().unwrap();
    let options = Options {
        workers: Some("3".to_owned()),
        root: Some(directory.path().to_owned()),
        ..flags(&["127.0.0.1:0"], &["sh", "{socket}"])
    };
    let config = command_line(&options).unwrap();
    let [front, behind] = config.pools.as_slice() else {
        panic!("two pools, not {:?}", config.pools);
    };
    assert_eq!(
        (&*front.policy.name, &front.program),
        ("web", &Program::Bundled)
    );
    assert_eq!(front.app["forward"], "app");
    assert!(front.app["root"].is_string() && front.adapter.is_none());
    assert_eq!((&*behind.policy.name, behind.policy.workers), ("app", 3));
    assert_eq!((front.listen.len(), behind.listen.len()), (1, 0));
    assert!(behind.adapter.is_some());

    let direct = command_line(&flags(&[], &["sh", "{fd}"])).unwrap();
    let [direct] = direct.pools.as_slice() else {
        panic!("one pool, not {:?}", direct.pools);
    };
    assert!(direct.adapter.is_some() && direct.listen.len() == 1);
    let wrong = command_line(&flags(&[], &["sh", "{fd}", "{socket}"])).unwrap_err();
    assert!(wrong.contains("-- PROGRAM"), "{wrong}");
}
