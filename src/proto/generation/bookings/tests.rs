use super::*;
use crate::proto::generation::lines::Step;
use crate::proto::generation::rejection::{ProgramFile, RollbackCause};
use crate::proto::generation::tally::{NUMBER_MAX, Tally};

const FILE: ProgramFile = ProgramFile { device: 1, inode: 2, mtime: 3, size: 4 };

fn here() -> World {
    World { boot: Some("this".to_owned()), pid_namespace: Some(1) }
}

fn line(number: u64, state: Option<LineState>) -> Generation {
    let file = (state == Some(LineState::Probation)).then_some(FILE);
    Generation { file, ..Generation::of_test(number, state) }
}

fn record(live: &[(u64, LineState)]) -> Record {
    let live = live.iter().map(|(number, state)| line(*number, Some(*state))).collect();
    Record { last: 9, live, ..Record::default() }
}

/// What is known of each line of the record, if it was proven so.
fn facts(record: &Record, proof: impl Fn(u64) -> Result<(), Unproven>) -> Vec<Facts> {
    let facts = |line: &Generation| Facts {
        start: line.daemon.start,
        serves: line.state.is_some_and(LineState::serves),
        unproven: line.state.is_some_and(LineState::is_unproven),
        keeps: line.state == Some(LineState::Keeping),
        ..Facts::of_test(line.number, proof(line.number))
    };
    record.live.iter().map(facts).collect()
}

fn gone(record: &Record) -> Vec<Facts> {
    facts(record, |_| Err(Unproven::Gone))
}

#[test]
fn counts_come_back_as_they_were_written_and_an_older_record_has_none() {
    let tally =
        Tally { starts: 7, restarts: 5, failed_starts: 2, crashes: 1, rollbacks: NUMBER_MAX };
    let record = Record { last: 9, tally, ..Record::default() };
    let (read, dropped) = Record::parse(record.format().as_bytes()).expect("a record");
    assert_eq!((read, dropped.len()), (record, 0));
    let (old, _) = Record::parse(b"seamless-record 1 last=9\nend\n").expect("a record");
    assert_eq!(old.tally, Tally::default());
    assert_eq!(old.format(), "seamless-record 1 last=9\nend\n");
    // What cannot be read is kept.
    let odd = "seamless-record 1 last=9 starts=many\nend\n";
    let (read, _) = Record::parse(odd.as_bytes()).expect("a record");
    assert_eq!((read.tally, read.format()), (Tally::default(), odd.to_owned()));
}

#[test]
fn a_generation_that_served_and_is_gone_has_crashed_unless_it_was_told_to_end() {
    use LineState::{Draining, Keeping, Probation, Replaced, Serving};
    let states = [Serving, Draining, Keeping, Probation, Replaced];
    for (state, expected) in states.into_iter().zip([1, 0, 0, 0, 0]) {
        let mut one = record(&[(4, state)]);
        let seen = gone(&one);
        one.book_crashed(&seen, &here());
        assert_eq!(one.tally.crashes, expected, "{state:?}");
        one.book_crashed(&seen, &here());
        assert_eq!(one.tally.crashes, expected, "counted once: {state:?}");
    }
    let mut told = record(&[(4, Serving)]);
    assert!(told.mark_end(4) && !told.mark_end(4) && !told.mark_end(5));
    let (mut told, _) = Record::parse(told.format().as_bytes()).expect("a record");
    let seen = gone(&told);
    told.book_crashed(&seen, &here());
    assert_eq!(told.tally.crashes, 0);
}

/// It may live where it cannot be seen, or the machine has gone down.
#[test]
fn what_is_not_known_to_be_gone_and_what_a_reboot_ended_has_not_crashed() {
    for proof in [Ok(()), Err(Unproven::Unknown), Err(Unproven::Elsewhere), Err(Unproven::Ours)] {
        let mut one = record(&[(4, LineState::Serving)]);
        let seen = facts(&one, |_| proof);
        one.book_crashed(&seen, &here());
        assert_eq!(one.tally.crashes, 0, "{proof:?}");
    }
    let mut other = record(&[(4, LineState::Serving)]);
    other.starting = Some(line(5, None));
    let boot = World { boot: Some("other".to_owned()), pid_namespace: Some(1) };
    let seen = gone(&other);
    other.book_crashed(&seen, &boot);
    other.book_failed_start(Identity { pid: 7, start: 7 }, &boot);
    assert_eq!(other.tally, Tally::default());
}

#[test]
fn a_start_is_a_restart_if_another_generation_served() {
    let mut one = record(&[]);
    one.book_start(&[]);
    let before = record(&[(1, LineState::Serving)]);
    one.book_start(&gone(&before));
    one.book_start(&facts(&before, |_| Ok(())));
    let keeper = record(&[(1, LineState::Keeping)]);
    one.book_start(&facts(&keeper, |_| Ok(())));
    assert_eq!((one.tally.starts, one.tally.restarts), (4, 1));
}

#[test]
fn a_start_that_has_left_the_claim_has_failed_but_not_one_that_comes_again() {
    let mut one = record(&[]);
    let own = Identity { pid: 7, start: 7 };
    one.book_failed_start(own, &here());
    assert_eq!(one.tally.failed_starts, 0);
    one.starting = Some(line(1, None));
    one.book_failed_start(own, &here());
    assert_eq!((one.tally.failed_starts, &one.starting), (1, &None));
    one.starting = Some(Generation { daemon: own, ..line(2, None) });
    one.book_failed_start(own, &here());
    assert_eq!(one.tally.failed_starts, 1);
}

#[test]
fn p12_a_keeper_counts_one_crash_however_often_it_enters() {
    let mut one = record(&[(3, LineState::Serving), (4, LineState::Serving)]);
    for _ in 0..3 {
        one.enter_keeper(line(4, Some(LineState::Keeping)));
        assert_eq!(one.tally.crashes, 1);
        let lines: Vec<_> = one.live.iter().map(|line| (line.number, line.state)).collect();
        assert_eq!(lines, [(3, Some(LineState::Serving)), (4, Some(LineState::Keeping))]);
    }
    one.enter_keeper(line(10, Some(LineState::Keeping)));
    assert_eq!((one.tally.crashes, one.last), (2, 10));
}

/// Either the standby books it, or the next start, if the standby has not.
#[test]
fn a_rollback_counts_once() {
    let mut one = record(&[(1, LineState::Serving), (2, LineState::Probation)]);
    let mut other = one.clone();
    one.apply(Step::TakeBack { own: 1, cause: RollbackCause::Ended });
    assert_eq!(one.tally.rollbacks, 1);
    one.apply(Step::TakeBack { own: 1, cause: RollbackCause::Ended });
    one.book_failed(|number| number == 1);
    assert_eq!(one.tally.rollbacks, 1);
    other.book_failed(|number| number == 1);
    assert_eq!((other.tally.rollbacks, other.live.len()), (1, 1));
}

#[test]
fn only_a_drain_for_a_successor_is_marked_by_another() {
    use DrainReason::{Requested, RolledBack, Stopped, TakenOver};
    let all = [TakenOver, Stopped, Requested, RolledBack];
    assert_eq!(all.map(marks_its_end), [false, true, true, true]);
}
