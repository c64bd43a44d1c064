use super::*;
use crate::proto::generation::verdict::Unproven;

const OWN: Asker = Asker { number: Some(5), start: 500 };

/// Runs it to its end; `answer` may answer a step otherwise than "done".
fn run(
    mut takeover: TakeOver,
    others: &[Facts],
    answer: impl Fn(&Act) -> Option<Done>,
) -> (Vec<Act>, End, TakeOver) {
    let mut acts = Vec::new();
    loop {
        let act = match takeover.next() {
            Next::Act(act) => act,
            Next::End(end) => return (acts, end, takeover),
        };
        let done = answer(&act).unwrap_or(match act {
            Act::Claim => Done::Claimed(5),
            Act::Look => Done::Looked(others.to_vec()),
            _ => Done::Yes,
        });
        acts.push(act);
        takeover.done(done);
        assert!(acts.len() < 30, "it does not end: {acts:?}");
    }
}

const TOUCH: Verdict = Verdict::Touch { awaited: true };

#[test]
fn p1_p4_the_steps_in_their_order() {
    let others = [
        Facts::of_test(3, Err(Unproven::Gone)),
        Facts::of_test(4, Ok(())),
        Facts::of_test(2, Ok(())),
    ];
    let (acts, end, takeover) = run(TakeOver::new(OWN), &others, |_| None);
    let expected = [
        Act::Look,
        Act::Install,
        Act::KeepName(1),
        Act::Listen,
        Act::Enter(vec![1, 2]),
        Act::Close,
        Act::Serve,
        Act::Steer,
        Act::SteerFlows,
        Act::Stop(1, TOUCH),
        Act::Stop(2, TOUCH),
        Act::DropName,
        Act::GiveUp,
    ];
    assert_eq!((&acts[..], end), (&expected[..], End::Started));
    assert_eq!(takeover.older().collect::<Vec<_>>(), [1, 2]);
    // The claim was given up: it is taken first.
    let (acts, end, _) = run(TakeOver::new(Asker { number: None, ..OWN }), &[], |_| None);
    assert_eq!((acts[0].clone(), acts[1].clone(), end), (Act::Claim, Act::Look, End::Started));
}

/// If the successor dies between the two, the next start would find nobody at the path of the control socket.
#[test]
fn p1_p12_who_has_the_sockets_has_a_second_name_until_it_has_been_told_to_end() {
    let drains = Facts { serves: false, ..Facts::of_test(4, Ok(())) };
    let serves = Facts::of_test(3, Ok(()));
    let keeper = Facts { keeps: true, ..drains };
    let may_serve = |facts| Facts { serves: false, ..facts };
    let gone = |facts| Facts { proof: Err(Unproven::Gone), ..facts };
    let unknown = |facts| Facts { proof: Err(Unproven::Unknown), holds_pid_file: false, ..facts };
    let older = Facts::of_test(2, Ok(()));
    let cases = [
        ([older, serves, drains], Some(1)),
        ([older, serves, keeper], Some(2)),
        ([older, serves, gone(keeper)], Some(1)),
        ([older, gone(serves), drains], Some(0)),
        ([gone(older), gone(serves), drains], Some(2)),
        ([may_serve(older), may_serve(serves), gone(drains)], Some(1)),
        ([older, unknown(serves), gone(drains)], Some(0)),
        ([gone(older), gone(serves), gone(drains)], None),
    ];
    for (others, named) in cases {
        let (acts, _, _) = run(TakeOver::new(OWN), &others, |_| None);
        let at = |act: &Act| acts.iter().position(|one| one == act).expect("it is done");
        if let Some(place) = named {
            assert!(at(&Act::KeepName(place)) < at(&Act::Listen), "{acts:?}");
            assert!(at(&Act::Stop(place, TOUCH)) < at(&Act::DropName), "{acts:?}");
        }
        let names = |act: &&Act| matches!(act, Act::KeepName(_));
        assert_eq!(acts.iter().filter(names).count(), named.iter().count(), "{acts:?}");
        // Also one that a successor has left that has died.
        assert!(acts.ends_with(&[Act::DropName, Act::GiveUp]), "{acts:?}");
    }
}

#[test]
fn p4_p11_the_last_proven_generation_stands_by_and_all_others_end() {
    let on_probation = Facts { unproven: true, ..Facts::of_test(4, Ok(())) };
    let drains = Facts { serves: false, ..Facts::of_test(2, Ok(())) };
    let others = [drains, Facts::of_test(3, Ok(())), on_probation];
    let probation = || TakeOver::new(OWN).on_probation(true);
    let stands =
        |by: bool| move |act: &Act| matches!(act, Act::StandBy(_)).then_some(Done::StandsBy(by));
    let (acts, end, takeover) = run(probation(), &others, stands(true));
    let expected = [
        Act::Look,
        Act::Install,
        Act::KeepName(1),
        Act::Listen,
        Act::Enter(vec![0, 1, 2]),
        Act::Close,
        Act::Serve,
        Act::Steer,
        Act::StandBy(1),
        Act::SteerFlows,
        Act::Stop(0, TOUCH),
        Act::Stop(2, TOUCH),
        Act::GiveUp,
    ];
    assert_eq!((&acts[..], end, takeover.standby()), (&expected[..], End::Started, Some(1)));
    // If it does not stand by, it ends as well.
    let (acts, _, takeover) = run(probation(), &others, stands(false));
    let proven = [
        Act::Prove,
        Act::SteerFlows,
        Act::Stop(0, TOUCH),
        Act::Stop(1, TOUCH),
        Act::Stop(2, TOUCH),
        Act::DropName,
        Act::GiveUp,
    ];
    assert_eq!((&acts[9..], takeover.standby()), (&proven[..], None));
    // The first generation, and one beside which only unproven ones live, is proven.
    for others in [&[][..], &[on_probation]] {
        let (acts, _, takeover) = run(probation(), others, |_| None);
        assert_eq!(takeover.standby(), None);
        assert!(!acts.iter().any(|act| matches!(act, Act::StandBy(_) | Act::Prove)), "{acts:?}");
    }
}

/// It could not serve again at an address that it has lost.
#[test]
fn p11_who_loses_an_address_is_not_asked_to_stand_by() {
    let others = [Facts::of_test(3, Ok(())), Facts::of_test(4, Ok(()))];
    let takeover =
        |probation, replaces| TakeOver::new(OWN).on_probation(probation).replacing(replaces);
    let (acts, _, takes_over) = run(takeover(true, true), &others, |_| None);
    let stopped = acts.iter().filter(|act| matches!(act, Act::Stop(..))).count();
    assert_eq!((stopped, takes_over.standby(), takes_over.replaced()), (2, None, Some(1)));
    // As without a probation.
    let (plain, _, takes_over) = run(takeover(false, true), &others, |_| None);
    assert_eq!((acts, takes_over.replaced()), (plain, None));
    let stands = |act: &Act| matches!(act, Act::StandBy(_)).then_some(Done::StandsBy(true));
    let (_, _, takes_over) = run(takeover(true, false), &others, stands);
    assert_eq!(takes_over.replaced(), None);
    assert_eq!(run(takeover(true, true), &[], |_| None).2.replaced(), None);
}

#[test]
fn p5_a_service_of_others_ends_it_before_the_first_step() {
    let foreign = Facts { foreign: true, ..Facts::of_test(4, Ok(())) };
    let elsewhere = Facts { holds_pid_file: true, ..Facts::of_test(4, Err(Unproven::Elsewhere)) };
    for (other, why) in [(foreign, Why::SupervisedByAnother), (elsewhere, Why::HoldsFileElsewhere)]
    {
        let (acts, end, _) = run(TakeOver::new(OWN), &[Facts::of_test(3, Ok(())), other], |_| None);
        assert_eq!((&acts[..], end), (&[Act::Look, Act::GiveUp][..], End::Refused(1, why)));
    }
}

#[test]
fn told_to_end_it_gives_up_the_claim_and_nothing_follows() {
    let not_any_more = |act: &Act| (*act == Act::Look).then_some(Done::ToldToEnd);
    let (acts, end, _) = run(TakeOver::new(OWN), &[], not_any_more);
    assert_eq!((&acts[..], end), (&[Act::Look, Act::GiveUp][..], End::NeverStarted));
    let orphaned = |act: &Act| (*act == Act::Look).then_some(Done::LauncherGone);
    let (acts, end, _) = run(TakeOver::new(OWN), &[], orphaned);
    assert_eq!((&acts[..], end), (&[Act::Look][..], End::NeverStarted), "the claim is kept");
    let told = |act: &Act| (*act == Act::Serve).then_some(Done::ToldToEnd);
    let (acts, end, _) = run(TakeOver::new(OWN), &[Facts::of_test(4, Ok(()))], told);
    assert_eq!((acts.last(), end), (Some(&Act::GiveUp), End::NeverStarted));
    assert!(!acts.iter().any(|act| matches!(act, Act::Steer | Act::Stop(..))), "{acts:?}");
}

/// A line of our own number is what an earlier attempt of this process has left.
#[test]
fn our_own_line_is_written_anew() {
    let others = [
        Facts::of_test(4, Ok(())),
        Facts::of_test(5, Err(Unproven::Ours)),
        Facts::of_test(6, Ok(())),
    ];
    let (acts, _, _) = run(TakeOver::new(OWN), &others, |_| None);
    assert!(acts.contains(&Act::Enter(vec![0, 2])), "{acts:?}");
    let stopped = acts.iter().filter(|act| matches!(act, Act::Stop(..))).count();
    assert_eq!(stopped, 1, "never a newer one: {acts:?}");
}

/// Those that have ended do not count.
#[test]
fn generations_that_pile_up_are_counted() {
    let ended = Facts::of_test(1, Err(Unproven::Gone));
    let mut others = vec![
        ended,
        Facts::of_test(4, Ok(())),
        Facts::of_test(2, Ok(())),
        Facts::of_test(3, Ok(())),
    ];
    let (_, _, takeover) = run(TakeOver::new(OWN), &others, |_| None);
    assert_eq!(takeover.pile().map(|pile| (pile.count, pile.oldest)), None);
    others.push(Facts { start: 150, ..Facts::of_test(2, Ok(())) });
    let (_, _, takeover) = run(TakeOver::new(OWN), &others, |_| None);
    assert_eq!(takeover.pile().map(|pile| (pile.count, pile.oldest)), Some((4, 150)));
}
