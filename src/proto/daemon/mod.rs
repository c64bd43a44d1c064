//! The daemon: prepares for a successor, finds out whether one will come, and drains.
//!
//! `machine` decides. `timers` says how long each of its limits is. `leaving` shares the time of a stop.
//! `signal_hooks` holds back what the hooks before a signal delay. `reminders` says what an operator is told of a
//! phase that lasts.

pub(crate) mod health;
pub(crate) mod leaving;
mod machine;
pub(crate) mod reminders;
pub(crate) mod signal_hooks;
pub(crate) mod timers;

pub(crate) use super::control::frame::Word;
pub(crate) use machine::{CommitCall, Daemon, RestartCall};
pub(crate) use timers::Timer;

use super::generation::check::Seen;
use super::generation::record::LineState;
pub(crate) use super::generation::rejection::RollbackCause;
use super::supervisor::StartsAgain;
use super::{DrainReason, Intent, Kind, Reading, Report};

/// What happened to the daemon.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Input {
    /// The claim is ours: this generation starts.
    Claimed,
    /// USR2. A second one forces the end of a drain.
    Usr2(Sender),
    /// TERM or INT.
    Term(Sender),
    /// A reload signal, which the program does not handle itself.
    Reload,
    /// A signal that asks for a stop (QUIT, PWR), and that the program does not handle itself.
    Halt(Sender),
    /// The launcher tells what a TERM meant.
    Told(Intent),
    /// The launcher cancels this start: another one follows, or the service is to end.
    Cancelled,
    /// The launcher is about to restart in place.
    Prepare,
    /// The launcher ended, or closed its end of the channel.
    LauncherGone,
    /// The launcher tells that a restart in place has failed, or was refused.
    ReloadFailed,
    /// `restart()` was called, and was not refused.
    Restart,
    /// The `on_shutdown_request` hooks have returned.
    RequestHooksDone,
    /// The `on_shutdown` hooks have returned.
    DrainHooksDone,
    /// The answer to [`Output::StopOlder`]. `awaited`: some of them live, and their end is awaited.
    /// `again`: not all could be told, because the system is out of descriptors or memory.
    OlderTold { awaited: bool, again: bool },
    /// Every older generation whose end is awaited has ended.
    OlderGone,
    /// The answer to [`Output::ReadStatus`].
    Status(Question, Reading),
    /// The answer to [`Output::Check`].
    Checked(Sight),
    /// What a probation is about.
    Probation(Event),
    /// A timer fired.
    Timer(Timer),
}

/// What happens around a probation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Event {
    /// We are on probation, and this older generation stands by.
    OnProbation,
    /// The probation is to end now, passed: the program or an operator says so.
    Commit,
    /// It is to end now, failed: the check of the program, or an operator.
    RollBack(RollbackCause),
    /// The check of the program has been asked, or says that all is well.
    Check { asked: bool },
    /// The answer to [`Output::TryCommit`].
    CommitTried(CommitTried),
    /// A newer generation, which is on probation, asks us to stand by. Its number.
    AskedToStandBy(u64),
    /// What the other side of the lifeline says.
    Heard(Word),
    /// The other side of the lifeline, or a newer generation that we watch, has ended.
    PartnerEnded,
    /// The other side has closed the lifeline. Its process may live.
    HungUp,
    /// The answer to [`Output::LookForDump`]: the other side of the lifeline writes a core dump. It is dead for
    /// everybody but the kernel, which tells of its end when the dump is written.
    Dumps,
    /// The answer to [`Output::LookForNewer`].
    Newer(Newer),
    /// The answer to [`Output::TakeBack`].
    TakenBack(TakenBack),
    /// We have not said for 2 s that we are well: this process was stopped, or had no processor.
    WasSilent,
    /// A process waits in `init`, since its program file has failed; or the last one of these has gone.
    Candidates { wait: bool },
    /// One of them says that it was told to end.
    CandidateTold,
    /// An operator wants the file that has failed to be tried again at once.
    TryAgain,
}

/// What came of an attempt to commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum CommitTried {
    /// The record says that we serve, and no longer that we are on probation.
    Written,
    /// A generation is starting, and holds the claim.
    ClaimHeld,
    /// The record cannot be written.
    Failed,
    /// A newer generation lives: what becomes of us is decided there.
    Replaced,
    /// The one that stood by serves again: an operator has told it, and we could not hear of it.
    RolledBack,
}

/// Does a newer generation live and serve?
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Newer {
    /// It does, and is watched from now on.
    Watched,
    Nobody,
    /// The record cannot be read, or the system is out of descriptors or memory.
    Unknown,
}

/// What came of an attempt to take the files back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum TakenBack {
    /// They are ours, or those of a newer generation that is proven.
    Done,
    /// A generation is starting, and holds the claim.
    ClaimHeld,
    /// Whether a newer one is proven is unknown, or a file cannot be written.
    Failed,
}

/// Who sent a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Sender {
    /// Our launcher. `announced`: it has said on the channel what it wants, and the signal only wakes us
    /// to read that. If not, it was out of memory for the message, or forwards a signal that it got.
    Launcher {
        announced: bool,
    },
    /// A newer generation; or any process, if a newer generation serves.
    Successor,
    /// To a generation on probation: a successor that is not in the record, which is rs/seamless.
    Unlisted,
    Other,
}

impl Sender {
    /// Of a signal that neither our launcher nor we have sent. `named`: the process that the PID file names. `listed`: does
    /// the record list the sender? `succeeded`: does a newer generation serve, by the record?
    ///
    /// A successor puts its own file in place before it sends TERM. But before we act on that TERM, the next successor
    /// may have come, and signals merge. So the record is asked as well. A generation that has not started has no
    /// successor. It does not ask the record, since its program may be in `started`, which holds the files.
    ///
    /// rs/seamless removes the PID file, sends TERM, and then writes its own one. If a detached generation is on
    /// probation and there is no PID file, a TERM is taken for that of rs/seamless: another loss of the file would be
    /// mended within a second.
    pub(crate) fn of(
        from: i32,
        named: Option<i32>,
        daemon: &Daemon,
        listed: impl FnOnce() -> bool,
        succeeded: impl FnOnce() -> bool,
    ) -> Sender {
        let on_probation = daemon.is_on_probation();
        let in_go = match named {
            Some(named) => on_probation && named == from,
            None => on_probation && daemon.is_alone(),
        };
        if in_go && !listed() {
            Sender::Unlisted
        } else if named == Some(from) || !daemon.is_starting() && succeeded() {
            Sender::Successor
        } else {
            Sender::Other
        }
    }
}

/// What the supervisor is asked, and on whose behalf.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Question {
    /// Does it want the launcher's process to run?
    OfLauncher,
    /// Does it want the service to run? No launcher of ours is left that it could tell.
    OfService,
}

impl Question {
    /// The process that the supervisor's status must be about, if there has to be one.
    pub(crate) fn main_pid(self, launcher: i32) -> Option<i32> {
        match self {
            Question::OfLauncher => Some(launcher),
            Question::OfService => None,
        }
    }
}

/// What a check sees.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Sight {
    /// Another process holds the claim: a generation is starting.
    ClaimHeld,
    /// The check failed because the system is out of descriptors or memory: nothing is known.
    Unknown,
    /// The lock file cannot be opened, so neither claim nor record is available. This happens if a
    /// service gave up root and its successor has made the lock file anew. `newer`: the PID file names
    /// a newer generation that serves. Guards against two generations that serve for ever, side by
    /// side.
    NoRecord { newer: bool },
    /// We hold the claim until [`Output::GiveUpClaim`].
    Seen(Seen),
}

impl Sight {
    /// For the log.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Sight::ClaimHeld => "ClaimHeld",
            Sight::Unknown => "Unknown",
            Sight::NoRecord { newer: false } => "NoRecord",
            Sight::NoRecord { newer: true } => "NoRecord,newer",
            Sight::Seen(_) => "Seen",
        }
    }
}

/// Which generation gets the new flows of steered groups of UDP sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum NewFlows {
    Ours,
    /// The generation that we stand by for.
    Of(u64),
}

/// What the daemon has to do, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Output {
    /// Run the `on_shutdown_request` hooks and feed in [`Input::RequestHooksDone`].
    RunRequestHooks,
    /// Run the `on_resume` hooks, behind those that run.
    RunResumeHooks,
    /// Tell the launcher, over the channel.
    Report(Report),
    /// Wake the launcher with the release signal.
    Release,
    /// Let `draining` resolve, run the `on_shutdown` hooks, feed in [`Input::DrainHooksDone`].
    RunDrainHooks(DrainReason),
    /// Give up the claim if it is held, send TERM to every older generation, and feed in
    /// [`Input::OlderTold`]; later [`Input::OlderGone`].
    StopOlder,
    /// Let `wait` return.
    Finish(DrainReason),
    /// Run the `on_hammer` hooks for a moment and end the process.
    Hammer(Forced),
    /// End the process at once: nothing was served yet.
    End,
    /// Ask the supervisor and feed in [`Input::Status`].
    ReadStatus(Question),
    /// Take the claim if it is free, look at the files, and feed in [`Input::Checked`].
    Check,
    /// The record lists us again. This and the next three only ever answer a [`Sight::Seen`], so the
    /// claim is held.
    EnterRecord(LineState),
    /// Our PID file is put back.
    PutBackFile,
    /// Our control socket is put back.
    PutBackSocket,
    /// The check is over.
    GiveUpClaim,
    /// Tell the operator that this restart is refused, and why.
    RefuseRestart(NoRestart),
    /// Take the claim if it is free. Enter in the record that we serve, unless a newer generation lives. Then
    /// feed in [`Event::CommitTried`].
    TryCommit,
    /// Answer to the newer generation that has asked us to stand by. After yes, it is watched.
    StandBy(bool),
    /// Run the `on_standby` hooks.
    RunStandbyHooks,
    /// Say it to the other side of the lifeline, if there still is one. [`Word::Told`]: to the generation that
    /// serves while we wait in `init`.
    Say(Word),
    /// Say [`Word::Go`] to each process that waits in `init`.
    Go,
    /// Log that this generation is rolled back before its `on_shutdown_request` hooks have returned.
    LogHooksHang,
    LogNotResumed,
    /// Close the lifeline.
    HangUp,
    /// Write the programs of steered groups: new flows go there.
    SteerFlows(NewFlows),
    /// If the other side of the lifeline writes a core dump, feed in [`Event::Dumps`].
    LookForDump,
    /// Without the claim: if the record lists a newer generation that lives and serves, watch it. Then feed in
    /// [`Event::Newer`].
    LookForNewer,
    /// Under the claim: unless a newer generation is proven, PID file and control socket are ours again, and what
    /// failed is rejected. Then feed in [`Event::TakenBack`].
    TakeBack(RollbackCause),
    Arm(Timer),
    Disarm(Timer),
}

/// What forced the end of a drain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Forced {
    DrainTimeout,
    Usr2,
}

/// Why a restart by hand is refused: if the launcher left now, no successor would come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum NoRestart {
    NoSupervisor,
    /// A shell at a terminal has started the launcher.
    AtTerminal,
    /// The supervisor says [`Reading::Down`], and what this kind means by it.
    WantedDown(&'static str),
}

impl NoRestart {
    /// Would the supervisor start the service again if its launcher left now? A launcher that restarts
    /// in place need not leave.
    pub(crate) fn why(kind: Kind, in_place: bool, reading: Reading) -> Option<NoRestart> {
        if in_place {
            return None;
        }
        match reading {
            _ if kind.starts_again == StartsAgain::Never => Some(NoRestart::NoSupervisor),
            Reading::Lost => Some(NoRestart::NoSupervisor),
            Reading::Down => Some(NoRestart::WantedDown(kind.down_means)),
            Reading::Up | Reading::Unreadable => None,
        }
    }

    pub(crate) fn text(self) -> &'static str {
        match self {
            NoRestart::NoSupervisor => "nobody would start the service again",
            NoRestart::AtTerminal => {
                "a shell at a terminal started the service, and does not start it again"
            }
            NoRestart::WantedDown(text) => text,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Phase {
    /// Until `started`.
    Starting,
    /// Told to stop while starting: the older generations end first.
    StoppingEarly,
    Serving,
    /// The `on_shutdown_request` hooks run.
    HandingOff,
    /// The launcher has been released, or died, and the hooks have returned.
    Detached,
    /// The service is to be down, and everything is served on for `leave_time`.
    Leaving(DrainReason),
    /// The `on_shutdown` hooks run.
    Draining(DrainReason),
    /// They have returned; older generations have not ended yet.
    AwaitingOlder(DrainReason),
    /// `wait` returns: the program is about to end.
    Finished,
    /// The process is about to end, whatever happens.
    Ended,
}

/// What a call of `started` does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum StartedCall {
    /// It takes over.
    TakesOver,
    /// It was called before: nothing is to be done.
    Returns,
    /// The process is about to end: the call does not return.
    Parks,
}

/// What begins with a phase, beside the outputs of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Begins {
    /// A stop that leaves first: its time is shared with the drain, before the launcher is told.
    pub(crate) plan: bool,
    /// The end of the service in this process, of which a supervisor is told once.
    pub(crate) end: bool,
    /// The drain: if memory is short, the system may end this process first.
    pub(crate) drain: bool,
}

impl Phase {
    pub(crate) fn started_call(self) -> StartedCall {
        match self {
            Phase::Starting => StartedCall::TakesOver,
            Phase::StoppingEarly | Phase::Ended => StartedCall::Parks,
            Phase::Serving
            | Phase::HandingOff
            | Phase::Detached
            | Phase::Leaving(_)
            | Phase::Draining(_)
            | Phase::AwaitingOlder(_)
            | Phase::Finished => StartedCall::Returns,
        }
    }

    /// What begins with this phase, which follows `before`.
    pub(crate) fn begins(self, before: Phase) -> Begins {
        let plan = matches!(self, Phase::Leaving(_));
        let drain = matches!(self, Phase::Draining(_));
        let has_left = matches!(before, Phase::Leaving(_));
        Begins { plan, end: (plan || drain) && !has_left, drain }
    }

    /// Does a call for a socket not return? The program would not get as far as serving. An error would be
    /// wrong, too: the older generations that this process waits for still use the addresses.
    pub(crate) fn parks_callers(self) -> bool {
        self.started_call() == StartedCall::Parks
    }
}

#[cfg(test)]
mod tests {
    use super::{Begins, Phase, Question, StartedCall};
    use crate::proto::DrainReason;

    #[test]
    fn what_begins_with_leaving_and_with_a_drain() {
        let (leaving, draining) = (Phase::Leaving, Phase::Draining);
        let stopped = DrainReason::Stopped;
        let begins = |plan, end, drain| Begins { plan, end, drain };
        assert_eq!(leaving(stopped).begins(Phase::Serving), begins(true, true, false));
        assert_eq!(draining(stopped).begins(leaving(stopped)), begins(false, false, true));
        assert_eq!(draining(stopped).begins(Phase::Detached), begins(false, true, true));
        assert_eq!(Phase::Finished.begins(draining(stopped)), begins(false, false, false));
    }

    /// The status of a service may be about a process that came after the launcher.
    #[test]
    fn only_a_launcher_asks_about_its_own_process() {
        assert_eq!(Question::OfLauncher.main_pid(811), Some(811));
        assert_eq!(Question::OfService.main_pid(811), None);
    }

    #[test]
    fn who_calls_while_the_process_ends_does_not_return() {
        let ending = [Phase::StoppingEarly, Phase::Ended];
        let others = [
            Phase::Starting,
            Phase::Serving,
            Phase::HandingOff,
            Phase::Detached,
            Phase::Leaving(DrainReason::Stopped),
            Phase::Draining(DrainReason::Stopped),
            Phase::AwaitingOlder(DrainReason::Stopped),
            Phase::Finished,
        ];
        assert!(ending.into_iter().all(Phase::parks_callers));
        assert!(!others.into_iter().any(Phase::parks_callers));
        assert_eq!(Phase::Starting.started_call(), StartedCall::TakesOver);
        let returns = |phase: &Phase| phase.started_call() == StartedCall::Returns;
        assert_eq!(others.iter().filter(|phase| returns(phase)).count(), others.len() - 1);
    }
}
