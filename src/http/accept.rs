//! Accepting, until the drain has begun and the queue is empty.

use super::stream::{Listener, Peer, Stream};
use crate::DrainGuard;
use crate::http::log;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::sleep;

/// The pause before the next attempt, if out of descriptors.
const PAUSE: Duration = Duration::from_millis(50);
/// How often the log says so.
const SAY: Duration = Duration::from_secs(60);

/// What a connection holds as long as it lives.
pub(super) struct Seat {
    _permit: OwnedSemaphorePermit,
    _guard: DrainGuard,
}

impl Seat {
    fn new(permit: OwnedSemaphorePermit) -> Seat {
        Seat { _permit: permit, _guard: crate::drain_guard() }
    }
}

pub(super) type Accepted = (Stream, Option<Peer>, Seat);

/// Accepts until the drain has begun and the queue is empty, then closes the listener. Connections that
/// were accepted go on.
pub(super) async fn accept_all(
    listener: Listener,
    permits: Arc<Semaphore>,
    take: impl Fn(Accepted),
) -> io::Result<()> {
    let mut said = None;
    let mut draining = crate::draining();
    loop {
        let next = async {
            let permit = match permits.clone().try_acquire_owned() {
                Ok(permit) => permit,
                Err(_) => {
                    say(&mut said, &"as many connections as there may be: the next one waits");
                    permits.clone().acquire_owned().await.expect("never closed")
                }
            };
            (listener.accept().await, permit)
        };
        tokio::select! {
            biased;
            () = &mut draining => break,
            (accepted, permit) = next => match accepted {
                Ok((stream, peer)) => take((stream, peer, Seat::new(permit))),
                Err(error) => {
                    say(&mut said, &error);
                    sleep(PAUSE).await;
                }
            },
        }
    }

    // A successor shares this queue and would answer what is in it. But a service that is stopped has no
    // successor, and a successor may not have asked for this socket.
    let listener = listener.into_std()?;
    while let Ok(permit) = permits.clone().try_acquire_owned() {
        match listener.accept() {
            Ok((stream, peer)) => take((stream, peer, Seat::new(permit))),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) => {
                say(&mut said, &error);
                sleep(PAUSE).await;
            }
        }
    }
    Ok(())
}

/// Once a minute.
fn say(said: &mut Option<Instant>, what: &dyn std::fmt::Display) {
    if said.is_none_or(|said| said.elapsed() >= SAY) {
        *said = Some(Instant::now());
        log::cannot_accept(what);
    }
}
