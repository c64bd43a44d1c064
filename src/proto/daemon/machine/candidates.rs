//! Candidates: processes that wait in `init`, since their program file has failed in its probation. The generation
//! that serves meanwhile is connected with them.

use super::Daemon;
use crate::proto::daemon::{Output, Word};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Candidates {
    /// At least one waits for us.
    wait: bool,
    /// The next one that comes need not wait: an operator wants another try.
    next_goes: bool,
    /// We are one ourselves.
    is_one: bool,
}

impl Daemon {
    /// May a candidate wait for us? What is on probation itself protects nobody.
    pub(crate) fn takes_candidates(&self) -> bool {
        self.serves() && !self.is_on_probation()
    }

    /// This process waits in `init`, or goes on.
    pub(crate) fn waits_in_init(&mut self, waits: bool) {
        self.candidates.is_one = waits;
    }

    /// At least one of them waits: a successor is awaited for as long as that lasts.
    pub(super) fn candidates_wait(&self) -> bool {
        self.candidates.wait
    }

    pub(super) fn candidates(&mut self, wait: bool, out: &mut Vec<Output>) {
        self.candidates.wait = wait && self.takes_candidates();
        if !self.candidates.wait {
            return; // from the next check on, `successor_timeout` counts
        }
        self.awaits_no_successor(out);
        if std::mem::take(&mut self.candidates.next_goes) {
            out.push(Output::Go);
        }
    }

    /// A candidate was told to end: a restart by hand, after which the supervisor starts the next one.
    pub(super) fn candidate_told(&mut self) {
        self.candidates.next_goes = self.takes_candidates();
    }

    /// An operator wants another try at once.
    pub(super) fn try_again(&mut self, out: &mut Vec<Output>) {
        if self.candidates.wait {
            out.push(Output::Go);
        } else {
            self.candidate_told();
        }
    }

    /// While we drain, a successor serves or nobody does. So no candidate has to wait.
    pub(super) fn let_candidates_go(&mut self, out: &mut Vec<Output>) {
        if std::mem::take(&mut self.candidates.wait) {
            out.push(Output::Go);
        }
    }

    /// A new generation has come, which was the operator's try. If its file fails, the next candidate waits.
    pub(super) fn no_wish_for_candidates(&mut self) {
        self.candidates.next_goes = false;
    }

    /// This process has not started, and is told to end.
    pub(super) fn end_as_told(&mut self, out: &mut Vec<Output>) {
        if self.candidates.is_one {
            out.push(Output::Say(Word::Told));
        }
        self.end(out);
    }
}

#[cfg(test)]
mod tests {
    use super::Daemon;
    use crate::proto::daemon::Event as E;
    use crate::proto::daemon::Input as D;
    use crate::proto::daemon::{Output, Phase, Question, Sender, Sight, Timer, Word};
    use crate::proto::{Intent, Kind, Reading, Scope};

    /// Detached, under a supervisor that does not say what it wants.
    fn alone() -> Daemon {
        let mut daemon = Daemon::new(Kind::OTHER, false);
        let _ = daemon.started(1);
        let _ = daemon.on(D::Told(Intent::Unknown));
        let _ = daemon.on(D::RequestHooksDone);
        let _ = daemon.on(D::LauncherGone);
        assert_eq!(daemon.phase(), Phase::Detached);
        daemon
    }

    /// The next check, which sees nobody else.
    fn check(daemon: &mut Daemon) -> Vec<Output> {
        let _ = daemon.on(D::Timer(Timer::Check));
        let asked = D::Status(Question::OfService, Reading::Unreadable);
        assert_eq!(daemon.on(asked), [Output::Check]);
        daemon.on(D::Checked(Sight::NoRecord { newer: false }))
    }

    fn candidates(wait: bool) -> D {
        D::Probation(E::Candidates { wait })
    }

    #[test]
    fn p1_successor_timeout_does_not_count_while_one_waits() {
        let mut daemon = alone();
        assert!(check(&mut daemon).contains(&Output::Arm(Timer::Successor)));
        assert_eq!(daemon.on(candidates(true)), [Output::Disarm(Timer::Successor)]);
        assert!(!check(&mut daemon).contains(&Output::Arm(Timer::Successor)));
        // Its timer may be about to fire.
        assert_eq!(daemon.on(D::Timer(Timer::Successor)), []);
        let _ = daemon.on(candidates(false));
        assert!(check(&mut daemon).contains(&Output::Arm(Timer::Successor)));
        let _ = daemon.on(D::Timer(Timer::Successor));
        let asked = D::Status(Question::OfService, Reading::Unreadable);
        let _ = daemon.on(asked);
        // It has come since: nothing is over.
        let _ = daemon.on(candidates(true));
        let _ = daemon.on(D::Checked(Sight::NoRecord { newer: false }));
        assert_eq!(daemon.phase(), Phase::Detached);
    }

    /// A generation that comes and fails at once does not use up the time in which the next one may come.
    #[test]
    fn p1_p11_after_a_rollback_successor_timeout_begins_anew() {
        let mut daemon = alone();
        assert!(check(&mut daemon).contains(&Output::Arm(Timer::Successor)));
        let stands = daemon.on(D::Probation(E::AskedToStandBy(2)));
        assert!(stands.contains(&Output::Disarm(Timer::Successor)), "{stands:?}");
        let _ = daemon.on(D::Probation(E::Heard(Word::Resume)));
        assert!(check(&mut daemon).contains(&Output::Arm(Timer::Successor)));
    }

    #[test]
    fn p1_nobody_waits_for_one_that_drains() {
        let mut daemon = alone();
        let _ = daemon.on(candidates(true));
        assert!(daemon.on(D::Term(Sender::Other)).contains(&Output::Go));
    }

    #[test]
    fn p11_an_operator_s_wish_is_one_try() {
        for wish in [D::Probation(E::TryAgain), D::Probation(E::CandidateTold)] {
            let mut daemon = alone();
            assert_eq!(daemon.on(wish.clone()), [], "none waits");
            assert_eq!(daemon.on(candidates(true)), [Output::Go]);
            assert_eq!(daemon.on(candidates(false)), []);
            assert_eq!(daemon.on(candidates(true)), [], "the second one waits");
            // What has come since has failed after the wish.
            let _ = daemon.on(wish);
            let _ = daemon.on(D::Probation(E::AskedToStandBy(2)));
            let _ = daemon.on(D::Probation(E::Heard(Word::Resume)));
            assert_eq!(daemon.on(candidates(true)), []);
        }
        let mut daemon = alone();
        let _ = daemon.on(candidates(true));
        assert_eq!(daemon.on(D::Probation(E::TryAgain)), [Output::Go]);
    }

    #[test]
    fn one_that_drains_or_is_on_probation_is_waited_for_by_nobody() {
        let mut draining = alone();
        let _ = draining.on(D::Term(Sender::Successor));
        let mut tried = Daemon::new(Kind::OTHER, false);
        let _ = tried.started(1);
        let _ = tried.on(D::Probation(E::OnProbation));
        for mut daemon in [draining, tried] {
            assert!(!daemon.takes_candidates());
            let _ = daemon.on(D::Probation(E::TryAgain));
            assert_eq!(daemon.on(candidates(true)), []);
        }
    }

    #[test]
    fn one_that_waits_says_that_it_was_told_to_end() {
        let told = [
            (D::Term(Sender::Other), true),
            (D::Told(Intent::Restart), true),
            (D::Told(Intent::Stop(Scope::Generation)), true),
            (D::Cancelled, true),
            (D::Usr2(Sender::Other), true),
            (D::LauncherGone, false),
        ];
        for (input, says) in told {
            let mut daemon = Daemon::new(Kind::DAEMONTOOLS, false);
            daemon.waits_in_init(true);
            let out = daemon.on(input.clone());
            let expected: &[Output] =
                if says { &[Output::Say(Word::Told), Output::End] } else { &[Output::End] };
            assert_eq!(out, expected, "{input:?}");
            // It has gone on.
            let mut daemon = Daemon::new(Kind::DAEMONTOOLS, false);
            daemon.waits_in_init(true);
            daemon.waits_in_init(false);
            assert_eq!(daemon.on(input), [Output::End]);
        }
    }
}
