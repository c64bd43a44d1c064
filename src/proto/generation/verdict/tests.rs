use super::*;

const OWN: Asker = Asker { number: Some(5), start: 500 };
const OLDER: Facts = Facts::of_test(4, Ok(()));

/// What every service comes to sooner or later is no warning.
#[test]
fn what_is_worth_a_warning() {
    for why in [Why::NotOlder, Why::Unproven(Unproven::Gone)] {
        assert!(!why.is_worth_a_warning(), "{why}");
    }
    for why in [
        Why::Unproven(Unproven::Ours),
        Why::Unproven(Unproven::Elsewhere),
        Why::Unproven(Unproven::Unknown),
        Why::SupervisedByAnother,
        Why::HoldsFileElsewhere,
        Why::RecordOf(7),
    ] {
        assert!(why.is_worth_a_warning() && !why.to_string().is_empty(), "{why}");
    }
}

const PURPOSES: [Purpose; 4] = [Purpose::TakeOver, Purpose::Stop, Purpose::Transfer, Purpose::Ask];
const PROOFS: [Result<(), Unproven>; 5] = [
    Ok(()),
    Err(Unproven::Gone),
    Err(Unproven::Ours),
    Err(Unproven::Elsewhere),
    Err(Unproven::Unknown),
];

/// Every combination, in words of one or two letters, one column a purpose: T touch, # touch by number,
/// R refuse; small letters leave it alone: f foreign, u unproven, o owner of the record, + and its end is
/// awaited.
const TABLE: &str = "
proof     foreign beyond holds  TakeOver Stop Transfer Ask
Ok        -       -      -      T        T    T        T
Ok        -       -      holds  T        T    T        T
Ok        -       1000   -      o+       o+   T        o+
Ok        -       1000   holds  o+       o+   T        o+
Ok        foreign -      -      R        f    f        T
Ok        foreign -      holds  R        f    f        T
Ok        foreign 1000   -      R        f    f        o+
Ok        foreign 1000   holds  R        f    f        o+
Gone      any     any    any    u        u    u        u
Ours      any     any    any    u        u    u        u
Elsewhere any     any    -      u        u    u        u
Elsewhere any     any    holds  R        u    u        u
Unknown   -       -      -      u        u    u        u
Unknown   -       -      holds  #        #    #        #
Unknown   -       1000   -      u        u    u        u
Unknown   -       1000   holds  u        u    #        u
Unknown   foreign -      -      u        u    u        u
Unknown   foreign -      holds  u        u    #        u
Unknown   foreign 1000   -      u        u    u        u
Unknown   foreign 1000   holds  u        u    #        u
";

fn shown(verdict: Verdict) -> String {
    match verdict {
        Verdict::Touch { awaited } => {
            assert!(awaited, "what is proven can be awaited");
            "T".to_owned()
        }
        Verdict::TouchByNumber => "#".to_owned(),
        Verdict::Refuse(Why::SupervisedByAnother | Why::HoldsFileElsewhere) => "R".to_owned(),
        Verdict::Refuse(why) => panic!("refused: {why}"),
        Verdict::Leave { why, awaited } => {
            let why = match why {
                Why::NotOlder => "n",
                Why::Unproven(_) => "u",
                Why::SupervisedByAnother => "f",
                Why::HoldsFileElsewhere => "e",
                Why::RecordOf(_) => "o",
            };
            format!("{why}{}", if awaited { "+" } else { "" })
        }
    }
}

#[test]
fn p5_every_combination_of_facts_has_its_verdict() {
    let rows: Vec<Vec<&str>> =
        TABLE.lines().skip(2).map(|line| line.split_whitespace().collect()).collect();
    let mut used = vec![0; rows.len()];
    for proof in PROOFS {
        for (foreign, beyond, holds_pid_file) in [false, true].into_iter().flat_map(|foreign| {
            [None, Some(1000)]
                .into_iter()
                .flat_map(move |beyond| [false, true].map(|holds| (foreign, beyond, holds)))
        }) {
            let facts = Facts { proof, foreign, beyond, holds_pid_file, ..OLDER };
            let name = proof.map_or_else(|why| format!("{why:?}"), |()| "Ok".to_owned());
            let key = [
                name,
                if foreign { "foreign" } else { "-" }.to_owned(),
                beyond.map_or("-".to_owned(), |uid: u32| uid.to_string()),
                if holds_pid_file { "holds" } else { "-" }.to_owned(),
            ];
            let fits = |row: &Vec<&str>| {
                row.iter().zip(&key).all(|(have, want)| *have == "any" || have == want)
            };
            let at = rows.iter().position(fits).unwrap_or_else(|| panic!("no row for {key:?}"));
            used[at] += 1;
            for (purpose, expected) in PURPOSES.into_iter().zip(&rows[at][4..]) {
                let verdict = shown(verdict(&facts, purpose, OWN));
                assert_eq!(verdict, *expected, "{key:?} for {purpose:?}");
            }
        }
    }
    assert!(used.iter().all(|count| *count > 0), "a row that nothing uses: {used:?}");
    assert_eq!(used.iter().sum::<usize>(), 40);
}

/// Whatever is known of it: a generation that is not older is never touched.
#[test]
fn p4_a_newer_generation_is_left_alone() {
    for number in [5, 6] {
        for (proof, purpose) in
            PROOFS.into_iter().flat_map(|proof| PURPOSES.map(|purpose| (proof, purpose)))
        {
            let facts = Facts { number, proof, holds_pid_file: true, foreign: true, ..OLDER };
            let left = Verdict::Leave { why: Why::NotOlder, awaited: false };
            assert_eq!(verdict(&facts, purpose, OWN), left);
        }
    }
    // For a command every generation is an older one.
    let facts = Facts { number: u64::MAX - 1, ..OLDER };
    let verdict = verdict(&facts, Purpose::Ask, Asker::OUTSIDE);
    assert_eq!(verdict, Verdict::Touch { awaited: true });
}

/// Without a number of its own, a daemon must not take a newer generation for an older one.
#[test]
fn p4_a_daemon_without_a_number_goes_by_the_start_times() {
    let numbered = |start| Asker { number: Some(2), start };
    assert!(numbered(700).is_newer_than(1, 700));
    assert!(!numbered(800).is_newer_than(3, 700));
    let unnumbered = Asker { number: None, start: 800 };
    assert!(unnumbered.is_newer_than(1, 700));
    assert!(!unnumbered.is_newer_than(3, 900));
    assert!(!unnumbered.is_newer_than(3, 800));
}

#[test]
fn what_may_live_stays_in_the_record() {
    for (proof, holds_pid_file, lives, stays, tried) in [
        (Ok(()), false, true, true, true),
        (Err(Unproven::Unknown), true, true, true, true),
        (Err(Unproven::Unknown), false, false, true, true),
        (Err(Unproven::Gone), true, false, false, false),
        (Err(Unproven::Ours), true, false, false, false),
        (Err(Unproven::Elsewhere), true, false, false, true),
        (Err(Unproven::Elsewhere), false, false, false, false),
    ] {
        let facts = Facts { proof, holds_pid_file, ..OLDER };
        assert_eq!((facts.lives(), facts.stays_in_record()), (lives, stays), "{facts:?}");
        assert_eq!(facts.may_be_tried(), tried, "{facts:?}");
    }
}
