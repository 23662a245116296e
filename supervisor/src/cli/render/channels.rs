//! `prefork channels`.

use prefork_api::Channels;

use super::ago;
use crate::cli::table::{Align, Cell, Style, Table};
use crate::cli::units::{bytes, seconds};

/// A row per channel.
pub(in crate::cli) fn channels(channels: &Channels, now: f64, color: bool) -> String {
    let mut table = Table::new([
        ("WORKER", Align::Left),
        ("UP", Align::Left),
        ("SENT", Align::Right),
        ("RECEIVED", Align::Right),
        ("BYTES-OUT", Align::Right),
        ("BYTES-IN", Align::Right),
        ("FDS-OUT", Align::Right),
        ("FDS-IN", Align::Right),
        ("REJECTED", Align::Right),
        ("ERRORS", Align::Right),
        ("QUEUE", Align::Right),
        ("RTT", Align::Right),
        ("HEARTBEAT", Align::Right),
        ("MISSED", Align::Right),
    ]);
    for channel in &channels.channels {
        let up = if channel.up {
            Cell::styled("yes", Style::Good)
        } else {
            Cell::styled("no", Style::Bad)
        };
        let errors = channel.decode_errors.saturating_add(channel.send_errors);
        table.row([
            format!("{}/{}", channel.pool, channel.slot).into(),
            up,
            channel.messages_sent.into(),
            channel.messages_received.into(),
            bytes(channel.sent_bytes).into(),
            bytes(channel.received_bytes).into(),
            channel.fds_sent.into(),
            channel.fds_received.into(),
            alarming(channel.fds_rejected),
            alarming(errors),
            bytes(channel.send_queue_bytes).into(),
            Cell::or_dash(channel.round_trip_seconds.map(seconds)),
            Cell::or_dash(channel.last_heartbeat_at.map(|at| ago(now, at))),
            alarming(channel.heartbeats_missed),
        ]);
    }
    table.render(color)
}

/// A count that should be zero.
fn alarming(count: u64) -> Cell {
    let style = if count == 0 { Style::Plain } else { Style::Bad };
    Cell::styled(count.to_string(), style)
}

#[cfg(test)]
mod tests {
    use prefork_api::{ChannelStatus, SCHEMA};

    use super::*;

    #[test]
    fn a_row_per_channel() {
        let document = Channels {
            schema: SCHEMA,
            channels: vec![ChannelStatus {
                pool: "web".to_owned(),
                slot: 0,
                up: true,
                messages_sent: 14,
                messages_received: 15,
                sent_bytes: 900,
                received_bytes: 2048,
                fds_sent: 1,
                fds_received: 0,
                fds_rejected: 2,
                decode_errors: 1,
                send_errors: 3,
                send_queue_bytes: 0,
                round_trip_seconds: Some(0.000_04),
                last_heartbeat_at: None,
                heartbeats_missed: 0,
            }],
        };
        assert_eq!(
            channels(&document, 1000.0, false),
            "\
WORKER  UP   SENT  RECEIVED  BYTES-OUT  BYTES-IN  FDS-OUT  FDS-IN  REJECTED  ERRORS  QUEUE   RTT  HEARTBEAT  MISSED
web/0   yes    14        15      900 B   2.0 KiB        1       0         2       4    0 B  40µs          -       0
"
        );
    }
}
