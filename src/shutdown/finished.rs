//! The end of the drain: what holds it up ([`DrainGuard`]), and who waits for it ([`Finished`]).

use super::{Shutdown, lock};
use crate::proto::DrainReason;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

/// Holds up the end of the drain while it, or a clone of it, exists: see
/// [`drain_guard`](crate::drain_guard).
#[must_use = "dropped at once, it holds up nothing"]
pub struct DrainGuard {
    shutdown: &'static Shutdown,
}

impl DrainGuard {
    pub(crate) fn of(shutdown: &'static Shutdown) -> DrainGuard {
        shutdown.guards.fetch_add(1, Ordering::SeqCst);
        DrainGuard { shutdown }
    }
}

impl Clone for DrainGuard {
    fn clone(&self) -> Self {
        DrainGuard::of(self.shutdown)
    }
}

/// Guards against a drain that misses the end of the last guard. One side stores `begun`, then reads
/// `guards`; the other side counts down `guards`, then reads `begun`. All four are sequentially
/// consistent, so at least one side sees what the other has done.
impl Drop for DrainGuard {
    fn drop(&mut self) {
        let last = self.shutdown.guards.fetch_sub(1, Ordering::SeqCst) == 1;
        if last && self.shutdown.has_begun() {
            drop(lock(&self.shutdown.state)); // whoever has read the old count waits by now
            self.shutdown.changed.notify_all();
        }
    }
}

impl fmt::Debug for DrainGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DrainGuard").finish_non_exhaustive()
    }
}

/// Resolves when the drain is finished, and tells why it began: see [`finished`](crate::finished).
/// Needs no runtime. Clones resolve together.
#[must_use = "a future does nothing unless it is awaited or waited for"]
pub struct Finished {
    shutdown: &'static Shutdown,
    number: Option<u64>,
}

impl Finished {
    pub(crate) fn of(shutdown: &'static Shutdown) -> Finished {
        Finished { shutdown, number: None }
    }

    /// Blocks this thread until the drain is finished, as [`wait`](crate::wait) does.
    pub fn wait(&self) -> DrainReason {
        self.shutdown.wait_finished(None).expect("waited for without a limit")
    }

    /// Blocks this thread until the drain is finished, but no longer than `timeout`. `None`: it is
    /// not finished yet.
    pub fn wait_timeout(&self, timeout: Duration) -> Option<DrainReason> {
        self.shutdown.wait_finished(Some(timeout))
    }
}

impl Future for Finished {
    type Output = DrainReason;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<DrainReason> {
        let shutdown = self.shutdown;
        match shutdown.poll_finished(&mut self.number, context.waker()) {
            Some(reason) => Poll::Ready(reason),
            None => Poll::Pending,
        }
    }
}

impl Clone for Finished {
    fn clone(&self) -> Self {
        Finished::of(self.shutdown)
    }
}

impl Drop for Finished {
    fn drop(&mut self) {
        if let Some(number) = self.number {
            let forgotten = lock(&self.shutdown.state).finish.forget(number);
            drop(forgotten);
        }
    }
}

impl fmt::Debug for Finished {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let reason = lock(&self.shutdown.state).finished;
        f.debug_struct("Finished").field("reason", &reason).finish()
    }
}
