//! [`States`]: the changes of [`State`] as they come. Who makes a change is not known here.

use crate::proto::State;
use crate::shutdown::{Wakers, lock};
use std::collections::VecDeque;
use std::fmt;
use std::future::poll_fn;
use std::sync::{Condvar, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::thread;

/// How many changes are kept for a reader that has not asked for them yet.
const KEPT: usize = 64;

/// The changes of the state of this process, for all that read them.
pub(crate) struct Changes {
    state: Mutex<Kept>,
    changed: Condvar,
}

struct Kept {
    now: State,
    /// The newest ones, the oldest first.
    last: VecDeque<State>,
    /// Of all changes so far.
    count: u64,
    /// No more will come.
    over: bool,
    wakers: Wakers,
    /// There is a thread that runs them.
    wakes: bool,
}

impl Changes {
    pub(crate) const fn new() -> Changes {
        let state = Kept {
            now: State::Starting,
            last: VecDeque::new(),
            count: 0,
            over: false,
            wakers: Wakers::new(),
            wakes: false,
        };
        Changes { state: Mutex::new(state), changed: Condvar::new() }
    }

    /// Runs no wakers. The caller publishes the changes in their order.
    pub(crate) fn publish(&self, now: State) {
        let mut kept = lock(&self.state);
        if kept.now == now {
            return;
        }
        if kept.last.len() == KEPT {
            kept.last.pop_front();
        }
        kept.last.push_back(now);
        kept.now = now;
        kept.count += 1;
        self.changed.notify_all();
    }

    /// The drain is finished. Runs no wakers.
    pub(crate) fn end(&self) {
        lock(&self.state).over = true;
        self.changed.notify_all();
    }

    /// The thread that runs wakers, started by the first task that has to wait: those that publish
    /// hold locks, or take signals.
    fn wake_tasks(&self, mut count: u64) {
        loop {
            let kept = lock(&self.state);
            let waits = |kept: &mut Kept| kept.count == count && !kept.over;
            let waited = self.changed.wait_while(kept, waits);
            let mut kept = waited.unwrap_or_else(PoisonError::into_inner);
            count = kept.count;
            let (wakers, over) = (kept.wakers.take(), kept.over);
            drop(kept);
            wakers.wake();
            if over {
                return;
            }
        }
    }
}

/// The changes of [`State`] from the call of [`states`](crate::states) on, each once and in order.
///
/// It is a blocking iterator, for a thread:
///
/// ```no_run
/// let states = seamless::states();
/// std::thread::spawn(|| {
///     for state in states {
///         println!("now {state:?}");
///     }
/// });
/// ```
///
/// [`changed`](States::changed) is the same for a task of any runtime, and
/// [`poll_changed`](States::poll_changed) makes it a `Stream`:
///
/// ```no_run
/// # async fn run() {
/// let mut states = seamless::states();
/// while let Some(state) = states.changed().await {
///     println!("now {state:?}");
/// }
/// # }
/// ```
///
/// All three end when the drain is finished. A reader may be slow: the last 64 changes are kept for
/// it. If it is further behind than that, it misses the oldest of them, and never the newest.
#[must_use = "it does nothing unless it is asked for changes"]
pub struct States {
    changes: &'static Changes,
    /// How many changes this one has told, or come too late for.
    told: u64,
    number: Option<u64>,
}

impl States {
    pub(crate) fn of(changes: &'static Changes) -> States {
        let told = lock(&changes.state).count;
        States { changes, told, number: None }
    }

    /// The next change; `None` when the drain is finished.
    ///
    /// If it is dropped before it resolves, for example by `tokio::select!`, no change is lost.
    pub async fn changed(&mut self) -> Option<State> {
        poll_fn(|context| self.poll_changed(context)).await
    }

    /// As [`changed`](States::changed), for code that polls by hand. With the crate `futures`,
    /// `stream::poll_fn(move |context| states.poll_changed(context))` is a `Stream`.
    ///
    /// The first poll of a process that has to wait starts a thread, which wakes all such tasks.
    pub fn poll_changed(&mut self, context: &mut Context<'_>) -> Poll<Option<State>> {
        let mut kept = lock(&self.changes.state);
        if let Some(next) = next(&kept, &mut self.told) {
            return Poll::Ready(next);
        }
        let replaced = kept.wakers.keep(&mut self.number, context.waker());
        if !kept.wakes {
            let (changes, count) = (self.changes, kept.count);
            let thread = thread::Builder::new().name("seamless-states".to_owned());
            kept.wakes = thread.spawn(move || changes.wake_tasks(count)).is_ok();
        }
        let wakes = kept.wakes;
        drop(kept);
        drop(replaced);
        if !wakes {
            context.waker().wake_by_ref(); // out of threads: try again until there is one
        }
        Poll::Pending
    }
}

/// Blocks until the next change; ends when the drain is finished.
impl Iterator for States {
    type Item = State;

    fn next(&mut self) -> Option<State> {
        let mut kept = lock(&self.changes.state);
        loop {
            if let Some(next) = next(&kept, &mut self.told) {
                return next;
            }
            kept = self.changes.changed.wait(kept).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// `None`: nothing new yet.
fn next(kept: &Kept, told: &mut u64) -> Option<Option<State>> {
    let oldest = kept.count - kept.last.len() as u64;
    *told = oldest.max(*told);
    match kept.last.get((*told - oldest) as usize) {
        Some(state) => {
            *told += 1;
            Some(Some(*state))
        }
        None => kept.over.then_some(None),
    }
}

impl Drop for States {
    fn drop(&mut self) {
        if let Some(number) = self.number {
            let forgotten = lock(&self.changes.state).wakers.forget(number);
            drop(forgotten);
        }
    }
}

impl fmt::Debug for States {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("States").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::State::*;
    use super::*;
    use std::pin::pin;
    use std::sync::Arc;
    use std::sync::mpsc::{Sender, channel};
    use std::task::{Wake, Waker};

    fn changes() -> &'static Changes {
        Box::leak(Box::new(Changes::new()))
    }

    fn publish(changes: &Changes, states: &[State]) {
        states.iter().for_each(|state| changes.publish(*state));
    }

    #[test]
    fn each_change_comes_once_and_in_order_to_each_reader() {
        let changes = changes();
        publish(changes, &[Starting, Serving, Serving]);
        let (late, mut dropped) = (States::of(changes), States::of(changes));
        publish(changes, &[Detached]);
        assert_eq!(dropped.next(), Some(Detached));
        drop(dropped);
        publish(changes, &[Detached, Draining]);
        let last = States::of(changes);
        changes.end();
        assert_eq!(late.collect::<Vec<_>>(), [Detached, Draining]);
        assert_eq!(last.collect::<Vec<_>>(), []);
    }

    #[test]
    fn a_thread_waits_for_the_changes() {
        let changes = changes();
        let states = States::of(changes);
        let reader = thread::spawn(move || states.collect::<Vec<_>>());
        for state in [Serving, Detached, Draining] {
            publish(changes, &[state]);
        }
        changes.end();
        assert_eq!(reader.join().expect("no panic"), [Serving, Detached, Draining]);
    }

    #[test]
    fn a_reader_that_is_far_behind_misses_the_oldest_only() {
        let changes = changes();
        let states = States::of(changes);
        let all = [Serving, Detached].repeat(KEPT);
        publish(changes, &all);
        publish(changes, &[Draining]);
        changes.end();
        let told: Vec<_> = states.collect();
        assert_eq!((told.len(), told.last()), (KEPT, Some(&Draining)));
        assert_eq!(told[..KEPT - 1], all[all.len() + 1 - KEPT..]);
    }

    struct Task(Sender<()>);

    impl Wake for Task {
        fn wake(self: Arc<Self>) {
            _ = self.0.send(());
        }
    }

    #[test]
    fn tasks_are_woken_by_a_thread_of_their_own() {
        let changes = changes();
        let (woken, wakes) = channel();
        let waker = Waker::from(Arc::new(Task(woken)));
        let mut states = States::of(changes);
        let mut told = Vec::new();
        for state in [Serving, Detached, Draining] {
            for _ in 0..2 {
                let mut changed = pin!(states.changed()); // dropped, and made again
                assert!(changed.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
            }
            publish(changes, &[state]);
            wakes.recv().expect("a wake");
            let Poll::Ready(next) = states.poll_changed(&mut Context::from_waker(&waker)) else {
                panic!("woken for nothing");
            };
            told.extend(next);
        }
        assert_eq!(told, [Serving, Detached, Draining]);
        assert!(states.poll_changed(&mut Context::from_waker(&waker)).is_pending());
        changes.end();
        wakes.recv().expect("a wake");
        assert_eq!(states.poll_changed(&mut Context::from_waker(&waker)), Poll::Ready(None));
        drop((states, waker));
        assert!(wakes.recv().is_err(), "no waker is kept");
    }
}
