//! A launcher process: its machine, driven as `driver::launcher` drives it.

use super::super::daemon::Phase;
use super::super::launcher::{Input, Output, Timer};
use super::super::{End, Intent, Scope};
use super::trace::say;
use super::world::{
    BY_HAND, Generation, Id, LauncherProcess, Promise, SUPERVISOR_PID, Setting, Signal, Stop,
    World, launcher_pid,
};
use Heard::{Cont, Term};
use std::collections::VecDeque;

#[derive(Clone, Copy, Debug)]
pub(super) enum Heard {
    Term,
    Cont,
}

/// What a launcher may hear of so many TERMs and a CONT: in any order, merged or not.
pub(super) fn orders(terms: u8, cont: bool) -> &'static [&'static [Heard]] {
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
    pub(super) fn wake_launcher(
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
        for report in std::mem::take(&mut self.at_mut(id).to_launcher) {
            say(|| format!("launcher {id} reads: {report:?}"));
            self.tell_launcher(id, Input::Report(report), setting);
        }
        let closed = self.at(id).daemon.is_none();
        if closed && self.launcher_mut(id).is_some_and(|one| !one.heard_closed) {
            self.launcher_mut(id).expect("lives").heard_closed = true;
            say(|| format!("launcher {id} reads: the channel is closed"));
            self.tell_launcher(id, Input::ChannelClosed, setting);
        }
        for signal in heard {
            say(|| format!("launcher {id} hears {signal:?}"));
            let input = match signal {
                Term => Input::Term { from: SUPERVISOR_PID },
                Cont => Input::Cont { from: SUPERVISOR_PID },
            };
            self.tell_launcher(id, input, setting);
        }
        if let Some(end) = self.at(id).end {
            say(|| format!("launcher {id} hears that its daemon ended: {end:?}"));
            self.tell_launcher(id, Input::Ended(end), setting);
        }
        if let Some(timer) = timer {
            say(|| format!("launcher {id}: timer {timer:?}"));
            self.tell_launcher(id, Input::Timer(timer), setting);
        }
        self.tell_launcher(id, Input::Quiet, setting);
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
                let reading = self.reading(id, setting);
                say(|| format!("  launcher {id} reads the status: {reading:?}"));
                inputs.push_back(Input::Status(reading));
            }
            Output::Tell(intent) => {
                self.at_mut(id).lost |= intent == Intent::Stop(Scope::Generation);
                if self.daemon(id).is_some() {
                    self.at_mut(id).to_daemon.push(intent);
                }
            }
            Output::Handoff => self.signal(id, Signal::Usr2OfLauncher),
            Output::Stop => self.signal(id, Signal::TermOfLauncher),
            Output::Kill(timer) => {
                let serves = self.daemon(id).is_some_and(|daemon| daemon.serves());
                if timer == Timer::Handoff && serves {
                    self.fault(Promise::P1, "the launcher kills a daemon that serves");
                }
                self.excuse_stop();
                self.daemon_ends(id, End::Signal(9));
            }
            Output::Forward(_) => {}
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
            Output::Leave { expired } => {
                let told = self.at(id).told_restart;
                let drains = self.daemon(id).is_some_and(|daemon| {
                    matches!(daemon.machine.phase(), Phase::Draining(_) | Phase::Finished)
                });
                if expired && told && drains {
                    self.fault(Promise::P1, "nobody serves, and the launcher waits for a drain");
                }
                let launcher = self.launcher(id);
                let heard = launcher.is_some_and(|one| one.stop_heard);
                if self.supervisor.stop == Stop::Owed && heard {
                    self.fault(Promise::P6, "the launcher leaves after a stop");
                }
                // A TERM that comes while it exits is heard by nobody.
                self.excuse_stop();
                self.launcher_ends(id, setting);
            }
            Output::Mirror(end) => {
                if self.at(id).end != Some(end) {
                    self.fault(Promise::P6, "the launcher ends otherwise than its daemon");
                }
                if !self.at(id).told_stop {
                    self.excuse_stop();
                }
                self.launcher_ends(id, setting);
            }
        }
    }

    pub(super) fn excuse_stop(&mut self) {
        if self.supervisor.stop == Stop::Owed {
            self.supervisor.stop = Stop::Excused;
        }
    }

    pub(super) fn launcher_ends(&mut self, id: Id, setting: &Setting) {
        say(|| format!("launcher {id} (PID {}) is gone", launcher_pid(id)));
        let generation = self.at_mut(id);
        generation.launcher = None;
        generation.end = None;
        generation.to_launcher.clear();
        if self.supervisor.child == Some(id) {
            self.supervisor.child = None;
            let of_service = |one: &&Generation| one.instance != BY_HAND;
            let mut generations = self.generations.iter().filter(of_service);
            let alive = generations.any(|one| one.daemon.is_some());
            if self.supervisor.stop == Stop::Owed && alive {
                self.fault(Promise::P6, "reported down while a generation lives");
            }
        }
        if setting.kind == super::super::Kind::Nobody {
            // Nobody's child was PID 1 or its only one: the container ends.
            for id in self.ids() {
                self.daemon_ends(id, End::Signal(9));
            }
        }
    }
}
