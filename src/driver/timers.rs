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

#[cfg(test)]
mod tests {
    use super::Timers;
    use std::time::Duration;

    const LONG: Duration = Duration::from_secs(1000);

    #[test]
    fn a_timer_is_due_once_and_can_be_armed_anew_or_disarmed() {
        let mut timers = Timers::new();
        assert_eq!((timers.next(), timers.due()), (None, None));
        timers.arm('a', LONG);
        timers.arm('b', Duration::ZERO);
        assert_eq!(timers.next(), Some(Duration::ZERO));
        assert_eq!((timers.due(), timers.due()), (Some('b'), None));
        assert!(timers.next().is_some_and(|next| next > LONG / 2 && next <= LONG));
        timers.arm('a', Duration::ZERO);
        assert_eq!((timers.due(), timers.due()), (Some('a'), None), "not the one before as well");
        timers.arm('a', Duration::ZERO);
        timers.arm('b', LONG);
        timers.disarm('a');
        assert_eq!(timers.due(), None);
        timers.arm('b', Duration::MAX); // beyond what the clock can count
        assert_eq!(timers.next(), None);
    }
}
