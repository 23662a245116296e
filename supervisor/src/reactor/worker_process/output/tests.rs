//! Whole lines, whatever comes.

use std::io::Write;

use nix::fcntl::{FcntlArg, fcntl};
use tokio::task::LocalSet;

use crate::reactor::worker_process::handle::SlotName;
use crate::reactor::worker_process::output::*;

fn writer() -> Writer {
    Writer {
        slot: SlotName {
            pool: "web".into(),
            slot: 0,
        },
        pid: 1,
        stream: "stdout",
    }
}

fn output() -> (Output, File) {
    let (reader, pipe) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).unwrap();
    (Output::new(reader, writer()).unwrap(), pipe.into())
}

/// Reads all that can be read now.
async fn read(output: &mut Output) -> (Vec<String>, Progress) {
    let mut lines = Vec::new();
    loop {
        output.readable().await;
        match output.read(|_, line| lines.push(line.to_owned())) {
            Progress::Read | Progress::Asked => {}
            end => return (lines, end),
        }
    }
}

async fn finish(output: &mut Output) -> Vec<String> {
    let mut lines = Vec::new();
    output.finish(|_, line| lines.push(line.to_owned())).await;
    lines
}

#[tokio::test]
async fn lines_are_whole_however_the_bytes_come() {
    LocalSet::new()
        .run_until(async {
            let (mut output, mut pipe) = output();
            let mut lines = Vec::new();
            for piece in ["one\ntw", "o\r\n", "thr", "ee"] {
                pipe.write_all(piece.as_bytes()).unwrap();
                let (read, end) = read(&mut output).await;
                assert_eq!(end, Progress::Blocked);
                lines.extend(read);
            }
            assert_eq!(lines, ["one", "two"]);
            drop(pipe);
            assert_eq!(
                read(&mut output).await,
                (vec!["three".to_owned()], Progress::Ended)
            );
            assert_eq!(output.tail(), "one\ntwo\r\nthree");
        })
        .await;
}

#[tokio::test]
async fn a_line_without_an_end_is_logged_at_the_end() {
    LocalSet::new()
        .run_until(async {
            let (mut output, mut pipe) = output();
            pipe.write_all(b"one\nthr").unwrap();
            assert_eq!(
                read(&mut output).await,
                (vec!["one".to_owned()], Progress::Blocked)
            );
            // Somebody else holds the pipe, and wrote last.
            pipe.write_all(b"ee\ntwo").unwrap();
            assert_eq!(finish(&mut output).await, ["three", "two"]);
            assert_eq!(finish(&mut output).await, Vec::<String>::new());
        })
        .await;
}

#[tokio::test]
async fn what_was_asked_before_the_end_is_not_all() {
    LocalSet::new()
        .run_until(async {
            let (mut output, mut pipe) = output();
            pipe.write_all(b"one").unwrap();
            output.readable().await;
            assert_eq!(output.read(|_, _| {}), Progress::Asked);
            output.readable().await;
            pipe.write_all(b" two\nthree").unwrap();
            assert_eq!(finish(&mut output).await, ["one two", "three"]);
        })
        .await;
}

#[tokio::test]
async fn neither_a_long_line_nor_a_long_life_makes_it_grow() {
    LocalSet::new()
        .run_until(async {
            let (mut output, mut pipe) = output();
            let mut lines = Vec::new();
            for _ in 0..100 {
                pipe.write_all(&[b'x'; 5000]).unwrap();
                lines.extend(read(&mut output).await.0);
            }
            assert!(output.line.is_empty());
            assert_eq!(output.tail().len(), TAIL);
            assert_eq!(output.flood(), (None, 500_000 - LINE as u64));
            pipe.write_all(b"\nnext\n").unwrap();
            lines.extend(read(&mut output).await.0);
            let beginning = "x".repeat(LINE);
            assert_eq!(lines, [format!("{beginning}{CUT}"), "next".to_owned()]);
        })
        .await;
}

#[tokio::test]
async fn a_line_that_is_too_long_is_one_entry_that_is_cut_at_a_character() {
    LocalSet::new()
        .run_until(async {
            for shift in 0..4 {
                let (mut output, mut pipe) = output();
                let long = format!("{}{}", "x".repeat(shift), "世🦀é".repeat(3_000));
                pipe.write_all(format!("{long}\nnext\n").as_bytes())
                    .unwrap();
                let (lines, _) = read(&mut output).await;
                let [cut, next] = &lines[..] else {
                    panic!("{} entries", lines.len());
                };
                let kept = cut.strip_suffix(CUT).unwrap();
                assert!(
                    long.starts_with(kept) && kept.len() > LINE - 4,
                    "{}",
                    kept.len()
                );
                assert_eq!(next, "next");
                assert!(!output.tail().contains('\u{fffd}'));
            }
            assert_eq!(whole(b"a\xff\xe4\xb8"), b"a\xff");
            assert_eq!(whole(b"\xff\xff"), b"\xff\xff");
        })
        .await;
}

#[tokio::test]
async fn a_line_that_is_just_short_enough_is_whole() {
    LocalSet::new()
        .run_until(async {
            let (mut output, mut pipe) = output();
            let line = "x".repeat(LINE - 1);
            pipe.write_all(format!("{line}\n").as_bytes()).unwrap();
            assert_eq!(read(&mut output).await.0, [line]);
        })
        .await;
}

#[tokio::test]
async fn pieces_that_are_not_joined_in_the_pipe_hold_nothing_up() {
    LocalSet::new()
        .run_until(async {
            let (mut output, mut pipe) = output();
            let packets = nix::fcntl::OFlag::O_DIRECT;
            fcntl(&pipe, FcntlArg::F_SETFL(packets)).unwrap();
            let capacity = fcntl(&pipe, FcntlArg::F_SETPIPE_SZ(1 << 20)).unwrap();
            let mut logged = 0;
            for _ in 0..capacity / 4096 {
                pipe.write_all(b"x").unwrap();
            }
            output.readable().await;
            output.finish(|_, line| logged += line.len()).await;
            assert_eq!(logged, usize::try_from(capacity / 4096).unwrap());
        })
        .await;
}

#[tokio::test]
async fn only_a_pipe_is_taken_over() {
    LocalSet::new()
        .run_until(async {
            let file = File::open("/dev/zero").unwrap();
            let error = Output::taken_over(file.into(), writer()).unwrap_err();
            assert!(error.to_string().contains("no pipe"), "{error}");
        })
        .await;
}
