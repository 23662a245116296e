//! The control socket: HTTP/1.1 with JSON for operators, `curl --unix-socket` included.
//!
//! [`serve`] accepts (`accept`), checks who is there ([`Allowed`]), finds out
//! what is wanted (`route`), and asks the reactor through its [`Handle`]
//! (`ask` for questions, `job` for orders, `events` for what happened). It
//! knows nothing of fleets, processes or channels.

pub(crate) mod accept;
pub(crate) mod answer;
pub(crate) mod ask;
pub(crate) mod compressed;
mod descent;
mod events;
#[cfg(test)]
pub(crate) mod fake;
mod gate;
mod job;
mod logs;
#[cfg(test)]
mod mutated;
mod peer;
mod places;
mod request;
mod route;
mod stall;
#[cfg(test)]
mod tests;
mod wanted;

pub use gate::Gate;
pub use peer::Allowed;

use std::convert::Infallible;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use accept::Bounds;
use hyper::service::service_fn;
use peer::Caller;
use request::Visit;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;

use crate::handle::Handle;
use crate::kernel::fd_reserve::Reserve;

pub(crate) use request::{live, ready};

const BOUNDS: Bounds = Bounds {
    connections: 512,
    // `prefork events --follow | less` may rest for a while.
    stall: Duration::from_secs(300),
    slow: None,
};

/// Connections that follow the events: half of all, so that orders have places.
const FOLLOWERS: usize = 256;

/// Connections that are only told that they may not: too few to crowd out
/// those who may.
const UNWELCOME: usize = 16;

/// Serves the control API on `listener` until dropped. Runs on a `LocalSet`.
pub async fn serve(
    listener: UnixListener,
    handle: Handle,
    reserve: Rc<Reserve>,
    allowed: Allowed,
    gate: Gate,
) -> Infallible {
    let lenders = Rc::clone(&reserve);
    let unwelcome = Arc::new(Semaphore::new(UNWELCOME));
    let followers = Arc::new(Semaphore::new(FOLLOWERS));
    accept::serve(
        listener,
        reserve,
        BOUNDS,
        gate,
        move |stream: &UnixStream| {
            let caller = Caller::of(stream, &lenders).ok()?;
            let admitted = allowed.admits(&caller);
            let place = if admitted {
                None
            } else {
                Some(Rc::new(Arc::clone(&unwelcome).try_acquire_owned().ok()?))
            };
            let visit = Rc::new(Visit {
                handle: handle.clone(),
                may_upgrade: allowed.may_upgrade(&caller),
                peer: caller.peer,
                descent: caller.descent,
                admitted,
                reserve: Rc::clone(&lenders),
                followers: Arc::clone(&followers),
            });
            Some(service_fn(move |request| {
                let visit = Rc::clone(&visit);
                let place = place.clone();
                async move {
                    let answer = visit.answer(request).await;
                    drop(place);
                    Ok::<_, Infallible>(answer)
                }
            }))
        },
    )
    .await
}
