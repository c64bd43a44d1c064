//! Generations on probation, and those that stand by: what `driver::daemon::partner` and
//! `driver::generation::probation` do.
//!
//! A question to stand by and its answer are one step. A rejected file that waits is a start that comes
//! later, so it is not told apart.

use super::trace::say;
use super::world::{Id, Promise, Setting, Signal, World};
use crate::proto::End;
use crate::proto::Report;
use crate::proto::State;
use crate::proto::daemon::{CommitTried, Event, Input, Output, RollbackCause, Timer};
use crate::proto::generation::lines::{self, Step};
use crate::proto::generation::record::LineState;
use crate::proto::generation::verdict::Facts;
use crate::variants::{self, Variant};
use std::collections::VecDeque;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ProbationAction {
    Begin,
    Hear,
    PartnerEnded,
    Timer(Timer),
    // Of the budget.
    /// The check of the program says no.
    Unhealthy,
    /// The program returns from `main`.
    Exits,
    /// It hangs, and is heard again later.
    Silent,
}

impl World {
    fn on_probation(&mut self, id: Id, event: Event, setting: &Setting) -> bool {
        self.wake_daemon_for(id, Input::Probation(event), setting)
    }

    /// What may go wrong, and what it takes of the budget.
    pub(crate) fn probation_budgeted(&self, id: Id) -> Vec<(u8, ProbationAction)> {
        let Some(daemon) = self.daemon(id).filter(|one| !one.is_stalled()) else {
            return Vec::new();
        };
        let mut all = Vec::new();
        if daemon.machine.is_on_probation() && daemon.serves() {
            all.push((self.budget.bad, ProbationAction::Unhealthy));
            all.push((self.budget.bad, ProbationAction::Exits));
        }
        if daemon.timers.has(Timer::Silence) && daemon.partner.is_some() {
            all.push((self.budget.limits, ProbationAction::Silent));
        }
        all
    }

    /// What happens by itself.
    pub(crate) fn probation_fair(&self, id: Id) -> Vec<ProbationAction> {
        let (generation, Some(daemon)) = (self.at(id), self.daemon(id)) else { return Vec::new() };
        let mut all = Vec::new();
        if daemon.begins_probation {
            all.push(ProbationAction::Begin);
        }
        if !generation.words.is_empty() {
            all.push(ProbationAction::Hear);
        }
        if daemon.partner.is_some_and(|partner| self.daemon(partner).is_none()) {
            all.push(ProbationAction::PartnerEnded);
        }
        for timer in [Timer::Probation, Timer::CommitSoon, Timer::CommitLater, Timer::TakeBack] {
            // Those that only wait for the claim would go round in circles.
            let waits =
                matches!(timer, Timer::CommitSoon | Timer::TakeBack) && self.claim.is_some();
            if daemon.timers.has(timer) && !waits {
                all.push(ProbationAction::Timer(timer));
            }
        }
        // It has a second to answer.
        let answers = daemon.partner.and_then(|partner| self.daemon(partner));
        let answers = answers.is_some_and(|one| one.machine.state() == State::Standby);
        if daemon.timers.has(Timer::Resumed) && !answers && generation.words.is_empty() {
            all.push(ProbationAction::Timer(Timer::Resumed));
        }
        all
    }

    pub(crate) fn probation_act(&mut self, id: Id, action: ProbationAction, setting: &Setting) {
        say(|| format!("daemon {id}: {action:?}"));
        match action {
            ProbationAction::Begin => {
                if self.on_probation(id, Event::OnProbation, setting) {
                    self.with_daemon(id, |daemon| daemon.begins_probation = false);
                }
            }
            ProbationAction::Hear => {
                let word = self.at(id).words[0];
                if self.on_probation(id, Event::Heard(word), setting) {
                    let words = &mut self.at_mut(id).words;
                    if !words.is_empty() {
                        words.remove(0);
                    }
                }
            }
            ProbationAction::PartnerEnded => {
                let ended = self.daemon(id).and_then(|daemon| daemon.partner);
                // What it has said before its end is heard first.
                while let Some(word) = self.at(id).words.first().copied() {
                    if !self.on_probation(id, Event::Heard(word), setting) {
                        return;
                    }
                    if !self.at(id).words.is_empty() {
                        self.at_mut(id).words.remove(0);
                    }
                }
                if self.daemon(id).and_then(|daemon| daemon.partner) != ended {
                    return;
                }
                self.with_daemon(id, |daemon| daemon.partner = None);
                if !self.on_probation(id, Event::PartnerEnded, setting) {
                    self.with_daemon(id, |daemon| daemon.partner = ended);
                }
            }
            ProbationAction::Timer(timer) => self.daemon_timer(id, timer, setting),
            ProbationAction::Unhealthy => {
                self.budget.bad -= 1;
                self.on_probation(id, Event::RollBack(RollbackCause::Operator), setting);
            }
            ProbationAction::Exits => {
                self.budget.bad -= 1;
                self.check_falls_back(id, setting);
                self.excuse_stop();
                self.daemon_ends(id, End::Code(0));
            }
            ProbationAction::Silent => {
                self.budget.limits -= 1;
                self.daemon_timer(id, Timer::Silence, setting);
            }
        }
        self.check_standbys();
    }

    /// The lines of the record, when this generation is entered: see `started`.
    pub(crate) fn enter_lines(&mut self, id: Id, setting: &Setting) {
        if !setting.probation {
            return;
        }
        let standby = match self.daemon(id).map(|daemon| &daemon.main) {
            Some(super::world::Main::TakingOver { machine, others }) => {
                machine.standby().map(|place| others[place].0)
            }
            _ => None,
        };
        let standby = standby.map(|one| u64::from(self.at(one).number));
        self.write_lines(Step::Enter { own: u64::from(self.at(id).number), standby });
    }

    pub(crate) fn prove_at_once(&mut self, id: Id) {
        self.write_lines(Step::Prove { own: u64::from(self.at(id).number) });
        self.report(id, Report::Committed);
    }

    /// The generations of the record, as this one sees them.
    fn listed(&self, id: Id, setting: &Setting) -> Vec<(Id, Facts)> {
        self.record.iter().map(|one| (*one, self.facts(*one, id, setting))).collect()
    }

    fn write_lines(&mut self, step: Step) {
        for one in self.ids() {
            let one = self.at_mut(one);
            one.line = step.state(u64::from(one.number), one.line);
        }
    }

    pub(crate) fn ask_to_stand_by(&mut self, id: Id, older: Id, setting: &Setting) -> bool {
        let stalled = self.daemon(older).is_none_or(|daemon| daemon.is_stalled());
        if stalled {
            return false; // gone, or it does not answer in time
        }
        self.with_daemon(older, |daemon| daemon.partner = Some(id));
        let number = u64::from(self.at(id).number);
        if !self.on_probation(older, Event::AskedToStandBy(number), setting) {
            return false;
        }
        let stands = self.daemon(older).is_some_and(|daemon| {
            daemon.machine.state() == State::Standby && daemon.partner == Some(id)
        });
        if stands && variants::is(Variant::StandbyTermed) {
            self.signal(older, Signal::TermOf(id));
        }
        if stands {
            self.with_daemon(id, |daemon| {
                (daemon.partner, daemon.begins_probation) = (Some(older), true);
            });
        }
        self.check_standbys();
        stands
    }

    pub(crate) fn perform_of_probation(
        &mut self,
        id: Id,
        output: Output,
        inputs: &mut VecDeque<Input>,
        setting: &Setting,
    ) {
        let own = u64::from(self.at(id).number);
        match output {
            Output::TryCommit => {
                let tried = self.try_commit(id, setting);
                say(|| format!("  daemon {id} commits: {tried:?}"));
                inputs.push_back(Input::Probation(Event::CommitTried(tried)));
            }
            Output::StandBy(false) => self.with_daemon(id, |daemon| daemon.partner = None),
            Output::Say(word) => {
                let partner = self.daemon(id).and_then(|daemon| daemon.partner);
                if let Some(partner) = partner {
                    // One that only watches has no link.
                    let linked = self.daemon(partner).is_some_and(|one| one.partner == Some(id));
                    if linked {
                        self.at_mut(partner).words.push(word);
                    }
                }
            }
            Output::HangUp => self.with_daemon(id, |daemon| daemon.partner = None),
            Output::LookForNewer => {
                let others = self.listed(id, setting);
                let newest = lines::newest_newer(own, others.iter().map(|(_, facts)| facts));
                let newest = newest.map(|facts| facts.number);
                let newest = others.iter().find(|(_, facts)| Some(facts.number) == newest);
                let newest = newest.map(|(one, _)| *one);
                self.with_daemon(id, |daemon| daemon.partner = newest);
                inputs.push_back(Input::Probation(Event::Newer(newest.is_some())));
            }
            Output::TakeBack(cause) => {
                let again = self.claim.is_some();
                if !again {
                    self.take_back(id, cause, setting);
                }
                inputs.push_back(Input::Probation(Event::TakenBack { again }));
            }
            _ => {}
        }
    }

    fn try_commit(&mut self, id: Id, setting: &Setting) -> CommitTried {
        if self.claim.is_some() {
            return CommitTried::ClaimHeld;
        }
        let own = u64::from(self.at(id).number);
        if lines::is_replaced(own, self.listed(id, setting).iter().map(|(_, facts)| facts)) {
            return CommitTried::Replaced;
        }
        self.write_lines(Step::Prove { own });
        CommitTried::Written
    }

    fn take_back(&mut self, id: Id, cause: RollbackCause, setting: &Setting) {
        let own = u64::from(self.at(id).number);
        let others = self.listed(id, setting);
        if lines::successor(own, others.iter().map(|(_, facts)| facts)).is_some() {
            return;
        }
        self.write_lines(Step::TakeBack { own, cause });
        say(|| format!("  daemon {id} takes its files back"));
        self.file = Some(id);
    }

    /// This generation is about to die by itself. If it is on probation, another one must be there that serves,
    /// or stands by.
    pub(crate) fn check_falls_back(&mut self, id: Id, setting: &Setting) {
        let on_probation =
            self.daemon(id).is_some_and(|one| one.machine.is_on_probation() && one.serves());
        // The other one may have been killed, or an operator has told it to end.
        let first = self.budget.kills + 1 >= setting.budget.kills
            && self.budget.direct == setting.budget.direct;
        let stopping =
            !self.supervisor.wants_up || self.generations.iter().any(|one| one.stop_sent);
        let other = |one: &Id| {
            let state = self.daemon(*one).map(|daemon| daemon.machine.state());
            *one != id && state.is_some_and(|state| state.serves() || state == State::Standby)
        };
        if on_probation && first && !stopping && !self.ids().any(|one| other(&one)) {
            self.fault(Promise::P11, "a generation on probation dies, and no other one can serve");
        }
    }

    /// At most one, and it is not on probation itself.
    fn check_standbys(&mut self) {
        let state = |id: &Id| self.daemon(*id).map(|daemon| daemon.machine.state());
        // One whose successor has committed is about to hear of that.
        let proven = |id: &Id| self.at(*id).line == Some(LineState::Serving);
        let standbys: Vec<Id> =
            self.ids().filter(|id| state(id) == Some(State::Standby) && proven(id)).collect();
        if standbys.len() > 1 {
            self.fault(Promise::P4, "two generations stand by");
        }
    }
}
