//! What the phases of the daemon's machine are called outside of it: by the program
//! (`seamless::state`), and over the control socket.

/// Where a daemon is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum State {
    /// Until `started` has returned `Ok`. Before `init` as well.
    Starting,
    /// Serving, with a launcher, or about to release it.
    Serving,
    /// Serving without a launcher, until a successor is ready.
    Detached,
    /// Ready to serve again, in case that the successor fails in its
    /// [probation](crate::Config::probation). It completes its work and need not accept new work.
    Standby,
    /// The service is to be down, and everything is served on for
    /// [`leave_time`](crate::Config::leave_time), so that load balancers notice before the drain begins.
    Leaving,
    /// Completing its work; it must not accept new work.
    Draining,
}

/// How a state is written, and whether the `on_shutdown_request` hooks run in it.
const NAMES: [(State, bool, &str); 7] = [
    (State::Starting, false, "starting"),
    (State::Serving, false, "serving"),
    (State::Serving, true, "handing-off"),
    (State::Detached, false, "detached"),
    (State::Standby, false, "standby"),
    (State::Leaving, false, "leaving"),
    (State::Draining, false, "draining"),
];

impl State {
    /// Whether a daemon in this state accepts new work.
    pub fn serves(self) -> bool {
        match self {
            State::Serving | State::Detached | State::Leaving => true,
            State::Starting | State::Standby | State::Draining => false,
        }
    }

    /// The word for it in the status. A daemon that serves and hands off has a word of its own.
    pub(crate) fn name(self, handing_off: bool) -> &'static str {
        let handing_off = handing_off && self == State::Serving;
        let mut names = NAMES.iter();
        let name = names.find(|(state, hands_off, _)| (*state, *hands_off) == (self, handing_off));
        name.expect("each state has a name").2
    }

    /// The state that a word stands for, and whether the daemon hands off.
    pub(crate) fn parse(word: &str) -> Option<(State, bool)> {
        let name = NAMES.iter().find(|(_, _, name)| *name == word)?;
        Some((name.0, name.1))
    }
}

#[cfg(test)]
mod tests {
    use super::{NAMES, State};

    #[test]
    fn only_a_daemon_that_is_started_and_does_not_drain_serves() {
        let all = [
            State::Starting,
            State::Serving,
            State::Detached,
            State::Standby,
            State::Leaving,
            State::Draining,
        ];
        assert_eq!(all.map(State::serves), [false, true, true, false, true, false]);
    }

    #[test]
    fn each_state_has_a_name_that_is_read_again() {
        for (state, handing_off, name) in NAMES {
            assert_eq!(state.name(handing_off), name);
            assert_eq!(State::parse(name), Some((state, handing_off)));
        }
        assert_eq!((State::Draining.name(true), State::parse("resting")), ("draining", None));
    }
}
