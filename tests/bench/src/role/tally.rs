//! What a request costs in counting, as often as asked: for counting its
//! instructions.

use std::hint::black_box;
use std::time::Duration;

use prefork_proto::scoreboard::Tally;

pub(super) fn count(times: usize) {
    let tally = Tally::private();
    for _ in 0..times {
        tally.received(black_box(80));
        tally.request_began();
        tally.answered(black_box(200), black_box(Duration::from_micros(120)));
        tally.sent(black_box(130));
        tally.request_ended();
    }
}
