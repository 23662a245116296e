use std::collections::VecDeque;

use prefork_api::{
    Event, Exit, ExitReason, LastReload, ListenerStatus, PoolTraffic, RequestStage, Requests,
    RunningRequest, SCHEMA, SlotState, Status, Traffic, WorkerRequest, WorkerTraffic,
};
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::reading::Reading;
use super::view::{Asked, Sort};
use super::*;
use crate::control::fake;

/// What strangers would like to do to a terminal.
fn hostile() -> String {
    format!(
        "<script>\x1b[2J\x07\u{202e}\u{200b}\0\r\n{}",
        "é".repeat(32_768)
    )
}

/// Of a pool of three, one is busy, one fails and one waits.
fn status() -> Status {
    let mut status = fake::status(3, 3);
    status.uptime_seconds = 3725.0;
    status.pid = 4711;
    status.last_reload = Some(LastReload {
        ok: false,
        at: 1_795_773_000.0,
        generation: 1,
        error: Some(hostile()),
    });
    let pool = &mut status.pools[0];
    pool.ready = 2;
    pool.listeners.push(ListenerStatus {
        name: "web".to_owned(),
        address: "0.0.0.0:8080".to_owned(),
        mode: "shared".to_owned(),
        backlog: Some(3),
        backlog_limit: Some(4096),
        proxy_protocol: false,
        tls: None,
        permissions: None,
        group: None,
        problem: None,
    });
    pool.workers[0].in_flight = 2;
    pool.workers[0].resident_bytes = Some(4_300_000);
    pool.workers[0].requests = Some(1200);
    pool.workers[1].status = hostile();
    pool.workers[1].resident_bytes = Some(1 << 30);
    let worker = &mut pool.workers[2];
    worker.state = SlotState::Backoff;
    worker.pid = None;
    worker.backoff_seconds = Some(12.0);
    worker.last_exit = Some(Exit {
        reason: ExitReason::Signal,
        code: None,
        signal: Some(9),
        pid: 1002,
        generation: 1,
        incarnation: 1,
        at: 1_795_773_590.0,
        uptime_seconds: 10.0,
        requests: 5,
        uncounted: false,
        peak_memory_bytes: 0,
        detail: String::new(),
        stderr: "no database\n".to_owned(),
        in_flight: vec![],
        in_flight_unlisted: 0,
        thread_dump: None,
    });
    status.ready = false;
    status
}

fn request(target: &str) -> WorkerRequest {
    WorkerRequest {
        pool: "web".to_owned(),
        slot: 0,
        pid: 1000,
        request: RunningRequest {
            method: "GET".to_owned(),
            target: target.to_owned(),
            client: Some("192.0.2.7:4711".to_owned()),
            id: None,
            stage: RequestStage::Working,
            age_ms: 2100,
            sent_bytes: 0,
        },
    }
}

fn reading(uptime_seconds: f64, workers: Vec<WorkerTraffic>) -> Reading {
    let event = |seq, slot, message: &str| Event {
        at: 1_795_773_590.0,
        slot: Some(slot),
        message: message.to_owned(),
        ..fake::event(seq)
    };
    Reading {
        status: status(),
        traffic: Traffic {
            schema: SCHEMA,
            uptime_seconds,
            bounds: vec![0.1, 1.0],
            pools: vec![PoolTraffic {
                name: "web".to_owned(),
                history: vec![],
                workers,
            }],
        },
        requests: Requests {
            schema: SCHEMA,
            requests: vec![request("/slow"), request(&hostile())],
            more: 0,
            unlisted: 0,
            silent_workers: 0,
        },
        events: VecDeque::from([event(9, 2, "ended by signal 9"), event(8, 1, &hostile())]),
    }
}

fn counted(slot: u32, requests: [u64; 5], durations: [u64; 3], cpu_seconds: f64) -> WorkerTraffic {
    WorkerTraffic {
        slot,
        requests: Some(requests),
        durations: durations.to_vec(),
        cpu_seconds,
    }
}

/// Two seconds at work.
fn figures() -> Figures {
    let before = vec![
        counted(0, [0, 1000, 0, 0, 0], [1000, 0, 0], 10.0),
        counted(1, [0, 0, 0, 0, 50], [0, 0, 50], 1.0),
        counted(2, [0; 5], [0; 3], 0.0),
    ];
    let now = vec![
        counted(0, [0, 1200, 0, 0, 0], [1200, 0, 0], 11.0),
        counted(1, [0, 0, 0, 0, 60], [0, 0, 60], 1.02),
        counted(2, [0; 5], [0; 3], 0.0),
    ];
    Figures::of(&reading(100.0, before), &reading(102.0, now))
}

fn drawn(width: u16, height: u16, view: &mut View) -> String {
    let area = Rect::new(0, 0, width, height);
    let mut buffer = Buffer::empty(area);
    screen::draw(area, &mut buffer, &figures(), view);
    text(&buffer)
}

#[track_caller]
fn is_golden(drawn: &str, golden: &str) {
    assert!(drawn == golden, "it is drawn as\n{drawn}");
    let hidden = |c: char| c.is_control() && c != '\n' || c == '\u{202e}' || c == '\u{200b}';
    assert!(!drawn.contains(hidden), "it drives the terminal:\n{drawn}");
}

#[test]
fn the_screen_of_80_columns_is_the_golden_one() {
    let drawn = drawn(80, 24, &mut View::live(true));
    is_golden(&drawn, include_str!("golden/80x24.txt"));
}

#[test]
fn the_screen_of_200_columns_is_the_golden_one() {
    let drawn = drawn(200, 60, &mut View::live(true));
    is_golden(&drawn, include_str!("golden/200x60.txt"));
}

#[test]
fn one_worker_is_looked_into_on_a_screen_of_its_own() {
    let mut view = View::live(false);
    press(&mut view, &[KeyCode::Enter]);
    is_golden(&drawn(80, 24, &mut view), include_str!("golden/worker.txt"));
}

#[test]
fn no_size_is_too_small() {
    for (width, height) in [(1, 1), (80, 2), (3, 24), (0, 0)] {
        drawn(width, height, &mut View::live(true));
    }
}

#[test]
fn the_picture_has_every_worker_and_the_last_event() {
    let mut figures = figures();
    let worker = figures.workers[0].clone();
    figures.workers = (0..1000).map(|_| worker.clone()).collect();
    let picture = picture(&figures);
    assert_eq!(picture.matches("web/0            ready").count(), 1000);
    assert!(picture.contains("LAST EVENTS"), "{picture}");
}

#[test]
fn rates_are_what_totals_grew_by() {
    let figures = figures();
    let [busy, failing, waiting] = &figures.workers[..] else {
        panic!("{figures:?}");
    };
    assert_eq!(busy.rates.requests_per_second, Some(100.0));
    assert_eq!(busy.rates.p50_seconds, Some(0.05));
    assert_eq!(busy.rates.cpu_percent, 50.0);
    assert_eq!(failing.rates.failed_per_second, Some(5.0));
    assert_eq!(failing.rates.p99_seconds, None, "beyond the last bucket");
    assert_eq!(waiting.rates.requests_per_second, Some(0.0));
    let pool = &figures.pools[0];
    assert_eq!(pool.rates.requests_per_second, Some(105.0));
    assert_eq!((pool.in_flight, pool.queue), (2, Some(3)));
}

#[test]
fn another_supervisors_totals_are_no_rates() {
    let workers = || vec![counted(0, [0, 1000, 0, 0, 0], [1000, 0, 0], 10.0)];
    let figures = Figures::of(&reading(100.0, workers()), &reading(2.0, workers()));
    assert_eq!(figures.workers[0].rates.requests_per_second, None);
    assert_eq!(figures.interval_seconds, 0.0);
}

fn press(view: &mut View, keys: &[KeyCode]) -> Asked {
    let mut asked = Asked::Nothing;
    for key in keys {
        asked = view.press(KeyEvent::new(*key, KeyModifiers::NONE), &figures());
    }
    asked
}

fn order(view: &View) -> Vec<u32> {
    let figures = figures();
    let rows = view.rows(&figures);
    rows.iter().map(|row| row.status.slot).collect()
}

#[test]
fn keys_sort_and_reverse() {
    let mut view = View::live(false);
    assert_eq!(order(&view), [2, 0, 1], "the worst first");
    press(&mut view, &[KeyCode::Char('s')]);
    assert_eq!((view.sort, order(&view)), (Sort::Name, vec![0, 1, 2]));
    press(&mut view, &[KeyCode::Char('s'); 3]);
    assert_eq!((view.sort, order(&view)), (Sort::P99, vec![1, 0, 2]));
    press(&mut view, &[KeyCode::Char('r')]);
    assert_eq!(order(&view), [2, 0, 1]);
}

#[test]
fn keys_filter_and_a_filter_takes_every_letter() {
    let mut view = View::live(false);
    let typed = ['/', 'q', 's'].map(KeyCode::Char);
    assert_eq!(press(&mut view, &typed), Asked::Nothing);
    assert_eq!((view.filter.as_str(), order(&view)), ("qs", vec![]));
    press(&mut view, &[KeyCode::Esc]);
    press(&mut view, &['/', 'B', 'A'].map(KeyCode::Char));
    press(&mut view, &[KeyCode::Enter]);
    assert_eq!(order(&view), [2], "by its state");
    assert_eq!(press(&mut view, &[KeyCode::Char('q')]), Asked::Quit);
}

#[test]
fn the_focus_stays_on_a_worker_whatever_moves() {
    let mut view = View::live(false);
    press(&mut view, &[KeyCode::Down, KeyCode::Down]);
    assert_eq!(view.selected.as_deref(), Some("web/0"));
    press(&mut view, &[KeyCode::Char('r'), KeyCode::Enter]);
    assert_eq!(view.selected.as_deref(), Some("web/0"));
    assert!(view.looks_into);
    press(&mut view, &[KeyCode::Esc, KeyCode::End, KeyCode::Down]);
    assert!(!view.looks_into);
    assert_eq!(view.selected.as_deref(), Some("web/2"));
}

#[test]
fn what_is_old_is_said_to_be() {
    let mut view = View::live(false);
    view.trouble = Some("no supervisor is running".to_owned());
    let drawn = drawn(80, 24, &mut view);
    assert!(drawn.contains("what is shown is old: no supervisor is running"));
}
