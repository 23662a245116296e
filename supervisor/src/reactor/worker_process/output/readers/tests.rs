//! Readers that are threads here.

use std::io::Write;

use tokio::task::LocalSet;

use crate::reactor::worker_process::output::readers::*;

const LOOK: Task = Task {
    take: 0,
    look: true,
    shrink: false,
};

/// A pipe with a line in it.
fn pipe() -> (Rc<Pipe>, impl Write) {
    let (end, mut writer) = io::pipe().unwrap();
    writer.write_all(b"one\n").unwrap();
    let slot = SlotName {
        pool: "web".into(),
        slot: 0,
    };
    let by = Writer {
        slot,
        pid: 1,
        stream: "stdout",
    };
    (Rc::new(Pipe::new(end.into(), by).unwrap()), writer)
}

fn seen(outcome: Outcome) -> Look {
    match outcome {
        Outcome::Seen(look) => look,
        other => panic!("{other:?}"),
    }
}

/// A reader that has been asked long ago, and what comes of that.
fn at_it(readers: &Rc<Readers>, pipe: &Rc<Pipe>) -> (Rc<Reader>, oneshot::Receiver<Outcome>) {
    let reader = readers.start(None).unwrap();
    let (answer, outcome) = oneshot::channel();
    let job = Job {
        what: What::Read(Rc::clone(pipe)),
        task: LOOK,
        answer: Some(answer),
    };
    reader.at.replace(At::Asked {
        job,
        since: Instant::now().checked_sub(HELD).unwrap(),
        is_said: true,
    });
    (reader, outcome)
}

async fn in_a_loop(test: impl Future<Output = ()>) {
    LocalSet::new().run_until(test).await;
}

#[tokio::test]
async fn what_is_logged_is_taken_out_by_who_has_shown_it() {
    in_a_loop(async {
        let readers = Readers::shared();
        let (pipe, _writer) = pipe();
        let look = seen(readers.ask(&pipe, LOOK).await.unwrap());
        assert_eq!(
            (look.bytes.as_slice(), look.has_writer),
            (&b"one\n"[..], true)
        );
        let take = Task { take: 4, ..LOOK };
        let look = seen(look.lease.go_on(&pipe, take).await.unwrap());
        assert_eq!(look.found, Found::Nothing);
        assert_eq!(readers.take_numbers().started, 1);
    })
    .await;
}

#[tokio::test]
async fn one_that_dies_is_replaced_and_what_it_had_to_take_out_is_not_known() {
    in_a_loop(async {
        let readers = Readers::shared();
        let (pipe, _writer) = pipe();
        let look = seen(readers.ask(&pipe, LOOK).await.unwrap());
        look.lease.reader.dismiss();
        let take = Task { take: 4, ..LOOK };
        let lost = look.lease.go_on(&pipe, take).await.unwrap();
        assert!(matches!(lost, Outcome::Lost), "{lost:?}");
        let look = seen(readers.ask(&pipe, LOOK).await.unwrap());
        assert_eq!(look.bytes, b"one\n");
        assert_eq!(readers.take_numbers().started, 2);
    })
    .await;
}

#[tokio::test]
async fn where_no_descriptor_can_be_sent_one_is_born_with_it() {
    in_a_loop(async {
        let readers = Readers::shared();
        let (pipe, _writer) = pipe();
        let (first, outcome) = at_it(&readers, &pipe);
        readers.start_in_place_of(&first);
        assert_eq!(seen(outcome.await.unwrap()).bytes, b"one\n");
        assert_eq!(readers.take_numbers().started, 2);
    })
    .await;
}

#[tokio::test]
async fn another_is_started_for_who_waits_and_at_the_limit_who_holds_a_pipe_is_told() {
    in_a_loop(async {
        let readers = Rc::new(Readers::new(2));
        let ((held, _writer), (too, _other)) = (pipe(), pipe());
        let (_first, mut outcome) = at_it(&readers, &held);
        let waits = readers.ask(&too, LOOK);
        readers.look_after_slow();
        assert_eq!(seen(waits.await.unwrap()).bytes, b"one\n");
        assert!(outcome.try_recv().is_err());
        let (_second, _outcome) = at_it(&readers, &too);
        readers.all.borrow_mut().retain(|it| !it.is_idle());
        let waits = readers.ask(&too, LOOK);
        readers.look_after_slow();
        assert!(matches!(outcome.await.unwrap(), Outcome::Held));
        drop(waits);
    })
    .await;
}

#[tokio::test]
async fn a_pipe_that_nobody_needs_any_more_is_closed_by_a_reader() {
    in_a_loop(async {
        let readers = Readers::shared();
        let (pipe, mut writer) = pipe();
        drop(seen(readers.ask(&pipe, LOOK).await.unwrap()));
        drop(pipe);
        let deadline = Instant::now() + Duration::from_secs(10);
        while writer.write_all(b"t").is_ok() {
            assert!(Instant::now() < deadline, "somebody still has it open");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
}
