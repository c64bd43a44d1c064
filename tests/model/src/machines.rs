//! What the world knows of the crate: its machines and its rules, behind one door each.
//!
//! A door passes on what the world tells and what the machine answers. Where the protocol is broken on
//! purpose, the door breaks it: it drops or rewrites what is told, what is answered, or a fact that a
//! rule is asked about. So the crate itself knows nothing of the model.

use crate::net::Cookie;
use crate::proto::control::transfer::{self, Predecessor, Untakeable};
use crate::proto::daemon::{self, Finding, Input as D, Output as DO, Phase, Timer as DT};
use crate::proto::generation::takeover::{self, Step};
use crate::proto::launcher::{
    self, Child, Failure, InPlace, Input as L, Output as LO, Progress, Timer as LT,
};
use crate::proto::sockets::pool::{self, Entry, Found, Steered, Store, Wanted};
use crate::proto::supervisor::systemd::{self, Properties};
use crate::proto::{End, Intent, Kind, Reading, Report, Scope};
use crate::variants::{self, Variant};
use std::ops::Deref;

// ---- the daemon ----

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Daemon(daemon::Daemon);

impl Daemon {
    pub(crate) fn new(supervised: bool, in_place: bool) -> Self {
        let in_place = in_place && !variants::is(Variant::HandsOffInPlace);
        Daemon(daemon::Daemon::new(supervised, in_place))
    }

    pub(crate) fn phase(&self) -> Phase {
        self.0.phase()
    }

    pub(crate) fn on(&mut self, input: D) -> Vec<DO> {
        let Some(variant) = variants::broken() else { return self.0.on(input) };
        if variant == Variant::EvictedWhileServing && input == D::Evicted {
            self.0 = daemon::Daemon::new(false, false); // one that serves nothing ends
        }
        let Some(told) = told(variant, self.phase(), input) else { return Vec::new() };
        let mut outputs = self.0.on(told);
        self.rewrite(variant, told, &mut outputs);
        outputs
    }

    fn rewrite(&mut self, variant: Variant, told: D, outputs: &mut Vec<DO>) {
        match variant {
            Variant::PutBackOverNewer => {
                if let D::Checked(Finding::Seen { newer: true, .. }) = told {
                    outputs.insert(0, DO::PutBack);
                }
            }
            Variant::StopNotToldToOlder => {
                let drains = outputs.iter().any(|one| matches!(one, DO::RunDrainHooks(_)));
                if drains && outputs.contains(&DO::StopOlder) {
                    outputs.retain(|one| *one != DO::StopOlder);
                    outputs.extend(self.0.on(D::OlderGone));
                }
            }
            Variant::DrainKeepsLauncher if told != D::RequestHooksDone => {
                let lets_go = [DO::Report(Report::Released), DO::Release];
                outputs.retain(|one| !lets_go.contains(one));
            }
            _ => {}
        }
    }
}

/// What the daemon's machine is told instead; `None`: nothing.
fn told(variant: Variant, phase: Phase, input: D) -> Option<D> {
    let told = match (variant, input) {
        (Variant::Deaf(row), _) if row.is_daemon(phase, input) => return None,
        (Variant::NobodyServes, D::Started) => return None,
        (Variant::LauncherGoneIgnoredInStarting, D::LauncherGone) if phase == Phase::Starting => {
            return None;
        }
        (Variant::LauncherGoneIgnoredInServing, D::LauncherGone) if phase == Phase::Serving => {
            return None;
        }
        (Variant::HammerOnLauncherUsr2, D::Usr2 { .. }) => D::Usr2 { from_launcher: false },
        (Variant::NoStopWhileStarting, D::Told(Intent::Stop(_))) if phase == Phase::Starting => {
            D::Told(Intent::Stop(Scope::Generation))
        }
        (Variant::OverdueIgnored, D::Timer(DT::Successor)) => D::Timer(DT::Check),
        (_, D::Checked(Finding::Seen { newer, lost_file, claims_moved, supervisor })) => {
            D::Checked(match variant {
                Variant::ClaimsMovedIgnored => {
                    Finding::Seen { newer, lost_file, claims_moved: false, supervisor }
                }
                Variant::StatusIgnored => {
                    let supervisor = Reading::Unreadable;
                    Finding::Seen { newer, lost_file, claims_moved, supervisor }
                }
                Variant::FixedDrainTimer => {
                    let supervisor = Reading::Lost;
                    Finding::Seen { newer, lost_file, claims_moved, supervisor }
                }
                Variant::NewerIgnored => {
                    Finding::Seen { newer: false, lost_file, claims_moved, supervisor }
                }
                Variant::LostFileNotPutBack => {
                    Finding::Seen { newer, lost_file: false, claims_moved, supervisor }
                }
                _ => Finding::Seen { newer, lost_file, claims_moved, supervisor },
            })
        }
        _ => input,
    };
    Some(told)
}

// ---- the launcher ----

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Launcher {
    machine: launcher::Launcher,
    /// What a broken launcher remembers: the child whose start it has cancelled, or the one that is
    /// current and that it does not care for.
    marked: Option<Child>,
}

impl Launcher {
    pub(crate) fn new(
        kind: Kind,
        supervisor: Option<i32>,
        first: Child,
        in_place: Option<InPlace>,
    ) -> Self {
        let supervisor = supervisor.filter(|_| !variants::is(Variant::LastTermIsAStop));
        let machine = launcher::Launcher::new(kind, supervisor, first, in_place);
        Launcher { machine, marked: None }
    }

    pub(crate) fn current(&self) -> Option<Child> {
        self.machine.current()
    }

    pub(crate) fn on(&mut self, input: L) -> Vec<LO> {
        let Some(variant) = variants::broken() else { return self.machine.on(input) };
        match (variant, input) {
            (Variant::Deaf(row), _) if row.is_launcher(input) => return Vec::new(),
            (Variant::ContIgnored, L::Cont { .. }) => return Vec::new(),
            (Variant::AgainIgnored, L::Term { .. }) if self.is_settling() => return Vec::new(),
            (Variant::ExitWhileSettling, L::Quiet) if self.is_settling() => return self.leave(),
            _ => {}
        }
        let before = self.current();
        let mut outputs = self.machine.on(input);
        self.rewrite(variant, input, before, &mut outputs);
        outputs
    }

    /// Only then a settle timer that fires has it read the status.
    fn is_settling(&self) -> bool {
        self.machine.clone().on(L::Timer(LT::Settle)).contains(&LO::ReadStatus)
    }

    /// What it would do if it had understood the TERM as a restart.
    fn leave(&mut self) -> Vec<LO> {
        let mut settled = self.clone();
        while settled.is_settling() {
            _ = settled.machine.on(L::Status(Reading::Up));
        }
        let mut outputs = settled.machine.on(L::Quiet);
        outputs.retain(|one| matches!(one, LO::Leave { .. }));
        if !outputs.is_empty() {
            *self = settled;
        }
        outputs
    }

    /// `before`: the child that was current before the input.
    fn rewrite(
        &mut self,
        variant: Variant,
        input: L,
        before: Option<Child>,
        outputs: &mut Vec<LO>,
    ) {
        match (variant, input) {
            (Variant::ReleasedBeforeSignals, L::Report(_, Report::Released)) => {
                outputs.extend(self.machine.on(L::Quiet));
            }
            (Variant::Usr2BeforeSettled, L::Term { .. }) => {
                for output in outputs.iter_mut().filter(|one| **one == LO::Arm(LT::Settle)) {
                    *output = LO::ReadStatus;
                }
            }
            (Variant::CancelKillsServing, L::Report(..)) => {
                self.mark_cancelled(outputs);
                outputs.retain(|one| *one != LO::Disarm(LT::Cancel));
            }
            (Variant::CancelKillsServing, L::Timer(LT::Cancel)) => {
                outputs.clear();
                outputs.extend(self.marked.map(|child| LO::Kill(child, LT::Cancel)));
            }
            (Variant::CancelKillsServing, _) => self.mark_cancelled(outputs),
            (Variant::LateCandidateNotTold, L::Report(child, _)) => {
                if outputs.contains(&LO::Progress(Progress::Serving(child))) {
                    drop_order(outputs);
                }
            }
            (Variant::CandidateMirrored, L::Ended(child, end)) => {
                let failed = Progress::ReloadFailed(Failure::Ended(child, end));
                if outputs.contains(&LO::Progress(failed)) {
                    outputs.push(LO::Mirror(child, end));
                }
            }
            (Variant::CrashNotMadeGood, L::Ended(child, _)) if before == Some(child) => {
                // The older one that serves is current again, though not to this launcher.
                self.marked = self.current();
                outputs.retain(|one| !self.is_to_marked(one));
            }
            (Variant::CrashNotMadeGood, _) => {
                self.marked = self.marked.filter(|child| self.current() == Some(*child));
                outputs.retain(|one| !self.is_to_marked(one));
            }
            (Variant::CancelledForGood, L::Report(..) | L::Ended(..)) => {
                if outputs.contains(&LO::Start) {
                    let start = [LO::Progress(Progress::Reloading), LO::Start];
                    outputs.retain(|one| !start.contains(one));
                    let not_started = LO::Progress(Progress::ReloadFailed(Failure::NotStarted));
                    let none = self.machine.on(L::Spawned(None));
                    outputs.extend(none.into_iter().filter(|one| *one != not_started));
                }
            }
            (Variant::DrainingNotAwaited, L::Ended(child, end)) if before == Some(child) => {
                let goes_on = |one: &LO| {
                    matches!(one, LO::Mirror(..) | LO::Progress(Progress::CurrentEnded(..)))
                };
                if self.current().is_none() && !outputs.iter().any(goes_on) {
                    outputs.push(LO::Mirror(child, end));
                }
            }
            (Variant::NoMirror, _) => {
                for output in outputs {
                    if let LO::Mirror(_, end) = output {
                        *end = End::Code(0);
                    }
                }
            }
            _ => {}
        }
    }

    fn mark_cancelled(&mut self, outputs: &[LO]) {
        for output in outputs {
            if let LO::Cancel(child) = output {
                self.marked = Some(*child);
            }
        }
    }

    fn is_to_marked(&self, output: &LO) -> bool {
        let to = match *output {
            LO::Tell(child, _) | LO::Handoff(child) | LO::Stop(child) => child,
            LO::Forward(child, _) | LO::Leave { child, .. } => child,
            LO::Progress(Progress::Stopping(child)) => child,
            _ => return false,
        };
        self.marked == Some(to)
    }
}

/// Drops what tells a child what a TERM meant.
fn drop_order(outputs: &mut Vec<LO>) {
    let Some(from) = outputs.iter().position(|one| matches!(one, LO::Tell(..))) else { return };
    let is_last = |one: &LO| matches!(one, LO::Handoff(_) | LO::Progress(Progress::Stopping(_)));
    let length = outputs[from..].iter().position(is_last).expect("an order ends with this");
    outputs.drain(from..=from + length);
}

// ---- a takeover ----

pub(crate) fn steps() -> [Step; 8] {
    use Step::{Close, Enter, GiveUp, Install, Listen, Serve, Steer, StopOlder};
    match variants::broken() {
        Some(Variant::TermBeforeRename) => {
            [StopOlder, Install, Listen, Enter, Close, Serve, Steer, GiveUp]
        }
        Some(Variant::ServingAfterTerm) => {
            [Install, Listen, Enter, StopOlder, Close, Serve, Steer, GiveUp]
        }
        Some(Variant::ClaimGivenUpEarly) => {
            [GiveUp, Install, Listen, Enter, Close, Serve, Steer, StopOlder]
        }
        Some(Variant::SteeredLate) => {
            [Install, Listen, Enter, Close, Serve, StopOlder, Steer, GiveUp]
        }
        Some(Variant::ClosedLate) => {
            [Install, Listen, Enter, Serve, Steer, StopOlder, Close, GiveUp]
        }
        Some(Variant::ListensLate) => {
            [Install, Enter, Close, Serve, Steer, StopOlder, GiveUp, Listen]
        }
        _ => takeover::steps(),
    }
}

pub(crate) fn is_older(number: u64, start: u64, own_number: Option<u64>, own_start: u64) -> bool {
    let all = own_number.is_none() && variants::is(Variant::StopsNewer);
    all || takeover::is_older(number, start, own_number, own_start)
}

// ---- a supervisor ----

/// What a unit of systemd's means. `text`: its properties.
pub(crate) fn unit_reading(
    text: &str,
    job: Option<&str>,
    main_pid: Option<i32>,
) -> Option<Reading> {
    const BETWEEN: &str = "ActiveState=activating\nSubState=auto-restart";
    const DOWN: &str = "ActiveState=inactive\nSubState=dead";
    match variants::broken() {
        Some(Variant::JobIgnored) => {
            let job = job.map(|job| if job == "stop" { "start" } else { job });
            systemd::reading(&Properties::parse(text), job, main_pid)
        }
        Some(Variant::BetweenIsDown) => {
            systemd::reading(&Properties::parse(&text.replace(BETWEEN, DOWN)), job, main_pid)
        }
        _ => systemd::reading(&Properties::parse(text), job, main_pid),
    }
}

// ---- sockets ----

pub(crate) fn giver(
    listens: Option<i32>,
    predecessors: &[Predecessor],
) -> Result<Option<Predecessor>, Untakeable> {
    let mut known = predecessors.to_vec();
    match variants::broken() {
        Some(Variant::TakesFromStrangers) => {
            known.extend(listens.map(|pid| Predecessor { number: 0, pid, hands_over: true }));
        }
        Some(Variant::BindsBesidePredecessor) if listens.is_none() => known.clear(),
        _ => {}
    }
    transfer::giver(listens, &known)
}

/// A pool, and what it holds open.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Pool {
    pool: pool::Pool<Cookie>,
    open: Vec<Cookie>,
    /// What a broken pool keeps when the drain begins.
    kept: Vec<Entry<Cookie>>,
}

/// To read.
impl Deref for Pool {
    type Target = pool::Pool<Cookie>;

    fn deref(&self) -> &Self::Target {
        &self.pool
    }
}

impl Pool {
    pub(crate) const NEW: Pool =
        Pool { pool: pool::Pool::new(), open: Vec::new(), kept: Vec::new() };

    /// All that this process holds open.
    pub(crate) fn holds(&self, cookie: Cookie) -> bool {
        self.open.contains(&cookie) || self.kept.iter().any(|entry| entry.fd == cookie)
    }

    fn change<T>(&mut self, change: impl FnOnce(&mut pool::Pool<Cookie>) -> T) -> T {
        let result = change(&mut self.pool);
        // In a drain all goes that there is.
        let mut all = self.pool.clone();
        all.use_it();
        self.open = all.let_go().iter().map(|entry| entry.fd).collect();
        result
    }

    pub(crate) fn pass(&mut self, entry: Entry<Cookie>) {
        self.change(|pool| pool.pass(entry));
    }

    pub(crate) fn use_it(&mut self) {
        self.pool.use_it();
    }

    pub(crate) fn take(&mut self, entries: Vec<Entry<Cookie>>) {
        self.change(|pool| pool.take(entries));
    }

    pub(crate) fn find(
        &mut self,
        wanted: &Wanted<'_>,
        is_lost: impl Fn(&Entry<Cookie>) -> bool,
    ) -> Vec<Found<Cookie>> {
        self.change(|pool| pool.find(wanted, is_lost)).expect("of one kind")
    }

    pub(crate) fn hold(
        &mut self,
        wanted: &Wanted<'_>,
        found: Vec<Found<Cookie>>,
    ) -> (Vec<Found<Cookie>>, Option<Steered<Cookie>>) {
        let serves = variants::is(Variant::SteeredEarly);
        self.change(|pool| pool.hold(wanted, found, serves))
    }

    pub(crate) fn steer(&mut self) -> Vec<Steered<Cookie>> {
        self.kept.clear();
        self.change(pool::Pool::steer)
    }

    pub(crate) fn unclaimed(&mut self) -> Vec<Found<Cookie>> {
        match variants::is(Variant::UnclaimedKept) {
            true => Vec::new(),
            false => self.change(pool::Pool::unclaimed),
        }
    }

    pub(crate) fn take_retired(&mut self) -> Vec<Entry<Cookie>> {
        self.change(pool::Pool::take_retired)
    }

    pub(crate) fn let_go(&mut self) {
        match variants::broken() {
            Some(Variant::NeverLetGo) => return,
            Some(Variant::GroupsKept) => {
                let mut left = self.pool.clone();
                self.kept.extend(left.steer().into_iter().map(|(entry, _)| entry));
                self.kept.extend(left.unclaimed().into_iter().map(|(entry, _)| entry));
            }
            _ => {}
        }
        drop(self.change(pool::Pool::let_go));
    }

    pub(crate) fn bring_store_into_line(&mut self) -> Store<Cookie> {
        let mut store = self.change(pool::Pool::bring_store_into_line);
        if variants::is(Variant::StoreNotCleared) {
            store.remove.clear();
        }
        store
    }
}
