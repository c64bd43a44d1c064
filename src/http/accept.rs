//! Accepting, until the drain has begun and the queue is empty.

use super::connection::{Peer, Stage};
use super::stream::{Listener, Stream};
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::sleep;

/// Between two attempts, where there is no descriptor to be had.
const PAUSE: Duration = Duration::from_millis(50);
/// Between two lines about it.
const SAY: Duration = Duration::from_secs(60);

/// A connection, and the permit that it holds as long as it lives.
pub(super) type Accepted = (Stream, Option<Peer>, OwnedSemaphorePermit);

/// Ends with the listener closed. What was accepted goes on.
pub(super) async fn accept_all(
    listener: Listener,
    permits: Arc<Semaphore>,
    mut stages: watch::Receiver<Stage>,
    take: impl Fn(Accepted),
) -> io::Result<()> {
    let mut said = None;
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
            () = left_serving(&mut stages) => break,
            (accepted, permit) = next => match accepted {
                Ok((stream, peer)) => take((stream, peer, permit)),
                Err(error) => {
                    say(&mut said, &error);
                    sleep(PAUSE).await;
                }
            },
        }
    }

    // A successor has this queue as well and would answer what is in it. But there is none where the
    // service is stopped, nor for a socket that the successor did not ask for.
    let listener = listener.into_std()?;
    while let Ok(permit) = permits.clone().try_acquire_owned() {
        match listener.accept() {
            Ok((stream, peer)) => take((stream, peer, permit)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) => {
                say(&mut said, &error);
                sleep(PAUSE).await;
            }
        }
    }
    Ok(())
}

/// Also where the server has been dropped.
async fn left_serving(stages: &mut watch::Receiver<Stage>) {
    _ = stages.wait_for(|stage| *stage != Stage::Serving).await;
}

/// Once a minute.
fn say(said: &mut Option<Instant>, what: &dyn std::fmt::Display) {
    if said.is_none_or(|said| said.elapsed() >= SAY) {
        *said = Some(Instant::now());
        log::warn!(target: "seamless", "stage=http cannot_accept=\"{what}\"");
    }
}
