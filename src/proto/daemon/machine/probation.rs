//! Both ends of a probation. A new generation serves and has to prove itself; meanwhile its predecessor stands
//! by, and serves again if the new one fails. The two are joined by the lifeline.
//!
//! The end of the lifeline is a hint only. What counts is the end of the process at its other end.

use super::Daemon;
use crate::proto::daemon::timers::SILENCE;
use crate::proto::daemon::{
    CommitTried, Event, NewFlows, Newer, Output, Phase, RollbackCause, TakenBack, Timer, Word,
};
use crate::proto::{DrainReason, Report, State};
use std::time::Duration;

/// Of a generation that has to prove itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Probation {
    /// It was passed, or there was none.
    No,
    /// `started` has begun it, and the thread that takes signals has not heard of that yet.
    Begins,
    Running,
    /// The probation was passed, and the record does not say so yet.
    Committing,
    /// It was failed. The `on_shutdown_request` hooks run.
    Failing(RollbackCause),
    /// The one that stands by has been told to serve again, by this word.
    AwaitsResumed(Word),
    /// It has ended without a commit.
    Lost,
}

/// What a call of `commit` does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CommitCall {
    /// It waits until the record says so.
    Waits,
    /// There is nothing to pass, or it was passed.
    Returns,
    /// It will never be passed.
    Fails,
}

/// The check of a program on probation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Check {
    /// Or there is none.
    Answered,
    Asked,
    /// It was asked, and the probation has ended meanwhile: its answer decides.
    Decides,
}

/// Of a generation that stands by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Standby {
    No,
    /// For the generation with this number.
    For(u64),
    /// The same, but that one is silent: both serve until it is heard again.
    Beside(u64),
}

impl Daemon {
    pub(super) fn serves(&self) -> bool {
        matches!(self.phase, Phase::Serving | Phase::HandingOff | Phase::Detached)
    }

    /// The program need not accept.
    pub(super) fn is_parked(&self) -> bool {
        matches!(self.standby, Standby::For(_))
    }

    pub(crate) fn stands_by(&self) -> bool {
        self.standby != Standby::No
    }

    pub(crate) fn is_on_probation(&self) -> bool {
        !matches!(self.probation, Probation::No | Probation::Lost)
    }

    pub(crate) fn commit_call(&self) -> CommitCall {
        match self.probation {
            Probation::No => CommitCall::Returns,
            Probation::Lost => CommitCall::Fails,
            Probation::Begins
            | Probation::Running
            | Probation::Committing
            | Probation::Failing(_)
            | Probation::AwaitsResumed(_) => CommitCall::Waits,
        }
    }

    /// `started`, on the program's own thread: the other one stands by. [`Event::OnProbation`] follows. Guards against
    /// a commit in between that would find no probation.
    pub(crate) fn begins_probation(&mut self) {
        self.probation = if self.serves() { Probation::Begins } else { Probation::Lost };
        self.lifeline = true;
    }

    /// `started`, on the program's own thread: nobody stands by, so there is no probation. But the record says that there
    /// is one, and could not be written. [`Event::Commit`] follows, which tries again.
    pub(crate) fn proof_failed(&mut self) {
        if self.serves() {
            self.probation = Probation::Committing;
        }
    }

    /// May an operator end a probation here? The one that stands by can be told to serve again if the other one does
    /// not answer.
    pub(crate) fn may_end_probation(&self, rolls_back: bool) -> bool {
        self.is_on_probation() || rolls_back && self.stands_by()
    }

    /// Does its probation begin anew? `silent`: for how long it has not said that it is well. After as much the other
    /// one serves beside it.
    pub(crate) fn begins_anew(&self, silent: Duration) -> bool {
        self.probation == Probation::Running && silent >= SILENCE
    }

    /// May this generation write the programs of steered groups, if no newer one serves? Not if another one has
    /// been told to serve in our place, or if we stand by: then that one writes them.
    pub(crate) fn steers(&self) -> bool {
        let other_serves = matches!(self.probation, Probation::AwaitsResumed(_));
        self.serves() && !self.is_parked() && !other_serves
    }

    /// May it do so now or later? Not if it drains: the next one to serve finds out itself what is to be done.
    pub(crate) fn may_steer(&self) -> bool {
        self.state() != State::Draining
    }

    pub(super) fn on_event(&mut self, event: Event, out: &mut Vec<Output>) {
        match event {
            Event::OnProbation => self.on_probation(out),
            Event::Commit => self.commit(out),
            Event::RollBack(cause) => self.roll_back(cause, out),
            Event::Check { asked } => self.check(asked, out),
            Event::CommitTried(tried) => self.commit_tried(tried, out),
            Event::AskedToStandBy(number) => self.asked_to_stand_by(number, out),
            Event::Heard(word) => self.heard(word, out),
            Event::PartnerEnded => self.partner_ended(out),
            Event::HungUp => self.hung_up(out),
            // The other one will say nothing any more. A newer one is not looked for: until its end the other one
            // itself looks alive.
            Event::Dumps => self.serve_again(false, RollbackCause::Ended, out),
            Event::Newer(Newer::Watched) => {}
            // If nothing is known, it serves as well. That takes nothing from a newer generation that lives. If that one
            // holds the claim, it asks us to stand by. If it is proven, its files are left alone under the claim.
            Event::Newer(Newer::Nobody | Newer::Unknown) => {
                self.serve_again(false, RollbackCause::Ended, out);
            }
            Event::TakenBack(taken) => self.taken_back(taken, out),
            Event::WasSilent => self.was_silent(out),
            Event::Candidates { wait } => self.candidates(wait, out),
            Event::CandidateTold => self.candidate_told(),
            Event::TryAgain => self.try_again(out),
        }
    }

    // ---- the new generation ----

    fn on_probation(&mut self, out: &mut Vec<Output>) {
        if self.serves() {
            self.probation = Probation::Running;
            out.extend([Output::Arm(Timer::Probation), Output::Arm(Timer::Well)]);
        } else {
            // It was told to end before the other one stood by. On a stop that one is told as well.
            if !matches!(self.phase, Phase::Leaving(_)) {
                out.push(Output::Say(Word::Leaving));
            }
            out.push(Output::HangUp);
        }
    }

    pub(super) fn say_well(&mut self, out: &mut Vec<Output>) {
        if self.is_on_probation() {
            out.extend([Output::Say(Word::Well), Output::Arm(Timer::Well)]);
        }
    }

    /// Its time is over. A question that the program has not answered yet decides.
    pub(super) fn probation_over(&mut self, out: &mut Vec<Output>) {
        match self.check {
            Check::Answered => self.commit(out),
            Check::Asked | Check::Decides => self.check = Check::Decides,
        }
    }

    fn check(&mut self, asked: bool, out: &mut Vec<Output>) {
        let before = self.check;
        self.check = if asked { Check::Asked } else { Check::Answered };
        if before == Check::Decides {
            self.commit(out);
        }
    }

    pub(super) fn commit(&mut self, out: &mut Vec<Output>) {
        if matches!(self.probation, Probation::Running | Probation::Committing) {
            self.probation = Probation::Committing;
            out.extend([Output::Disarm(Timer::Probation), Output::TryCommit]);
        }
    }

    /// From the moment when the record says it, there is no way back. The older ones are told after that.
    fn commit_tried(&mut self, tried: CommitTried, out: &mut Vec<Output>) {
        if self.probation != Probation::Committing {
            return;
        }
        match tried {
            CommitTried::Written => {
                self.probation = Probation::No;
                // The one that stands by may have taken them meanwhile.
                out.push(Output::SteerFlows(NewFlows::Ours));
                out.extend([Output::Say(Word::Committed), Output::Report(Report::Committed)]);
                self.stop_older(out);
                out.push(Output::HangUp);
            }
            // The one that took us back may have died since, before another one was asked to serve.
            CommitTried::RolledBack => {
                out.push(Output::Say(Word::Leaving));
                self.drain(DrainReason::RolledBack, out);
            }
            CommitTried::ClaimHeld => out.push(Output::Arm(Timer::CommitSoon)),
            CommitTried::Failed | CommitTried::Replaced => {
                out.push(Output::Arm(Timer::CommitLater));
            }
        }
    }

    /// The one that stands by has served beside us meanwhile: what was proven before that does not count. A
    /// probation that was passed before is passed.
    fn was_silent(&mut self, out: &mut Vec<Output>) {
        if self.probation == Probation::Running {
            out.push(Output::Arm(Timer::Probation));
            if self.check == Check::Decides {
                self.check = Check::Asked;
            }
        }
    }

    /// An operator may also tell the one that stands by, if the one on probation does not answer. Any other cause is
    /// about our own probation. The check of a program may answer when that is over, and says nothing of the next one.
    /// A commit counts when the record has it: until then it can be taken back.
    fn roll_back(&mut self, cause: RollbackCause, out: &mut Vec<Output>) {
        if !self.is_on_probation() && cause == RollbackCause::Operator {
            return self.serve_again(true, cause, out);
        }
        if matches!(self.probation, Probation::Running | Probation::Committing) {
            self.probation = Probation::Failing(cause);
            let timers = [Timer::Probation, Timer::CommitSoon, Timer::CommitLater];
            out.extend(timers.map(Output::Disarm));
            if self.phase == Phase::Detached {
                self.say_resume(out); // its hooks have run
            } else {
                out.push(Output::Arm(Timer::RollBack));
                self.run_request_hooks(out);
            }
        }
    }

    /// A hook hangs. It may well be what this generation fails of, and the other one is parked for as long as we say
    /// that we are well.
    pub(super) fn hooks_hang(&mut self, out: &mut Vec<Output>) {
        if self.wants_to_roll_back() {
            out.push(Output::LogHooksHang);
            self.say_resume(out);
        }
    }

    pub(super) fn wants_to_roll_back(&self) -> bool {
        matches!(self.probation, Probation::Failing(_))
    }

    /// The hooks have returned, so what the other one needs is free; or they have had their time.
    pub(super) fn say_resume(&mut self, out: &mut Vec<Output>) {
        if !self.lifeline {
            return self.serve_on(out);
        }
        let word = match self.probation {
            Probation::Failing(RollbackCause::Unhealthy) => Word::Unwell,
            _ => Word::Resume,
        };
        self.probation = Probation::AwaitsResumed(word);
        out.extend([Output::Say(word), Output::Arm(Timer::Resumed)]);
    }

    /// It may be slow, or stopped for a while. As long as it lives, it may serve again at any moment.
    pub(super) fn not_resumed(&mut self, out: &mut Vec<Output>) {
        if let Probation::AwaitsResumed(word) = self.probation {
            out.extend([Output::LogNotResumed, Output::Say(word), Output::Arm(Timer::Resumed)]);
        }
    }

    /// Nobody serves in our place.
    fn serve_on(&mut self, out: &mut Vec<Output>) {
        self.probation = Probation::Running;
        self.resume(out);
        self.commit(out);
    }

    /// Before a drain.
    pub(super) fn leave_probation(&mut self, reason: DrainReason, out: &mut Vec<Output>) {
        if std::mem::replace(&mut self.standby, Standby::No) != Standby::No {
            let timers = [Timer::Silence, Timer::Dump].map(Output::Disarm);
            out.extend(timers.into_iter().chain([Output::HangUp])); // we cannot be told to serve again
        }
        if !self.is_on_probation() {
            return;
        }
        let before = std::mem::replace(&mut self.probation, Probation::Lost);
        match reason {
            // On a stop the older ones are told to end as well.
            DrainReason::TakenOver | DrainReason::Stopped => {}
            DrainReason::RolledBack | DrainReason::Requested => {
                out.push(Output::Report(Report::RolledBack));
                // At its beginning, the other one is told as soon as it is known here.
                if reason == DrainReason::Requested && before != Probation::Begins {
                    out.push(Output::Say(Word::Leaving));
                }
            }
        }
    }

    // ---- the one that stands by ----

    fn asked_to_stand_by(&mut self, number: u64, out: &mut Vec<Output>) {
        let can = self.serves() && !self.is_on_probation();
        out.push(Output::StandBy(can));
        if can {
            let before = std::mem::replace(&mut self.standby, Standby::For(number));
            self.no_wish_for_candidates();
            self.awaits_no_successor(out);
            out.extend([Output::Arm(Timer::Silence), Output::Arm(Timer::Dump)]);
            if !matches!(before, Standby::For(_)) {
                out.push(Output::RunStandbyHooks);
            }
        }
    }

    /// The generation on probation has not said for a short time that it is well. Is it about to die?
    pub(super) fn silence_begins(&self, out: &mut Vec<Output>) {
        if self.stands_by() && self.serves() {
            out.push(Output::LookForDump);
        }
    }

    pub(super) fn silence(&mut self, out: &mut Vec<Output>) {
        if let Standby::For(number) = self.standby {
            self.standby = Standby::Beside(number);
            out.extend([Output::SteerFlows(NewFlows::Ours), Output::RunResumeHooks]);
        }
    }

    /// First it serves: no lock is waited for, and no hook.
    fn serve_again(&mut self, told: bool, failed: RollbackCause, out: &mut Vec<Output>) {
        if !self.stands_by() || !self.serves() {
            return;
        }
        let parked = self.is_parked();
        (self.standby, self.failed) = (Standby::No, failed);
        out.push(Output::SteerFlows(NewFlows::Ours));
        if told {
            out.push(Output::Say(Word::Resumed));
        }
        if self.attached {
            out.push(Output::Report(Report::Resumed));
        }
        out.extend([Output::Disarm(Timer::Silence), Output::Disarm(Timer::Dump)]);
        if parked {
            out.push(Output::RunResumeHooks);
        }
        self.order_request_hooks_anew(out);
        out.push(Output::TakeBack(failed));
    }

    fn taken_back(&mut self, taken: TakenBack, out: &mut Vec<Output>) {
        let again = match taken {
            TakenBack::Done => return,
            TakenBack::ClaimHeld => Timer::TakeBackSoon,
            TakenBack::Failed => Timer::TakeBackLater,
        };
        if self.serves() && !self.stands_by() {
            out.push(Output::Arm(again));
        }
    }

    pub(super) fn take_back_again(&mut self, out: &mut Vec<Output>) {
        if self.serves() && !self.stands_by() {
            out.push(Output::TakeBack(self.failed));
        }
    }

    // ---- both ----

    fn heard(&mut self, word: Word, out: &mut Vec<Output>) {
        match word {
            Word::Well => {
                if self.stands_by() {
                    out.extend([Output::Arm(Timer::Silence), Output::Arm(Timer::Dump)]);
                }
                if let Standby::Beside(number) = self.standby {
                    self.standby = Standby::For(number);
                    let theirs = Output::SteerFlows(NewFlows::Of(number));
                    out.extend([theirs, Output::RunStandbyHooks]);
                }
            }
            // The answer was slow, and the question came once more.
            Word::Resume | Word::Unwell if self.serves() && !self.stands_by() => {
                out.push(Output::Say(Word::Resumed));
            }
            Word::Resume => self.serve_again(true, RollbackCause::Operator, out),
            Word::Unwell => self.serve_again(true, RollbackCause::Unhealthy, out),
            Word::Leaving => self.serve_again(false, RollbackCause::Told, out),
            // Its TERM follows, or gets lost.
            Word::Committed => {
                if self.stands_by() && self.serves() {
                    self.drain(DrainReason::TakenOver, out);
                }
            }
            // If nobody has asked for it, an operator has told the other one to serve again.
            Word::Resumed => {
                if self.is_on_probation() {
                    self.drain(DrainReason::RolledBack, out);
                }
            }
            // Of a process that waits in `init`.
            Word::Told | Word::Go => {}
        }
    }

    /// The other one lives, and does not listen any more: it drains, or stands by for a newer generation.
    fn hung_up(&mut self, out: &mut Vec<Output>) {
        self.lifeline = false;
        if matches!(self.probation, Probation::Failing(_) | Probation::AwaitsResumed(_)) {
            self.serve_on(out);
        }
    }

    fn partner_ended(&mut self, out: &mut Vec<Output>) {
        self.lifeline = false;
        match self.probation {
            Probation::No | Probation::Begins | Probation::Lost => {
                if self.stands_by() {
                    out.push(Output::LookForNewer);
                }
            }
            Probation::Running | Probation::Committing => self.commit(out),
            Probation::Failing(_) | Probation::AwaitsResumed(_) => self.serve_on(out),
        }
    }
}

#[cfg(test)]
mod tests;
