//! Walks every state that a launcher and its daemon can reach together: signals merged, reordered
//! and lost, messages late, either process dying at any point, the supervisor too, a successor that
//! comes, fails or takes over, for each way in which a supervisor shows its intent.
//!
//! What is checked on the way: no drain without a cause (P1, P3), the launcher ends as its daemon
//! ended and does not leave after a stop that it could know of (P6), and from everywhere the pair
//! comes to rest: serving, detached for a successor, or gone.

use super::daemon::{Daemon, Finding, Input as D, Output as DO, Phase, Timer as DT};
use super::launcher::{Input as L, Launcher, Output as LO, Timer as LT};
use super::{DrainReason, End, Intent, Kind, Reading, Report};
use std::collections::{HashMap, VecDeque};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Successor {
    None,
    /// Holds the claim.
    Starting,
    Serving,
}

/// What the world may still do to the pair.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Budget {
    operator: u8,
    kills: u8,
    losses: u8,
    successors: u8,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct World {
    kind: Kind,
    readable: bool,
    supervisor_lives: bool,
    launcher: Option<Launcher>,
    daemon: Option<Daemon>,
    /// How the daemon ended.
    end: Option<End>,
    to_daemon: VecDeque<Intent>,
    to_launcher: VecDeque<Report>,
    launcher_knows_end_of_file: bool,
    daemon_knows_end_of_file: bool,
    // Pending signals: one bit a kind, since signals merge.
    launcher_term: bool,
    launcher_cont: bool,
    usr2: bool,
    term_of_launcher: bool,
    term_of_successor: bool,
    term_of_operator: bool,
    launcher_timers: Vec<LT>,
    daemon_timers: Vec<DT>,
    request_hooks_run: bool,
    drain_hooks_run: bool,
    older_awaited: bool,
    wait_returned: bool,
    successor: Successor,
    wanted_down: bool,
    /// The launcher has taken a TERM since the service is to be down.
    stop_heard: bool,
    launcher_was_killed: bool,
    operator_sent_term: bool,
    budget: Budget,
}

/// One thing that can happen next. Operator, deaths and losses come from the budget; the rest
/// happens by itself, sooner or later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Step {
    Restart,
    Stop,
    TermDaemon,
    KillLauncher,
    KillDaemon,
    KillSupervisor,
    LoseSignalOfLauncher,
    LoseTermOfSuccessor,
    WakeLauncher { reversed: bool },
    LauncherTimer(LT),
    WakeDaemon { reversed: bool },
    DaemonTimer(DT),
    CallStarted,
    RequestHooksReturn,
    DrainHooksReturn,
    OlderEnd,
    MainReturns,
    SuccessorStarts,
    SuccessorFails,
    SuccessorServes,
}

impl Step {
    fn is_of_budget(self) -> bool {
        use Step::{
            KillDaemon, KillLauncher, KillSupervisor, LoseSignalOfLauncher, LoseTermOfSuccessor,
            Restart, Stop, TermDaemon,
        };
        matches!(
            self,
            Restart
                | Stop
                | TermDaemon
                | KillLauncher
                | KillDaemon
                | KillSupervisor
                | LoseSignalOfLauncher
                | LoseTermOfSuccessor
        )
    }
}

fn set<T: Copy + PartialEq>(timers: &mut Vec<T>, timer: T, armed: bool) {
    timers.retain(|one| *one != timer);
    if armed {
        timers.push(timer);
    }
}

impl World {
    fn new(kind: Kind, readable: bool) -> World {
        World {
            kind,
            readable,
            supervisor_lives: true,
            launcher: Some(Launcher::new(kind)),
            daemon: Some(Daemon::new(kind.restarts())),
            end: None,
            to_daemon: VecDeque::new(),
            to_launcher: VecDeque::from([Report::Ready]),
            launcher_knows_end_of_file: false,
            daemon_knows_end_of_file: false,
            launcher_term: false,
            launcher_cont: false,
            usr2: false,
            term_of_launcher: false,
            term_of_successor: false,
            term_of_operator: false,
            launcher_timers: Vec::new(),
            daemon_timers: Vec::new(),
            request_hooks_run: false,
            drain_hooks_run: false,
            older_awaited: false,
            wait_returned: false,
            successor: Successor::None,
            wanted_down: false,
            stop_heard: false,
            launcher_was_killed: false,
            operator_sent_term: false,
            budget: Budget { operator: 2, kills: 1, losses: 1, successors: 2 },
        }
    }

    fn phase(&self) -> Option<Phase> {
        self.daemon.as_ref().map(Daemon::phase)
    }

    /// Can the launcher know whether a TERM is a stop?
    fn tells(&self) -> bool {
        match self.kind {
            Kind::Daemontools => true,
            Kind::Runit => self.readable,
            Kind::Nobody | Kind::Other => false,
        }
    }

    fn reading(&self) -> Reading {
        match (self.supervisor_lives, self.readable && self.kind.restarts(), self.wanted_down) {
            (false, _, _) => Reading::Lost,
            (true, false, _) => Reading::Unreadable,
            (true, true, false) => Reading::Up,
            (true, true, true) => Reading::Down,
        }
    }

    fn steps(&self) -> Vec<Step> {
        let mut steps = Vec::new();
        let mut may = |condition: bool, step| {
            if condition {
                steps.push(step);
            }
        };
        let (launcher, daemon) = (self.launcher.is_some(), self.daemon.is_some());
        let Budget { operator, kills, losses, successors } = self.budget;
        may(operator > 0 && launcher && !self.wanted_down, Step::Restart);
        may(operator > 0 && launcher && !self.wanted_down, Step::Stop);
        may(operator > 0 && daemon, Step::TermDaemon);
        may(kills > 0 && launcher, Step::KillLauncher);
        may(kills > 0 && daemon, Step::KillDaemon);
        may(kills > 0 && self.supervisor_lives, Step::KillSupervisor);
        may(losses > 0 && (self.usr2 || self.term_of_launcher), Step::LoseSignalOfLauncher);
        may(losses > 0 && self.term_of_successor, Step::LoseTermOfSuccessor);
        let news = self.launcher_term
            || self.launcher_cont
            || !self.to_launcher.is_empty()
            || (!daemon && self.end.is_some());
        may(launcher && news, Step::WakeLauncher { reversed: false });
        may(
            launcher && self.launcher_term && self.launcher_cont,
            Step::WakeLauncher { reversed: true },
        );
        for timer in self.launcher_timers.iter().filter(|_| launcher) {
            may(true, Step::LauncherTimer(*timer));
        }
        let signals =
            [self.usr2, self.term_of_launcher, self.term_of_successor, self.term_of_operator];
        let pending = signals.iter().filter(|pending| **pending).count();
        let end_of_file = !launcher && !self.daemon_knows_end_of_file;
        may(
            daemon && (pending > 0 || !self.to_daemon.is_empty() || end_of_file),
            Step::WakeDaemon { reversed: false },
        );
        may(daemon && pending > 1, Step::WakeDaemon { reversed: true });
        for timer in self.daemon_timers.iter().filter(|_| daemon) {
            may(true, Step::DaemonTimer(*timer));
        }
        may(self.phase() == Some(Phase::Starting), Step::CallStarted);
        may(daemon && self.request_hooks_run, Step::RequestHooksReturn);
        may(daemon && self.drain_hooks_run, Step::DrainHooksReturn);
        may(daemon && self.older_awaited, Step::OlderEnd);
        may(daemon && self.wait_returned, Step::MainReturns);
        let restarts = self.supervisor_lives && !self.wanted_down && self.kind != Kind::Nobody;
        may(
            successors > 0 && !launcher && restarts && self.successor == Successor::None,
            Step::SuccessorStarts,
        );
        may(self.successor == Successor::Starting, Step::SuccessorFails);
        may(self.successor == Successor::Starting, Step::SuccessorServes);
        steps
    }

    fn step(&self, step: Step) -> World {
        let mut next = self.clone();
        let world = &mut next;
        match step {
            Step::Restart => {
                world.budget.operator -= 1;
                world.launcher_term = true;
                world.launcher_cont |= world.kind == Kind::Runit; // `sv restart` sends it too
            }
            Step::Stop => {
                world.budget.operator -= 1;
                world.wanted_down = true;
                world.launcher_term = true;
                world.launcher_cont = true;
            }
            Step::TermDaemon => {
                world.budget.operator -= 1;
                world.operator_sent_term = true;
                world.term_of_operator = true;
            }
            Step::KillLauncher => {
                world.budget.kills -= 1;
                world.launcher_was_killed = true;
                world.launcher_ends();
            }
            Step::KillDaemon => {
                world.budget.kills -= 1;
                world.daemon_ends(End::Signal(9));
            }
            Step::KillSupervisor => {
                world.budget.kills -= 1;
                world.supervisor_lives = false;
            }
            Step::LoseSignalOfLauncher => {
                world.budget.losses -= 1;
                world.usr2 = false;
                world.term_of_launcher = false;
            }
            Step::LoseTermOfSuccessor => {
                world.budget.losses -= 1;
                world.term_of_successor = false;
            }
            Step::WakeLauncher { reversed } => world.wake_launcher(reversed),
            Step::LauncherTimer(timer) => {
                set(&mut world.launcher_timers, timer, false);
                world.launcher(L::Timer(timer));
                world.launcher(L::Quiet);
            }
            Step::WakeDaemon { reversed } => world.wake_daemon(reversed),
            Step::DaemonTimer(timer) => {
                set(&mut world.daemon_timers, timer, false);
                world.daemon(D::Timer(timer));
            }
            Step::CallStarted => world.daemon(D::Started),
            Step::RequestHooksReturn => {
                world.request_hooks_run = false;
                world.daemon(D::RequestHooksDone);
            }
            Step::DrainHooksReturn => {
                world.drain_hooks_run = false;
                world.daemon(D::DrainHooksDone);
            }
            Step::OlderEnd => {
                world.older_awaited = false;
                world.daemon(D::OlderGone);
            }
            Step::MainReturns => world.daemon_ends(End::Code(0)),
            Step::SuccessorStarts => {
                world.budget.successors -= 1;
                world.successor = Successor::Starting;
            }
            Step::SuccessorFails => world.successor = Successor::None,
            Step::SuccessorServes => {
                world.successor = Successor::Serving;
                world.term_of_successor = world.daemon.is_some();
            }
        }
        next
    }

    fn daemon_ends(&mut self, end: End) {
        self.daemon = None;
        self.end = Some(end);
        self.to_daemon.clear();
        (self.usr2, self.term_of_launcher) = (false, false);
        (self.term_of_successor, self.term_of_operator) = (false, false);
        (self.request_hooks_run, self.drain_hooks_run) = (false, false);
        (self.older_awaited, self.wait_returned) = (false, false);
        self.daemon_timers.clear();
    }

    /// As the driver does: the channel first, then the signals, then the daemon's end, then quiet.
    fn wake_launcher(&mut self, reversed: bool) {
        let signals = [
            (std::mem::take(&mut self.launcher_term), L::Term { from: 7 }),
            (std::mem::take(&mut self.launcher_cont), L::Cont { from: 7 }),
        ];
        while let Some(report) = self.to_launcher.pop_front() {
            self.launcher(L::Report(report));
        }
        if self.daemon.is_none() && !self.launcher_knows_end_of_file {
            self.launcher_knows_end_of_file = true;
            self.launcher(L::ChannelClosed);
        }
        let in_order = |at: usize| if reversed { signals[1 - at] } else { signals[at] };
        for (pending, input) in [in_order(0), in_order(1)] {
            if pending {
                self.stop_heard |= self.wanted_down && input == L::Term { from: 7 };
                self.launcher(input);
            }
        }
        if let (None, Some(end)) = (&self.daemon, self.end) {
            self.launcher(L::Ended(end));
        }
        self.launcher(L::Quiet);
    }

    fn wake_daemon(&mut self, reversed: bool) {
        let mut signals = Vec::new();
        let mut take = |pending: &mut bool, input| {
            if std::mem::take(pending) {
                signals.push(input);
            }
        };
        take(&mut self.usr2, D::Usr2 { from_launcher: true });
        take(&mut self.term_of_launcher, D::Term { from_successor: false });
        take(&mut self.term_of_successor, D::Term { from_successor: true });
        take(&mut self.term_of_operator, D::Term { from_successor: false });
        if reversed {
            signals.reverse();
        }
        while let Some(intent) = self.to_daemon.pop_front() {
            self.daemon(D::Told(intent));
        }
        if self.launcher.is_none() && !std::mem::replace(&mut self.daemon_knows_end_of_file, true) {
            self.daemon(D::LauncherGone);
        }
        for input in signals {
            self.daemon(input);
        }
    }

    fn launcher(&mut self, input: L) {
        let Some(launcher) = &mut self.launcher else { return };
        let outputs = launcher.on(input);
        for output in outputs {
            match output {
                LO::ReadStatus => {
                    let reading = self.reading();
                    self.launcher(L::Status(reading));
                }
                LO::Tell(intent) => {
                    if self.daemon.is_some() {
                        self.to_daemon.push_back(intent);
                    }
                }
                LO::Handoff => self.usr2 = self.daemon.is_some(),
                LO::Stop => self.term_of_launcher = self.daemon.is_some(),
                LO::Kill(_) => {
                    if self.daemon.is_some() {
                        self.daemon_ends(End::Signal(9));
                    }
                }
                LO::Forward(_) => {}
                LO::Arm(timer) => set(&mut self.launcher_timers, timer, true),
                LO::Disarm(timer) => set(&mut self.launcher_timers, timer, false),
                LO::Leave { .. } => {
                    assert!(!(self.tells() && self.stop_heard), "left after a stop: {self:?}");
                    self.launcher_ends();
                }
                LO::Mirror(end) => {
                    assert_eq!(Some(end), self.end, "ended otherwise than its daemon");
                    self.launcher_ends();
                }
            }
        }
    }

    fn launcher_ends(&mut self) {
        self.launcher = None;
        self.to_launcher.clear();
        self.launcher_timers.clear();
        (self.launcher_term, self.launcher_cont) = (false, false);
    }

    fn daemon(&mut self, input: D) {
        let Some(daemon) = &mut self.daemon else { return };
        let outputs = daemon.on(input);
        for output in outputs {
            match output {
                DO::RunRequestHooks => self.request_hooks_run = true,
                DO::Report(report) => {
                    if self.launcher.is_some() {
                        self.to_launcher.push_back(report);
                    }
                }
                DO::Release => {} // a wake-up, which can be lost: the report is what counts
                DO::RunDrainHooks(reason) => {
                    self.check_drain(reason, input);
                    self.drain_hooks_run = true;
                }
                DO::StopOlder => self.older_awaited = true,
                DO::Finish(_) => self.wait_returned = true,
                DO::Hammer(_) => self.daemon_ends(End::Code(124)),
                DO::End => self.daemon_ends(End::Code(0)),
                DO::Check => {
                    let finding = match self.successor {
                        Successor::Starting => Finding::ClaimHeld { supervisor: self.reading() },
                        Successor::None | Successor::Serving => Finding::Seen {
                            newer: self.successor == Successor::Serving,
                            lost_file: false,
                            claims_moved: false,
                            supervisor: self.reading(),
                        },
                    };
                    self.daemon(D::Checked(finding));
                }
                DO::PutBack => {}
                DO::Arm(timer) => set(&mut self.daemon_timers, timer, true),
                DO::Disarm(timer) => set(&mut self.daemon_timers, timer, false),
            }
        }
    }

    /// P1: a generation that serves drains only when a successor serves, the service is to be down,
    /// nobody says whether it is, or somebody sent TERM.
    fn check_drain(&self, reason: DrainReason, input: D) {
        let known_up = !self.wanted_down && self.supervisor_lives && self.tells() && self.readable;
        match reason {
            DrainReason::TakenOver => assert_eq!(self.successor, Successor::Serving, "{self:?}"),
            DrainReason::Stopped => {
                assert!(!known_up, "drained though wanted up, on {input:?}: {self:?}");
            }
            DrainReason::Requested => {
                assert!(self.operator_sent_term, "drained unasked, on {input:?}: {self:?}");
            }
        }
    }

    /// At rest: nothing is under way, and what there is may stay so.
    fn is_at_rest(&self) -> bool {
        let quiet = !self.launcher_term && self.to_daemon.is_empty() && self.to_launcher.is_empty();
        // What the launcher took to its grave, only a status can tell.
        let known = self.stop_heard && (self.readable || !self.launcher_was_killed);
        let stopped = self.tells() && known && self.supervisor_lives;
        match (&self.launcher, self.phase()) {
            (None, None) => true,
            (Some(_), Some(Phase::Serving)) => quiet && !stopped,
            (None, Some(Phase::Detached)) => {
                quiet && !stopped && self.successor != Successor::Serving
            }
            (_, _) => false,
        }
    }
}

/// Every state that can be reached, with what leads on from it by itself.
fn explore(start: World) -> (Vec<World>, Vec<Vec<usize>>) {
    let mut numbers = HashMap::from([(start.clone(), 0)]);
    let mut worlds = vec![start];
    let mut leads_to: Vec<Vec<usize>> = Vec::new();
    while leads_to.len() < worlds.len() {
        let world = worlds[leads_to.len()].clone();
        let mut next = Vec::new();
        for step in world.steps() {
            let after = world.step(step);
            let number = *numbers.entry(after).or_insert_with_key(|after| {
                worlds.push(after.clone());
                worlds.len() - 1
            });
            if !step.is_of_budget() {
                next.push(number);
            }
        }
        leads_to.push(next);
    }
    (worlds, leads_to)
}

/// The states from which no way leads to rest.
fn restless(worlds: &[World], leads_to: &[Vec<usize>]) -> Vec<usize> {
    let mut comes_from = vec![Vec::new(); worlds.len()];
    for (from, next) in leads_to.iter().enumerate() {
        for to in next {
            comes_from[*to].push(from);
        }
    }
    let mut reached: Vec<bool> = worlds.iter().map(World::is_at_rest).collect();
    let mut todo: Vec<usize> = (0..worlds.len()).filter(|at| reached[*at]).collect();
    while let Some(at) = todo.pop() {
        for from in &comes_from[at] {
            if !std::mem::replace(&mut reached[*from], true) {
                todo.push(*from);
            }
        }
    }
    (0..worlds.len()).filter(|at| !reached[*at]).collect()
}

fn walk(kind: Kind, readable: bool) {
    let (worlds, leads_to) = explore(World::new(kind, readable));
    println!("{kind:?}, status readable: {readable}: {} states", worlds.len());
    assert!(worlds.len() > 1_000, "the walk went nowhere");
    let restless = restless(&worlds, &leads_to);
    assert!(
        restless.is_empty(),
        "{} never come to rest, {:?}",
        restless.len(),
        worlds[restless[0]]
    );
    // The walk has been to where it matters.
    let seen = |test: fn(&World) -> bool| assert!(worlds.iter().any(test));
    seen(|world| world.phase() == Some(Phase::Detached) && world.launcher.is_none());
    seen(|world| matches!(world.phase(), Some(Phase::Draining(DrainReason::Stopped))));
    seen(|world| world.launcher.is_none() && world.daemon.is_none());
    if kind != Kind::Nobody {
        seen(|world| matches!(world.phase(), Some(Phase::Draining(DrainReason::TakenOver))));
    }
}

#[test]
fn p1_p6_p8_walk_daemontools_readable() {
    walk(Kind::Daemontools, true);
}

#[test]
fn p1_p6_p8_walk_daemontools_unreadable() {
    walk(Kind::Daemontools, false);
}

#[test]
fn p1_p6_p8_walk_runit_readable() {
    walk(Kind::Runit, true);
}

#[test]
fn p1_p6_p8_walk_runit_unreadable() {
    walk(Kind::Runit, false);
}

#[test]
fn p1_p6_p8_walk_nobody() {
    walk(Kind::Nobody, false);
}

#[test]
fn p1_p6_p8_walk_other() {
    walk(Kind::Other, false);
}
