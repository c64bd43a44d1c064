//! What the lines of the record say after each step of a takeover with a probation: which generation serves,
//! which one is on probation, which ones are replaced.

use super::record::{Generation, Identity, LineState, Record};
use super::rejection::{Rejected, RollbackCause};
use super::tally::Tally;
use super::verdict::{Facts, Unproven};
use std::cmp::Ordering::{Equal, Greater, Less};

/// A change of the record that the generation `own` writes, under the claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// It is entered, and about to serve. If another one is to stand by for it, it is on probation.
    Enter { own: u64, standby: Option<u64> },
    /// It is proven: it has passed its probation, or nobody stands by for it.
    Prove { own: u64 },
    /// Newer ones have failed, and it serves again.
    TakeBack { own: u64, cause: RollbackCause },
}

impl Step {
    /// What the line of the generation with this number says from now on.
    pub(crate) fn state(self, number: u64, before: Option<LineState>) -> Option<LineState> {
        let (Step::Enter { own, .. } | Step::Prove { own } | Step::TakeBack { own, .. }) = self;
        match (self, number.cmp(&own)) {
            (Step::Enter { standby: Some(_), .. }, Equal) => Some(LineState::Probation),
            (_, Equal) => Some(LineState::Serving),
            (Step::Enter { standby, .. }, _) if standby == Some(number) => before,
            (Step::Enter { .. } | Step::Prove { .. }, _) => before.map(LineState::of_older),
            (Step::TakeBack { .. }, Greater) if before == Some(LineState::Probation) => {
                Some(LineState::Replaced)
            }
            (Step::TakeBack { .. }, Less | Greater) => before,
        }
    }
}

impl Record {
    /// Writes the step into the lines, and what it means for the program file that was rejected.
    pub(crate) fn apply(&mut self, step: Step) {
        for line in &mut self.live {
            let before = line.state;
            line.state = step.state(line.number, before);
            match step {
                Step::Prove { own } if line.number == own => line.file = None,
                Step::TakeBack { cause, .. } => {
                    if line.state != before && line.state == Some(LineState::Replaced) {
                        line.reject(cause, &mut self.rejected, &mut self.tally);
                    }
                }
                Step::Enter { .. } | Step::Prove { .. } => {}
            }
        }
        match step {
            // What serves is proven, so nothing is rejected any more.
            Step::Enter { standby: None, .. } | Step::Prove { .. } => self.rejected = None,
            Step::Enter { .. } | Step::TakeBack { .. } => {}
        }
    }

    /// Takes out the generations that have died on probation: their program files are rejected.
    pub(crate) fn book_failed(&mut self, lives: impl Fn(u64) -> bool) {
        let Record { live, rejected, tally, .. } = self;
        live.retain_mut(|line| {
            let failed = line.state == Some(LineState::Probation) && !lives(line.number);
            if failed {
                line.reject(RollbackCause::Ended, rejected, tally);
            }
            !failed
        });
    }
}

impl Generation {
    /// It has failed in its probation, so its program file is rejected.
    fn reject(&mut self, cause: RollbackCause, rejected: &mut Option<Rejected>, tally: &mut Tally) {
        tally.rollbacks += 1;
        if let Some(file) = self.file.take() {
            *rejected = Some(Rejected::again(*rejected, file, self.number, cause));
        }
    }
}

/// Why a generation may not commit any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Obstacle {
    /// A newer one lives, which decides.
    Newer,
    /// An older one has taken its files back, and serves.
    RolledBack,
}

/// May this generation, whose line says `line`, commit?
pub(crate) fn obstacle<'a>(
    own: u64,
    line: Option<LineState>,
    others: impl Iterator<Item = &'a Facts> + Clone,
) -> Option<Obstacle> {
    if others.clone().any(|one| one.number > own && one.lives()) {
        Some(Obstacle::Newer)
    } else if line == Some(LineState::Replaced) && older_serves(own, others) {
        Some(Obstacle::RolledBack)
    } else {
        None
    }
}

/// Does an older generation serve, which is proven to serve well? If the line of this one says `replaced`, that one
/// serves in its place.
pub(super) fn older_serves<'a>(own: u64, mut others: impl Iterator<Item = &'a Facts>) -> bool {
    others.any(|one| one.number < own && one.is_proven())
}

/// Which generation serves while a file that has failed waits: the newest that is proven. `others`: with each of them,
/// whether its line says that it was told to end.
pub(crate) fn server<'a>(others: impl Iterator<Item = (&'a Facts, bool)>) -> Option<u64> {
    let serves = others.filter(|(one, ends)| one.is_proven() && !ends);
    serves.map(|(one, _)| one.number).max()
}

/// May this generation not take its files back any more? The newest proven generation that is newer: it tells
/// this one to end.
pub(crate) fn successor<'a>(own: u64, others: impl Iterator<Item = &'a Facts>) -> Option<u64> {
    let proven = others.filter(|one| one.number > own && one.is_proven());
    proven.map(|one| one.number).max()
}

/// The newest generation of this launcher in the record, including the one that took the claim last and may not have
/// started. For a launcher whose daemon has ended: generations with smaller numbers are older, even if they were
/// started later.
pub(crate) fn newest_of(launcher: Identity, record: &Record) -> Option<u64> {
    let all = record.live.iter().chain(&record.starting);
    all.filter(|line| line.launcher == launcher).map(|line| line.number).max()
}

/// May `theirs` ask the generation `own` to stand by for it? It is newer, and about to prove itself.
pub(crate) fn may_be_stood_by_for(own: u64, theirs: &Facts) -> bool {
    theirs.number > own && theirs.lives() && theirs.serves && theirs.unproven
}

/// Which generation of our own launcher has ended without a drain: the launcher holds its sockets, and gives them to
/// us. `siblings`: the generations of that launcher.
pub(crate) fn crashed_sibling<'a>(siblings: impl Iterator<Item = &'a Facts>) -> Option<u64> {
    let crashed = siblings.filter(|one| one.serves && one.proof == Err(Unproven::Gone));
    crashed.map(|one| one.number).max()
}

/// The successor of a generation that stands by has ended. It stands by for the newest of the newer ones that serve.
/// `None`: there is none, so it serves again.
pub(crate) fn newest_newer<'a>(
    own: u64,
    others: impl Iterator<Item = &'a Facts>,
) -> Option<&'a Facts> {
    let newer = others.filter(|one| one.number > own && one.lives() && one.serves);
    newer.max_by_key(|one| one.number)
}

#[cfg(test)]
mod tests {
    use super::super::record::LineState::{self, Draining, Keeping, Probation, Replaced, Serving};
    use super::super::rejection::ProgramFile;
    use super::super::rejection::RollbackCause::{Ended, Operator};
    use super::super::verdict::{Facts, Unproven};
    use super::{
        Generation, Identity, Obstacle, Record, Step, crashed_sibling, may_be_stood_by_for,
        newest_newer, newest_of, obstacle, server, successor,
    };

    /// The states of the generations 1, 2, 3 … after this step.
    fn after(step: Step, before: &[LineState]) -> Vec<LineState> {
        let numbered = (1..).zip(before);
        numbered.map(|(number, state)| step.state(number, Some(*state)).expect("a state")).collect()
    }

    #[test]
    fn p11_a_commit_and_a_rollback_in_the_record() {
        let entered = Step::Enter { own: 3, standby: Some(2) };
        assert_eq!(after(entered, &[Draining, Serving, Draining]), [Draining, Serving, Probation]);
        let proven = Step::Prove { own: 3 };
        assert_eq!(after(proven, &[Draining, Serving, Probation]), [Draining, Draining, Serving]);
        let taken_back = Step::TakeBack { own: 2, cause: Ended };
        assert_eq!(
            after(taken_back, &[Draining, Serving, Probation]),
            [Draining, Serving, Replaced]
        );
    }

    /// The third one asks the first one to stand by; the second one was never proven, and never is.
    #[test]
    fn p4_p11_a_third_generation_in_the_record() {
        let entered = Step::Enter { own: 3, standby: Some(1) };
        let states = after(entered, &[Serving, Probation, Draining]);
        assert_eq!(states, [Serving, Replaced, Probation]);
        assert_eq!(after(Step::Prove { own: 3 }, &states), [Draining, Replaced, Serving]);
        assert_eq!(
            after(Step::TakeBack { own: 1, cause: Ended }, &states),
            [Serving, Replaced, Replaced]
        );
        let drains =
            after(Step::TakeBack { own: 1, cause: Ended }, &[Serving, Draining, Probation]);
        assert_eq!(drains, [Serving, Draining, Replaced], "it had been proven");
    }

    fn file(inode: u64) -> ProgramFile {
        ProgramFile { device: 1, inode, mtime: 3, size: 4 }
    }

    /// Generations 1, 2, 3 … in these states, each with a program file of its own.
    fn record(states: &[LineState]) -> Record {
        let line = |(number, state): (u64, &LineState)| Generation {
            file: Some(file(number)),
            ..Generation::of_test(number, Some(*state))
        };
        Record { live: (1..).zip(states).map(line).collect(), ..Record::default() }
    }

    fn files(record: &Record) -> Vec<bool> {
        record.live.iter().map(|line| line.file.is_some()).collect()
    }

    /// A file that is not rejected is tried again in a tight loop; one that is proven must not wait.
    #[test]
    fn p11_a_rollback_rejects_the_file_that_has_failed_and_a_commit_forgets_it() {
        let mut record = record(&[Serving, Draining, Probation]);
        record.apply(Step::TakeBack { own: 1, cause: Operator });
        let rejected = record.rejected.expect("a rejection");
        assert_eq!((rejected.file, rejected.generation, rejected.tries), (file(3), 3, 1));
        assert_eq!((rejected.cause, record.tally.rollbacks), (Operator, 1));
        assert_eq!(files(&record), [true, true, false]);
        let before = record.clone();
        record.apply(Step::TakeBack { own: 1, cause: Ended });
        assert_eq!(record, before, "told once");
        record
            .live
            .push(Generation { file: Some(file(4)), ..Generation::of_test(4, Some(Probation)) });
        record.apply(Step::Enter { own: 4, standby: Some(1) });
        assert!(record.rejected.is_some(), "it has to prove itself");
        record.apply(Step::Prove { own: 4 });
        assert_eq!((record.rejected, files(&record)), (None, vec![true, true, false, false]));
    }

    #[test]
    fn p11_a_generation_that_dies_on_probation_is_booked_and_no_other_one() {
        let mut record = record(&[Serving, Serving, Probation, Probation]);
        record.book_failed(|number| number != 1 && number != 3);
        let left: Vec<u64> = record.live.iter().map(|line| line.number).collect();
        assert_eq!((left, record.tally.rollbacks), (vec![1, 2, 4], 1));
        let rejected = record.rejected.expect("a rejection");
        assert_eq!((rejected.file, rejected.generation, rejected.cause), (file(3), 3, Ended));
        assert_eq!(files(&record), [true, true, true]);
    }

    /// An operator has told the older one to serve again, while the new one did not answer.
    #[test]
    fn p11_one_that_was_rolled_back_does_not_commit() {
        let one = Facts::of_test;
        let (older, newer) = (one(1, Ok(())), one(3, Ok(())));
        let dead = one(1, Err(Unproven::Gone));
        let seen = |line, others: &[Facts]| obstacle(2, Some(line), others.iter());
        assert_eq!(seen(Probation, &[older]), None);
        assert_eq!(seen(Probation, &[older, newer]), Some(Obstacle::Newer));
        assert_eq!(seen(Replaced, &[older]), Some(Obstacle::RolledBack));
        assert_eq!(seen(Replaced, &[older, newer]), Some(Obstacle::Newer));
        assert_eq!(seen(Replaced, &[dead]), None, "nobody else serves");
        assert_eq!(seen(Replaced, &[Facts { unproven: true, ..older }]), None);
        assert_eq!(obstacle(2, None, [older].iter()), None, "the record was lost");
        let itself = one(2, Ok(()));
        assert_eq!(seen(Probation, &[itself]), None);
        assert_eq!(seen(Replaced, &[itself]), None);
    }

    #[test]
    fn p4_who_comes_after_whom() {
        let one = |number| Facts::of_test(number, Ok(()));
        let unproven = |number| Facts { unproven: true, ..one(number) };
        let drains = |number| Facts { serves: false, ..one(number) };
        let dead = |number| Facts::of_test(number, Err(Unproven::Gone));
        // Of those that are newer than 3: the proven one that it leaves its files to, and the one that it
        // stands by for.
        for (others, proven, newest) in [
            (vec![], None, None),
            (vec![one(1), one(3)], None, None),
            (vec![one(4), one(6), one(5)], Some(6), Some(6)),
            (vec![one(4), unproven(5)], Some(4), Some(5)),
            (vec![unproven(4), unproven(5)], None, Some(5)),
            (vec![one(4), drains(5)], Some(4), Some(4)),
            (vec![one(4), dead(5)], Some(4), Some(4)),
        ] {
            assert_eq!(successor(3, others.iter()), proven, "{others:?}");
            assert_eq!(newest_newer(3, others.iter()).map(|one| one.number), newest, "{others:?}");
        }
    }

    #[test]
    fn p11_only_a_newer_generation_on_probation_is_stood_by_for() {
        let proven = Facts::of_test(4, Ok(()));
        let on_probation = Facts { unproven: true, ..proven };
        assert!(may_be_stood_by_for(3, &on_probation));
        assert!(!may_be_stood_by_for(3, &proven), "it tells the older ones to end");
        assert!(!may_be_stood_by_for(4, &on_probation), "an older one never tells a newer one");
        let gone = Err(Unproven::Gone);
        for wrong in [
            Facts { serves: false, ..on_probation }, // replaced
            Facts { proof: gone, ..on_probation },
            Facts { proof: Err(Unproven::Elsewhere), ..on_probation },
        ] {
            assert!(!may_be_stood_by_for(3, &wrong), "{wrong:?}");
        }
    }

    #[test]
    fn p12_a_launcher_gives_the_sockets_of_the_newest_that_has_crashed() {
        let lives = Facts::of_test(5, Ok(()));
        let crashed = |number| Facts::of_test(number, Err(Unproven::Gone));
        let drained = Facts { serves: false, ..crashed(4) };
        let unknown = Facts::of_test(6, Err(Unproven::Unknown));
        let all = [crashed(2), crashed(3), drained, lives, unknown];
        assert_eq!(crashed_sibling(all.iter()), Some(3));
        assert_eq!(crashed_sibling(all[2..].iter()), None);
    }

    #[test]
    fn p4_p6_a_launcher_stands_for_the_newest_generation_that_is_its_own() {
        let line = |number, launcher| Generation {
            launcher: Identity { pid: launcher, start: 1 },
            ..Generation::of_test(number, Some(Serving))
        };
        let record = Record {
            starting: Some(line(5, 20)),
            live: vec![line(1, 20), line(3, 21), line(4, 20)],
            ..Record::default()
        };
        let newest = |pid, start| newest_of(Identity { pid, start }, &record);
        assert_eq!([20, 21, 22].map(|pid| newest(pid, 1)), [Some(5), Some(3), None]);
        assert_eq!(newest(20, 2), None, "another process has its number");
    }

    #[test]
    fn what_waits_protects_the_newest_that_is_proven_and_was_not_told_to_end() {
        let one = |number| Facts::of_test(number, Ok(()));
        let unproven = Facts { unproven: true, ..one(4) };
        let dead = Facts::of_test(5, Err(Unproven::Gone));
        let others = [one(1), one(2), one(3), unproven, dead];
        let told = |told: u64| server(others.iter().map(|one| (one, one.number == told)));
        assert_eq!((told(0), told(3)), (Some(3), Some(2)));
        assert_eq!(server([(&unproven, false), (&dead, false)].into_iter()), None);
    }

    #[test]
    fn without_a_standby_it_is_proven_at_once_and_a_keeper_goes_on() {
        let entered = Step::Enter { own: 3, standby: None };
        assert_eq!(after(entered, &[Keeping, Serving, Draining]), [Keeping, Draining, Serving]);
    }
}
