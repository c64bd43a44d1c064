//! Hooks, [`Draining`] and the state behind `wait`. Knows nothing of processes or signals.

use crate::proto::DrainReason;
use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

pub(crate) type Hook = Box<dyn FnOnce() + Send>;

/// A panic elsewhere must not stop a shutdown: what the mutex guards is valid at every step.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A stage of a restart, as this process lives through it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Stage {
    /// Stage 1: a restart was asked for, the `on_shutdown_request` hooks run, the launcher is let go.
    /// After it: just before the launcher is let go.
    Handoff,
    /// Stage 2, in the new generation: [`started`](crate::started). Before it: nothing has been
    /// announced, the predecessor serves. After it: the predecessor drains.
    Takeover,
    /// Stage 3: the `on_shutdown` hooks run. Before it: [`draining`](crate::draining) has not
    /// resolved. After it: [`wait`](crate::wait) is about to return.
    Drain,
}

/// The hooks of one stage, run once, in the order in which they were added.
pub(crate) struct HookList(Mutex<Hooks>);

struct Hooks {
    waiting: VecDeque<Hook>,
    over: bool,
}

impl HookList {
    pub(crate) const fn new() -> HookList {
        HookList(Mutex::new(Hooks { waiting: VecDeque::new(), over: false }))
    }

    /// `false` where the stage is over: the hook would never run.
    pub(crate) fn add(&self, hook: Hook) -> bool {
        let mut hooks = lock(&self.0);
        if !hooks.over {
            hooks.waiting.push_back(hook);
        }
        !hooks.over
    }

    /// Ends the stage if it has no hooks. Then there is nothing to run.
    pub(crate) fn end_if_empty(&self) -> bool {
        let mut hooks = lock(&self.0);
        hooks.over |= hooks.waiting.is_empty();
        hooks.over
    }

    /// Runs the hooks, those too that are added meanwhile. A panic is reported and the next runs.
    pub(crate) fn run(&self, panicked: impl Fn(&str)) {
        loop {
            let next = {
                let mut hooks = lock(&self.0);
                let next = hooks.waiting.pop_front();
                hooks.over = next.is_none();
                next
            };
            let Some(hook) = next else { return };
            if let Err(panic) = catch_unwind(AssertUnwindSafe(hook)) {
                let text = panic.downcast_ref::<&str>().copied();
                let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
                panicked(text.unwrap_or("(no message)"));
            }
        }
    }
}

/// What `draining` and `wait` wait for.
pub(crate) struct Shutdown {
    /// Beside the mutex: a server may ask for each answer that it gives.
    begun: AtomicBool,
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    finished: Option<DrainReason>,
    /// One for each future that is being polled, by its number.
    wakers: BTreeMap<u64, Waker>,
    last_number: u64,
}

impl Shutdown {
    pub(crate) const fn new() -> Shutdown {
        let state = State { finished: None, wakers: BTreeMap::new(), last_number: 0 };
        Shutdown {
            begun: AtomicBool::new(false),
            state: Mutex::new(state),
            changed: Condvar::new(),
        }
    }

    /// The drain begins. Runs wakers, which are code of whatever runtime polls.
    pub(crate) fn begin(&self) {
        let wakers = {
            let mut state = lock(&self.state);
            self.begun.store(true, Ordering::SeqCst);
            std::mem::take(&mut state.wakers)
        };
        self.changed.notify_all();
        for waker in wakers.into_values() {
            _ = catch_unwind(AssertUnwindSafe(|| waker.wake()));
        }
    }

    /// The drain is through.
    pub(crate) fn finish(&self, reason: DrainReason) {
        lock(&self.state).finished.get_or_insert(reason);
        self.changed.notify_all();
    }

    pub(crate) fn wait_finished(&self) -> DrainReason {
        let mut state = lock(&self.state);
        loop {
            if let Some(reason) = state.finished {
                return reason;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn has_begun(&self) -> bool {
        self.begun.load(Ordering::SeqCst)
    }

    fn wait_begun(&self, timeout: Option<Duration>) -> bool {
        let state = lock(&self.state);
        let waits = |_: &mut State| !self.has_begun();
        match timeout {
            None => drop(self.changed.wait_while(state, waits)),
            Some(timeout) => drop(self.changed.wait_timeout_while(state, timeout, waits)),
        }
        self.has_begun()
    }

    /// True where the drain has begun; else the waker is kept, one for each number.
    fn poll(&self, number: &mut Option<u64>, waker: &Waker) -> bool {
        let mut state = lock(&self.state);
        if self.has_begun() {
            return true;
        }
        let number = *number.get_or_insert_with(|| {
            state.last_number += 1;
            state.last_number
        });
        state.wakers.entry(number).or_insert_with(|| waker.clone()).clone_from(waker);
        false
    }

    fn forget(&self, number: u64) {
        lock(&self.state).wakers.remove(&number);
    }
}

/// Resolves when the drain begins. Needs no runtime: await it anywhere, hand it to
/// `with_graceful_shutdown`, or block a thread on it with [`wait`](Draining::wait). Clones resolve
/// together; one that is made after the drain began resolves at once.
///
/// The drain begins when a successor has taken over, when the service is stopped, or when this
/// process is sent TERM or INT. From then on: stop accepting when the queue is empty, answer what
/// is in flight, end.
#[must_use = "a future does nothing unless it is awaited or waited for"]
pub struct Draining {
    shutdown: &'static Shutdown,
    /// Given by the first poll that has to wait.
    number: Option<u64>,
}

impl Draining {
    pub(crate) fn of(shutdown: &'static Shutdown) -> Draining {
        Draining { shutdown, number: None }
    }

    /// Has the drain begun?
    pub fn has_begun(&self) -> bool {
        self.shutdown.has_begun()
    }

    /// Blocks this thread until the drain begins.
    pub fn wait(&self) {
        self.shutdown.wait_begun(None);
    }

    /// Blocks this thread until the drain begins, but no longer than `timeout`. Tells whether it
    /// has begun.
    pub fn wait_timeout(&self, timeout: Duration) -> bool {
        self.shutdown.wait_begun(Some(timeout))
    }
}

impl Future for Draining {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let shutdown = self.shutdown;
        match shutdown.poll(&mut self.number, context.waker()) {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    }
}

impl Clone for Draining {
    fn clone(&self) -> Self {
        Draining::of(self.shutdown)
    }
}

impl Drop for Draining {
    fn drop(&mut self) {
        if let Some(number) = self.number {
            self.shutdown.forget(number);
        }
    }
}

impl std::fmt::Debug for Draining {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Draining").field("has_begun", &self.has_begun()).finish()
    }
}

#[cfg(test)]
mod tests;
