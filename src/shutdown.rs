//! Hooks, the beginning of the drain ([`Draining`]) and its end ([`DrainGuard`], [`Finished`]). Knows
//! nothing of processes or signals.

use crate::proto::DrainReason;
use std::any::Any;
use std::collections::{BTreeMap, VecDeque};
use std::net::Shutdown as Shut;
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::thread;
use std::time::{Duration, Instant};

/// A longer grace is cut to this, so that sums of times do not overflow.
const LONGEST_GRACE: Duration = Duration::from_secs(365 * 24 * 3600);

mod draining;
mod finished;
mod moment;

pub use draining::Draining;
pub use finished::{DrainGuard, Finished};
pub use moment::Moment;

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
    /// resolved, and [its reason](crate::Draining::reason) is known. After it: every
    /// [`DrainGuard`](crate::DrainGuard) has been dropped, and [`wait`](crate::wait) is about to return.
    Drain,
    /// The forced exit (hammer): a drain has taken longer than
    /// [`drain_timeout`](crate::Config::drain_timeout), or USR2 came during a drain. The
    /// [`on_hammer`](crate::on_hammer) hooks run, then the process ends with code 124. Before it: for
    /// what must happen even if the `on_hammer` hooks hang. After it: the last words.
    Hammer,
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

    /// `false` if the stage is over: the hook would never run.
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

    /// The stage may come again, with the hooks that are added from now on.
    pub(crate) fn reopen(&self) {
        lock(&self.0).over = false;
    }

    /// Have all hooks returned?
    pub(crate) fn is_over(&self) -> bool {
        lock(&self.0).over
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
                panicked(panic_text(&*panic));
            }
        }
    }
}

/// What a panic says.
pub(crate) fn panic_text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("(no message)")
}

/// The wakers of the futures that are being polled, one for each. A waker that is dropped may drop its task,
/// and with it more futures of this kind, which take the lock around this. So no waker is dropped here while
/// the lock is held: it is returned to the caller.
pub(crate) struct Wakers {
    of: BTreeMap<u64, Waker>,
    last_number: u64,
}

impl Wakers {
    pub(crate) const fn new() -> Wakers {
        Wakers { of: BTreeMap::new(), last_number: 0 }
    }

    /// `number` is the future's own, given by its first poll that has to wait.
    #[must_use = "to be dropped without the lock"]
    pub(crate) fn keep(&mut self, number: &mut Option<u64>, waker: &Waker) -> Option<Waker> {
        let number = *number.get_or_insert_with(|| {
            self.last_number += 1;
            self.last_number
        });
        match self.of.get(&number) {
            Some(kept) if kept.will_wake(waker) => None,
            Some(_) | None => self.of.insert(number, waker.clone()),
        }
    }

    #[must_use = "to be dropped without the lock"]
    pub(crate) fn forget(&mut self, number: u64) -> Option<Waker> {
        self.of.remove(&number)
    }

    pub(crate) fn take(&mut self) -> Wakers {
        Wakers { of: std::mem::take(&mut self.of), last_number: self.last_number }
    }

    /// Runs code of the runtimes that poll: not to be called with a lock held, nor on the thread that takes
    /// signals.
    pub(crate) fn wake(self) {
        for waker in self.of.into_values() {
            _ = catch_unwind(AssertUnwindSafe(|| waker.wake()));
        }
    }
}

/// What `draining`, `drain_guard`, `finished` and `wait` share.
pub(crate) struct Shutdown {
    /// Outside the mutex, because a server may ask for each answer that it gives.
    begun: AtomicBool,
    /// How many [`DrainGuard`]s there are.
    guards: AtomicUsize,
    /// How many moments were dealt.
    dealt: AtomicU32,
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    reason: Option<DrainReason>,
    finished: Option<DrainReason>,
    begun: Option<Begun>,
    /// Who waits for the beginning of the drain, by their grace.
    waiting: BTreeMap<Duration, Waiting>,
    /// There is a thread that tells them when their grace is over.
    tells: bool,
    finish: Wakers,
}

#[derive(Clone, Copy)]
struct Begun {
    at: Instant,
    /// The longest that a grace may be: half of the drain's limit, so that the other half is left.
    longest: Duration,
}

impl Begun {
    fn over_at(self, grace: Duration) -> Instant {
        self.at + grace.min(self.longest)
    }
}

/// Those with one and the same grace.
struct Waiting {
    wakers: Wakers,
    /// Closed when the grace is over.
    ends: Vec<UnixStream>,
}

impl Waiting {
    /// Runs wakers.
    fn tell(self) {
        // Not by closing alone: a process that was forked may have inherited it.
        self.ends.iter().for_each(|end| _ = end.shutdown(Shut::Both));
        self.wakers.wake();
    }
}

impl State {
    fn waiting(&mut self, grace: Duration) -> &mut Waiting {
        let new = || Waiting { wakers: Wakers::new(), ends: Vec::new() };
        self.waiting.entry(grace).or_insert_with(new)
    }

    fn is_over(&self, grace: Duration) -> bool {
        self.begun.is_some_and(|begun| {
            // No clock is read if there is no grace.
            grace.is_zero() || begun.over_at(grace) <= Instant::now()
        })
    }
}

impl Shutdown {
    pub(crate) const fn new() -> Shutdown {
        let state = State {
            reason: None,
            finished: None,
            begun: None,
            waiting: BTreeMap::new(),
            tells: false,
            finish: Wakers::new(),
        };
        Shutdown {
            begun: AtomicBool::new(false),
            guards: AtomicUsize::new(0),
            dealt: AtomicU32::new(0),
            state: Mutex::new(state),
            changed: Condvar::new(),
        }
    }

    /// The drain is about to begin.
    pub(crate) fn decided(&self, reason: DrainReason) {
        lock(&self.state).reason.get_or_insert(reason);
    }

    /// The drain begins, and may take as long as `limit`. Runs wakers.
    pub(crate) fn begin(&'static self, limit: Option<Duration>) {
        let over = {
            let mut state = lock(&self.state);
            let longest = limit.map_or(LONGEST_GRACE, |limit| limit / 2);
            state.begun.get_or_insert(Begun { at: Instant::now(), longest });
            self.begun.store(true, Ordering::SeqCst);
            if state.waiting.keys().any(|grace| !state.is_over(*grace)) {
                self.tell_later(&mut state);
            }
            let mut over = Vec::new();
            while let Some(first) = state.waiting.first_entry().map(|first| *first.key()) {
                if !state.is_over(first) {
                    break;
                }
                over.extend(state.waiting.remove(&first));
            }
            over
        };
        self.changed.notify_all();
        over.into_iter().for_each(Waiting::tell);
    }

    /// The drain has begun, and somebody's grace is not over. Sees to it that a thread tells them later. If
    /// there is no thread to be had, every grace is over now: a shutdown that comes too early is better than
    /// none.
    fn tell_later(&'static self, state: &mut State) {
        if state.tells {
            return;
        }
        let thread = thread::Builder::new().name("seamless-grace".to_owned());
        state.tells = thread.spawn(|| self.tell_waiting()).is_ok();
        if let (false, Some(begun)) = (state.tells, &mut state.begun) {
            begun.longest = Duration::ZERO;
            self.changed.notify_all();
        }
    }

    /// Those who wait until this grace is over, and are told then. `None`: it is over.
    fn enter<'a>(&'static self, state: &'a mut State, grace: Duration) -> Option<&'a mut Waiting> {
        if state.begun.is_some() && !state.is_over(grace) {
            self.tell_later(state);
            // The thread sleeps until the first one is over. Thousands of connections may ask, each for its
            // own.
            if state.waiting.keys().next().is_none_or(|first| grace < *first) {
                self.changed.notify_all();
            }
        }
        if state.is_over(grace) { None } else { Some(state.waiting(grace)) }
    }

    /// The thread that runs wakers when a grace is over. Ends when nobody waits.
    fn tell_waiting(&self) {
        let mut state = lock(&self.state);
        while let (Some(begun), Some(grace)) = (state.begun, state.waiting.keys().next().copied()) {
            let left = begun.over_at(grace).saturating_duration_since(Instant::now());
            if left.is_zero() {
                let over = state.waiting.remove(&grace);
                drop(state);
                over.into_iter().for_each(Waiting::tell);
                state = lock(&self.state);
            } else {
                let waited = self.changed.wait_timeout(state, left);
                state = waited.unwrap_or_else(PoisonError::into_inner).0;
            }
        }
        state.tells = false;
    }

    /// Blocks until no guard exists. Only after [`begin`](Shutdown::begin).
    pub(crate) fn wait_guards(&self) {
        let waits = |_: &mut State| self.guards.load(Ordering::SeqCst) > 0;
        drop(self.changed.wait_while(lock(&self.state), waits));
    }

    /// How many [`DrainGuard`]s there are.
    pub(crate) fn guards(&self) -> usize {
        self.guards.load(Ordering::SeqCst)
    }

    /// The drain is finished. Runs no wakers: see [`wake_finished`](Shutdown::wake_finished).
    pub(crate) fn finish(&self, reason: DrainReason) {
        lock(&self.state).finished.get_or_insert(reason);
        self.changed.notify_all();
    }

    /// Blocks until the drain is finished, then runs wakers.
    pub(crate) fn wake_finished(&self) {
        self.wait_finished(None);
        let wakers = lock(&self.state).finish.take();
        wakers.wake();
    }

    fn has_begun(&self) -> bool {
        self.begun.load(Ordering::SeqCst)
    }

    /// Blocks until the grace is over, but no longer than `timeout`. Tells whether it is over.
    fn wait_begun(&self, grace: Duration, timeout: Option<Duration>) -> bool {
        let end = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        let mut state = lock(&self.state);
        loop {
            if state.is_over(grace) {
                return true;
            }
            let now = Instant::now();
            if end.is_some_and(|end| end <= now) {
                return false;
            }
            let over = state.begun.map(|begun| begun.over_at(grace));
            let until = over.into_iter().chain(end).min();
            let left = until.map_or(LONGEST_GRACE, |until| until.saturating_duration_since(now));
            let waited = self.changed.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn wait_finished(&self, timeout: Option<Duration>) -> Option<DrainReason> {
        let state = lock(&self.state);
        let waits = |state: &mut State| state.finished.is_none();
        let state = match timeout {
            None => self.changed.wait_while(state, waits).unwrap_or_else(PoisonError::into_inner),
            Some(timeout) => {
                let waited = self.changed.wait_timeout_while(state, timeout, waits);
                waited.unwrap_or_else(PoisonError::into_inner).0
            }
        };
        state.finished
    }

    /// Returns true if the grace is over; otherwise keeps the waker.
    fn poll_begun(&'static self, grace: Duration, number: &mut Option<u64>, waker: &Waker) -> bool {
        let replaced = match self.enter(&mut lock(&self.state), grace) {
            Some(waiting) => waiting.wakers.keep(number, waker),
            None => return true,
        };
        drop(replaced);
        false
    }

    fn poll_finished(&self, number: &mut Option<u64>, waker: &Waker) -> Option<DrainReason> {
        let mut state = lock(&self.state);
        if state.finished.is_some() {
            return state.finished;
        }
        let replaced = state.finish.keep(number, waker);
        drop(state);
        drop(replaced);
        None
    }
}

#[cfg(test)]
mod tests;
