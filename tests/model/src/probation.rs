//! Generations on probation, and those that stand by: what `driver::daemon::partner` and
//! `driver::generation::probation` do.
//!
//! A question to stand by and its answer are one step. Any start may find that its file was rejected, and wait:
//! what it waits for is a walk's business.

use super::trace::say;
use super::world::{Id, Main, Promise, Setting, Signal, World};
use crate::proto::End;
use crate::proto::Report;
use crate::proto::State;
use crate::proto::daemon::{
    CommitTried, Event, Input, Newer, Output, Phase, RollbackCause, TakenBack, Timer, Word,
};
use crate::proto::generation::lines::{self, Obstacle, Step};
use crate::proto::generation::record::LineState;
use crate::proto::generation::verdict::Facts;
use crate::variants::{self, Variant};
use std::collections::VecDeque;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ProbationAction {
    Begin,
    Hear,
    PartnerEnded,
    HungUp,
    Timer(Timer),
    // Of the budget.
    /// The check of the program says no.
    Unhealthy,
    /// The program returns from `main`.
    Exits,
    /// An operator tells the one that stands by.
    StandbyRollsBack,
    /// It hangs, and is heard again later.
    Silent,
    /// Its file was rejected: it waits for this one's end, or for its time.
    Waits(Id),
    // By itself.
    GoesOn,
    CandidatesChanged,
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
        if daemon.machine.is_on_probation() && daemon.serves() && !daemon.begins_probation {
            all.push((self.budget.bad, ProbationAction::Unhealthy));
            all.push((self.budget.bad, ProbationAction::Exits));
        }
        // What the other one has said is heard before the timer fires.
        let heard = self.at(id).words.is_empty();
        if daemon.timers.has(Timer::Silence) && daemon.partner.is_some() && heard {
            all.push((self.budget.limits, ProbationAction::Silent));
        }
        if daemon.machine.stands_by() && daemon.serves_or_stands_by() {
            all.push((self.budget.bad, ProbationAction::StandbyRollsBack));
        }
        let claiming = matches!(daemon.main, Main::Claiming(_)) && daemon.waits_for.is_none();
        if claiming && daemon.machine.phase() == Phase::Starting {
            let takes = |one: &Id| {
                let other = self.daemon(*one).filter(|other| !other.is_stalled());
                let proven = self.at(*one).line == Some(LineState::Serving);
                proven && other.is_some_and(|other| other.machine.takes_candidates())
            };
            if let Some(server) = self.ids().filter(takes).max() {
                all.push((self.budget.waits, ProbationAction::Waits(server)));
            }
        }
        all
    }

    /// What happens by itself.
    pub(crate) fn probation_fair(&self, id: Id) -> Vec<ProbationAction> {
        let (generation, Some(daemon)) = (self.at(id), self.daemon(id)) else { return Vec::new() };
        let mut all = Vec::new();
        if daemon.waits_for.is_some() {
            all.push(ProbationAction::GoesOn);
        }
        if daemon.candidates_changed && !daemon.is_stalled() {
            all.push(ProbationAction::CandidatesChanged);
        }
        if daemon.begins_probation {
            all.push(ProbationAction::Begin);
        }
        if !generation.words.is_empty() && !daemon.begins_probation {
            all.push(ProbationAction::Hear);
        }
        if daemon.partner.is_some_and(|partner| self.daemon(partner).is_none()) {
            all.push(ProbationAction::PartnerEnded);
        }
        for timer in [
            Timer::Probation,
            Timer::CommitSoon,
            Timer::CommitLater,
            Timer::TakeBackSoon,
            Timer::TakeBackLater,
            Timer::RollBack,
        ] {
            // Those that only wait for the claim would go round in circles.
            let waits =
                matches!(timer, Timer::CommitSoon | Timer::TakeBackSoon) && self.claim.is_some();
            if daemon.timers.has(timer) && !waits {
                all.push(ProbationAction::Timer(timer));
            }
        }
        // It is heard again. What it says meanwhile changes nothing.
        let beside = daemon
            .partner
            .and_then(|partner| self.daemon(partner))
            .is_some_and(|one| one.machine.stands_by() && one.serves() && one.partner == Some(id));
        let unread = daemon.partner.is_some_and(|partner| !self.at(partner).words.is_empty());
        if daemon.timers.has(Timer::Well) && beside && !unread {
            all.push(ProbationAction::Timer(Timer::Well));
        }
        // What it has said before is heard first.
        let hears = !daemon.begins_probation && generation.words.is_empty();
        let listens = daemon.partner.and_then(|partner| self.daemon(partner));
        let listens = listens.map(|one| one.partner == Some(id));
        if daemon.machine.is_on_probation() && hears && !daemon.hung_up && listens == Some(false) {
            all.push(ProbationAction::HungUp);
        }
        // It has a second to answer.
        let slow = listens == Some(true) && !unread && hears;
        if daemon.timers.has(Timer::Resumed) && slow {
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
            ProbationAction::HungUp => {
                if self.on_probation(id, Event::HungUp, setting) {
                    self.with_daemon(id, |daemon| daemon.hung_up = true);
                }
            }
            ProbationAction::Timer(timer) => {
                let anew = self.daemon(id).is_some_and(|one| one.was_silent);
                if timer == Timer::Probation && anew {
                    self.fault(Promise::P11, "a probation with a pause in it is passed");
                }
                self.daemon_timer(id, timer, setting);
            }
            ProbationAction::StandbyRollsBack => {
                self.budget.bad -= 1;
                self.on_probation(id, Event::RollBack(RollbackCause::Operator), setting);
            }
            ProbationAction::Waits(server) => {
                self.budget.waits -= 1;
                self.with_daemon(id, |daemon| {
                    daemon.waits_for = Some(server);
                    daemon.machine.waits_in_init(true);
                });
                self.with_daemon(server, |daemon| daemon.candidates_changed = true);
            }
            ProbationAction::GoesOn => self.goes_on(id),
            ProbationAction::CandidatesChanged => self.candidates_changed(id, setting),
            ProbationAction::Unhealthy => {
                self.budget.bad -= 1;
                self.on_probation(id, Event::RollBack(RollbackCause::Operator), setting);
            }
            ProbationAction::Exits => {
                self.budget.bad -= 1;
                self.check_falls_back(id, setting);
                self.daemon_ends(id, End::Code(0));
            }
            ProbationAction::Silent => {
                self.budget.limits -= 1;
                let silent = self.daemon(id).and_then(|daemon| daemon.partner);
                self.daemon_timer(id, Timer::Silence, setting);
                let goes_on = |one: &Id| self.daemon(*one).is_some_and(|one| !one.is_stalled());
                if let Some(one) = silent.filter(goes_on) {
                    self.with_daemon(one, |daemon| {
                        daemon.was_silent = daemon.timers.has(Timer::Probation);
                    });
                    self.on_probation(one, Event::WasSilent, setting);
                }
            }
        }
        self.check_standbys();
    }

    /// Its thread for signals learns who waits for it.
    fn candidates_changed(&mut self, id: Id, setting: &Setting) {
        let told = self.daemon(id).is_some_and(|daemon| daemon.candidate_told);
        if told {
            if !self.on_probation(id, Event::CandidateTold, setting) {
                return;
            }
            self.with_daemon(id, |daemon| daemon.candidate_told = false);
        }
        let has = |one: Id| self.daemon(one).is_some_and(|one| one.waits_for == Some(id));
        let wait = self.ids().any(has);
        self.with_daemon(id, |daemon| daemon.candidates_changed = false);
        if self.on_probation(id, Event::Candidates { wait }, setting) {
            self.with_daemon(id, |daemon| daemon.knows_candidate = wait);
        } else {
            self.with_daemon(id, |daemon| daemon.candidates_changed = true);
        }
    }

    /// It waits no longer, or has ended.
    pub(crate) fn goes_on(&mut self, id: Id) {
        let mut server = None;
        self.with_daemon(id, |daemon| {
            server = daemon.waits_for.take();
            daemon.machine.waits_in_init(false);
        });
        if let Some(server) = server {
            self.with_daemon(server, |daemon| daemon.candidates_changed = true);
        }
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
        let theirs = self.facts(id, older, setting);
        let may = lines::may_be_stood_by_for(u64::from(self.at(older).number), &theirs);
        if !may && !variants::is(Variant::ProbationIsNewer) {
            return false; // what that one sees is wrong in checks only
        }
        if !self.flows_hold(older, id) {
            return false;
        }
        self.with_daemon(older, |daemon| daemon.partner = Some(id));
        self.at_mut(older).words.clear(); // of one that it has stood by for before
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
                daemon.hung_up = false;
                daemon.machine.begins_probation();
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
            Output::Say(Word::Told) => {
                let server = self.daemon(id).and_then(|daemon| daemon.waits_for);
                if let Some(server) = server {
                    self.with_daemon(server, |daemon| daemon.candidate_told = true);
                }
            }
            Output::Go => {
                for one in self.ids() {
                    if self.daemon(one).is_some_and(|one| one.waits_for == Some(id)) {
                        self.goes_on(one);
                    }
                }
            }
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
            Output::LookForNewer if self.is_short(id) => {
                say(|| format!("  daemon {id} cannot look for a newer one: out of memory"));
                inputs.push_back(Input::Probation(Event::Newer(Newer::Unknown)));
            }
            Output::LookForNewer => {
                let others = self.listed(id, setting);
                let newest = lines::newest_newer(own, others.iter().map(|(_, facts)| facts));
                let newest = newest.map(|facts| facts.number);
                let newest = others.iter().find(|(_, facts)| Some(facts.number) == newest);
                let newest = newest.map(|(one, _)| *one);
                self.with_daemon(id, |daemon| daemon.partner = newest);
                let newer = newest.map_or(Newer::Nobody, |_| Newer::Watched);
                inputs.push_back(Input::Probation(Event::Newer(newer)));
            }
            Output::TakeBack(cause) => {
                let taken = if self.claim.is_some() {
                    TakenBack::ClaimHeld
                } else if self.is_short(id) {
                    say(|| format!("  daemon {id} cannot take its files back: out of memory"));
                    TakenBack::Failed
                } else {
                    self.take_back(id, cause, setting);
                    TakenBack::Done
                };
                inputs.push_back(Input::Probation(Event::TakenBack(taken)));
            }
            _ => {}
        }
    }

    /// Does it look for a newer generation, or take its files back, in one of its next steps?
    pub(crate) fn is_about_to_look(&self, id: Id) -> bool {
        self.daemon(id).is_some_and(|daemon| {
            let ended = daemon.partner.is_some_and(|partner| self.daemon(partner).is_none());
            let again = [Timer::TakeBackSoon, Timer::TakeBackLater];
            ended && daemon.machine.stands_by() || again.iter().any(|one| daemon.timers.has(*one))
        })
    }

    /// Its next step fails for want of memory.
    fn is_short(&mut self, id: Id) -> bool {
        self.daemon_mut(id).is_some_and(|daemon| std::mem::take(&mut daemon.short))
    }

    fn try_commit(&mut self, id: Id, setting: &Setting) -> CommitTried {
        if self.claim.is_some() {
            return CommitTried::ClaimHeld;
        }
        let own = u64::from(self.at(id).number);
        let line = self.at(id).line;
        let line = if variants::is(Variant::RolledBackCommits) { None } else { line };
        match lines::obstacle(own, line, self.listed(id, setting).iter().map(|(_, facts)| facts)) {
            Some(Obstacle::Newer) => return CommitTried::Replaced,
            Some(Obstacle::RolledBack) => return CommitTried::RolledBack,
            None => {}
        }
        let serves = |one: Id| self.daemon(one).is_some_and(|daemon| daemon.serves());
        let older = self.ids().any(|one| one < id && serves(one));
        if self.at(id).line == Some(LineState::Replaced) && older {
            self.fault(Promise::P11, "one that was rolled back takes over");
        }
        self.write_lines(Step::Prove { own });
        self.net_drop_name();
        CommitTried::Written
    }

    fn take_back(&mut self, id: Id, cause: RollbackCause, setting: &Setting) {
        let own = u64::from(self.at(id).number);
        let others = self.listed(id, setting);
        let newer = lines::successor(own, others.iter().map(|(_, facts)| facts));
        if newer.is_some() {
            return self.flows_taken_back(id, newer, setting);
        }
        let serves = |one: &Id| *one > id && self.daemon(*one).is_some_and(|one| one.serves());
        if cause == RollbackCause::Ended && self.record.iter().any(serves) {
            self.fault(Promise::P4, "the files are taken back from a newer generation that serves");
        }
        self.write_lines(Step::TakeBack { own, cause });
        say(|| format!("  daemon {id} takes its files back"));
        self.file = Some(id);
        self.net_taken_back(id);
        self.flows_taken_back(id, None, setting);
        self.net_gives(id, setting);
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
