//! What the world knows of the crate: its machines and its rules, behind one door each.
//!
//! A door passes on what the world tells and what the machine answers. Where the protocol is broken on
//! purpose, the door breaks it: it drops or rewrites what is told, what is answered, or a fact that a
//! rule is asked about. So the crate itself knows nothing of the model.

use crate::net::Cookie;
use crate::proto::control::transfer::{self, Predecessor, Untakeable};
use crate::proto::daemon::{
    self, Event, Input as D, NewFlows, Newer, Output as DO, Phase, Question, Sender, Sight,
    Timer as DT, Word,
};
use crate::proto::generation::check::{Content, Seen};
use crate::proto::generation::takeover::{self, Act, Done, Next};
use crate::proto::generation::verdict::{self, Asker, Facts, Purpose, Unproven, Verdict};
use crate::proto::launcher::{
    self, Child, Failure, InPlace, Input as L, Output as LO, Progress, Timer as LT,
};
use crate::proto::sockets::pool::{self, Entry, Found, Steered, Store, Wanted};
use crate::proto::supervisor::systemd::{self, Properties};
use crate::proto::{DrainReason, End, Intent, Kind, Reading, Report, Scope, State};
use crate::variants::{self, Variant};
use std::ops::Deref;

// ---- the daemon ----

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Daemon {
    machine: daemon::Daemon,
    /// What a broken daemon remembers: the number of the last claim when it started.
    last_claim: u64,
}

impl Daemon {
    pub(crate) fn new(kind: Kind, in_place: bool, leaves: bool) -> Self {
        let machine = daemon::Daemon::new(kind, in_place).takes_unhandled(true).leaves(leaves);
        Daemon { machine, last_claim: 0 }
    }

    pub(crate) fn phase(&self) -> Phase {
        self.machine.phase()
    }

    pub(crate) fn state(&self) -> State {
        self.machine.state()
    }

    pub(crate) fn wish(&mut self) -> Option<D> {
        self.machine.wish()
    }

    pub(crate) fn is_on_probation(&self) -> bool {
        self.machine.is_on_probation()
    }

    pub(crate) fn begins_probation(&mut self) {
        self.machine.begins_probation();
    }

    pub(crate) fn stands_by(&self) -> bool {
        self.machine.stands_by()
    }

    pub(crate) fn sender(
        &self,
        from: i32,
        named: Option<i32>,
        listed: impl FnOnce() -> bool,
        succeeded: impl FnOnce() -> bool,
    ) -> Sender {
        let succeeded = || !variants::is(Variant::OnlyTheNamed) && succeeded();
        Sender::of(from, named, &self.machine, listed, succeeded)
    }

    pub(crate) fn may_steer(&self) -> bool {
        self.machine.may_steer()
    }

    pub(crate) fn is_alone(&self) -> bool {
        self.machine.is_alone()
    }

    pub(crate) fn steers(&self) -> bool {
        self.machine.steers()
    }

    pub(crate) fn takes_candidates(&self) -> bool {
        self.machine.takes_candidates()
    }

    pub(crate) fn waits_in_init(&mut self, waits: bool) {
        self.machine.waits_in_init(waits);
    }

    pub(crate) fn started(&mut self, last_claim: u64) -> Option<Report> {
        match variants::broken() {
            Some(Variant::NobodyServes) => return None,
            Some(Variant::ClaimsMovedIgnored) => self.last_claim = last_claim,
            _ => {}
        }
        self.machine.started(last_claim)
    }

    pub(crate) fn on(&mut self, input: D) -> Vec<DO> {
        let Some(variant) = variants::broken() else { return self.machine.on(input) };
        if variant == Variant::OrphanEndsServing
            && self.phase() == Phase::Serving
            && input == D::Timer(DT::Orphan)
        {
            // One that serves nothing ends.
            self.machine = daemon::Daemon::new(Kind::OTHER, false);
            return self.machine.on(D::Cancelled);
        }
        let hooks_done = input == D::RequestHooksDone && self.is_on_probation();
        if variant == Variant::DrainsBeforeResumed && hooks_done {
            let mut outputs = self.machine.on(input);
            outputs.extend(self.machine.on(D::Probation(Event::Heard(Word::Resumed))));
            return outputs;
        }
        let Some(told) = self.told(variant, input) else { return Vec::new() };
        let mut outputs = self.machine.on(told.clone());
        self.rewrite(variant, &told, &mut outputs);
        outputs
    }

    /// What the machine is told instead; `None`: nothing.
    fn told(&mut self, variant: Variant, input: D) -> Option<D> {
        let phase = self.phase();
        let told = match (variant, input) {
            (Variant::LeavesForSuccessor, D::Term(Sender::Successor)) => {
                D::Told(Intent::Stop(Scope::Generation))
            }
            (Variant::StandbyDeaf, D::Probation(Event::PartnerEnded)) => return None,
            (Variant::UnknownStandsBy, D::Probation(Event::Newer(Newer::Unknown))) => {
                D::Probation(Event::Newer(Newer::Watched))
            }
            (Variant::CandidateIgnored, D::Probation(Event::Candidates { .. })) => return None,
            (Variant::PauseIgnored, D::Probation(Event::WasSilent)) => return None,
            (Variant::Deaf(row), input) if row.is_daemon(phase, &input) => return None,
            (Variant::LauncherGoneIgnoredInStarting, D::LauncherGone)
                if phase == Phase::Starting =>
            {
                return None;
            }
            (Variant::LauncherGoneIgnoredInServing, D::LauncherGone) if phase == Phase::Serving => {
                return None;
            }
            (Variant::HammerOnLauncherUsr2, D::Usr2(Sender::Launcher { .. })) => {
                D::Usr2(Sender::Other)
            }
            (Variant::HandsOffInPlace, D::Usr2(_)) if phase == Phase::Serving => {
                D::Told(Intent::Unknown)
            }
            (Variant::NoStopWhileStarting, D::Told(Intent::Stop(_)))
                if phase == Phase::Starting =>
            {
                D::Told(Intent::Stop(Scope::Generation))
            }
            (Variant::OverdueIgnored, D::Timer(DT::Successor)) => D::Timer(DT::Check),
            (Variant::StatusIgnored, D::Status(Question::OfService, _)) => {
                D::Status(Question::OfService, Reading::Unreadable)
            }
            (Variant::FixedDrainTimer, D::Status(Question::OfService, _)) => {
                D::Status(Question::OfService, Reading::Lost)
            }
            (Variant::SupervisedOrphan, D::Status(Question::OfLauncher, _))
                if phase == Phase::Starting =>
            {
                D::Status(Question::OfLauncher, Reading::Lost)
            }
            (Variant::ClaimsMovedIgnored, D::Checked(Sight::Seen(seen))) => {
                D::Checked(Sight::Seen(Seen { last: self.last_claim, ..seen }))
            }
            (Variant::NewerIgnored, D::Checked(Sight::Seen(mut seen))) => {
                seen.lines.retain(|(_, facts)| facts.number <= seen.own.number);
                let ours = |content| Content { pid: Some(seen.own.identity.pid), ..content };
                seen.content = seen.content.map(ours);
                D::Checked(Sight::Seen(seen))
            }
            (_, input) => input,
        };
        Some(told)
    }

    fn rewrite(&mut self, variant: Variant, told: &D, outputs: &mut Vec<DO>) {
        let is_commit = matches!(told, D::Probation(Event::CommitTried(_)));
        match variant {
            Variant::PutBackOverNewer => {
                let checks = matches!(told, D::Checked(Sight::Seen(_)));
                if checks && outputs.contains(&DO::RunDrainHooks(DrainReason::TakenOver)) {
                    outputs.insert(0, DO::PutBackFile);
                }
            }
            Variant::LostFileNotPutBack => outputs.retain(|one| *one != DO::PutBackFile),
            Variant::StopNotToldToOlder => {
                let drains = outputs.iter().any(|one| matches!(one, DO::RunDrainHooks(_)));
                if drains && outputs.contains(&DO::StopOlder) {
                    outputs.retain(|one| *one != DO::StopOlder);
                    let none = D::OlderTold { awaited: false, again: false };
                    outputs.extend(self.machine.on(none));
                }
            }
            Variant::LeavesWithOlder
                if outputs.contains(&DO::Report(Report::Leaving))
                    && outputs.contains(&DO::StopOlder) =>
            {
                outputs.retain(|one| *one != DO::StopOlder);
                let none = D::OlderTold { awaited: false, again: false };
                outputs.extend(self.machine.on(none));
            }
            Variant::LeavingNotReported => {
                outputs.retain(|one| *one != DO::Report(Report::Leaving));
            }
            Variant::HeardAgainIgnored => {
                outputs.retain(|one| !matches!(one, DO::SteerFlows(NewFlows::Of(_))));
            }
            Variant::CheckSteersNothing if matches!(told, D::Checked(_)) => {
                outputs.retain(|one| *one != DO::SteerFlows(NewFlows::Ours));
            }
            Variant::CommitSteersNothing if is_commit => {
                outputs.retain(|one| *one != DO::SteerFlows(NewFlows::Ours));
            }
            Variant::RollbackSteersNothing if !is_commit && !matches!(told, D::Checked(_)) => {
                outputs.retain(|one| *one != DO::SteerFlows(NewFlows::Ours));
            }
            Variant::DrainKeepsLauncher if *told != D::RequestHooksDone => {
                let lets_go = [DO::Report(Report::Released), DO::Release];
                outputs.retain(|one| !lets_go.contains(one));
            }
            _ => {}
        }
    }
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
            (Variant::LateCandidateNotTold, L::Report(child, _))
                if outputs.contains(&LO::Progress(Progress::Serving(child))) =>
            {
                drop_order(outputs);
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
            (Variant::CancelledForGood, L::Report(..) | L::Ended(..))
                if outputs.contains(&LO::Start) =>
            {
                let start = [LO::Progress(Progress::Reloading), LO::Start];
                outputs.retain(|one| !start.contains(one));
                let not_started = LO::Progress(Progress::ReloadFailed(Failure::NotStarted));
                let none = self.machine.on(L::Spawned(None));
                outputs.extend(none.into_iter().filter(|one| *one != not_started));
            }
            (Variant::DrainingNotAwaited, L::Ended(child, end)) if before == Some(child) => {
                let goes_on = |one: &LO| {
                    matches!(one, LO::Mirror(..) | LO::Progress(Progress::CurrentEnded(..)))
                };
                if self.current().is_none() && !outputs.iter().any(goes_on) {
                    outputs.push(LO::Mirror(child, end));
                }
            }
            (variant, _) if variant.silences_launchers() && outputs.contains(&LO::StopOlder) => {
                outputs.retain(|one| *one != LO::StopOlder);
                let none = L::OlderTold { awaited: false, again: false };
                outputs.extend(self.machine.on(none));
            }
            (Variant::MirrorsWhileSettling, L::Ended(child, end)) if before == Some(child) => {
                let goes_on = |one: &LO| matches!(one, LO::Mirror(..) | LO::Keep(_));
                let alone = self.current().is_none() && !outputs.iter().any(goes_on);
                if alone && self.is_settling() {
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

// ---- the keeper ----

pub(crate) use crate::proto::keeper::Keeper;

// ---- a takeover ----

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct TakeOver {
    machine: takeover::TakeOver,
    /// In which order a broken one goes on.
    plan: Option<Vec<Act>>,
}

impl TakeOver {
    pub(crate) fn new(asker: Asker, probation: bool) -> TakeOver {
        let machine = takeover::TakeOver::new(asker).on_probation(probation);
        TakeOver { machine, plan: None }
    }

    pub(crate) fn standby(&self) -> Option<usize> {
        self.machine.standby()
    }

    pub(crate) fn next(&self) -> Next {
        match &self.plan {
            Some(plan) => match plan.first() {
                Some(act) => Next::Act(act.clone()),
                None => Next::End(takeover::End::Started),
            },
            None => self.machine.next(),
        }
    }

    pub(crate) fn done(&mut self, done: Done) {
        if done == Done::ToldToEnd {
            self.plan = None;
        }
        if let Some(plan) = &mut self.plan {
            plan.remove(0);
            return;
        }
        let looked = matches!(done, Done::Looked { .. });
        self.machine.done(done);
        if looked {
            self.plan = self.plan();
        }
    }

    pub(crate) fn older(&self) -> impl Iterator<Item = usize> + '_ {
        self.machine.older()
    }

    /// All acts that are to come, in another order.
    fn plan(&self) -> Option<Vec<Act>> {
        let variant = variants::broken()?;
        let mut machine = self.machine.clone();
        let mut plan = Vec::new();
        let end = loop {
            match machine.next() {
                Next::Act(act) => plan.push(act),
                Next::End(end) => break end,
            }
            machine.done(Done::Yes);
        };
        if end != takeover::End::Started {
            return None;
        }
        let is_stop = |act: &Act| matches!(act, Act::Stop(..));
        let is_enter = |act: &Act| matches!(act, Act::Enter(_));
        match variant {
            Variant::TermBeforeRename => {
                carry(&mut plan, is_stop, |plan| plan.iter().position(|act| *act == Act::Install))
            }
            Variant::ServingAfterTerm => {
                carry(&mut plan, is_stop, |plan| plan.iter().position(is_enter).map(|at| at + 1))
            }
            Variant::ClaimGivenUpEarly => carry(&mut plan, |act| *act == Act::GiveUp, |_| Some(0)),
            Variant::SteeredLate => carry(&mut plan, |act| *act == Act::Steer, before_giving_up),
            Variant::ClosedLate => carry(&mut plan, |act| *act == Act::Close, before_giving_up),
            Variant::ListensLate => {
                carry(&mut plan, |act| *act == Act::Listen, |plan| Some(plan.len()));
            }
            _ => return None,
        }
        Some(plan)
    }
}

fn before_giving_up(plan: &[Act]) -> Option<usize> {
    plan.iter().position(|act| *act == Act::GiveUp)
}

/// Carries these acts to another place among the rest.
fn carry(
    plan: &mut Vec<Act>,
    which: impl Fn(&Act) -> bool,
    to: impl FnOnce(&[Act]) -> Option<usize>,
) {
    let (carried, mut rest): (Vec<Act>, Vec<Act>) = plan.drain(..).partition(which);
    let at = to(&rest).expect("every takeover has such an act");
    rest.splice(at..at, carried);
    *plan = rest;
}

pub(crate) fn verdict(facts: &Facts, purpose: Purpose, mut asker: Asker) -> Verdict {
    if asker.number.is_none() && variants::is(Variant::StopsNewer) {
        asker.start = u64::MAX;
    }
    verdict::verdict(facts, purpose, asker)
}

/// What is known of a generation, or what a broken one makes of it.
pub(crate) fn known(facts: Facts) -> Facts {
    match (variants::broken(), facts.proof) {
        (Some(Variant::ProbationIsNewer), _) => Facts { unproven: false, ..facts },
        (Some(Variant::ForeignTakenOver), _) => Facts { foreign: false, ..facts },
        (Some(Variant::RecordBelieved), _) => Facts { beyond: None, ..facts },
        (Some(Variant::UnknownIsProven), Err(Unproven::Unknown)) => {
            Facts { proof: Ok(()), ..facts }
        }
        (Some(Variant::LockIgnored), Err(Unproven::Unknown)) => {
            Facts { holds_pid_file: true, ..facts }
        }
        (Some(Variant::ElsewhereIsHere), Err(Unproven::Elsewhere)) => {
            Facts { proof: Err(Unproven::Unknown), ..facts }
        }
        _ => facts,
    }
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
    ends: impl Fn(&Predecessor) -> bool,
) -> Result<Option<Predecessor>, Untakeable> {
    let mut known = predecessors.to_vec();
    match variants::broken() {
        Some(Variant::TakesFromStrangers) => {
            known.extend(listens.map(|pid| Predecessor { number: 0, pid, hands_over: true }));
        }
        Some(Variant::BindsBesidePredecessor) if listens.is_none() => known.clear(),
        _ => {}
    }
    transfer::giver(listens, &known, ends)
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
