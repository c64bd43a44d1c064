//! How long a stop may leave and drain, if the supervisor gives it a limit of its own.

use std::time::Duration;

/// What a stop has time for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    /// How long everything is served on.
    pub(crate) leave: Duration,
    /// How long the drain may take after that. `None`: without a limit.
    pub(crate) drain: Option<Duration>,
}

/// What is known when the service is told to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limits {
    /// `leave_time`.
    pub(crate) leave: Duration,
    /// `drain_timeout`.
    pub(crate) drain: Option<Duration>,
    /// After that time the supervisor KILLs. `None`: unknown, or never.
    pub(crate) stop: Option<Duration>,
    /// The supervisor is asked for more time, as long as the service itself limits its drain.
    pub(crate) extends: bool,
}

/// So much of the supervisor's time is left for the end of the process: a tenth, and at most this.
const MARGIN: Duration = Duration::from_secs(5);

impl Limits {
    /// A drain keeps the time that its own limit gives it; without one it gets half of the supervisor's.
    pub(crate) fn plan(self) -> Plan {
        let Limits { leave, drain, stop, extends } = self;
        let Some(stop) = stop.filter(|_| !(extends && drain.is_some())) else {
            return Plan { leave, drain };
        };
        let usable = stop.saturating_sub((stop / 10).min(MARGIN));
        let for_drain = drain.unwrap_or(usable / 2).min(usable);
        let leave = leave.min(usable.saturating_sub(for_drain));
        let left = usable.saturating_sub(leave);
        Plan { leave, drain: Some(drain.map_or(left, |drain| drain.min(left))) }
    }
}

#[cfg(test)]
mod tests {
    use super::{Limits, Plan};
    use std::time::Duration;

    fn seconds(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    #[test]
    fn a_stop_ends_within_the_limit_of_the_supervisor() {
        for (leave, drain, stop, extends, expected) in [
            // Nothing is known, or more time is asked for.
            (10, None, None, false, (10, None)),
            (10, Some(60), None, false, (10, Some(60))),
            (10, Some(600), Some(90), true, (10, Some(600))),
            // Both fit.
            (10, Some(60), Some(90), false, (10, Some(60))),
            // The drain has the precedence.
            (60, Some(60), Some(90), false, (25, Some(60))),
            (60, Some(600), Some(90), false, (0, Some(85))),
            // Without a limit of its own nothing is asked for, and the rest is the drain's.
            (10, None, Some(90), true, (10, Some(75))),
            (60, None, Some(90), false, (42, Some(43))),
            (5, None, Some(10), false, (4, Some(5))),
            (5, None, Some(0), false, (0, Some(0))),
        ] {
            let limits = Limits {
                leave: seconds(leave),
                drain: drain.map(seconds),
                stop: stop.map(seconds),
                extends,
            };
            let Plan { leave, drain } = limits.plan();
            let whole = (leave.as_secs(), drain.map(|drain| drain.as_secs_f64().round() as u64));
            assert_eq!(whole, expected, "{limits:?}");
        }
    }
}
