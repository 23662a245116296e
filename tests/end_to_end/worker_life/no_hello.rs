//! A program that never says `hello`: that is said as soon as it is known.

use crate::harness::{Pool, Prefork};

/// Reloads with workers that boot like this; gives why it failed.
#[track_caller]
fn why(order: &str, pool: Pool) -> (Prefork, String) {
    let prefork = Prefork::start(&[pool]);
    prefork.order_boot("app", order);
    let output = prefork.cli(&["reload", "--force"]);
    assert_eq!(output.code, 1, "{output:#?}");
    assert!(output.stderr.contains("PREFORK_CHANNEL_FD"), "{output:#?}");
    (prefork, output.stderr)
}

#[test]
fn who_says_nothing_is_talked_of_before_the_time_is_over_and_in_the_failure() {
    let pool = Pool::test_worker("app", 1).text("boot_timeout", "5s");
    let (prefork, why) = why("mute", pool);
    assert!(why.contains("it never said hello on its channel"), "{why}");
    prefork.logged(&["app/0", "has not said hello", "for 3s", "proto/README.md"]);
}

#[test]
fn who_listens_by_itself_is_told_apart_before_the_time_is_over() {
    let pool = Pool::test_worker("app", 1).text("boot_timeout", "10m");
    let (_, why) = why("listen", pool);
    assert!(why.contains("it listens on 127.0.0.1:"), "{why}");
    assert!(why.contains("never said hello"), "{why}");
}

#[test]
fn who_closes_the_channel_without_a_word_is_told_apart_before_the_time_is_over() {
    let pool = Pool::test_worker("app", 1).text("boot_timeout", "10m");
    let (_, why) = why("hang-up", pool);
    assert!(
        why.contains("closed its channel and never said hello"),
        "{why}"
    );
}

#[test]
fn who_puts_itself_into_the_background_is_told_what_is_wrong() {
    let pool = Pool::command("app", &["/bin/true"], 1);
    let mut prefork = Prefork::launch(&[pool]);
    prefork.logged(&["never said hello", "not go into the background"]);
    assert_eq!(prefork.exit_code(), 1);
}

#[test]
fn who_is_only_slow_is_talked_of_and_served_by() {
    let pool = Pool::test_worker("app", 1);
    let prefork = Prefork::start(&[pool]);
    prefork.order_boot("app", "slow 3500");
    prefork.done(&["reload", "--force"]);
    prefork.logged(&["app/0", "has not said hello"]);
}
