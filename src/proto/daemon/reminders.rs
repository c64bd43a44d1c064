//! What an operator is reminded of, once in the life of a daemon, because it stays in a phase for long.

use super::Phase;
use std::time::Duration;

/// How long a start may take, and how long a drain, before it is worth a line.
const START: Duration = Duration::from_secs(10);
const DRAIN: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Reminder {
    /// `started` was not called: was it forgotten?
    NotStarted,
    /// The drain is not finished, or the program has not ended after it.
    DrainLasts,
}

impl Reminder {
    /// What this phase is reminded of. `claimed`: the claim is ours, so `started` is what is missing.
    pub(crate) fn of(phase: Phase, claimed: bool) -> Option<Reminder> {
        match phase {
            Phase::Starting => claimed.then_some(Reminder::NotStarted),
            Phase::Draining(_) | Phase::AwaitingOlder(_) | Phase::Finished => {
                Some(Reminder::DrainLasts)
            }
            Phase::StoppingEarly
            | Phase::Serving
            | Phase::HandingOff
            | Phase::Detached
            | Phase::Leaving(_)
            | Phase::Ended => None,
        }
    }

    /// How long after the phase began. `limit`: `claim_timeout` for a start, `drain_timeout` for a drain.
    /// Before a drain is forced to end, half of its time is left.
    pub(crate) fn after(self, limit: Option<Duration>) -> Duration {
        match self {
            Reminder::NotStarted => limit.map_or(START, |limit| limit.min(START)),
            Reminder::DrainLasts => limit.map_or(DRAIN, |limit| (limit / 2).min(DRAIN)),
        }
    }
}

/// What a daemon in this phase waits for before its process can end. `hooks`: the `on_shutdown` hooks
/// have not all returned.
pub(crate) fn waits_for(phase: Phase, hooks: bool) -> &'static str {
    match phase {
        Phase::Draining(_) if hooks => "the on_shutdown hooks",
        Phase::Draining(_) => "DrainGuards to be dropped",
        Phase::AwaitingOlder(_) => "older generations to end",
        Phase::Finished => "main to return",
        Phase::Starting
        | Phase::StoppingEarly
        | Phase::Serving
        | Phase::HandingOff
        | Phase::Detached
        | Phase::Leaving(_)
        | Phase::Ended => "nothing",
    }
}

#[cfg(test)]
mod tests {
    use super::{Reminder, waits_for};
    use crate::proto::DrainReason;
    use crate::proto::daemon::Phase;
    use std::time::Duration;

    #[test]
    fn a_start_is_long_after_10_s_and_a_drain_after_60_s_or_half_of_its_limit() {
        let seconds = |count| Some(Duration::from_secs(count));
        for (reminder, limit, after) in [
            (Reminder::NotStarted, None, 10),
            (Reminder::NotStarted, seconds(60), 10),
            (Reminder::NotStarted, seconds(3), 3),
            (Reminder::DrainLasts, None, 60),
            (Reminder::DrainLasts, seconds(600), 60),
            (Reminder::DrainLasts, seconds(60), 30),
        ] {
            assert_eq!(Some(reminder.after(limit)), seconds(after), "{reminder:?} {limit:?}");
        }
    }

    #[test]
    fn only_a_start_with_the_claim_and_a_drain_are_reminded_of() {
        let draining = Phase::Draining(DrainReason::TakenOver);
        assert_eq!(Reminder::of(Phase::Starting, false), None);
        assert_eq!(Reminder::of(Phase::Starting, true), Some(Reminder::NotStarted));
        assert_eq!(Reminder::of(Phase::Serving, true), None);
        for phase in [draining, Phase::AwaitingOlder(DrainReason::Stopped), Phase::Finished] {
            assert_eq!(Reminder::of(phase, true), Some(Reminder::DrainLasts));
        }
        assert_eq!(waits_for(draining, true), "the on_shutdown hooks");
        assert_eq!(waits_for(draining, false), "DrainGuards to be dropped");
    }
}
