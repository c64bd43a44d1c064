use super::*;
use crate::proto::generation::verdict::Unproven;

const OWN: Own = Own { number: 5, identity: Identity { pid: 50, start: 500 } };

fn line(number: u64, proof: Result<(), Unproven>) -> (Identity, Facts) {
    let identity = Identity { pid: number as i32 * 10, start: number * 100 };
    let start = identity.start;
    let (foreign, beyond, holds_pid_file, serves) = (false, None, false, true);
    (
        identity,
        Facts {
            number,
            start,
            proof,
            foreign,
            beyond,
            holds_pid_file,
            serves,
            unproven: false,
            keeps: false,
        },
    )
}

/// All is well: the record lists us, and the PID file names us.
fn well() -> Seen {
    Seen {
        own: OWN,
        last: 5,
        lines: vec![line(4, Ok(())), line(5, Err(Unproven::Ours))],
        content: Some(Content { pid: Some(50), locked: false }),
        named_lives: true,
        socket_lost: false,
    }
}

fn found(seen: &Seen) -> Findings {
    check(seen, &mut Memory { last_claim: 5, ..Memory::default() })
}

#[test]
fn p4_what_a_check_finds() {
    let nothing = Findings::default();
    assert_eq!(found(&well()), nothing);
    let newer = Seen { lines: vec![line(5, Err(Unproven::Ours)), line(6, Ok(()))], ..well() };
    // The PID file still names us: the newer one has not come that far.
    assert_eq!(found(&newer), Findings { newer: true, ..nothing });
    for dead in [Unproven::Gone, Unproven::Elsewhere, Unproven::Unknown] {
        let lines = vec![line(5, Err(Unproven::Ours)), line(6, Err(dead))];
        assert_eq!(found(&Seen { lines, ..well() }), nothing, "{dead:?}");
    }
    let (identity, facts) = line(6, Err(Unproven::Unknown));
    let holds = (identity, Facts { holds_pid_file: true, ..facts });
    let lines = vec![line(5, Err(Unproven::Ours)), holds];
    assert!(found(&Seen { lines, ..well() }).newer, "its lock says that it lives");
    assert_eq!(found(&Seen { last: 6, ..well() }), Findings { claims_moved: true, ..nothing });
}

#[test]
fn p11_a_generation_on_probation_has_not_taken_over() {
    let (identity, facts) = line(6, Ok(()));
    let lines = vec![line(5, Err(Unproven::Ours)), (identity, Facts { unproven: true, ..facts })];
    let content = Some(Content { pid: Some(identity.pid), locked: true });
    let mut memory = Memory { last_claim: 5, ..Memory::default() };
    for _ in 0..3 {
        let seen = Seen { lines: lines.clone(), content, ..well() };
        assert_eq!(check(&seen, &mut memory), Findings::default(), "the PID file is the new one's");
    }
    // Nor has one that was rolled back, or replaced by a third one that is on probation, and drains.
    let lines = vec![
        line(5, Err(Unproven::Ours)),
        (identity, Facts { unproven: true, serves: false, ..facts }),
    ];
    assert_eq!(found(&Seen { lines, ..well() }), Findings::default());
}

#[test]
fn a_lost_record_is_entered_again_and_numbers_began_anew() {
    let lost = Seen { lines: vec![line(4, Ok(()))], last: 0, ..well() };
    let mut memory = Memory { last_claim: 5, ..Memory::default() };
    let found = check(&lost, &mut memory);
    assert!(found.record_lost && !found.newer);
    assert_eq!(memory.last_claim, 5, "no claim since then is later than ours");
    // Started after us, whatever its number is: it has begun the new record.
    let (_, facts) = line(1, Ok(()));
    let lines = vec![(Identity { pid: 60, start: 600 }, facts)];
    let found = self::found(&Seen { lines, ..lost });
    assert!(found.newer && !found.record_lost);
}

/// A living process in the PID file may be a successor that keeps no record, as the Go original: it is
/// believed for one check.
#[test]
fn a_stranger_in_the_pid_file_is_believed_once() {
    let content = Some(Content { pid: Some(77), locked: true });
    let stranger = Seen { content, ..well() };
    let mut memory = Memory { last_claim: 5, ..Memory::default() };
    assert!(!check(&stranger, &mut memory).file_lost);
    assert!(check(&stranger, &mut memory).file_lost);
    let dead = Seen { named_lives: false, ..stranger };
    assert!(found(&dead).file_lost);
    for content in [None, Some(Content::default())] {
        assert!(found(&Seen { content, named_lives: false, ..well() }).file_lost, "{content:?}");
    }
}

/// Without the record, a newer generation is known by the PID file, as long as that can be believed.
#[test]
fn p4_without_the_record_a_newer_generation_is_known_by_its_pid_file() {
    let own = Identity { pid: 70, start: 700 };
    let newer = Identity { pid: 80, start: 800 };
    let held = Content { pid: Some(80), locked: true };
    assert!(names_newer(own, held, Some(newer)));
    assert!(names_newer(own, held, Some(Identity { start: 700, ..newer })), "in the same tick");
    assert!(!names_newer(own, held, Some(Identity { start: 699, ..newer })), "an older one");
    assert!(!names_newer(own, held, None), "it has ended");
    assert!(!names_newer(own, Content { locked: false, ..held }, Some(newer)), "not its owner");
    assert!(!names_newer(own, Content { pid: Some(70), ..held }, Some(own)), "ourselves");
    assert!(!names_newer(own, Content::default(), None), "no file");
}

#[test]
fn p12_a_keeper_is_not_newer() {
    let (identity, facts) = line(6, Ok(()));
    let keeper = |keeps| {
        let lines = vec![line(5, Err(Unproven::Ours)), (identity, Facts { keeps, ..facts })];
        found(&Seen { lines, ..well() }).newer
    };
    assert!(keeper(false) && !keeper(true));
}

/// Its predecessor has been told to serve again, and this one was not heard.
#[test]
fn p11_one_that_was_rolled_back_learns_it_from_the_record() {
    let (identity, facts) = line(5, Err(Unproven::Ours));
    let replaced = (identity, Facts { unproven: true, serves: false, ..facts });
    for (ours, older, is_found) in [
        (replaced, Ok(()), true),
        (replaced, Err(Unproven::Gone), false), // nobody serves in its place
        ((identity, facts), Ok(()), false),
        ((identity, Facts { unproven: true, ..facts }), Ok(()), false), // on probation
    ] {
        let seen = Seen { lines: vec![line(4, older), ours], ..well() };
        assert_eq!(found(&seen).replaced, is_found, "{ours:?} {older:?}");
    }
}
