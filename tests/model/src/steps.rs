//! What can happen next, and what then does.

use super::keeper::KeeperAction;
use super::launcher::orders;
use super::moves::MovesAction;
use super::net::NetAction;
use super::probation::ProbationAction;
use super::shared::Shared;
use super::supervisors::Job;
use super::trace::{self, say};
use super::world::{
    BY_HAND, DaemonProcess, Deploy, ELSEWHERE, Generation, Id, Instance, LauncherProcess, Main,
    Promise, Setting, Signal, Stop, World, pid,
};
use crate::proto::daemon::{Input, Phase, Timer as DaemonTimer};
use crate::proto::launcher::Timer as LauncherTimer;
use crate::proto::supervisor::Tells;
use crate::proto::{End, Kind};
use crate::variants::{self, Variant};

/// One thing that can happen next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    // What only happens while the budget lasts.
    Restart,
    StopService,
    StartService,
    Continue,
    Kill(Process, Id),
    KillOverdue,
    KillSupervisor,
    StartBad(Deploy),
    StartByHand,
    Reload(Id, Deploy),
    ClaimTimeout(Id),
    StartsSlowly(Id),
    Plant,
    StartElsewhere,
    Direct(Id, Signal),
    ReloadDaemon(Id),
    Halt(Id),
    Refuse(Id, Signal),
    RemoveFile,
    ReusePid(Id),
    SlowCheck(Id),
    OutOfMemory(Id),
    LauncherLimit(Id, Id),
    DrainLimit(Id),
    // What happens by itself, sooner or later.
    Start,
    SendCont,
    WriteStatus,
    NewSupervisor,
    WakeLauncher(Id, Option<u8>),
    LauncherTimer(Id, LauncherTimer),
    WakeDaemon(Id, Option<Signal>, bool),
    DaemonTimer(Id, DaemonTimer),
    Resume(Id),
    EndCheck(Id),
    HooksReturn(Id),
    Answer(Id),
    Wish(Id),
    RequestHooks(Id),
    DrainHooks(Id),
    OlderGone(Id),
    Main(Id),
    Net(NetAction),
    Keeper(Id, KeeperAction),
    Probation(Id, ProbationAction),
    Moves(Id, MovesAction),
    /// Its thread for the control socket sees that another generation has ended.
    SettleFlows(Id),
    /// All have seen what has happened, and new flows do not reach the generation that serves.
    FlowsAstray,
    /// Nothing happens any more: what must hold in the end is looked at.
    Rest,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Process {
    Launcher,
    Daemon,
    Keeper,
}

impl World {
    /// Everything that can happen next.
    pub(crate) fn actions(&self, setting: &Setting, actions: &mut Vec<Action>) {
        if self.fault.is_none() {
            self.budgeted(setting, actions);
            let budgeted = actions.len();
            self.fair(setting, actions);
            let fair = &actions[budgeted..];
            if self.new_flows_go_astray()
                && trace::silently(|| self.flows_are_settled(fair, setting))
            {
                actions.push(Action::FlowsAstray);
                return;
            }
            if trace::silently(|| self.is_at_rest(&actions[budgeted..], setting)) {
                actions.push(Action::Rest);
            }
        }
    }

    /// What only happens while the budget lasts.
    fn budgeted(&self, setting: &Setting, actions: &mut Vec<Action>) {
        let (budget, supervisor) = (&self.budget, &self.supervisor);
        let busy = supervisor.send_cont || supervisor.write_status;
        let mut may = |left: u8, condition: bool, action| {
            if left > 0 && condition {
                actions.push(action);
            }
        };
        // Of `svc -c` and `svc -t` within 20 ms, a stop is understood: `# Limitations`.
        let child = supervisor.child.and_then(|id| self.launcher(id));
        let obeys = supervisor.lives && !busy && !child.is_some_and(|one| one.continued);
        let calm = |one: &LauncherProcess| one.terms == 0 && !one.timers.has(LauncherTimer::Settle);
        let wanted = supervisor.wants_up || !setting.manner.jobs;
        may(budget.commands, obeys && wanted && supervisor.child.is_some(), Action::Restart);
        let can_stop = setting.kind != Kind::NOBODY && obeys;
        may(budget.commands, can_stop && supervisor.wants_up, Action::StopService);
        may(budget.commands, can_stop && !supervisor.wants_up, Action::StartService);
        let continues = setting.kind.tells_late() && obeys && child.is_some_and(calm);
        may(budget.commands, continues, Action::Continue);
        // systemd is PID 1: the machine ends with it.
        let mortal = setting.kind != Kind::NOBODY && !matches!(setting.kind.tells, Tells::Job);
        may(budget.kills, supervisor.lives && mortal, Action::KillSupervisor);
        may(budget.limits, self.is_overdue(setting), Action::KillOverdue);
        for deploy in Deploy::BAD {
            may(budget.bad, self.can_start(setting), Action::StartBad(deploy));
        }
        may(budget.by_hand, self.has_starts_left(setting), Action::StartByHand);
        may(budget.elsewhere, self.has_starts_left(setting), Action::StartElsewhere);
        may(budget.planted, self.has_starts_left(setting), Action::Plant);
        let file = self.file.is_some() && setting.sockets.is_none();
        may(budget.removals, file, Action::RemoveFile);
        self.net_budgeted(&mut |left, condition, action| may(left, condition, Action::Net(action)));
        for id in self.ids() {
            let launcher = self.launcher(id).is_some();
            if let Some(process) = &self.at(id).launcher {
                may(budget.kills, true, Action::Kill(Process::Launcher, id));
                may(budget.halts, true, Action::Halt(id));
                for child in self.children(id) {
                    let limit = process.timers.has(LauncherTimer::Kill(pid(child)));
                    let limit = limit && !self.has_moved_limit(child);
                    may(budget.limits, limit, Action::LauncherLimit(id, child));
                }
                may(budget.reloads, setting.in_place, Action::Reload(id, Deploy::Good));
                for deploy in Deploy::BAD {
                    let left = budget.reloads.min(budget.bad);
                    may(left, setting.in_place, Action::Reload(id, deploy));
                }
            }
            may(budget.kills, self.keeper(id).is_some(), Action::Kill(Process::Keeper, id));
            let over = Action::Keeper(id, KeeperAction::Over);
            may(budget.limits, self.may_be_over(id), over);
            let gone = self.daemon(id).is_none();
            let known = self.record.contains(&id) || self.file == Some(id);
            may(budget.reuses, gone && known && self.innocent.is_none(), Action::ReusePid(id));
            let Some(daemon) = self.daemon(id) else { continue };
            may(budget.kills, true, Action::Kill(Process::Daemon, id));
            for (left, action) in self.probation_budgeted(id) {
                may(left, true, Action::Probation(id, action));
            }
            for (left, action) in self.moves_budgeted(id) {
                may(left, true, Action::Moves(id, action));
            }
            let held = self.claim.is_some_and(|holder| holder != id);
            let claiming = matches!(daemon.main, Main::Claiming(_)) && !setting.in_place;
            may(budget.bad, claiming && held, Action::ClaimTimeout(id));
            may(budget.direct, daemon.has_handlers() && setting.in_place, Action::ReloadDaemon(id));
            for signal in [Signal::TermOfOperator, Signal::Usr2OfOperator] {
                may(budget.direct, daemon.has_handlers(), Action::Direct(id, signal));
            }
            for signal in daemon.pending.iter() {
                let refusable = match signal {
                    Signal::Usr2OfLauncher | Signal::TermOfLauncher => true,
                    // A daemon with a launcher, an orphan's, does not look round.
                    Signal::TermOf(by) => !launcher || self.at(by).first == self.at(id).first,
                    Signal::Usr2OfOperator
                    | Signal::TermOfOperator
                    | Signal::TermOfAnotherLauncher => false,
                };
                may(budget.losses, refusable, Action::Refuse(id, signal));
            }
            if !daemon.is_stalled() {
                let starts = daemon.timers.has(DaemonTimer::Orphan) && !daemon.hangs();
                may(budget.bad, starts, Action::StartsSlowly(id));
                let check = daemon.timers.has(DaemonTimer::Check) && self.claim.is_none();
                may(budget.slow, check && !daemon.main.has_files(), Action::SlowCheck(id));
                let acts = daemon.has_handlers() && !daemon.short && !daemon.finished;
                let needs = !setting.probation || self.is_about_to_look(id);
                may(budget.short, acts && needs, Action::OutOfMemory(id));
                may(budget.limits, daemon.timers.has(DaemonTimer::Drain), Action::DrainLimit(id));
            }
        }
    }

    /// What happens by itself, sooner or later.
    fn fair(&self, setting: &Setting, actions: &mut Vec<Action>) {
        let supervisor = &self.supervisor;
        let busy = supervisor.send_cont || supervisor.write_status;
        let mut may = |condition: bool, action| {
            if condition {
                actions.push(action);
            }
        };
        may(self.can_start(setting), Action::Start);
        may(supervisor.send_cont, Action::SendCont);
        may(!supervisor.send_cont && supervisor.write_status, Action::WriteStatus);
        may(!supervisor.lives, Action::NewSupervisor);
        self.net_fair(&mut |condition, action| may(condition, Action::Net(action)));
        for id in self.ids() {
            let generation = self.at(id);
            if let Some(launcher) = &generation.launcher {
                let has_news = |child: Id| {
                    let child = self.at(child);
                    let closed = child.daemon.is_none() && !child.closed_heard;
                    let ended = child.end.is_some() && !child.end_heard;
                    let told = child.gives || !child.of_keeper.is_empty();
                    told || !child.to_launcher.is_empty() || closed || ended
                };
                let awaited = &launcher.awaits;
                let alone = !awaited.is_empty() && awaited.iter().all(|one| self.is_gone(*one));
                may(alone || self.children(id).any(has_news), Action::WakeLauncher(id, None));
                for order in 0..orders(launcher.terms, launcher.cont).len() {
                    may(true, Action::WakeLauncher(id, Some(order as u8)));
                }
                // A supervisor is through with a command within the 20 ms of the settle timer, and
                // what it has sent is then taken before the timer fires.
                let settled = !busy && !launcher.cont || launcher.settles_early;
                let timers = [
                    (LauncherTimer::Cont, true),
                    (LauncherTimer::Settle, settled),
                    (LauncherTimer::Handoff, true),
                    (LauncherTimer::Cancel, true),
                    (LauncherTimer::Gather, true),
                    (LauncherTimer::Prepare, true),
                    (LauncherTimer::Start, true),
                    (LauncherTimer::Overdue, true),
                    // A second: only a claim that others hold takes a keeper that long.
                    (LauncherTimer::Keeper, self.is_claimed_for_long()),
                ];
                for (timer, fires) in timers {
                    may(fires && launcher.timers.has(timer), Action::LauncherTimer(id, timer));
                }
            }
            self.keeper_fair(id, &mut |condition, action| {
                may(condition, Action::Keeper(id, action))
            });
            let Some(daemon) = &generation.daemon else { continue };
            let runs = match daemon.main {
                Main::Booting(_) | Main::TakingOver { .. } => true,
                Main::Claiming(_) if daemon.waits_for.is_some() => false,
                Main::Claiming(_) => self.claim.is_none() || variants::is(Variant::NoClaim),
                Main::Preparing(deploy) => self.prepares(id).unwrap_or(deploy != Deploy::Hangs),
                Main::Waiting => daemon.finished,
                Main::Parked => false,
            };
            may(runs, Action::Main(id));
            for action in self.moves_fair(id) {
                may(true, Action::Moves(id, action));
            }
            may(self.flows_settles(id), Action::SettleFlows(id));
            may(daemon.checking.is_some(), Action::EndCheck(id));
            let resumes = !daemon.stalled.is_empty() && !daemon.main.has_files();
            may(resumes, Action::Resume(id));
            if daemon.is_stalled() || !daemon.has_handlers() {
                continue;
            }
            let closed = self.launcher(id).is_none() && !daemon.heard_closed;
            may(closed || !generation.to_daemon.is_empty(), Action::WakeDaemon(id, None, false));
            for signal in daemon.pending.iter() {
                may(true, Action::WakeDaemon(id, Some(signal), false));
                let merges = daemon.pending.others(signal).next().is_some();
                may(merges, Action::WakeDaemon(id, Some(signal), true));
            }
            let hooks = daemon.signal_hooks.waits_for().is_some();
            may(hooks && !variants::is(Variant::HookHoldsForEver), Action::HooksReturn(id));
            may(daemon.asks.is_some(), Action::Answer(id));
            may(daemon.wishes, Action::Wish(id));
            may(daemon.request_hooks > 0, Action::RequestHooks(id));
            may(
                daemon.drain_hooks && self.has_drained(id) && self.has_passed(id),
                Action::DrainHooks(id),
            );
            let gone = daemon.awaits.iter().all(|one| self.is_gone(*one));
            may(gone && !daemon.awaits.is_empty(), Action::OlderGone(id));
            let timers = [
                DaemonTimer::Check,
                DaemonTimer::Successor,
                DaemonTimer::TellOlder,
                DaemonTimer::Leave,
            ];
            for timer in timers {
                may(daemon.timers.has(timer), Action::DaemonTimer(id, timer));
            }
            for action in self.probation_fair(id) {
                may(true, Action::Probation(id, action));
            }
            let orphan = daemon.timers.has(DaemonTimer::Orphan) && daemon.hangs();
            may(orphan, Action::DaemonTimer(id, DaemonTimer::Orphan));
        }
    }

    pub(crate) fn has_starts_left(&self, setting: &Setting) -> bool {
        self.generations.len() < usize::from(setting.starts)
    }

    fn can_start(&self, setting: &Setting) -> bool {
        let supervisor = &self.supervisor;
        let again = setting.kind != Kind::NOBODY || self.generations.is_empty();
        let busy = supervisor.send_cont || supervisor.write_status;
        let wants = supervisor.lives && supervisor.wants_up && supervisor.child.is_none();
        wants && !supervisor.idle && !busy && again && self.has_starts_left(setting)
    }

    /// It wants to start a generation, and the walk is at its end.
    pub(crate) fn is_out_of_starts(&self, setting: &Setting) -> bool {
        let wants = self.supervisor.wants_up && self.supervisor.child.is_none();
        wants && !self.has_starts_left(setting)
    }

    /// Nothing happens any more, unless somebody from outside does something. A check that finds
    /// all as it was does not count.
    fn is_at_rest(&self, fair: &[Action], setting: &Setting) -> bool {
        let is_check = |one: &Action| {
            matches!(
                one,
                Action::DaemonTimer(_, DaemonTimer::Check)
                    | Action::WakeLauncher(_, None)
                    | Action::Keeper(_, KeeperAction::Check)
            )
        };
        fair.iter().all(is_check) && fair.iter().all(|one| self.after(*one, setting).is_none())
    }

    /// What becomes of it; `None` where nothing does.
    pub(crate) fn after(&self, action: Action, setting: &Setting) -> Option<World> {
        let mut next = self.clone();
        next.perform_action(action, setting);
        let is_as_before = |next: &World, id: Id| {
            let [new, old] =
                [&next.generations, &self.generations].map(|of| of.get(usize::from(id)));
            new.zip(old).is_some_and(|(new, old)| new.is(old))
        };
        for id in next.ids() {
            if !is_as_before(&next, id) || !is_as_before(&next, next.at(id).first) {
                next.forget(id);
                next.with_daemon(id, DaemonProcess::forget_timers);
            }
        }
        next.check_net(setting);
        if let (Some(flows), Some(before)) = (&next.flows, &self.flows)
            && !flows.is(before)
        {
            next.check_flows();
        }
        (next != *self).then_some(next)
    }

    /// What a generation was that has ended altogether matters no more.
    fn forget(&mut self, id: Id) {
        let gone = self.launcher(id).is_none() && self.daemon(id).is_none();
        if gone && self.keeper(id).is_none() {
            let generation = self.at_mut(id);
            let Generation { instance, first, number, was_ready, is_keeper, line, .. } =
                *generation;
            let new = Generation::new(instance, first);
            *generation = Generation { number, was_ready, is_keeper, line, ..new };
        }
    }

    fn perform_action(&mut self, action: Action, setting: &Setting) {
        match action {
            Action::Rest => self.check_rest(setting),
            Action::Restart => self.command(true, setting),
            Action::StopService => self.command(false, setting),
            Action::StartService => {
                say(|| "operator: svc -u".to_owned());
                self.budget.commands -= 1;
                self.supervisor.wants_up = true;
                self.supervisor.stop = Stop::No;
                self.supervisor.idle = false;
                if self.supervisor.job == Some(Job::Stop) {
                    self.supervisor.job = Some(Job::Restart);
                }
                if let Some(launcher) = self.child() {
                    (launcher.stop_pending, launcher.stop_heard) = (false, false);
                }
                self.write_status(setting);
            }
            Action::Continue => {
                say(|| "operator: svc -c".to_owned());
                self.budget.commands -= 1;
                self.supervisor.send_cont = true;
                self.child().expect("it has one").continued = true;
            }
            Action::Kill(process, id) => self.kill(process, id, setting),
            Action::KillOverdue => self.kill_overdue(setting),
            Action::KillSupervisor => {
                say(|| "SIGKILL to the supervisor".to_owned());
                self.budget.kills -= 1;
                self.excuse_stop();
                self.net_excuse_keeper();
                let supervisor = &mut self.supervisor;
                (supervisor.lives, supervisor.child) = (false, None);
                (supervisor.send_cont, supervisor.write_status) = (false, false);
                supervisor.job = None;
            }
            Action::StartBad(deploy) => {
                self.budget.bad -= 1;
                self.start(deploy, self.supervisor.instance, setting);
            }
            Action::StartByHand => {
                self.budget.by_hand -= 1;
                self.start(Deploy::Good, BY_HAND, setting);
            }
            Action::ClaimTimeout(id) => {
                say(|| format!("daemon {id} gives up waiting for the claim"));
                self.budget.bad -= 1;
                self.give_up_claiming(id);
            }
            Action::Plant => {
                say(|| "the record's owner writes a process of others into it".to_owned());
                self.budget.planted -= 1;
                let id = self.generations.len() as Id;
                self.generations.push(Shared::new(Generation::new(BY_HAND, id)));
                self.net_starts();
                self.record.push(id);
                self.planted = Some(id);
            }
            Action::StartElsewhere => {
                self.budget.elsewhere -= 1;
                self.start(Deploy::Good, ELSEWHERE, setting);
            }
            Action::Direct(id, signal) => {
                say(|| format!("operator: {signal:?} straight to daemon {id}"));
                self.budget.direct -= 1;
                self.at_mut(id).termed |= signal == Signal::TermOfOperator;
                let serves = self.daemon(id).is_some_and(|daemon| daemon.serves());
                self.at_mut(id).usr2_sent |= serves && signal == Signal::Usr2OfOperator;
                self.signal(id, signal);
            }
            Action::ReloadDaemon(id) => {
                say(|| format!("operator: HUP straight to daemon {id}"));
                if self.wake_daemon_for(id, Input::Reload, setting) {
                    self.budget.direct -= 1;
                }
            }
            Action::Halt(id) => {
                say(|| format!("operator: QUIT to launcher {id}"));
                self.budget.halts -= 1;
                for child in self.children(id) {
                    self.at_mut(child).termed = true; // by the operator's wish
                }
                self.halt(id, setting);
            }
            Action::Refuse(id, signal) => {
                say(|| format!("{signal:?} to daemon {id} was refused"));
                self.budget.losses -= 1;
                self.at_mut(id).refused |= matches!(signal, Signal::TermOf(_));
                self.at_mut(id).daemon.as_mut().expect("it lives").pending.remove(signal);
            }
            Action::RemoveFile => {
                say(|| "somebody removes the PID file".to_owned());
                self.budget.removals -= 1;
                self.file = None;
            }
            Action::ReusePid(id) => {
                say(|| format!("a process that is none of ours gets PID {}", pid(id)));
                self.budget.reuses -= 1;
                self.innocent = Some(id);
            }
            Action::SlowCheck(id) => {
                self.budget.slow -= 1;
                self.with_daemon(id, |daemon| daemon.slow = true);
                self.daemon_timer(id, DaemonTimer::Check, setting);
                self.with_daemon(id, |daemon| daemon.slow = false);
            }
            Action::OutOfMemory(id) => {
                say(|| format!("daemon {id} is out of memory"));
                self.budget.short -= 1;
                self.with_daemon(id, |daemon| daemon.short = true);
            }
            Action::LauncherLimit(id, child) => {
                self.budget.limits -= 1;
                let timer = LauncherTimer::Kill(pid(child));
                self.wake_launcher(id, None, Some(timer), setting);
            }
            Action::Reload(id, deploy) => {
                say(|| format!("operator: a new program ({deploy:?}), and HUP to launcher {id}"));
                self.budget.reloads -= 1;
                self.budget.bad -= u8::from(deploy != Deploy::Good);
                (self.program, self.reload_owed) = (deploy, true);
                self.net_reloads();
                self.reload(id, setting);
            }
            Action::StartsSlowly(id) => {
                self.budget.bad -= 1;
                self.daemon_timer(id, DaemonTimer::Orphan, setting);
            }
            Action::DrainLimit(id) => {
                self.budget.limits -= 1;
                self.daemon_timer(id, DaemonTimer::Drain, setting);
            }
            Action::Start => self.start(Deploy::Good, self.supervisor.instance, setting),
            Action::SendCont => {
                say(|| "supervisor: CONT to its child".to_owned());
                self.supervisor.send_cont = false;
                if let Some(launcher) = self.child() {
                    launcher.cont = true;
                }
            }
            Action::WriteStatus => {
                let up = self.supervisor.wants_up;
                say(|| format!("supervisor writes its status: {}", if up { "up" } else { "down" }));
                self.supervisor.write_status = false;
                self.supervisor.status_up = up;
            }
            Action::NewSupervisor => {
                say(|| "a new supervisor is started".to_owned());
                let supervisor = &mut self.supervisor;
                supervisor.instance += 1;
                (supervisor.lives, supervisor.stop) = (true, Stop::No);
                (supervisor.wants_up, supervisor.status_up) = (true, true);
                supervisor.idle = false;
            }
            Action::WakeLauncher(id, order) => self.wake_launcher(id, order, None, setting),
            Action::LauncherTimer(id, timer) => self.wake_launcher(id, None, Some(timer), setting),
            Action::WakeDaemon(id, signal, merge) => self.wake_daemon(id, signal, merge, setting),
            Action::DaemonTimer(id, timer) => self.daemon_timer(id, timer, setting),
            Action::Resume(id) => self.resume(id, setting),
            Action::EndCheck(id) => self.end_check(id, setting),
            Action::HooksReturn(id) => {
                say(|| format!("daemon {id}: the hooks before a signal have returned"));
                self.hooks_return(id, setting);
            }
            Action::Answer(id) => {
                say(|| format!("daemon {id} has its supervisor's answer"));
                self.answer(id, setting);
            }
            Action::Wish(id) => {
                if self.wake_daemon_for(id, Input::Reload, setting) {
                    self.with_daemon(id, |daemon| daemon.wishes = false);
                }
            }
            Action::RequestHooks(id) => {
                say(|| format!("daemon {id}: its on_shutdown_request hooks have returned"));
                self.with_daemon(id, |daemon| daemon.request_hooks -= 1);
                if !self.wake_daemon_for(id, Input::RequestHooksDone, setting) {
                    self.with_daemon(id, |daemon| daemon.request_hooks += 1);
                }
            }
            Action::DrainHooks(id) => {
                say(|| format!("daemon {id}: its on_shutdown hooks have returned"));
                if self.wake_daemon_for(id, Input::DrainHooksDone, setting) {
                    self.with_daemon(id, |daemon| daemon.drain_hooks = false);
                }
            }
            Action::OlderGone(id) => {
                say(|| format!("daemon {id}: the older generations have ended"));
                if self.wake_daemon_for(id, Input::OlderGone, setting) {
                    self.with_daemon(id, |daemon| daemon.awaits.clear());
                }
            }
            Action::Main(id) => self.main(id, setting),
            Action::Net(action) => self.net_perform(action),
            Action::Keeper(id, action) => self.keeper_act(id, action, setting),
            Action::Probation(id, action) => self.probation_act(id, action, setting),
            Action::Moves(id, action) => self.moves_act(id, action, setting),
            Action::SettleFlows(id) => self.flows_settle(id, setting),
            Action::FlowsAstray => {
                self.fault(Promise::P14, "a new flow does not reach a generation that serves");
            }
        }
    }

    pub(crate) fn with_daemon(&mut self, id: Id, change: impl FnOnce(&mut DaemonProcess)) {
        if let Some(daemon) = &mut self.at_mut(id).daemon {
            change(daemon);
        }
    }

    pub(crate) fn daemon_timer(&mut self, id: Id, timer: DaemonTimer, setting: &Setting) {
        say(|| format!("daemon {id}: timer {timer:?}"));
        self.with_daemon(id, |daemon| daemon.timers.disarm(timer));
        if !self.wake_daemon_for(id, Input::Timer(timer), setting) {
            self.with_daemon(id, |daemon| daemon.timers.arm(timer));
        }
        // A check that finds all as it was changes nothing, so what it asks is answered at once.
        if timer == DaemonTimer::Check && self.daemon(id).is_some_and(|one| one.asks.is_some()) {
            self.answer(id, setting);
        }
    }

    fn kill(&mut self, process: Process, id: Id, setting: &Setting) {
        say(|| format!("SIGKILL to {process:?} {id}"));
        self.budget.kills -= 1;
        if process != Process::Daemon {
            self.excuse_stop();
            self.net_excuse_keeper();
        }
        match process {
            Process::Launcher => self.launcher_ends(id, End::Signal(9), setting),
            Process::Daemon => {
                self.check_falls_back(id, setting);
                self.net_crashes(id, setting);
                self.daemon_ends(id, End::Signal(9));
            }
            Process::Keeper => self.keeper_ends(id, "KILL"),
        }
    }

    /// `svc -t` and `svc -d`, or whatever another supervisor calls them.
    fn command(&mut self, up: bool, setting: &Setting) {
        say(|| format!("operator: svc -{}", if up { 't' } else { 'd' }));
        self.budget.commands -= 1;
        let tells = match &setting.kind.tells {
            Tells::Late(_) => true,
            Tells::AtOnce(_) | Tells::Job => setting.readable,
            Tells::Never => false,
        };
        if !up {
            self.net_excuse_keeper();
            let supervisor = &mut self.supervisor;
            supervisor.wants_up = false;
            let owed = tells && supervisor.instance == 0 && supervisor.child.is_some();
            // Without pidfds the end of older generations cannot be awaited.
            let owed = owed && !self.has_abandoned() && !setting.by_lock;
            self.supervisor.stop = if owed { Stop::Owed } else { Stop::Excused };
            self.write_status(setting);
        }
        self.begin_job(up, setting);
        let Some(id) = self.supervisor.child else { return };
        for child in self.children(id) {
            self.at_mut(child).stop_sent |= !up;
        }
        let launcher = self.child().expect("it has one");
        launcher.terms = (launcher.terms + 1).min(2);
        launcher.stop_pending |= !up;
        launcher.settles_early = launcher.timers.has(LauncherTimer::Settle) && !launcher.cont;
        self.supervisor.send_cont = match &setting.kind.tells {
            Tells::Late(_) => !up,
            Tells::AtOnce(_) => true, // as runit
            Tells::Job | Tells::Never => false,
        };
    }

    /// A daemon that starts and has yet to notice that its launcher is gone: nobody knows of it.
    fn has_abandoned(&self) -> bool {
        self.generations.iter().any(|one| {
            let starts = |daemon: &DaemonProcess| daemon.machine.phase() == Phase::Starting;
            let launcher = &self.at(one.first).launcher;
            launcher.is_none() && one.daemon.as_ref().is_some_and(starts)
        })
    }

    /// daemontools writes its status after the signals, runit before.
    fn write_status(&mut self, setting: &Setting) {
        if setting.kind.tells_late() {
            self.supervisor.write_status = true;
        } else {
            self.supervisor.status_up = self.supervisor.wants_up;
        }
    }

    fn child(&mut self) -> Option<&mut LauncherProcess> {
        let id = self.supervisor.child?;
        self.at_mut(id).launcher.as_mut()
    }

    /// A launcher starts, and its daemon: the handlers of the one are there before the other is.
    fn start(&mut self, deploy: Deploy, instance: Instance, setting: &Setting) {
        let id = self.generations.len() as Id;
        let by_hand = matches!(instance, BY_HAND | ELSEWHERE);
        say(|| {
            let by = match instance {
                BY_HAND => "somebody",
                ELSEWHERE => "somebody in another PID namespace",
                _ => "supervisor",
            };
            format!("{by} starts launcher {id}, and that daemon {id} ({deploy:?})")
        });
        let kind = if by_hand { Kind::OTHER } else { setting.kind };
        self.generations.push(Shared::new(Generation {
            launcher: Some(LauncherProcess::new(kind, id, setting.in_place)),
            daemon: Some(DaemonProcess::new(kind, deploy, setting)),
            ..Generation::new(instance, id)
        }));
        self.net_starts();
        if !by_hand {
            (self.supervisor.child, self.supervisor.job) = (Some(id), None);
            self.program = if setting.in_place { deploy } else { Deploy::Good };
        }
    }
}

impl Deploy {
    const BAD: [Deploy; 4] =
        [Deploy::ExitsAtOnce, Deploy::DiesBeforeStarted, Deploy::Hangs, Deploy::HooksHang];
}

impl Generation {
    pub(crate) fn new(instance: Instance, first: Id) -> Self {
        Generation {
            instance,
            first,
            launcher: None,
            daemon: None,
            keeper: None,
            is_keeper: false,
            line: None,
            words: Vec::new(),
            of_keeper: Vec::new(),
            gives: false,
            end: None,
            end_heard: false,
            closed_heard: false,
            to_launcher: Vec::new(),
            to_daemon: Vec::new(),
            number: 0,
            was_ready: false,
            stop_sent: false,
            lost: false,
            termed: false,
            told_stop: false,
            told_restart: false,
            leaving_heard: false,
            refused: false,
            usr2_sent: false,
        }
    }
}
