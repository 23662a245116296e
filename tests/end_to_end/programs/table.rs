//! Programs that people run, unchanged and behind a front: how many requests of a client
//! that never retries are broken by what an operator does to them, and by what dies.

use std::env;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use nix::sys::signal::Signal;

use crate::harness::http::Connection;
use crate::harness::load::{Kind, Load};
use crate::harness::{Pool, Prefork, processes};

/// A program, and how it is told where to take requests.
struct Program {
    name: &'static str,
    /// The first word is looked for on PATH.
    words: &'static [&'static str],
}

const PROGRAMS: &[Program] = &[
    Program {
        name: "uvicorn",
        words: &["uvicorn", "--uds", "{socket}", "asgi:app"],
    },
    Program {
        name: "hypercorn",
        words: &["hypercorn", "--bind", "unix:{socket}", "asgi:app"],
    },
    Program {
        name: "gunicorn, one worker",
        words: &["gunicorn", "--bind", "unix:{socket}", "wsgi:app"],
    },
    Program {
        name: "waitress",
        words: &["waitress-serve", "--unix-socket={socket}", "wsgi:app"],
    },
    Program {
        name: "Python's http.server",
        words: &["python3", "-m", "http.server", "--bind", "{host}", "{port}"],
    },
    Program {
        name: "Node's http",
        words: &["node", "server.js", "{socket}"],
    },
    Program {
        name: "puma",
        words: &[
            "puma",
            "--workers",
            "0",
            "--bind",
            "unix://{socket}",
            "app.ru",
        ],
    },
    Program {
        name: "PHP's built-in server",
        words: &["php", "-S", "{host}:{port}", "index.php"],
    },
    Program {
        name: "caddy",
        words: &["caddy", "respond", "--listen", "{host}:{port}", "ok"],
    },
];

/// What the programs serve, in the directory that they run in.
const FILES: &[(&str, &str)] = &[
    (
        "asgi.py",
        "async def app(scope, receive, send):
    if scope['type'] == 'lifespan':
        while True:
            event = (await receive())['type']
            await send({'type': event + '.complete'})
            if event == 'lifespan.shutdown':
                return
    await send({'type': 'http.response.start', 'status': 200, 'headers': [(b'content-length', b'2')]})
    await send({'type': 'http.response.body', 'body': b'ok'})
",
    ),
    (
        "wsgi.py",
        "def app(environ, start_response):
    start_response('200 OK', [('Content-Length', '2')])
    return [b'ok']
",
    ),
    (
        "server.js",
        "require('http').createServer((_, answer) => answer.end('ok')).listen(process.argv[2]);\n",
    ),
    (
        "app.ru",
        "run ->(env) { [200, { 'content-length' => '2' }, ['ok']] }\n",
    ),
    ("index.php", "<?php header('Content-Length: 2'); ?>ok"),
];

/// What is done to a program under load.
struct Event {
    name: &'static str,
    act: fn(&mut Prefork, &Program, &Load),
    /// Whether it is promised that nothing breaks.
    breaks_nothing: bool,
}

const EVENTS: &[Event] = &[
    Event {
        name: "ten reloads",
        act: |prefork, _, _| {
            for _ in 0..10 {
                prefork.done(&["reload"]);
            }
        },
        breaks_nothing: true,
    },
    Event {
        name: "broken deploy",
        act: |prefork, program, _| {
            prefork.configure(&pools(&["/bin/false".to_owned(), "{socket}".to_owned()]));
            let refused = prefork.cli(&["reload"]);
            assert_ne!(refused.code, 0, "{}: {refused:?}", program.name);
            let words = command(program).expect("it was there before");
            prefork.configure(&pools(&words));
            prefork.done(&["reload"]);
        },
        breaks_nothing: true,
    },
    Event {
        name: "scale",
        act: |prefork, _, _| {
            for workers in ["3", "1", "2"] {
                prefork.done(&["scale", "app", workers]);
            }
        },
        breaks_nothing: true,
    },
    Event {
        name: "upgrade",
        act: |prefork, _, _| drop(prefork.done(&["upgrade"])),
        breaks_nothing: true,
    },
    Event {
        name: "SIGKILL of the supervisor",
        act: |prefork, _, load| {
            prefork.killed();
            load.serves(20);
            prefork.ready_again();
        },
        breaks_nothing: true,
    },
    Event {
        name: "SIGKILL of the program",
        act: |prefork, _, _| strike(prefork, Signal::SIGKILL),
        breaks_nothing: false,
    },
    Event {
        name: "SIGSTOP of the program",
        act: |prefork, _, _| strike(prefork, Signal::SIGSTOP),
        breaks_nothing: false,
    },
];

/// Sends the signal to the program itself, and waits for its successor.
fn strike(prefork: &Prefork, signal: Signal) {
    let adapter = prefork.ready_pid("app", 0);
    let children = fs::read_to_string(format!("/proc/{adapter}/task/{adapter}/children"));
    let children = children.expect("the adapter lives");
    let program = children.split_whitespace().next();
    let program = program.expect("the program is the adapter's child");
    processes::send(program.parse().expect("a number"), signal);
    prefork.replaced("app", 0, adapter);
}

/// A front of two processes before two of the program.
fn pools(words: &[String]) -> [Pool; 2] {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let front = Pool::bundled("web", 2)
        .set("app", "{ forward = \"app\", queue_timeout = \"20s\" }")
        .text("idle_grace", "5s");
    let behind = Pool::command("app", &words, 2)
        .without_listeners()
        .set("adapter", "{}")
        .set("env", "{ PYTHONPATH = \".\", PYTHONUNBUFFERED = \"1\" }")
        .text("heartbeat_timeout", "3s")
        .text("min_ready", "50ms");
    [front, behind]
}

/// The program's command line, with its whole path; `None` where the machine lacks it.
fn command(program: &Program) -> Option<Vec<String>> {
    let path = env::var_os("PATH")?;
    let mut places = env::split_paths(&path).map(|place| place.join(program.words[0]));
    let found: PathBuf = places.find(|place| place.is_file())?;
    let rest = program.words[1..].iter().map(|word| (*word).to_owned());
    let found = found.to_str().expect("the path is text").to_owned();
    Some([found].into_iter().chain(rest).collect())
}

/// How many requests each event has broken.
fn row(program: &Program, words: &[String]) -> Vec<u64> {
    let install = |dir: &Path| {
        for (name, text) in FILES {
            fs::write(dir.join(name), text).expect("the test's directory is writable");
        }
    };
    let mut prefork = Prefork::launch_in(install, &pools(words));
    prefork.wait_until_ready();
    let mut row = Vec::new();
    for event in EVENTS {
        let load = Load::of(Kind::KeepAlive, prefork.address("web"), 4);
        load.serves(20);
        (event.act)(&mut prefork, program, &load);
        load.serves(20);
        let outcomes = load.stop();
        let broken = outcomes.failures.values().sum();
        eprintln!(
            "{}, {}: {broken} of {}",
            program.name,
            event.name,
            outcomes.served + broken
        );
        if event.breaks_nothing {
            assert_eq!(broken, 0, "{}, {}: {outcomes:#?}", program.name, event.name);
        }
        row.push(broken);
    }
    row
}

/// The table, as it stands in `docs/programs.md`.
fn table(rows: &[(&str, Vec<u64>)]) -> String {
    let mut table = String::from("| program |");
    for event in EVENTS {
        write!(table, " {} |", event.name).expect("strings take all that is written");
    }
    table.push_str("\n|---|");
    table.push_str(&"---|".repeat(EVENTS.len()));
    for (name, row) in rows {
        write!(table, "\n| {name} |").expect("strings take all that is written");
        for broken in row {
            write!(table, " {broken} |").expect("strings take all that is written");
        }
    }
    table
}

/// Puts the table between its marks in `docs/programs.md`.
fn write_page(table: &str) {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/programs.md");
    let text = fs::read_to_string(&page).expect("the page is there");
    let (before, rest) = text.split_once("<!-- table -->").expect("it has a mark");
    let (_, after) = rest.split_once("<!-- end -->").expect("it has its end");
    let text = format!("{before}<!-- table -->\n{table}\n<!-- end -->{after}");
    fs::write(page, text).expect("the page is writable");
}

/// Python's web server answers in HTTP/1.0 and closes after each answer.
#[test]
fn a_program_of_http_1_0_does_not_end_the_clients_connection() {
    let old = PROGRAMS.iter().find(|it| it.words[0] == "python3");
    let Some(words) = command(old.expect("it is one of them")) else {
        eprintln!("SKIPPED: there is no python3 here");
        return;
    };
    let prefork = Prefork::start(&pools(&words));
    let mut connection = Connection::open(prefork.address("web")).expect("it is accepted");
    for _ in 0..3 {
        let answer = connection.get("/").expect("there is an answer");
        assert_eq!(answer.status, 200, "{answer:?}");
        assert!(!answer.closes(), "{answer:?}");
    }
}

#[test]
#[ignore = "takes minutes, and programs that a machine may lack"]
fn in_full_programs_behind_a_front_lose_nothing_by_what_an_operator_does() {
    let mut rows = Vec::new();
    for program in PROGRAMS {
        match command(program) {
            Some(words) => rows.push((program.name, row(program, &words))),
            None => eprintln!("SKIPPED: there is no {} here", program.words[0]),
        }
    }
    assert!(!rows.is_empty(), "the machine has none of the programs");
    if env::var_os("PREFORK_WRITE_PROGRAMS").is_some() {
        write_page(&table(&rows));
    }
}
