use prefork_proto::places::{Ledger, offer};

use super::*;

fn upstream(slot: u32, incarnation: u64) -> Upstream {
    Upstream {
        slot,
        incarnation,
        address: format!("unix:/shop/{slot}-{incarnation}"),
        leaving: false,
        place: Some(slot * 2 + (incarnation % 2) as u32),
    }
}

fn table(concurrency: u32, workers: Vec<Upstream>) -> Upstreams {
    Upstreams {
        id: 1,
        pool: "shop".to_owned(),
        concurrency,
        workers,
        more: false,
    }
}

fn pool(concurrency: u32, workers: u32) -> Rc<Pool> {
    let pool = Rc::new(Pool::new("shop"));
    let workers = (0..workers).map(|slot| upstream(slot, 1)).collect();
    pool.learn(table(concurrency, workers));
    pool
}

/// Has a pool count in the next row of a ledger.
fn share(ledger: &mut Ledger, pool: &Pool) -> u32 {
    let row = ledger.take().unwrap().unwrap();
    pool.share(Row::map(&offer("shop", row), ledger.duplicate().unwrap()).unwrap());
    row
}

fn slots(places: &[Place]) -> Vec<u32> {
    let mut slots: Vec<_> = places.iter().map(|place| place.member.slot).collect();
    slots.sort_unstable();
    slots
}

#[test]
fn each_request_goes_to_the_worker_with_the_fewest() {
    let pool = pool(0, 3);
    let mut places: Vec<_> = (0..6).map(|_| pool.take(&[]).unwrap()).collect();
    assert_eq!(slots(&places), [0, 0, 1, 1, 2, 2]);
    places.retain(|place| place.member.slot != 1);
    let next = [pool.take(&[]).unwrap(), pool.take(&[]).unwrap()];
    assert_eq!(slots(&next), [1, 1]);
}

#[test]
fn no_worker_gets_more_than_the_concurrency_from_all_together() {
    let mut ledger = Ledger::create().unwrap();
    let [one, other] = [pool(2, 2), pool(2, 2)];
    let [_, killed] = [share(&mut ledger, &one), share(&mut ledger, &other)];
    let mut places = [Vec::new(), Vec::new()];
    for _ in 0..2 {
        places[0].push(one.take(&[]).unwrap());
        places[1].push(other.take(&[]).unwrap());
    }
    let all: Vec<_> = places.iter().flat_map(|places| slots(places)).collect();
    assert_eq!(all.iter().filter(|slot| **slot == 0).count(), 2, "{all:?}");
    assert!(one.take(&[]).is_none() && other.take(&[]).is_none());
    let [_held, mut others] = places;
    others.pop();
    let taken = one.take(&[]);
    assert!(taken.is_some(), "what one leaves another has");
    // What a process had that is killed comes back with its row.
    std::mem::forget(others);
    assert!(one.take(&[]).is_none());
    ledger.clear(killed).unwrap();
    assert!(one.take(&[]).is_some());
}

#[test]
fn what_is_in_flight_is_counted_in_other_memory_as_well() {
    let pool = pool(1, 1);
    let _place = pool.take(&[]).unwrap();
    let mut ledger = Ledger::create().unwrap();
    share(&mut ledger, &pool);
    let other = self::pool(1, 1);
    share(&mut ledger, &other);
    assert!(other.take(&[]).is_none());
}

#[test]
fn a_worker_that_leaves_or_is_avoided_gets_nothing() {
    let pool = pool(0, 2);
    let first = Rc::clone(&pool.members.borrow()[0]);
    for _ in 0..4 {
        let place = pool.take(std::slice::from_ref(&first)).unwrap();
        assert_eq!(place.member.slot, 1);
    }
    let mut leaving = upstream(0, 1);
    leaving.leaving = true;
    pool.learn(table(0, vec![leaving, upstream(0, 2)]));
    for _ in 0..4 {
        let place = pool.take(&[]).unwrap();
        assert_eq!((place.member.slot, place.member.incarnation), (0, 2));
    }
    pool.learn(table(0, Vec::new()));
    assert!(pool.take(&[]).is_none());
    assert_eq!(pool.why_none(), Failure::NoWorker);
}

#[test]
fn a_table_in_parts_is_in_force_with_the_last_of_them() {
    let pool = pool(0, 1);
    let first = Upstreams {
        more: true,
        ..table(0, vec![upstream(5, 1)])
    };
    pool.learn(first);
    assert_eq!(pool.take(&[]).unwrap().member.slot, 0);
    pool.learn(table(0, vec![upstream(6, 1)]));
    let places: Vec<_> = (0..2).map(|_| pool.take(&[]).unwrap()).collect();
    assert_eq!(slots(&places), [5, 6]);
}

#[test]
fn one_that_has_left_the_table_is_known_until_its_requests_have_ended() {
    let pool = pool(0, 1);
    let place = pool.take(&[]).unwrap();
    pool.learn(table(0, vec![upstream(0, 2)]));
    let whom = Vacate {
        id: 1,
        pool: "shop".to_owned(),
        slot: 0,
        incarnation: 1,
    };
    assert!(pool.departing(&whom).is_some());
    drop(place);
    pool.learn(table(0, vec![upstream(0, 2)]));
    assert!(pool.departing(&whom).is_none());
}
