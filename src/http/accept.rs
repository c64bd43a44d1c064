//! Accepting, until the drain has begun and the queue is empty.

use super::stream::{Listener, Peer, Stream};
use crate::DrainGuard;
use crate::http::{log, standby};
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// What a connection holds as long as it lives.
pub(super) struct Seat {
    _permit: OwnedSemaphorePermit,
    _guard: DrainGuard,
}

impl Seat {
    pub(super) fn new(permit: OwnedSemaphorePermit) -> Seat {
        Seat { _permit: permit, _guard: crate::drain_guard() }
    }
}

pub(super) type Accepted = (Stream, Option<Peer>, Seat);

/// Accepts until the drain has begun and the queue is empty, which closes the listener. Connections that
/// were accepted go on.
pub(super) async fn accept_all(
    mut listener: Listener,
    permits: Arc<Semaphore>,
    take: impl Fn(Accepted),
) {
    let full = log::Seldom::default();
    let mut draining = crate::draining().at_once();
    standby::install();
    loop {
        let stands_by = standby::begins();
        standby::is_over(&mut listener, &mut draining).await;
        let permit = match permits.clone().try_acquire_owned() {
            Ok(permit) => permit,
            Err(_) if draining.has_begun() => return, // the rest is left to the successor
            Err(_) => {
                if full.is_due() {
                    log::cannot_accept(&"as many connections as there may be: the next one waits");
                }
                tokio::select! {
                    () = &mut draining => continue,
                    permit = permits.clone().acquire_owned() => permit.expect("never closed"),
                }
            }
        };
        tokio::select! {
            biased;
            () = stands_by => {}
            next = listener.next() => match next {
                Some((stream, peer)) => take((stream, peer, Seat::new(permit))),
                None => return,
            },
        }
    }
}
