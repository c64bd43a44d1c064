//! Ways to break the protocol on purpose. A checker that finds each of them would also find the
//! same mistake made by accident.

use crate::proto::daemon::{Input as D, Phase, Question, Sender, Sight, Timer as DT};
use crate::proto::launcher::{Input as L, Timer as LT};
use crate::proto::{Intent, Report};
use std::cell::Cell;

/// A mutation inside a machine, or of a step that the machines' driver takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Variant {
    /// `started` sends TERM before its own PID file and record are in place.
    TermBeforeRename,
    /// `started` sends TERM before the state is Serving.
    ServingAfterTerm,
    /// `started` gives up the claim before its file and record are in place.
    ClaimGivenUpEarly,
    /// Nobody waits for the claim.
    NoClaim,
    /// A detached daemon drains some time after its release, as in rs/seamless.
    FixedDrainTimer,
    /// A PID proves who a process is.
    NoStartTickCheck,
    /// USR2 ends a drain, also when the launcher sent it.
    HammerOnLauncherUsr2,
    /// A detached daemon leaves a lost PID file alone.
    LostFileNotPutBack,
    /// A detached daemon looks, decides and acts without holding the claim.
    CheckOutsideClaim,
    /// The launcher reads the status at once where the supervisor writes it after its signals.
    Usr2BeforeSettled,
    /// The check takes a file that names a newer generation for lost.
    PutBackOverNewer,
    /// A TERM of a supervisor that has died since is a stop.
    LastTermIsAStop,
    /// The launcher leaves while a TERM is being understood.
    ExitWhileSettling,
    /// The launcher leaves as soon as it reads the release, before the signals it has taken.
    ReleasedBeforeSignals,
    /// A starting daemon does not care about its launcher's end.
    LauncherGoneIgnoredInStarting,
    /// A serving daemon does not care about its launcher's end.
    LauncherGoneIgnoredInServing,
    /// A generation that serves is still held to the time that its start may take.
    OrphanEndsServing,
    /// A generation that starts for longer than `claim_timeout` ends, whatever its supervisor does.
    SupervisedOrphan,
    /// A stop ends the newest generation only.
    StopNotToldToOlder,
    /// A daemon that is told to stop while it starts ends at once.
    NoStopWhileStarting,
    /// `started` does not make anybody serve.
    NobodyServes,
    /// A check does not care about a newer generation.
    NewerIgnored,
    /// A check does not care about the supervisor's status.
    StatusIgnored,
    /// Who is told to stop while it starts keeps the claim as long as it waits for the older ones.
    ClaimKeptWhileStopping,
    /// A detached daemon waits for ever, whatever the intent.
    OverdueIgnored,
    /// Claims taken meanwhile do not prolong the wait.
    ClaimsMovedIgnored,
    /// A TERM that follows another while it is being understood is dropped.
    AgainIgnored,
    /// A CONT beside the TERM says nothing.
    ContIgnored,
    /// A generation signals every other one, not only the older ones.
    StopsNewer,
    /// A living launcher with a living supervisor of its own is no obstacle.
    ForeignTakenOver,
    /// What cannot be proven counts as proven.
    UnknownIsProven,
    /// Without a proof a generation is signalled, whether it holds the PID file or not.
    LockIgnored,
    /// A PID of another PID namespace means something here.
    ElsewhereIsHere,
    /// A record is believed, whoever may write to it.
    RecordBelieved,
    /// A hook before a signal that hangs holds back the signal for ever.
    HookHoldsForEver,
    /// The launcher ends with 0, however its daemon ended.
    NoMirror,
    /// A daemon that drains does not let its launcher go for a restart.
    DrainKeepsLauncher,
    /// A launcher that restarts in place ends as a new generation that failed.
    CandidateMirrored,
    /// After a new generation has crashed the old one is not current again, though it serves.
    CrashNotMadeGood,
    /// A generation that has started after the TERM is told nothing of it.
    LateCandidateNotTold,
    /// After a start was cancelled for a reload, no other one follows.
    CancelledForGood,
    /// The limit of a cancelled start holds for one that serves.
    CancelKillsServing,
    /// After a stop, those that drain already are not awaited.
    DrainingNotAwaited,
    /// A launcher whose daemon dies after a stop tells the older generations nothing.
    LauncherTellsNobody,
    /// A launcher whose daemon has died ends while a TERM is being understood.
    MirrorsWhileSettling,
    /// A daemon hands off, though its launcher restarts in place.
    HandsOffInPlace,
    /// What arrives for a group goes to its new members before the generation serves.
    SteeredEarly,
    /// New members join a group that the kernel still spreads over all of its members.
    JoinedEarly,
    /// What arrives goes to retired members until the older generations have been told to end.
    SteeredLate,
    /// The control socket is put in place when the older generations have been told to end.
    ListensLate,
    /// What is not asked for is closed when the older generations have been told to end.
    ClosedLate,
    /// What is not asked for stays open.
    UnclaimedKept,
    /// A drain keeps what was held for the successor.
    NeverLetGo,
    /// What is held for the successor is let go with the handoff.
    LetGoAtHandoff,
    /// Whoever listens at the control socket gives.
    TakesFromStrangers,
    /// Where nobody listens, a living predecessor is forgotten.
    BindsBesidePredecessor,
    /// Of a takeover that fails, what had come is kept.
    HalfTaken,
    /// A socket is taken over whose path no longer names it.
    LostPathKept,
    /// A drain that begins before groups are seen to leaves them for later.
    GroupsKept,
    /// A program closes a socket while connections wait there.
    ClosedWithQueue,
    /// The store keeps what nobody asks for.
    StoreNotCleared,
    /// Who waits for older generations to stop goes on asking for sockets.
    SocketsWhileStopping,
    /// The daemon stays in its launcher's process group.
    NoSetsid,
    /// A launcher that leaves exits with 0, whatever its supervisor expects.
    ReleaseCodeIgnored,
    /// The job of a unit says nothing.
    JobIgnored,
    /// A unit that systemd is about to start again counts as stopped.
    BetweenIsDown,
    /// After a crash nobody keeps the sockets.
    NoKeeper,
    /// The launcher ends before the keeper is in place.
    KeeperNotAwaited,
    /// A launcher keeps its duplicates when the daemon drains.
    DuplicatesKept,
    /// A generation gives its sockets to its launcher when the older ones have been told to end.
    GivenLate,
    /// A keeper does not care about TERM.
    KeeperDeaf,
    /// A keeper does not care about the supervisor's status.
    KeeperOutstays,
    /// A keeper whose control socket was replaced does not put it back.
    KeeperNotMended,
    /// A generation that stands by does not notice the end of the other one.
    StandbyDeaf,
    /// A generation that stands by, and cannot see whether a newer one lives, goes on standing by.
    UnknownStandsBy,
    /// A generation that has failed does not wait until the other one serves.
    DrainsBeforeResumed,
    /// A check takes a generation on probation for one that has taken over.
    ProbationIsNewer,
    /// `successor_timeout` counts while a process waits in `init`.
    CandidateIgnored,
    /// A probation in which the new generation was silent goes on.
    PauseIgnored,
    /// A generation that was rolled back while it hung commits.
    RolledBackCommits,
    /// A takeover on probation ends the one that is to stand by.
    StandbyTermed,
    /// A successor's TERM is taken for a stop.
    LeavesForSuccessor,
    /// The older generations are told when the leaving is over.
    LeavesWithOlder,
    /// The launcher does not learn that its daemon leaves.
    LeavingNotReported,
    /// The old side takes back what is in doubt after a while.
    SilenceDecides,
    /// A TERM is a successor's only if the PID file names the sender when it is heard.
    OnlyTheNamed,
    /// It does not read what the successor sent before its end.
    EndDecides,
    /// The successor reads from a connection before it has answered.
    ReadsAtOnce,
    /// The successor keeps connections although descriptors are lost.
    LossIgnored,
    /// The successor drops what it has kept if the old side has ended.
    NeedsAnAudience,
    /// A generation that serves closes the members of the older ones.
    OwnMembersOnly,
    /// The members of a generation that has ended are closed.
    FreeMembersClosed,
    /// Whoever sees the end of another generation writes the program.
    AnybodySteers,
    /// A generation that has told another one to serve in its place may write the program.
    FailedOneSteers,
    /// The one that stands by does not get the members of the new one.
    StandbyLacksMembers,
    /// The one that serves again does not write the program, neither at once nor under the claim.
    RollbackSteersNothing,
    /// One that is heard again does not get the new flows.
    HeardAgainIgnored,
    /// A commit does not write the program.
    CommitSteersNothing,
    /// A check does not care about the flows of a generation that has gone.
    CheckSteersNothing,
    /// A row of a machine's table is missing.
    Deaf(Row),
}

impl Variant {
    /// A launcher makes up for a daemon that does not tell the older generations of a stop. What a daemon has to do
    /// is looked at without that.
    pub(crate) fn silences_launchers(self) -> bool {
        matches!(
            self,
            Variant::LauncherTellsNobody
                | Variant::StopNotToldToOlder
                | Variant::NoStopWhileStarting
                | Variant::Deaf(Row::Daemon(..))
        )
    }
}

thread_local! {
    static BROKEN: Cell<Option<Variant>> = const { Cell::new(None) };
}

/// Breaks the protocol on this thread, or mends it.
pub(crate) fn set(variant: Option<Variant>) {
    BROKEN.set(variant);
}

/// How the protocol is broken on this thread, if it is.
pub(crate) fn broken() -> Option<Variant> {
    BROKEN.get()
}

/// Is the protocol broken in this way, on this thread?
pub(crate) fn is(variant: Variant) -> bool {
    BROKEN.get() == Some(variant)
}

// ---- a row deleted ----

/// A row of a machine's table, by the names below: an event, and for the daemon its phase.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Row {
    Daemon(&'static str, &'static str),
    Launcher(&'static str),
}

fn phase_name(phase: Phase) -> &'static str {
    match phase {
        Phase::Starting => "Starting",
        Phase::StoppingEarly => "StoppingEarly",
        Phase::Serving => "Serving",
        Phase::HandingOff => "HandingOff",
        Phase::Detached => "Detached",
        Phase::Leaving(_) => "Leaving",
        Phase::Draining(_) => "Draining",
        Phase::AwaitingOlder(_) => "AwaitingOlder",
        Phase::Finished => "Finished",
        Phase::Ended => "Ended",
    }
}

fn daemon_event(input: &D) -> &'static str {
    match input {
        D::Claimed => "claimed",
        D::Usr2(Sender::Launcher { .. }) => "USR2 of the launcher",
        D::Usr2(Sender::Successor | Sender::Unlisted | Sender::Other) => "USR2 of somebody",
        D::Term(_) => "TERM",
        D::Reload => "reload signal",
        D::Halt(_) => "stop signal",
        D::Prepare => "told to prepare",
        D::Told(Intent::Restart | Intent::Unknown) => "told to restart",
        D::Told(Intent::Stop(_)) => "told to stop",
        D::Cancelled => "cancelled",
        D::LauncherGone => "launcher gone",
        D::ReloadFailed => "reload failed",
        D::Restart => "restart()",
        D::RequestHooksDone => "request hooks done",
        D::DrainHooksDone => "drain hooks done",
        D::OlderTold { .. } => "older told",
        D::OlderGone => "older gone",
        D::Status(Question::OfLauncher, _) => "status of the launcher",
        D::Status(Question::OfService, _) => "status of the service",
        D::Checked(Sight::ClaimHeld) => "claim held",
        D::Checked(Sight::Unknown) => "saw nothing",
        D::Checked(Sight::NoRecord { .. }) => "found no record",
        D::Checked(Sight::Seen(_)) => "checked",
        D::Timer(DT::Check) => "check timer",
        D::Timer(DT::Successor) => "successor timer",
        D::Timer(DT::Leave) => "leave timer",
        D::Timer(DT::Drain) => "drain timer",
        D::Timer(DT::Orphan) => "orphan timer",
        D::Timer(DT::TellOlder) => "timer for the older ones",
        D::Timer(_) => "timer of a probation",
        D::Probation(_) => "probation",
    }
}

fn launcher_event(input: L) -> &'static str {
    match input {
        L::Report(_, Report::Ready) => "ready",
        L::Report(_, Report::Started) => "started",
        L::Report(_, Report::Released) => "released",
        L::Report(_, Report::TakenOver) => "taken over",
        L::Report(_, Report::Leaving) => "leaving",
        L::Report(_, Report::Draining) => "draining",
        L::Report(_, Report::Waiting) => "waiting",
        L::Report(_, Report::Reload) => "asked to reload",
        L::Report(_, Report::Prepared) => "prepared",
        L::Report(_, Report::Unhandled) => "stop signal unhandled",
        L::Report(_, Report::Probation) => "on probation",
        L::Report(_, Report::Committed) => "committed",
        L::Report(_, Report::RolledBack) => "rolled back",
        L::Report(_, Report::Resumed) => "serves again",
        L::ChannelClosed(_) => "channel closed",
        L::Ended(..) => "daemon ended",
        L::Reload => "reload",
        L::Spawned(_) => "spawned",
        L::Term { .. } => "TERM",
        L::Cont { .. } => "CONT",
        L::Restart(_) => "USR2",
        L::Halt(_) => "stop signal",
        L::Signal { .. } => "signal",
        L::Status(_) => "status",
        L::Timer(LT::Cont) => "cont timer",
        L::Timer(LT::Settle) => "settle timer",
        L::Timer(LT::Handoff) => "handoff timer",
        L::Timer(LT::Cancel) => "cancel timer",
        L::Timer(LT::Gather) => "gather timer",
        L::Timer(LT::Prepare) => "prepare timer",
        L::Timer(LT::Start) => "start timer",
        L::Timer(LT::Overdue) => "overdue timer",
        L::Timer(LT::Keeper) => "keeper timer",
        L::Timer(LT::TellOlder) => "timer for the older ones",
        L::Given(_) => "given",
        L::NoneGiven(_) => "none given",
        L::NeedsNoKeeper(_) => "needs no keeper",
        L::Keeper(_) => "keeper",
        L::OlderTold { .. } => "older told",
        L::OlderGone => "older gone",
        L::Timer(LT::Kill(_)) => "kill timer",
        L::Quiet => "quiet",
    }
}

impl Row {
    pub(crate) fn is_daemon(self, phase: Phase, input: &D) -> bool {
        self == Row::Daemon(phase_name(phase), daemon_event(input))
    }

    pub(crate) fn is_launcher(self, input: L) -> bool {
        self == Row::Launcher(launcher_event(input))
    }
}
