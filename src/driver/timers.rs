//! Which timer is due when. The machines name their timers and read no clock.

use std::time::{Duration, Instant};

/// Arming a timer anew replaces it.
pub(in crate::driver) struct Timers<T>(Vec<(T, Instant)>);

impl<T: Copy + PartialEq> Timers<T> {
    pub(in crate::driver) fn new() -> Self {
        Timers(Vec::new())
    }

    pub(in crate::driver) fn arm(&mut self, timer: T, after: Duration) {
        self.disarm(timer);
        if let Some(due) = Instant::now().checked_add(after) {
            self.0.push((timer, due));
        }
    }

    pub(in crate::driver) fn disarm(&mut self, timer: T) {
        self.0.retain(|(one, _)| *one != timer);
    }

    /// How long until the next timer is due; `None`: none is armed.
    pub(in crate::driver) fn next(&self) -> Option<Duration> {
        let due = self.0.iter().map(|(_, due)| *due).min()?;
        Some(due.saturating_duration_since(Instant::now()))
    }

    /// Removes and returns one timer that is due.
    pub(in crate::driver) fn due(&mut self) -> Option<T> {
        let now = Instant::now();
        let at = self.0.iter().position(|(_, due)| *due <= now)?;
        Some(self.0.remove(at).0)
    }
}
