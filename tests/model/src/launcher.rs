//! A launcher process: its machine, driven as `driver::launcher` drives it.

use super::shared::Shared;
use super::trace::say;
use super::world::{
    BY_HAND, DaemonProcess, ELSEWHERE, Generation, Id, LauncherProcess, Promise, SUPERVISOR_PID,
    Setting, Signal, Stop, Supervisor, ToDaemon, World, id_of, launcher_pid, pid,
};
use crate::proto::daemon::Phase;
use crate::proto::generation::verdict::Asker;
use crate::proto::launcher::Progress;
use crate::proto::launcher::{Input, Keeper, Output, Timer};
use crate::proto::{End, Intent, Kind, Report, Scope};
use crate::variants::{self, Variant};
use Heard::{Cont, Term};
use std::collections::VecDeque;

const QUIT: i32 = 3;

#[derive(Clone, Copy, Debug)]
pub(crate) enum Heard {
    Term,
    Cont,
}

/// What a launcher may hear of so many TERMs and a CONT: in any order, merged or not.
pub(crate) fn orders(terms: u8, cont: bool) -> &'static [&'static [Heard]] {
    match (terms, cont) {
        (0, false) => &[],
        (1, false) => &[&[Term]],
        (_, false) => &[&[Term], &[Term, Term]],
        (0, true) => &[&[Cont]],
        (1, true) => &[&[Term, Cont], &[Cont, Term]],
        (_, true) => &[
            &[Term, Cont],
            &[Cont, Term],
            &[Term, Term, Cont],
            &[Term, Cont, Term],
            &[Cont, Term, Term],
        ],
    }
}

impl World {
    /// `Driver::step`: the signals are taken, the channel is read, then the signals are acted on, the
    /// daemon's end, a timer, and quiet. `order` is one of [`orders`]; `None`: what is pending came
    /// after the signals were taken, and stays so.
    pub(crate) fn wake_launcher(
        &mut self,
        id: Id,
        order: Option<u8>,
        timer: Option<Timer>,
        setting: &Setting,
    ) {
        let mut heard: &[Heard] = &[];
        let launcher = self.at_mut(id).launcher.as_mut().expect("it wakes");
        if let Some(order) = order {
            heard = orders(launcher.terms, launcher.cont)[usize::from(order)];
            launcher.asked |= launcher.terms > 0;
            (launcher.terms, launcher.cont) = (0, false);
            launcher.stop_heard |= std::mem::take(&mut launcher.stop_pending);
        }
        if let Some(timer) = timer {
            launcher.timers.disarm(timer);
            launcher.continued &= timer != Timer::Cont;
        }
        for child in self.children(id) {
            if std::mem::take(&mut self.at_mut(child).gives) {
                self.tell_launcher(id, Input::Given(pid(child)), setting);
            }
            for report in std::mem::take(&mut self.at_mut(child).to_launcher) {
                say(|| format!("launcher {id} reads of daemon {child}: {report:?}"));
                match report {
                    Report::Leaving => self.at_mut(child).leaving_heard = true,
                    Report::Draining => self.at_mut(child).leaving_heard = false,
                    _ => {}
                }
                self.tell_launcher(id, Input::Report(pid(child), report), setting);
            }
            let closed = self.daemon(child).is_none();
            if closed && !std::mem::replace(&mut self.at_mut(child).closed_heard, closed) {
                say(|| format!("launcher {id} reads: the channel of daemon {child} is closed"));
                self.tell_launcher(id, Input::ChannelClosed(pid(child)), setting);
            }
        }
        for signal in heard {
            say(|| format!("launcher {id} hears {signal:?}"));
            let input = match signal {
                Term => Input::Term { from: SUPERVISOR_PID },
                Cont => Input::Cont { from: SUPERVISOR_PID },
            };
            self.tell_launcher(id, input, setting);
        }
        for child in self.children(id) {
            for news in std::mem::take(&mut self.at_mut(child).of_keeper) {
                say(|| format!("launcher {id} hears of the keeper: {news:?}"));
                self.tell_launcher(id, Input::Keeper(news), setting);
            }
        }
        for child in self.children(id) {
            let Some(end) = self.at(child).end else { continue };
            if !std::mem::replace(&mut self.at_mut(child).end_heard, true) {
                say(|| format!("launcher {id} hears that daemon {child} ended: {end:?}"));
                self.tell_launcher(id, Input::Ended(pid(child), end), setting);
            }
        }
        let awaits = self.launcher(id).map(|launcher| launcher.awaits.clone()).unwrap_or_default();
        if !awaits.is_empty() && awaits.iter().all(|one| self.is_gone(*one)) {
            say(|| format!("launcher {id}: the older generations have ended"));
            self.launcher_mut(id).expect("it waits").awaits.clear();
            self.tell_launcher(id, Input::OlderGone, setting);
        }
        if let Some(timer) = timer {
            say(|| format!("launcher {id}: timer {timer:?}"));
            self.tell_launcher(id, Input::Timer(timer), setting);
        }
        self.tell_launcher(id, Input::Quiet, setting);
    }

    /// A reload signal: the channels are read first.
    pub(crate) fn reload(&mut self, id: Id, setting: &Setting) {
        self.wake_launcher(id, None, None, setting);
        self.tell_launcher(id, Input::Reload, setting);
    }

    /// A signal that asks for a stop, of somebody else than the supervisor.
    pub(crate) fn halt(&mut self, id: Id, setting: &Setting) {
        self.wake_launcher(id, None, None, setting);
        self.tell_launcher(id, Input::Halt(QUIT), setting);
    }

    fn forward_halt(&mut self, id: Id) {
        if self.daemon(id).is_some_and(|daemon| daemon.has_handlers()) {
            self.tell_daemon(id, ToDaemon::Halt);
        } else {
            self.daemon_ends(id, End::Signal(QUIT));
        }
    }

    fn launcher_mut(&mut self, id: Id) -> Option<&mut LauncherProcess> {
        self.at_mut(id).launcher.as_mut()
    }

    /// `Driver::feed` and `perform`.
    fn tell_launcher(&mut self, id: Id, input: Input, setting: &Setting) {
        let mut inputs = VecDeque::from([input]);
        while let Some(input) = inputs.pop_front() {
            let Some(launcher) = self.launcher_mut(id) else { return };
            for output in launcher.machine.on(input) {
                say(|| format!("  launcher {id}: {output:?}"));
                self.perform_launcher(id, output, &mut inputs, setting);
            }
        }
    }

    fn perform_launcher(
        &mut self,
        id: Id,
        output: Output,
        inputs: &mut VecDeque<Input>,
        setting: &Setting,
    ) {
        match output {
            Output::ReadStatus => {
                let reading = self.reading(id, Some(launcher_pid(id)), setting);
                say(|| format!("  launcher {id} reads the status: {reading:?}"));
                inputs.push_back(Input::Status(reading));
            }
            Output::Tell(child, intent) => {
                let nobody = setting.kind == Kind::NOBODY;
                self.at_mut(id_of(child)).lost |=
                    nobody && intent == Intent::Stop(Scope::Generation);
                self.tell_daemon(id_of(child), ToDaemon::Intent(intent));
            }
            Output::Prepare(child) => self.tell_daemon(id_of(child), ToDaemon::Prepare),
            Output::TellTakenOver(child) => self.tell_daemon(id_of(child), ToDaemon::TakenOver),
            Output::Handoff(child) => self.signal(id_of(child), Signal::Usr2OfLauncher),
            Output::Cancel(child) => {
                self.tell_daemon(id_of(child), ToDaemon::Cancelled);
                self.signal(id_of(child), Signal::Usr2OfLauncher);
            }
            Output::Stop(child) => self.signal(id_of(child), Signal::TermOfLauncher),
            Output::Kill(child, timer) => {
                let serves = self.daemon(id_of(child)).is_some_and(|daemon| daemon.serves());
                if matches!(timer, Timer::Handoff | Timer::Cancel) && serves {
                    self.fault(Promise::P1, "the launcher kills a daemon that serves");
                }
                let leaves = |one: &DaemonProcess| matches!(one.machine.phase(), Phase::Leaving(_));
                if self.daemon(id_of(child)).is_some_and(leaves) {
                    self.fault(Promise::P3, "the launcher kills a daemon that leaves");
                }
                self.daemon_ends(id_of(child), End::Signal(9));
            }
            Output::DropSockets(child) => {
                if !variants::is(Variant::DuplicatesKept) {
                    self.net_drop_given(id_of(child));
                }
            }
            Output::PassSockets { from, to } => self.net_pass(id_of(from), id_of(to)),
            Output::Keep(child) => {
                let holds = self.net_take_given(id_of(child));
                if variants::is(Variant::NoKeeper) {
                    self.net_keeper_ends(id_of(child));
                    inputs.push_back(Input::Keeper(Keeper::Gone));
                } else {
                    self.start_keeper(id_of(child), &holds);
                }
                if variants::is(Variant::KeeperNotAwaited) {
                    inputs.push_back(Input::Keeper(Keeper::InPlace));
                }
            }
            Output::EndKeeper => {
                for child in self.children(id) {
                    if let Some(keeper) = &mut self.at_mut(child).keeper {
                        keeper.term = true;
                    }
                }
            }
            Output::KillKeeper => {
                self.excuse_long_claim();
                for child in self.children(id) {
                    self.keeper_ends(child, "KILL");
                }
            }
            Output::StopOlder => {
                let older = match self.newest_of(id) {
                    Some(number) => {
                        let asker = Asker { number: Some(number), start: u64::from(id) };
                        self.stop_older(id, asker, Signal::TermOfAnotherLauncher, setting)
                    }
                    // Nobody is known to be older.
                    None => {
                        self.excuse_stop();
                        Vec::new()
                    }
                };
                inputs.push_back(Input::OlderTold { awaited: !older.is_empty(), again: false });
                if let Some(launcher) = self.launcher_mut(id) {
                    launcher.awaits = older;
                }
            }
            Output::Start => inputs.push_back(Input::Spawned(self.start_in_place(id, setting))),
            // `Driver::tell_current`.
            Output::Progress(Progress::ReloadFailed(_) | Progress::ReloadRefused(_)) => {
                let current = self.launcher(id).and_then(|launcher| launcher.machine.current());
                if let Some(current) = current {
                    self.tell_daemon(id_of(current), ToDaemon::ReloadFailed);
                }
            }
            Output::Forward(child, QUIT) => self.forward_halt(id_of(child)),
            Output::Forward(child, _) => self.signal(id_of(child), Signal::Usr2OfLauncher),
            Output::Progress(_) | Output::ForwardIfHandled(..) => {}
            Output::Arm(timer) => {
                if let Some(launcher) = self.launcher_mut(id) {
                    launcher.timers.arm(timer);
                    launcher.settles_early &= timer != Timer::Settle;
                }
            }
            Output::Disarm(timer) => {
                if let Some(launcher) = self.launcher_mut(id) {
                    launcher.timers.disarm(timer);
                }
            }
            Output::Leave { child, expired } => {
                let told = self.at(id_of(child)).told_restart;
                let drains = self.daemon(id_of(child)).is_some_and(|daemon| {
                    matches!(daemon.machine.phase(), Phase::Draining(_) | Phase::Finished)
                });
                let served = self.ids().any(|id| self.daemon(id).is_some_and(|one| one.serves()));
                if expired && told && drains && !served {
                    self.fault(Promise::P1, "nobody serves, and the launcher waits for a drain");
                }
                let launcher = self.launcher(id);
                let heard = launcher.is_some_and(|one| one.stop_heard);
                if self.supervisor.stop == Stop::Owed && heard {
                    self.fault(Promise::P6, "the launcher leaves after a stop");
                }
                if setting.in_place && setting.kind == Kind::NOBODY {
                    self.fault(Promise::P1, "the launcher leaves, and nobody starts it again");
                }
                // A TERM that comes while it exits is heard by nobody.
                self.excuse_stop();
                let code = setting.manner.release_code;
                let code = if variants::is(Variant::ReleaseCodeIgnored) { 0 } else { code };
                self.launcher_ends(id, End::Code(code), setting);
                let Supervisor { idle, wants_up, .. } = self.supervisor;
                if idle && wants_up && setting.manner.release_code != 0 {
                    self.fault(Promise::P1, "the launcher leaves, and is not started again");
                }
            }
            Output::Mirror(child, end) => {
                let own = self.at(id_of(child)).end;
                // The one exception: an exit with 0 on probation is none that the supervisor may take for the
                // end of the service.
                let fails = setting.probation && own == Some(End::Code(0)) && end == End::Code(75);
                if own != Some(end) && !fails {
                    self.fault(Promise::P6, "the launcher ends otherwise than its daemon");
                }
                let mut daemons = self.children(id).filter_map(|child| self.daemon(child));
                if daemons.any(|daemon| daemon.serves()) {
                    self.fault(Promise::P1, "the launcher ends while a daemon of it serves");
                }
                let stopped = self.launcher(id).is_some_and(|launcher| launcher.asked);
                let left = self.children(id).any(|child| self.daemon(child).is_some());
                if stopped && left && setting.kind == Kind::NOBODY {
                    self.fault(Promise::P3, "the container ends, and cuts a drain");
                }
                // A TERM that comes while it exits is heard by nobody.
                if !self.launcher(id).is_some_and(|launcher| launcher.stop_heard) {
                    self.excuse_stop();
                }
                self.launcher_ends(id, end, setting);
            }
        }
    }

    fn tell_daemon(&mut self, id: Id, message: ToDaemon) {
        if self.daemon(id).is_some() {
            self.at_mut(id).to_daemon.push(message);
        }
    }

    /// The program as it is now, as one more daemon of this launcher.
    fn start_in_place(&mut self, id: Id, setting: &Setting) -> Option<i32> {
        self.reload_owed = false;
        if !self.has_starts_left(setting) {
            say(|| format!("  launcher {id} finds no program"));
            return None;
        }
        let (child, deploy) = (self.generations.len() as Id, self.program);
        say(|| format!("  launcher {id} starts daemon {child} ({deploy:?})"));
        let instance = self.at(id).instance;
        let kind = if matches!(instance, BY_HAND | ELSEWHERE) { Kind::OTHER } else { setting.kind };
        self.net_starts();
        self.generations.push(Shared::new(Generation {
            daemon: Some(DaemonProcess::new(kind, deploy, setting)),
            stop_sent: self.at(id).stop_sent,
            ..Generation::new(instance, id)
        }));
        Some(pid(child))
    }

    pub(crate) fn excuse_stop(&mut self) {
        if self.supervisor.stop == Stop::Owed {
            self.supervisor.stop = Stop::Excused;
        }
    }

    pub(crate) fn launcher_ends(&mut self, id: Id, end: End, setting: &Setting) {
        say(|| format!("launcher {id} (PID {}) is gone", launcher_pid(id)));
        self.at_mut(id).launcher = None;
        for child in self.children(id) {
            let generation = self.at_mut(child);
            generation.to_launcher.clear();
            generation.of_keeper.clear();
            generation.gives = false;
            self.net_drop_given(child);
        }
        if self.supervisor.child == Some(id) {
            self.supervisor.child = None;
            self.supervisor_hears(id, end, setting);
            let of_service =
                |one: &&Shared<Generation>| !matches!(one.instance, BY_HAND | ELSEWHERE);
            let mut generations = self.generations.iter().filter(of_service);
            // Nobody knows of a keeper that its launcher did not live to see in place.
            let keeps = |one: &Generation| one.keeper.is_some() && one.is_keeper;
            let alive = generations.any(|one| one.daemon.is_some() || keeps(one));
            if self.supervisor.stop == Stop::Owed && alive {
                self.fault(Promise::P6, "reported down while a generation lives");
            }
        }
        if setting.kind == Kind::NOBODY {
            // Nobody's child was PID 1 or its only one: the container ends.
            self.net_excuse_keeper();
            for id in self.ids() {
                self.daemon_ends(id, End::Signal(9));
                self.keeper_ends(id, "the container ends");
            }
        }
    }
}
