//! Connections that wait to be sent.

use super::{NotPassed, Reason, Waiting};
use crate::shutdown::lock;
use crate::sys::wait::{self, Waker};
use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Mutex, OnceLock};

pub(super) struct Queue {
    pub(super) waiting: Mutex<VecDeque<Waiting>>,
    /// Wakes the thread.
    waker: OnceLock<Waker>,
    /// The thread runs.
    runs: Mutex<bool>,
}

impl Queue {
    pub(super) const fn new() -> Queue {
        let waiting = Mutex::new(VecDeque::new());
        Queue { waiting, waker: OnceLock::new(), runs: Mutex::new(false) }
    }

    /// `start`: starts the thread that empties the queue.
    pub(super) fn add(&self, waiting: Waiting, start: impl FnOnce() -> io::Result<()>) {
        let is_first = {
            let mut all = lock(&self.waiting);
            // The last comes first: it has just been used, while thousands of idle ones may wait.
            all.push_front(waiting);
            all.len() == 1
        };
        match self.run(start) {
            // As long as others wait, the thread comes back to the queue.
            Ok(()) if is_first => self.waker().wake(),
            Ok(()) => {}
            // Without a thread nothing can be passed.
            Err(_) => _ = self.give_back(Reason::NoSuccessor),
        }
    }

    fn run(&self, start: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        let mut runs = lock(&self.runs);
        if !*runs {
            if self.waker.get().is_none() {
                _ = self.waker.set(Waker::new()?);
            }
            start()?;
            *runs = true;
        }
        Ok(())
    }

    fn waker(&self) -> &Waker {
        self.waker.get().expect("set before the thread")
    }

    /// They wait again, before the others.
    pub(super) fn put_back(&self, connections: Vec<Waiting>) {
        let mut waiting = lock(&self.waiting);
        connections.into_iter().rev().for_each(|one| waiting.push_front(one));
    }

    /// Returns how many stay here.
    pub(super) fn give_back(&self, reason: Reason) -> usize {
        let all = std::mem::take(&mut *lock(&self.waiting));
        let count = all.len();
        all.into_iter().for_each(|one| one.stays(reason));
        count
    }

    /// Until connections wait here, or one of these is readable.
    pub(super) fn wait(&self, fds: &[BorrowedFd<'_>]) {
        let waker = self.waker();
        let fds: Vec<BorrowedFd<'_>> = fds.iter().copied().chain([waker.as_fd()]).collect();
        wait::readable(&fds, None);
        waker.clear();
    }
}

impl Waiting {
    pub(super) fn stays(self, reason: Reason) {
        let Waiting { connection, slot, .. } = self;
        slot.put(Err(NotPassed { connection, reason }));
    }

    /// Closes our copy.
    pub(super) fn moved(self) {
        drop(self.connection);
        self.slot.put(Ok(()));
    }
}
