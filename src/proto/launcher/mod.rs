//! The launcher: what a TERM means, what happens to its children, and when it ends itself.
//!
//! `intent` finds out what a TERM means. `children` knows which child is current, which ones have to
//! end, and which one the launcher ends like. `keep` knows whose sockets the launcher holds, and starts the
//! keeper after a crash. `timers` says how long each limit is. `machine` joins them.

mod children;
mod intent;
mod keep;
mod machine;
pub(crate) mod timers;

pub(crate) use machine::Launcher;
pub(crate) use timers::Timer;

use super::{End, Intent, Reading, Report};

/// What happened to the launcher.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Input {
    /// A message of a child.
    Report(Child, Report),
    /// A child's end of its channel is closed.
    ChannelClosed(Child),
    /// `waitpid` returned a child.
    Ended(Child, End),
    /// The answer to [`Output::Start`]; `None`: the program could not be executed.
    Spawned(Option<Child>),
    /// A reload signal.
    Reload,
    /// A signal that is passed on and asks for a restart: USR2.
    Restart(i32),
    /// A signal that asks for a stop, unless the program handles it: QUIT, PWR.
    Halt(i32),
    /// TERM, and who sent it.
    Term { from: i32 },
    /// CONT, and who sent it. It is forwarded as well: fed in a second time as a `Signal`.
    Cont { from: i32 },
    /// Any other signal that is passed on. `to_all`: to every child that handles it, since the program
    /// wants that; otherwise to the one that serves.
    Signal { signal: i32, to_all: bool },
    /// The answer to [`Output::ReadStatus`].
    Status(Reading),
    /// A timer fired.
    Timer(Timer),
    /// A child has given its sockets.
    Given(Child),
    /// A child has given anew: nothing is to outlive its crash any more.
    NoneGiven(Child),
    /// The supervisor keeps the sockets of this child, or would end a keeper at once.
    NeedsNoKeeper(Child),
    /// What came of [`Output::Keep`].
    Keeper(Keeper),
    /// The answer to [`Output::StopOlder`]. `awaited`: some of them live, and their end is awaited. `again`: not
    /// all could be told, because the system is out of descriptors or memory.
    OlderTold { awaited: bool, again: bool },
    /// Every older generation whose end is awaited has ended.
    OlderGone,
    /// The channels and the signals of this wake-up have all been fed in. A launcher leaves only
    /// here, so that a TERM which came together with the release is never left unread.
    Quiet,
}

/// How far the keeper has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Keeper {
    /// It holds the sockets, and the next start finds it.
    InPlace,
    /// It has ended, or could not be started.
    Gone,
}

/// What the launcher has to do, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Output {
    /// Look at the supervisor and feed in [`Input::Status`].
    ReadStatus,
    /// Tell a child the intent, over its channel.
    Tell(Child, Intent),
    /// USR2, after the intent.
    Handoff(Child),
    /// TERM, after the intent.
    Stop(Child),
    /// Tell a child that is starting to end, and send USR2. If it has no handlers yet, the signal ends it;
    /// if it serves by now, nothing does.
    Cancel(Child),
    /// Tell a child, over its channel, that it has been taken over.
    TellTakenOver(Child),
    /// Tell a child, over its channel, that a restart in place is about to begin. It answers with
    /// [`Report::Prepared`].
    Prepare(Child),
    /// KILL: it did not keep to a limit.
    Kill(Child, Timer),
    /// The same signal to the child.
    Forward(Child, i32),
    /// The same, if the program handles that signal there: a child that drains must not die of it.
    ForwardIfHandled(Child, i32),
    /// Start the program once more, and feed in [`Input::Spawned`].
    Start,
    /// Close what this child has given.
    DropSockets(Child),
    /// Send to a child that is starting what one has given that has ended: all of it, even if that is
    /// nothing.
    PassSockets {
        from: Child,
        to: Child,
    },
    /// Start the keeper with what this child has given, and feed in [`Input::Keeper`].
    Keep(Child),
    /// TERM to the keeper.
    EndKeeper,
    /// KILL to the keeper.
    KillKeeper,
    /// Send TERM to every generation that is older than this launcher, and feed in [`Input::OlderTold`]; later
    /// [`Input::OlderGone`].
    StopOlder,
    /// For all who want to know.
    Progress(Progress),
    Arm(Timer),
    Disarm(Timer),
    /// Exit 0; this child is detached. `expired`: without its release.
    Leave {
        child: Child,
        expired: bool,
    },
    /// End as this child ended.
    Mirror(Child, End),
}

/// A child, by its PID.
pub(crate) type Child = i32;

/// How far the service has come: for the log, for the generation that serves, and for a supervisor that
/// takes notifications.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Progress {
    /// A reload has begun: the program is about to be started.
    Reloading,
    /// This child has started: the first one, or a reload has succeeded.
    Serving(Child),
    /// A reload has failed. The current one, if there is one, serves on.
    ReloadFailed(Failure),
    ReloadRefused(Refusal),
    /// The current one has ended while another is starting, whose outcome is awaited.
    CurrentEnded(Child, End),
    /// The current one serves on for a while, and drains then.
    Leaving(Child),
    /// The current one drains, and not for a successor.
    Draining(Child),
    /// The service is to be down, and this child has been told.
    Stopping(Child),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Failure {
    /// The program could not be executed.
    NotStarted,
    /// It ended before it had started, or when its predecessor still served.
    Ended(Child, End),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Refusal {
    /// As many generations drain as are allowed to.
    Draining,
    /// A TERM was understood: the launcher is about to leave, or the service to be down.
    Leaving,
}

/// How a launcher restarts in place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct InPlace {
    /// How many generations may drain at once; `None`: any number.
    pub(crate) max_draining: Option<usize>,
}
