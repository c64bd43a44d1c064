//! A rare future in a task that is woken often.

use pin_project_lite::pin_project;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

pin_project! {
    /// Polls a future only if that future itself was woken, however often its task is woken: a
    /// connection's task is woken for each request, but its alarm and the drain rarely fire.
    pub(super) struct WhenWoken<F> {
        #[pin]
        future: F,
        bell: Arc<Bell>,
    }
}

/// Rung by whatever the future waits for.
struct Bell {
    rung: AtomicBool,
    task: Mutex<Waker>,
}

impl<F> WhenWoken<F> {
    pub(super) fn new(future: F) -> Self {
        let (rung, task) = (AtomicBool::new(true), Mutex::new(Waker::noop().clone()));
        WhenWoken { future, bell: Arc::new(Bell { rung, task }) }
    }
}

impl<F: Future> Future for WhenWoken<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        // The waker first: whoever rings from here on wakes this task.
        this.bell.task().clone_from(context.waker());
        if !this.bell.rung.load(Ordering::Acquire) {
            return Poll::Pending;
        }
        this.bell.rung.swap(false, Ordering::AcqRel);
        let waker = Waker::from(this.bell.clone());
        this.future.poll(&mut Context::from_waker(&waker))
    }
}

impl Bell {
    fn task(&self) -> MutexGuard<'_, Waker> {
        self.task.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.rung.store(true, Ordering::Release);
        let task = self.task().clone();
        task.wake();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;
    use std::pin::pin;

    #[derive(Default)]
    struct Task(AtomicBool);

    impl Wake for Task {
        fn wake(self: Arc<Self>) {
            self.0.store(true, Ordering::SeqCst);
        }
    }

    #[test]
    fn it_is_polled_when_woken_and_wakes_the_task_that_polled_last() {
        let (mut polled, inner) = (0, Mutex::new(None));
        let mut future = pin!(WhenWoken::new(poll_fn(|context| {
            polled += 1;
            *inner.lock().expect("no panic") = Some(context.waker().clone());
            if polled == 3 { Poll::Ready(polled) } else { Poll::Pending }
        })));
        let wake = || inner.lock().expect("no panic").clone().expect("polled").wake();
        let tasks = [Arc::new(Task::default()), Arc::new(Task::default())];
        let wakers = tasks.clone().map(Waker::from);
        let mut poll = |task: usize| future.as_mut().poll(&mut Context::from_waker(&wakers[task]));
        let woken = || tasks.each_ref().map(|task| task.0.swap(false, Ordering::SeqCst));

        assert_eq!((poll(0), poll(0), woken()), (Poll::Pending, Poll::Pending, [false, false]));
        wake();
        assert_eq!(woken(), [true, false]);
        assert_eq!((poll(0), poll(0), poll(1)), (Poll::Pending, Poll::Pending, Poll::Pending));
        wake();
        assert_eq!(woken(), [false, true]);
        // Once at first, and once for each time it was woken.
        assert_eq!(poll(1), Poll::Ready(3));
    }
}
