//! The checker can fail: it finds each way to break the protocol, and tells how.

use super::net::Sockets;
use super::steps::Action;
use super::supervisors::Manner;
use super::walks::{
    FEWER, FEWER_MEMBERS, MORE_MEMBERS, NO_OTHERS, NONE, ONE_THEN_TWO, SAME, STORED, UNIX, is_deep,
    print,
};
use super::world::{Budget, Promise, RecordOf, Setting};
use crate::proto::Kind;
use crate::variants::Row::{self, Daemon, Launcher};
use crate::variants::Variant::{self, *};
use crate::{Protocol, Test, net, tests, trace};
use Promise::{P1, P2, P3, P4, P5, P6, P8, P11, P12, P13, P14};
use stateright::{Checker, HasDiscoveries, Model};
use std::time::Instant;

pub(crate) const ALL: &[Test] = tests![
    every_broken_variant_is_found,
    every_deleted_row_is_found,
    a_trace_can_be_read,
    net::a_socket_of_the_model_has_a_name_in_the_store,
];

const fn of(kind: Kind, readable: bool, starts: u8, budget: Budget) -> Setting {
    Setting::new(kind, readable, starts, budget)
}

const fn daemontools(budget: Budget) -> Setting {
    of(Kind::DAEMONTOOLS, true, 3, budget)
}

const fn unreadable(budget: Budget) -> Setting {
    of(Kind::DAEMONTOOLS, false, 3, budget)
}

const fn other(budget: Budget) -> Setting {
    of(Kind::OTHER, false, 3, budget)
}

/// The only generation that will ever be.
const fn alone(budget: Budget) -> Setting {
    of(Kind::DAEMONTOOLS, true, 1, budget)
}

/// No more than two generations.
const fn two(budget: Budget) -> Setting {
    of(Kind::DAEMONTOOLS, true, 2, budget)
}

/// In a container, below a launcher that restarts in place.
const fn in_place(budget: Budget) -> Setting {
    Setting { in_place: true, ..of(Kind::NOBODY, false, 3, budget) }
}

/// The same, and somebody removes the control socket.
const fn in_place_without_socket() -> Setting {
    Setting { sockets: Some(SAME), ..in_place(Budget { removals: 1, ..RELOAD }) }
}

/// The same, where a supervisor tells what it wants.
const fn in_place_supervised(budget: Budget) -> Setting {
    Setting { in_place: true, ..two(budget) }
}

const fn in_place_under_daemontools(budget: Budget) -> Setting {
    Setting { in_place: true, ..daemontools(budget) }
}

/// Without pidfds.
const fn by_lock(budget: Budget) -> Setting {
    Setting { by_lock: true, ..daemontools(budget) }
}

/// With a record of another user.
const fn of_another(budget: Budget) -> Setting {
    Setting { record: RecordOf::Another, ..daemontools(budget) }
}

/// Without access to the lock file.
const fn shut_out(budget: Budget) -> Setting {
    Setting { shut_out: true, ..two(budget) }
}

/// With hooks before signals.
const fn hooked(budget: Budget) -> Setting {
    Setting { hooks: true, ..daemontools(budget) }
}

/// Under daemontools, with these sockets.
const fn sockets(sockets: Sockets, starts: u8, budget: Budget) -> Setting {
    Setting { sockets: Some(sockets), ..of(Kind::DAEMONTOOLS, true, starts, budget) }
}

/// The same with a keeper, and one socket.
const fn keeping(starts: u8, budget: Budget) -> Setting {
    Setting { keeps: true, ..sockets(SAME, starts, budget) }
}

/// Two generations, of which the second one has to prove itself.
const fn on_probation(budget: Budget) -> Setting {
    Setting { probation: true, ..two(budget) }
}

/// Two generations with open connections, which move.
const fn moving(budget: Budget) -> Setting {
    Setting { moves: true, ..two(budget) }
}

/// With a steered group.
const fn steered(budget: Budget) -> Setting {
    Setting { flows: Some(ONE_THEN_TWO), ..sockets(NO_OTHERS, 3, budget) }
}

/// The same, and each has to prove itself.
const fn steered_on_probation(budget: Budget) -> Setting {
    Setting { probation: true, ..steered(budget) }
}

/// Two generations that serve on for a while when they are told to stop.
const fn leaving(budget: Budget) -> Setting {
    Setting { leaves: true, ..two(budget) }
}

const fn under(kind: Kind, manner: Manner, readable: bool, starts: u8, budget: Budget) -> Setting {
    Setting { manner, ..of(kind, readable, starts, budget) }
}

const fn systemd(starts: u8, budget: Budget) -> Setting {
    of(Kind::SYSTEMD, true, starts, budget)
}

const RELOAD: Budget = Budget { reloads: 1, ..NONE };
const RESTART: Budget = Budget { commands: 1, ..NONE };
const TWICE: Budget = Budget { commands: 2, ..NONE };
const BUSY: Budget = Budget { connections: 1, ..RESTART };
const KILL: Budget = Budget { kills: 1, ..NONE };

/// Each variant, which promise it breaks, and what it takes to see that.
static VARIANTS: [(Variant, Promise, Setting); 103] = [
    (OnlyTheNamed, P13, daemontools(TWICE)),
    (SilenceDecides, P13, moving(Budget { limits: 1, ..RESTART })),
    (EndDecides, P13, moving(Budget { kills: 1, ..RESTART })),
    (ReadsAtOnce, P13, moving(Budget { kills: 1, ..RESTART })),
    (LossIgnored, P13, moving(Budget { cuts: 1, ..RESTART })),
    (NeedsAnAudience, P13, moving(Budget { kills: 1, ..RESTART })),
    (LeavesForSuccessor, P4, leaving(RESTART)),
    (LeavesWithOlder, P6, leaving(TWICE)),
    (LeavingNotReported, P3, leaving(Budget { limits: 1, ..RESTART })),
    (LauncherTellsNobody, P6, daemontools(Budget { kills: 1, ..TWICE })),
    (
        LauncherTellsNobody,
        P6,
        Setting { probation: true, ..daemontools(Budget { kills: 1, ..TWICE }) },
    ),
    (MirrorsWhileSettling, P6, daemontools(Budget { kills: 1, ..TWICE })),
    (StandbyDeaf, P6, on_probation(Budget { kills: 1, ..RESTART })),
    (UnknownStandsBy, P6, on_probation(Budget { kills: 1, short: 1, ..RESTART })),
    (DrainsBeforeResumed, P1, on_probation(Budget { bad: 1, ..RESTART })),
    (ProbationIsNewer, P11, on_probation(Budget { kills: 1, ..RESTART })),
    (StandbyTermed, P11, on_probation(Budget { kills: 1, ..RESTART })),
    (CandidateIgnored, P1, Setting { probation: true, ..other(Budget { waits: 1, ..RESTART }) }),
    (PauseIgnored, P11, on_probation(Budget { limits: 1, ..RESTART })),
    (RolledBackCommits, P11, on_probation(Budget { bad: 1, ..RESTART })),
    (NoKeeper, P12, keeping(2, KILL)),
    (KeeperNotAwaited, P12, keeping(2, KILL)),
    (GivenLate, P12, keeping(2, Budget { commands: 1, ..KILL })),
    (KeeperDeaf, P4, keeping(2, KILL)),
    (KeeperOutstays, P6, keeping(2, Budget { commands: 1, ..KILL })),
    (KeeperNotMended, P4, keeping(2, Budget { kills: 2, ..NONE })),
    (DuplicatesKept, P2, Setting { keeps: true, sockets: Some(FEWER), ..in_place(RELOAD) }),
    (UnknownIsProven, P5, by_lock(Budget { reuses: 1, ..KILL })),
    (LockIgnored, P5, by_lock(Budget { reuses: 1, ..KILL })),
    (ElsewhereIsHere, P5, daemontools(Budget { elsewhere: 1, ..NONE })),
    (RecordBelieved, P5, of_another(Budget { planted: 1, ..NONE })),
    (HookHoldsForEver, P4, hooked(RESTART)),
    (TermBeforeRename, P1, daemontools(RESTART)),
    (ServingAfterTerm, P1, daemontools(RESTART)),
    (ClaimGivenUpEarly, P4, daemontools(Budget { slow: 1, ..KILL })),
    (NoClaim, P4, daemontools(Budget { kills: 2, ..NONE })),
    (FixedDrainTimer, P1, daemontools(RESTART)),
    (NoStartTickCheck, P5, daemontools(Budget { reuses: 1, ..KILL })),
    (HammerOnLauncherUsr2, P3, daemontools(Budget { direct: 1, ..RESTART })),
    (LostFileNotPutBack, P4, alone(Budget { removals: 1, ..KILL })),
    (CheckOutsideClaim, P1, daemontools(RESTART)),
    (Usr2BeforeSettled, P6, daemontools(TWICE)),
    (PutBackOverNewer, P4, daemontools(RESTART)),
    (LastTermIsAStop, P1, daemontools(Budget { kills: 1, ..RESTART })),
    (ExitWhileSettling, P6, daemontools(TWICE)),
    (ReleasedBeforeSignals, P6, daemontools(TWICE)),
    (LauncherGoneIgnoredInStarting, P8, daemontools(Budget { bad: 1, ..KILL })),
    (LauncherGoneIgnoredInServing, P8, alone(KILL)),
    (OrphanEndsServing, P1, daemontools(Budget { bad: 1, ..NONE })),
    (SupervisedOrphan, P4, in_place_under_daemontools(Budget { bad: 1, ..RELOAD })),
    (StopNotToldToOlder, P6, daemontools(TWICE)),
    (NoStopWhileStarting, P6, daemontools(TWICE)),
    (NobodyServes, P1, daemontools(NONE)),
    (NewerIgnored, P4, daemontools(Budget { losses: 1, ..RESTART })),
    (StatusIgnored, P6, daemontools(TWICE)),
    (ClaimKeptWhileStopping, P6, daemontools(Budget { losses: 1, kills: 1, ..TWICE })),
    (OverdueIgnored, P6, other(RESTART)),
    (ClaimsMovedIgnored, P1, other(Budget { bad: 1, ..RESTART })),
    (AgainIgnored, P6, daemontools(TWICE)),
    (ContIgnored, P6, unreadable(RESTART)),
    (StopsNewer, P4, daemontools(Budget { commands: 1, kills: 1, direct: 1, ..NONE })),
    (ForeignTakenOver, P5, daemontools(Budget { by_hand: 1, ..NONE })),
    (NoMirror, P6, daemontools(KILL)),
    (DrainKeepsLauncher, P1, alone(Budget { direct: 1, ..RESTART })),
    (CandidateMirrored, P1, in_place(Budget { bad: 1, ..RELOAD })),
    (CrashNotMadeGood, P4, in_place(Budget { commands: 1, kills: 1, ..RELOAD })),
    (LateCandidateNotTold, P4, in_place_supervised(Budget { commands: 1, ..RELOAD })),
    (CancelledForGood, P4, in_place(RELOAD)),
    (CancelKillsServing, P1, in_place(RELOAD)),
    (DrainingNotAwaited, P3, in_place(Budget { commands: 1, ..RELOAD })),
    (HandsOffInPlace, P1, in_place(Budget { direct: 1, ..NONE })),
    (SteeredEarly, P2, sockets(MORE_MEMBERS, 3, Budget { bad: 1, ..BUSY })),
    (JoinedEarly, P2, sockets(MORE_MEMBERS, 3, Budget { bad: 1, ..BUSY })),
    (SteeredLate, P2, sockets(FEWER_MEMBERS, 2, BUSY)),
    (ListensLate, P4, sockets(SAME, 3, TWICE)),
    (ClosedLate, P2, sockets(FEWER, 2, BUSY)),
    (UnclaimedKept, P2, sockets(FEWER, 2, RESTART)),
    (NeverLetGo, P2, sockets(FEWER, 2, BUSY)),
    (GroupsKept, P2, sockets(FEWER_MEMBERS, 1, BUSY)),
    (LetGoAtHandoff, P4, sockets(SAME, 2, RESTART)),
    (TakesFromStrangers, P5, sockets(SAME, 2, Budget { cuts: 1, ..RESTART })),
    (BindsBesidePredecessor, P2, sockets(UNIX, 2, Budget { removals: 1, ..RESTART })),
    (HalfTaken, P2, sockets(UNIX, 2, Budget { cuts: 1, ..RESTART })),
    (LostPathKept, P2, sockets(UNIX, 2, Budget { removals: 1, ..RESTART })),
    (ClosedWithQueue, P2, sockets(FEWER, 2, BUSY)),
    (SocketsWhileStopping, P6, sockets(SAME, 2, TWICE)),
    (StoreNotCleared, P2, Setting { sockets: Some(STORED), ..systemd(2, RESTART) }),
    (JobIgnored, P6, systemd(2, RESTART)),
    (BetweenIsDown, P1, systemd(2, Budget { direct: 1, ..NONE })),
    (NoSetsid, P1, under(Kind::S6, Manner::S6_FINISH, true, 2, RESTART)),
    (ContIgnored, P6, under(Kind::S6, Manner::PLAIN, false, 2, RESTART)),
    (StatusIgnored, P6, under(Kind::RUNIT, Manner::PLAIN, true, 3, TWICE)),
    (
        ReleaseCodeIgnored,
        P1,
        under(Kind::SUPERVISORD, Manner::SUPERVISORD, false, 2, Budget { direct: 1, ..NONE }),
    ),
    (OverdueIgnored, P6, under(Kind::OPENRC, Manner::OPENRC, false, 2, RESTART)),
    (
        ClaimsMovedIgnored,
        P1,
        under(Kind::OPENRC, Manner::OPENRC, false, 3, Budget { bad: 1, ..RESTART }),
    ),
    (OwnMembersOnly, P14, steered(Budget { kills: 1, ..RESTART })),
    (FreeMembersClosed, P14, steered(TWICE)),
    (AnybodySteers, P14, steered(TWICE)),
    (CheckSteersNothing, P14, steered(Budget { kills: 1, ..RESTART })),
    (StandbyLacksMembers, P14, steered_on_probation(Budget { kills: 1, ..RESTART })),
    (RollbackSteersNothing, P14, steered_on_probation(Budget { bad: 1, ..RESTART })),
    (HeardAgainIgnored, P14, steered_on_probation(Budget { limits: 1, ..RESTART })),
    (CommitSteersNothing, P14, steered_on_probation(Budget { limits: 1, ..RESTART })),
];

/// The shortest way to the broken promise leads through millions of states.
const FAR: [(Variant, Promise, Setting); 1] =
    [(FailedOneSteers, P14, steered_on_probation(Budget { bad: 1, ..TWICE }))];

/// A way to the broken promise, the shortest one where that takes no time; prints it.
fn find(variant: Variant, promise: Promise, setting: Setting) {
    let began = Instant::now();
    let protocol = Protocol { setting, broken: Some(variant) };
    let name = promise.name();
    let checker = protocol.checker().finish_when(HasDiscoveries::AnyOf([name].into()));
    let Budget { commands, reloads, kills, direct, losses, .. } = setting.budget;
    let (states, way) = match commands + reloads + kills + direct + losses {
        0..=3 => seek(checker.spawn_bfs(), name),
        _ => seek(checker.spawn_dfs(), name),
    };
    let Some(actions) = way else {
        panic!("{variant:?} does not break {name} within {}, {states} states", setting.name());
    };
    println!("\n{variant:?}\n{}", trace::render(&protocol, &actions));
    print(&format!(
        "{variant:?} breaks {name}: {} steps, {states} states, {:.1} s",
        actions.len(),
        began.elapsed().as_secs_f64(),
    ));
}

fn seek(checker: impl Checker<Protocol>, name: &'static str) -> (usize, Option<Vec<Action>>) {
    let checker = checker.join();
    (checker.unique_state_count(), checker.discovery(name).map(|way| way.into_actions()))
}

fn every_broken_variant_is_found() {
    let far = FAR.into_iter().filter(|_| is_deep());
    for (variant, promise, setting) in VARIANTS.iter().copied().chain(far) {
        find(variant, promise, setting);
    }
}

/// Each row of the machines' tables that a promise needs. The others, with what makes up for them:
///
/// - USR2 of the launcher: the message before it says all, and the signal only has it read.
/// - USR2 of somebody else in Starting and Draining, the drain and kill timers: an operator's means
///   against a program that hangs, and no promise.
/// - "ready" and "started": each says that there are handlers; and most of what follows "started"
///   says so too.
/// - "cancelled": the cancel timer, later.
/// - "asked to reload", the cancel timer: an operator's means, and one against a program that hangs.
/// - "taken over": of use where a successor crashes; the end of the drain, later.
/// - "released": `handoff_timeout`, later.
/// - "channel closed": the daemon's end. It is for a daemon that gives up its channel and lives.
const ROWS: [(Row, Promise, Setting); 61] = [
    (Daemon("Leaving", "leave timer"), P4, leaving(RESTART)),
    (Daemon("Leaving", "TERM"), P4, leaving(Budget { direct: 1, ..RESTART })),
    (Daemon("Leaving", "USR2 of somebody"), P4, leaving(Budget { direct: 1, ..RESTART })),
    (Daemon("Starting", "TERM"), P6, daemontools(Budget { kills: 1, ..RESTART })),
    (Daemon("Starting", "told to restart"), P1, unreadable(RESTART)),
    (Daemon("Starting", "told to stop"), P4, daemontools(RESTART)),
    (Daemon("Starting", "claimed"), P1, daemontools(Budget { bad: 1, ..KILL })),
    (Daemon("Starting", "status of the launcher"), P1, daemontools(Budget { bad: 1, ..KILL })),
    (Daemon("StoppingEarly", "older told"), P6, alone(RESTART)),
    (Daemon("Serving", "status of the launcher"), P4, alone(Budget { direct: 1, ..NONE })),
    (Daemon("HandingOff", "status of the service"), P8, alone(KILL)),
    (Daemon("Detached", "status of the service"), P8, alone(KILL)),
    (Daemon("Draining", "older told"), P6, alone(RESTART)),
    (Daemon("Starting", "launcher gone"), P8, alone(KILL)),
    (Daemon("Starting", "orphan timer"), P1, daemontools(Budget { bad: 1, ..KILL })),
    (
        Daemon("StoppingEarly", "launcher gone"),
        P8,
        of(Kind::DAEMONTOOLS, false, 2, Budget { losses: 1, kills: 1, ..TWICE }),
    ),
    (Daemon("StoppingEarly", "older gone"), P6, daemontools(TWICE)),
    (Daemon("Serving", "USR2 of somebody"), P4, alone(Budget { direct: 1, ..NONE })),
    (Daemon("Serving", "TERM"), P4, daemontools(Budget { bad: 1, ..KILL })),
    (Daemon("Serving", "told to restart"), P1, unreadable(RESTART)),
    (Daemon("Serving", "told to stop"), P4, daemontools(RESTART)),
    (Daemon("Serving", "launcher gone"), P8, alone(KILL)),
    (Daemon("Serving", "reload failed"), P4, in_place_without_socket()),
    (Daemon("HandingOff", "TERM"), P6, unreadable(TWICE)),
    (Daemon("HandingOff", "told to stop"), P4, unreadable(Budget { losses: 1, ..TWICE })),
    (Daemon("HandingOff", "launcher gone"), P8, alone(Budget { bad: 1, ..RESTART })),
    (Daemon("HandingOff", "request hooks done"), P4, alone(KILL)),
    (Daemon("HandingOff", "claim held"), P8, daemontools(Budget { bad: 1, ..RESTART })),
    (Daemon("HandingOff", "checked"), P8, alone(KILL)),
    (Daemon("HandingOff", "check timer"), P8, alone(KILL)),
    (Daemon("HandingOff", "successor timer"), P6, other(RESTART)),
    (Daemon("Detached", "TERM"), P6, unreadable(TWICE)),
    (Daemon("Detached", "told to stop"), P4, unreadable(Budget { losses: 1, ..TWICE })),
    (Daemon("Detached", "claim held"), P8, daemontools(Budget { bad: 1, ..RESTART })),
    (Daemon("Detached", "checked"), P8, alone(KILL)),
    (Daemon("Detached", "check timer"), P8, alone(KILL)),
    (Daemon("Detached", "saw nothing"), P8, alone(Budget { short: 1, ..KILL })),
    (Daemon("Detached", "found no record"), P8, shut_out(Budget { losses: 1, ..RESTART })),
    (Daemon("HandingOff", "saw nothing"), P8, alone(Budget { short: 1, bad: 1, ..KILL })),
    (Daemon("HandingOff", "found no record"), P8, shut_out(Budget { losses: 1, ..KILL })),
    (Daemon("Detached", "successor timer"), P6, other(RESTART)),
    (Daemon("Draining", "told to restart"), P1, alone(Budget { direct: 1, ..RESTART })),
    (Daemon("Draining", "told to stop"), P6, two(Budget { direct: 1, ..TWICE })),
    (Daemon("Draining", "drain hooks done"), P6, alone(RESTART)),
    (Daemon("Draining", "older gone"), P6, daemontools(TWICE)),
    (
        Daemon("StoppingEarly", "timer for the older ones"),
        P6,
        alone(Budget { short: 1, ..RESTART }),
    ),
    (
        Daemon("AwaitingOlder", "timer for the older ones"),
        P6,
        alone(Budget { short: 1, ..RESTART }),
    ),
    (Daemon("AwaitingOlder", "older gone"), P6, daemontools(Budget { kills: 1, ..RESTART })),
    (Launcher("TERM"), P4, alone(RESTART)),
    (Launcher("CONT"), P6, unreadable(RESTART)),
    (Launcher("status"), P4, alone(RESTART)),
    (Launcher("cont timer"), P1, unreadable(TWICE)),
    (Launcher("settle timer"), P4, alone(RESTART)),
    (Launcher("handoff timer"), P4, alone(Budget { bad: 1, ..RESTART })),
    (Launcher("daemon ended"), P1, alone(KILL)),
    (Launcher("quiet"), P4, alone(RESTART)),
    (Launcher("older told"), P4, alone(Budget { kills: 1, ..RESTART })),
    (Launcher("older gone"), P4, daemontools(Budget { kills: 1, ..TWICE })),
    (Launcher("reload"), P4, in_place(RELOAD)),
    (Launcher("spawned"), P4, in_place(Budget { commands: 1, ..RELOAD })),
    (Launcher("overdue timer"), P4, in_place(Budget { losses: 1, ..RELOAD })),
];

fn every_deleted_row_is_found() {
    for (row, promise, setting) in ROWS {
        find(Deaf(row), promise, setting);
    }
}

/// A short way that is known, as a person reads it.
fn a_trace_can_be_read() {
    let setting = daemontools(NONE);
    let protocol = Protocol { setting, broken: Some(NobodyServes) };
    let way = protocol.checker().spawn_bfs().join().discovery("P1").expect("nobody serves");
    let trace = trace::render(&protocol, &way.into_actions());
    let expected = "  1 supervisor starts launcher 0, and that daemon 0 (Good)";
    assert_eq!(trace.lines().next(), Some(expected), "{trace}");
    assert!(trace.contains("daemon 0 has the claim, and number 1"), "{trace}");
    assert!(trace.ends_with("==> P1 is not kept: wanted up, and nobody serves\n"), "{trace}");
}
