//! The launcher's timers, and when each of them fires. Arming one anew replaces it.

use super::Child;
use std::time::Duration;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Timer {
    /// A CONT is too old to belong to a TERM.
    Cont,
    /// The supervisor has had the time to write its status.
    Settle,
    /// `handoff_timeout`.
    Handoff,
    /// `handoff_timeout`, since a start was cancelled.
    Cancel,
    /// Signals that were sent together have all arrived.
    Gather,
    /// `handoff_timeout`, since a child was told to prepare.
    Prepare,
    /// A start had time enough, although another one is to follow: `handoff_timeout`, or twice as long as
    /// the last start took if that is more.
    Start,
    /// A generation that was taken over has had the time to begin its drain.
    Overdue,
    /// The keeper has had the time to be in place.
    Keeper,
    /// The older generations are told again.
    TellOlder,
    /// `drain_timeout` and 5 s; and `leave_time` before these, while the child leaves.
    Kill(Child),
}

/// What the limits depend on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Limits {
    /// `handoff_timeout`.
    pub(crate) handoff: Duration,
    /// How long the last start took.
    pub(crate) start_took: Duration,
    /// Of the child that is to be killed: its `drain_timeout`, and for how long it serves on before its drain.
    pub(crate) drain: Option<Duration>,
    pub(crate) leaves_for: Duration,
}

/// A CONT that is further from its TERM belongs to something else; and the supervisors that write
/// their status after the signals need half of that.
const SETTLE: Duration = Duration::from_millis(20);
/// Signals that are sent to all processes of a service at once arrive within this time: the daemons pass
/// theirs on over their channels.
const GATHER: Duration = Duration::from_millis(100);
/// How much longer than its own `drain_timeout` an attached daemon may live.
const KILL_AFTER: Duration = Duration::from_secs(5);
/// How long after its successor has started a daemon may serve on before it is told once more: as
/// long as a detached one needs to find out.
const OVERDUE: Duration = Duration::from_secs(1);
/// How soon older generations are told again.
const TELL_OLDER: Duration = Duration::from_secs(1);
/// How long the supervisor waits for a keeper before it learns of a crash. The launcher holds the sockets
/// meanwhile, so nobody is refused; a keeper that ends is seen at once, so only one that hangs is waited for
/// so long. On a machine with too much to do a keeper needs more than a second.
const KEEPER: Duration = Duration::from_secs(5);

impl Timer {
    /// How long after it was armed it fires. `None`: never.
    pub(crate) fn after(self, limits: &Limits) -> Option<Duration> {
        match self {
            Timer::Cont | Timer::Settle => Some(SETTLE),
            Timer::Handoff | Timer::Cancel | Timer::Prepare => Some(limits.handoff),
            Timer::Gather => Some(GATHER),
            Timer::Start => Some(limits.handoff.max(limits.start_took.saturating_mul(2))),
            Timer::Overdue => Some(OVERDUE),
            Timer::Keeper => Some(KEEPER),
            Timer::TellOlder => Some(TELL_OLDER),
            Timer::Kill(_) => {
                let drains = limits.drain?.saturating_add(limits.leaves_for);
                Some(drains.saturating_add(KILL_AFTER))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Limits, Timer};
    use std::time::Duration;

    #[test]
    fn p3_a_child_is_killed_after_its_own_limits_only() {
        let second = Duration::from_secs(1);
        let limits = Limits { drain: Some(30 * second), ..Limits::default() };
        assert_eq!(Timer::Kill(7).after(&limits), Some(35 * second));
        let leaves = Limits { leaves_for: 10 * second, ..limits };
        assert_eq!(Timer::Kill(7).after(&leaves), Some(45 * second));
        assert_eq!(Timer::Kill(7).after(&Limits { drain: None, ..leaves }), None);
    }

    #[test]
    fn a_start_that_took_long_gets_twice_that_time() {
        let second = Duration::from_secs(1);
        let after = |start_took| {
            let limits = Limits { handoff: 10 * second, start_took, ..Limits::default() };
            Timer::Start.after(&limits)
        };
        assert_eq!(after(second), Some(10 * second));
        assert_eq!(after(20 * second), Some(40 * second));
    }
}
