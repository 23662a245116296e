//! What a request costs in noting it, as often as asked: for counting its instructions.

use std::hint::black_box;

use anyhow::Result;
use prefork_api::RequestStage;
use prefork_proto::request_table::{Arrived, Client, Method, Table, Writer};

pub(super) fn note(times: usize) -> Result<()> {
    let table = Table::create(64)?;
    let writer = Writer::map(&table.offer(false), table.duplicate()?)?;
    let client = Client::of(Some(([127, 0, 0, 1], 4711).into()));
    for _ in 0..times {
        let place = writer.begin(black_box(Arrived {
            began_nanos: 1,
            method: Method::of("GET"),
            target: "/",
            client: &client,
        }));
        if let Some(place) = &place {
            place.stage(RequestStage::Responding);
            place.sent(black_box(12));
        }
        writer.end(place);
    }
    Ok(())
}
