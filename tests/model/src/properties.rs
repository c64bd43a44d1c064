//! What must hold where nothing happens any more. What must hold on the way is checked where it
//! happens.

use super::world::{Budget, Deploy, Id, Main, Promise, Setting, Stop, Supervisor, World};
use crate::proto::Kind;
use crate::proto::daemon::{Phase, Timer};
use crate::proto::supervisor::Tells;

impl World {
    /// Nothing happens any more: the service is as it is wanted.
    pub(crate) fn check_rest(&mut self, setting: &Setting) {
        let (alive, serving): (Vec<Id>, Vec<Id>) = (
            self.ids().filter(|id| self.daemon(*id).is_some()).collect(),
            self.ids().filter(|id| self.daemon(*id).is_some_and(|one| one.serves())).collect(),
        );
        for id in &alive {
            let daemon = self.daemon(*id).expect("alive");
            let phase = daemon.machine.phase();
            let asked = self.at(*id).usr2_sent && phase == Phase::Serving && !setting.in_place;
            let stuck = phase == Phase::HandingOff && !daemon.hooks_hang;
            if asked || stuck {
                return self.fault(Promise::P4, "a handoff was asked for, and does not end");
            }
            let detached = matches!(phase, Phase::Detached | Phase::HandingOff);
            let looks_round = detached && daemon.timers.has(Timer::Check);
            if self.launcher(*id).is_none() && !looks_round {
                return self
                    .fault(Promise::P8, "a daemon does not notice that its launcher is gone");
            }
            if !daemon.serves() && phase != Phase::Starting && !self.is_out_of_reach(setting) {
                return self.fault(Promise::P6, "a generation never ends");
            }
        }
        let asked = self.generations.iter().flat_map(|one| &one.launcher).any(|one| one.asked);
        if asked && !self.is_out_of_reach(setting) {
            return self.fault(Promise::P4, "a launcher was told to restart or stop, and stays");
        }
        let Budget { by_hand, elsewhere, .. } = setting.budget;
        if self.budget.by_hand < by_hand || self.budget.elsewhere < elsewhere {
            return; // two services share a PID file: nothing ends well, but P5 holds
        }
        if setting.in_place {
            self.check_in_place(&alive, &serving, setting);
        }
        self.check_net_at_rest(&alive, &serving, setting);
        self.check_keepers_at_rest(&serving, setting);
        self.check_moves_at_rest();
        match self.supervisor.wants_up {
            true => self.check_wanted_up(&alive, &serving, setting),
            false => self.check_wanted_down(&alive, setting),
        }
        if let [id] = serving[..] {
            let attached = self.launcher(id).is_some();
            if !attached && self.file != Some(id) && self.claim.is_none() {
                self.fault(Promise::P4, "the PID file does not name the generation that serves");
            }
        }
    }

    /// A launcher that restarts in place, and that nothing but reloads have happened to.
    fn check_in_place(&mut self, alive: &[Id], serving: &[Id], setting: &Setting) {
        let starts = |id: &Id| {
            let main = self.daemon(*id).map(|daemon| &daemon.main);
            !matches!(main, None | Some(Main::Waiting | Main::Preparing(Deploy::Hangs)))
        };
        if alive.iter().any(starts) {
            return self.fault(Promise::P4, "a generation neither starts nor ends");
        }
        let only_reloads = Budget {
            reloads: self.budget.reloads,
            bad: self.budget.bad,
            losses: self.budget.losses,
            ..setting.budget
        };
        if self.budget != only_reloads {
            return;
        }
        if self.generations.iter().any(|one| one.was_ready) && serving.is_empty() {
            self.fault(Promise::P1, "a reload has ended the service");
        }
        let last = self.generations.len() as Id;
        let lives = self.ids().any(|id| self.launcher(id).is_some());
        let is_good = self.program == Deploy::Good && self.has_starts_left(setting) && lives;
        let rolled_back = setting.probation && self.budget.bad < setting.budget.bad;
        if is_good && !rolled_back && (self.reload_owed || last > 0 && serving != [last - 1]) {
            self.fault(Promise::P4, "not the program of the last reload serves");
        }
    }

    fn check_wanted_up(&mut self, alive: &[Id], serving: &[Id], setting: &Setting) {
        // Without pidfds nobody can end an orphan that no longer holds the PID file.
        let orphan = |id: &Id| self.launcher(*id).is_some() && !self.is_supervised(*id);
        if setting.by_lock && serving.iter().any(orphan) {
            return;
        }
        let newest = alive.iter().filter(|id| self.at(**id).was_ready).max();
        if serving.len() > 1 || serving.first() != newest {
            return self.fault(Promise::P4, "not the newest ready generation serves alone");
        }
        // A generation that hangs, or that nobody could start any more within the bounds. Who has lost a parent of
        // an unknown kind does not know that another one will be started, so it may hang as well.
        let knows = setting.kind.starts_again.is_supervisor();
        let hangs = alive.iter().any(|id| {
            let main = self.daemon(*id).map(|daemon| &daemon.main);
            main == Some(&Main::Preparing(Deploy::Hangs)) && (self.is_supervised(*id) || !knows)
        });
        let ended = setting.kind == Kind::NOBODY
            || self.is_out_of_starts(setting)
            || self.supervisor.idle
            || hangs;
        if serving.is_empty() && !ended {
            self.fault(Promise::P1, "wanted up, and nobody serves");
        }
    }

    /// An older generation's TERM was refused, and no status tells it to end: only an operator can
    /// end it, and who is told to stop waits for that.
    fn is_out_of_reach(&self, setting: &Setting) -> bool {
        let Supervisor { instance, wants_up, .. } = self.supervisor;
        let told = setting.readable && instance == 0 && !wants_up;
        !told && self.generations.iter().any(|one| one.refused)
    }

    fn check_wanted_down(&mut self, alive: &[Id], setting: &Setting) {
        let told = match &setting.kind.tells {
            // A stop that nobody was there to hear, or could, is not known without the status.
            Tells::Late(_) => setting.readable || self.supervisor.stop == Stop::Owed,
            // A daemon that was sent USR2 by hand takes a restart for sure, and waits for it.
            Tells::AtOnce(_) => setting.readable || self.budget.direct == setting.budget.direct,
            Tells::Job | Tells::Never => true,
        };
        let known = told && self.supervisor.instance == 0 && !self.is_out_of_reach(setting);
        if known && !alive.is_empty() {
            self.fault(Promise::P6, "wanted down, and a generation lives on");
        }
    }
}
