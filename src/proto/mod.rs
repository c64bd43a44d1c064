//! The protocol's vocabulary and its two machines.
//!
//! A machine is told what happened and answers with what to do. It reads no clock, does no I/O and
//! logs nothing, so a test can walk every state that it can reach. A timer that fires late is a
//! no-op: the machine looks at its state, never at the time.

pub(crate) mod channel;
pub(crate) mod control;
pub(crate) mod daemon;
pub(crate) mod generation;
pub(crate) mod launcher;
pub(crate) mod paths;
pub(crate) mod sockets;
mod state;
pub(crate) mod supervisor;
pub(crate) mod text;

pub use state::State;

/// Why the drain began.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DrainReason {
    /// A successor is ready and serves.
    TakenOver,
    /// The service is to be down, or nobody came to take over.
    Stopped,
    /// Somebody sent this process TERM or INT.
    Requested,
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
    /// This launcher's own generation: nobody supervises it, so nobody spoke for the others.
    Generation,
}

/// How a supervisor shows its intent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    /// The status byte, written after the signals; else a CONT beside the TERM.
    Daemontools,
    /// The status byte, right already when TERM arrives. CONT says nothing.
    Runit,
    /// As daemontools, with a status of its own format.
    S6,
    /// The unit's job.
    Systemd,
    /// Not at all.
    Supervisord,
    /// Not at all: supervise-daemon.
    OpenRc,
    /// There is no supervisor that restarts: we are PID 1, or its child.
    Nobody,
    /// Unknown, so not at all.
    Other,
}

impl Kind {
    /// Does it send its signals before it writes down what it wants? Then a CONT beside the TERM
    /// says "down" where the status cannot be read.
    pub(crate) fn writes_late(self) -> bool {
        matches!(self, Kind::Daemontools | Kind::S6)
    }

    /// Is it a program that starts services? If it is killed, it will be started again, and starts a
    /// generation then.
    pub(crate) fn is_known_supervisor(self) -> bool {
        !matches!(self, Kind::Nobody | Kind::Other)
    }

    /// Does a supervisor of this kind start a service again that ended by itself?
    pub(crate) fn restarts(self) -> bool {
        match self {
            Kind::Daemontools | Kind::Runit | Kind::S6 => true,
            Kind::Systemd | Kind::Supervisord | Kind::OpenRc | Kind::Nobody | Kind::Other => false,
        }
    }
}

/// One look at the supervisor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Reading {
    /// Its status says: wanted up. To a detached daemon: or what runs now is, if only once.
    Up,
    /// Its status says: wanted down, or up only once.
    Down,
    /// It lives, but has no status that we can read.
    Unreadable,
    /// It is gone.
    Lost,
}

impl Reading {
    /// What `reading as u8` was.
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
    /// `started` has returned, or is about to: it serves, and older generations get TERM next.
    Started,
    /// The launcher may go.
    Released,
    /// A successor serves, and the drain begins for it.
    TakenOver,
    /// The drain began: the launcher's kill timer starts.
    Draining,
    /// Waits for older generations, which have limits of their own: the kill timer stops.
    Waiting,
    /// Asks a launcher that restarts in place for the next generation.
    Reload,
}
