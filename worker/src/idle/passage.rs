//! A passage: where connections come from that other workers hand on.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use bytes::Bytes;
use prefork_proto::message::PassageOffer;
use prefork_proto::passage::{self, Received};
use tokio::sync::watch;

use crate::accept::{Serve, Source};
use crate::idle::Bare;
use crate::process::Serving;
use crate::transport::socket::is_connection;
use crate::transport::stream::Stream;

/// The way of one listener's connections from worker to worker.
#[derive(Debug)]
pub(crate) struct Passage {
    /// The listener's name.
    pub(crate) name: Arc<str>,
    socket: OwnedFd,
    /// Whether another one has taken its place.
    has_ended: watch::Sender<bool>,
}

impl Passage {
    /// Takes a received descriptor in.
    pub(crate) fn new(offer: PassageOffer, socket: OwnedFd) -> Result<Self, String> {
        if offer.version != passage::VERSION {
            let (theirs, ours) = (offer.version, passage::VERSION);
            return Err(format!(
                "it is of version {theirs}, and this worker knows {ours}"
            ));
        }
        Ok(Self {
            name: offer.name.into(),
            socket,
            has_ended: watch::Sender::new(false),
        })
    }

    /// Another one has taken its place, or nothing comes through it any more.
    pub(super) fn end(&self) {
        self.has_ended.send_replace(true);
    }
}

impl AsFd for Passage {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Source for Passage {
    fn name(&self) -> &str {
        &self.name
    }

    fn take(&self, serving: &'static Serving, serve: &Serve) -> io::Result<()> {
        loop {
            match passage::receive(self.as_fd()) {
                Ok(received) if is_connection(&received.connection) => {
                    return self.admit(received, serving, serve);
                }
                // Whoever has sent that, the next one may be right.
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::InvalidData => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn was_shut_down(&self, serving: &'static Serving) {
        // A listener may listen again; nothing comes through this any more.
        if passage::is_closed(self.as_fd()) {
            serving.handoffs.forget(self);
        }
    }

    async fn ended(&self) {
        // The sender is our own.
        let _ = self.has_ended.subscribe().wait_for(|ended| *ended).await;
    }
}

impl Passage {
    /// Has it rest, as it did where it comes from; a byte that has come meanwhile is seen
    /// there. One of which something was read is served at once.
    fn admit(
        &self,
        received: Received,
        serving: &'static Serving,
        serve: &Serve,
    ) -> io::Result<()> {
        let Received {
            passed,
            connection,
            read,
        } = received;
        let bare = Bare {
            entry: serving.take_up(connection.as_raw_fd()),
            socket: connection,
            passed,
            listener: Arc::clone(&self.name),
            rules: serving.rules(),
            read: Bytes::from(read),
        };
        if bare.read.is_empty() {
            let until = serving.timer.now() + bare.rules.limits.idle_timeout;
            serving.lot.park(bare, until, serving);
        } else {
            serve(Stream::taken_up(bare, serving)?);
        }
        Ok(())
    }
}
