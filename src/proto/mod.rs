//! The protocol's vocabulary and its two machines.
//!
//! A machine is told what happened, and answers with what to do. It reads no clock, does no I/O and logs
//! nothing, so a test can walk every state that it can reach. A timer that fires late has no effect: the
//! machine looks at its state, never at the time.

pub(crate) mod channel;
pub(crate) mod control;
pub(crate) mod counters;
pub(crate) mod daemon;
pub(crate) mod flows;
pub(crate) mod generation;
pub(crate) mod keeper;
pub(crate) mod launcher;
mod names;
mod older;
pub(crate) mod paths;
pub(crate) mod role;
pub(crate) mod shell;
pub(crate) mod sockets;
mod state;
pub(crate) mod supervisor;
pub(crate) mod text;
#[cfg(feature = "tls")]
pub(crate) mod tickets;

pub use state::State;
pub(crate) use supervisor::Kind;

/// Why the drain began.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DrainReason {
    /// A successor is ready and serves.
    TakenOver,
    /// The service is to be down, or no successor has come.
    Stopped,
    /// An operator or another process sent TERM or INT to this process.
    Requested,
    /// This generation failed in its [probation](crate::Config::probation), and its predecessor serves again.
    RolledBack,
}

/// What happens if as many generations drain as [`max_draining`](crate::Config::max_draining) allows, and a
/// further one would have to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TooMany {
    /// The new generation is refused: [`init`](crate::init) fails in it with
    /// [`ErrorKind::TooManyDraining`](crate::ErrorKind::TooManyDraining), and the old one serves on.
    Refuse,
    /// The new generation takes over, and forces the oldest one to end, as its hammer would: what that one
    /// has in flight is cut.
    EndOldest,
}

/// What the supervisor means by a TERM.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Intent {
    /// It starts the service again as soon as the launcher has ended.
    Restart,
    /// The service is to be down; the scope says how much of it.
    Stop(Scope),
    /// It did not say. Handled as a restart; the detached daemon's wait decides.
    Unknown,
}

/// How far a stop reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Scope {
    /// Every generation of the service.
    Service,
    /// This launcher's own generation only. It has no supervisor that could have meant the others.
    Generation,
}

/// What the supervisor wants, as far as it can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Reading {
    /// It wants the service up. To a detached daemon also: it wants the process up that runs now, if only
    /// once.
    Up,
    /// It wants the service down, or up only once.
    Down,
    /// It lives, but has no status that we can read.
    Unreadable,
    /// It has ended.
    Lost,
}

impl Reading {
    /// What a detached daemon reads once the supervisor that started its launcher has ended. `now`: what another
    /// supervisor says that looks after the service folder by now. `left`: what the ended one wrote last, if the
    /// service did not run then.
    pub(crate) fn after_loss(now: Option<Reading>, left: Option<Reading>) -> Reading {
        match (now, left) {
            (Some(reading), _) => reading,
            // It may have taken the service down before it ended (`svc -dx`, `sv exit`).
            (None, Some(Reading::Down)) => Reading::Down,
            (None, Some(_) | None) => Reading::Lost,
        }
    }

    /// The reverse of `reading as u8`.
    pub(crate) fn from_byte(byte: u8) -> Reading {
        let all = [Reading::Up, Reading::Down, Reading::Unreadable, Reading::Lost];
        all.into_iter().find(|one| *one as u8 == byte).unwrap_or(Reading::Unreadable)
    }
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum End {
    Code(i32),
    Signal(i32),
}

/// What the daemon tells its launcher.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Report {
    /// The handlers are installed: USR2 and TERM are safe to send.
    Ready,
    /// It is about to serve on probation: what comes next is [`Report::Started`].
    Probation,
    /// The probation is over: it has taken over.
    Committed,
    /// The probation is over: it failed, and its predecessor serves again. It drains next.
    RolledBack,
    /// It has stood by, and serves again.
    Resumed,
    /// `started` has returned, or is about to: it serves, and older generations get TERM next.
    Started,
    /// The launcher may go.
    Released,
    /// A successor serves, and the drain begins for it.
    TakenOver,
    /// The service is to be down, and everything is served on for a while: the launcher's kill timer moves.
    Leaving,
    /// The drain began: the launcher's kill timer starts.
    Draining,
    /// Waits for older generations, which have limits of their own: the kill timer stops.
    Waiting,
    /// Asks a launcher that restarts in place for the next generation.
    Reload,
    /// The answer to [`launcher::Output::Prepare`]: the `on_shutdown_request` hooks have returned.
    Prepared,
    /// The launcher has passed on a signal that asks for a stop, and the program does not handle it.
    Unhandled,
}

/// Of words for people: none is empty, and no two are the same.
#[cfg(test)]
pub(crate) fn are_told_apart<T: ToString>(words: impl IntoIterator<Item = T>) -> bool {
    let words: Vec<String> = words.into_iter().map(|word| word.to_string()).collect();
    let different: std::collections::BTreeSet<&String> = words.iter().collect();
    different.len() == words.len() && words.iter().all(|word| !word.is_empty())
}

#[cfg(test)]
mod tests {
    use super::Reading;

    #[test]
    fn a_reading_is_kept_in_a_byte_and_any_other_byte_tells_nothing() {
        for reading in [Reading::Up, Reading::Down, Reading::Unreadable, Reading::Lost] {
            assert_eq!(Reading::from_byte(reading as u8), reading);
        }
        assert_eq!(Reading::from_byte(u8::MAX), Reading::Unreadable);
    }

    #[test]
    fn p8_the_supervisor_in_the_place_of_one_that_has_ended_decides() {
        use Reading::{Down, Lost, Up};
        for left in [None, Some(Up), Some(Down)] {
            assert_eq!(Reading::after_loss(Some(Up), left), Up);
            assert_eq!(Reading::after_loss(Some(Down), left), Down);
        }
        assert_eq!(Reading::after_loss(None, Some(Down)), Down);
        assert_eq!(Reading::after_loss(None, Some(Up)), Lost);
        assert_eq!(Reading::after_loss(None, None), Lost);
    }
}
