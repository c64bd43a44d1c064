//! The daemon's timers, and when each of them fires. Arming one anew replaces it.

use std::time::Duration;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Timer {
    /// Check again.
    Check,
    /// `successor_timeout`.
    Successor,
    /// `leave_time`.
    Leave,
    /// `drain_timeout`.
    Drain,
    /// `claim_timeout`, since we took the claim.
    Orphan,
    /// The older generations are told again.
    TellOlder,
    /// `Config::probation`.
    Probation,
    /// Commit again: the claim was held.
    CommitSoon,
    /// The same: the record could not be written, or a newer generation lived.
    CommitLater,
    /// Say that we are well.
    Well,
    /// The generation that we stand by for has not said that it is well.
    Silence,
    /// The same, for a shorter time. Is it about to die?
    Dump,
    /// `handoff_timeout`, since the `on_shutdown_request` hooks of a rollback run.
    RollBack,
    /// The generation that stands by has not said that it serves again.
    Resumed,
    /// Take PID file and control socket back again: the claim was held.
    TakeBackSoon,
    /// The same: a file could not be written.
    TakeBackLater,
}

/// What the program has configured, or left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Limits {
    pub(crate) successor: Option<Duration>,
    pub(crate) claim: Option<Duration>,
    pub(crate) handoff: Duration,
    pub(crate) leave: Duration,
    pub(crate) drain: Option<Duration>,
    pub(crate) probation: Option<Duration>,
}

const SECOND: Duration = Duration::from_secs(1);
/// The claim is held for some milliseconds, if the one that starts does not hang.
const SOON: Duration = Duration::from_millis(20);
/// After this silence the generation that stands by serves beside the one on probation.
pub(super) const SILENCE: Duration = Duration::from_secs(2);

impl Timer {
    /// How long after it was armed it fires. `None`: never.
    pub(crate) fn after(self, limits: &Limits) -> Option<Duration> {
        match self {
            Timer::Successor => limits.successor,
            Timer::Leave => Some(limits.leave),
            Timer::Drain => limits.drain,
            Timer::Orphan => limits.claim,
            Timer::Probation => limits.probation,
            Timer::RollBack => Some(limits.handoff),
            Timer::Check | Timer::TellOlder => Some(SECOND),
            Timer::CommitLater | Timer::TakeBackLater | Timer::Resumed => Some(SECOND),
            Timer::CommitSoon | Timer::TakeBackSoon => Some(SOON),
            Timer::Well => Some(Duration::from_millis(100)),
            Timer::Dump => Some(Duration::from_millis(300)),
            Timer::Silence => Some(SILENCE),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Limits, Timer};

    #[test]
    fn p11_silence_is_more_than_a_word_that_comes_late() {
        let after = |timer: Timer| timer.after(&Limits::default()).expect("it fires");
        assert!(after(Timer::Well) * 3 <= after(Timer::Dump));
        assert!(after(Timer::Well) * 10 <= after(Timer::Silence));
    }

    #[test]
    fn what_is_not_configured_never_fires() {
        let after = |timer: Timer| timer.after(&Limits::default());
        for timer in [Timer::Successor, Timer::Drain, Timer::Orphan, Timer::Probation] {
            assert_eq!(after(timer), None, "{timer:?}");
        }
    }
}
