//! What comes of a connection that is passed, as the program learns it.

use super::{Connection, Reason};
use crate::shutdown::lock;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

/// A connection that was not passed: it is still this process's, as it was.
#[derive(Debug)]
pub struct NotPassed {
    /// The connection: serve it on.
    pub connection: Connection,
    /// Why it was not passed.
    pub reason: Reason,
}

impl fmt::Display for NotPassed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot pass a connection: {}", self.reason)
    }
}

impl std::error::Error for NotPassed {}

type Outcome = Result<(), NotPassed>;

/// Where the outcome is put.
pub(super) struct Slot {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    outcome: Option<Outcome>,
    waker: Option<Waker>,
    /// A thread waits. To wake one costs a system call.
    waits: bool,
}

impl Slot {
    pub(super) fn new() -> Slot {
        Slot {
            state: Mutex::new(State { outcome: None, waker: None, waits: false }),
            changed: Condvar::new(),
        }
    }

    /// Runs a waker: not to be called with a lock held.
    pub(super) fn put(&self, outcome: Outcome) {
        let (waker, waits) = {
            let mut state = lock(&self.state);
            state.outcome = Some(outcome);
            (state.waker.take(), state.waits)
        };
        if waits {
            self.changed.notify_all();
        }
        if let Some(waker) = waker {
            _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| waker.wake()));
        }
    }
}

/// Resolves when it is decided whose the connection is: see [`pass`](crate::connections::pass). Needs no runtime:
/// await it anywhere, or block a thread on it with [`wait`](Passing::wait).
///
/// If it is dropped, the connection is passed all the same. But if it is not taken, nobody is left to serve it,
/// and it is closed.
#[must_use = "a connection that is not taken would be closed"]
pub struct Passing {
    slot: Arc<Slot>,
}

impl Passing {
    pub(super) fn new(slot: Arc<Slot>) -> Passing {
        Passing { slot }
    }

    pub(super) fn refused(why: NotPassed) -> Passing {
        let slot = Slot::new();
        slot.put(Err(why));
        Passing { slot: Arc::new(slot) }
    }

    /// Blocks this thread until it is decided.
    ///
    /// # Errors
    ///
    /// [`NotPassed`], with the connection: serve it on.
    pub fn wait(self) -> Result<(), NotPassed> {
        let undecided = |state: &mut State| {
            state.waits = true;
            state.outcome.is_none()
        };
        let waited = self.slot.changed.wait_while(lock(&self.slot.state), undecided);
        let outcome = waited.unwrap_or_else(PoisonError::into_inner).outcome.take();
        outcome.expect("waited for")
    }
}

impl Future for Passing {
    type Output = Result<(), NotPassed>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = lock(&self.slot.state);
        if let Some(outcome) = state.outcome.take() {
            return Poll::Ready(outcome);
        }
        let replaced = state.waker.replace(context.waker().clone());
        drop(state);
        drop(replaced);
        Poll::Pending
    }
}

impl fmt::Debug for Passing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let decided = lock(&self.slot.state).outcome.is_some();
        f.debug_struct("Passing").field("decided", &decided).finish()
    }
}
