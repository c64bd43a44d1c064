use super::{
    Failed, Gave, Give, Givers, Giving, Predecessor, Source, Taking, Took, Untakeable, flow_givers,
    giver, listener, may_take_path, sources,
};
use crate::proto::control::frame::{
    Address, Answer, Known, NamedState, Request, Socket, SocketKind,
};
use std::time::Duration;

const OLD: Predecessor = Predecessor { number: 3, pid: 30, hands_over: true };
const MUTE: Predecessor = Predecessor { number: 2, pid: 20, hands_over: false };

fn socket(port: u16) -> Socket {
    let asked = Address::Inet(([127, 0, 0, 1], port).into());
    let local = asked.clone();
    let (kind, name, file) = (SocketKind::Tcp, None, None);
    Socket { kind, asked, name, member: 0, retired: false, local, file, flow: None }
}

fn offer(sockets: usize, state: Option<u64>) -> Answer {
    Answer::Offer { generation: OLD.number, sockets, state, states: 0 }
}

fn state(at: usize) -> NamedState {
    NamedState { name: at.to_string(), version: at as u32, bytes: 3 }
}

#[test]
fn p5_only_a_predecessor_gives() {
    let lives = |_: &Predecessor| false;
    assert_eq!(giver(Some(30), &[MUTE, OLD], lives), Ok(Some(OLD)));
    assert_eq!(giver(Some(31), &[MUTE, OLD], lives), Err(Untakeable::Stranger(31)));
    assert_eq!(giver(Some(31), &[], lives), Err(Untakeable::Stranger(31)));
    assert_eq!(giver(None, &[MUTE, OLD], lives), Err(Untakeable::NobodyListens(OLD)));
    assert_eq!(giver(None, &[MUTE, OLD], |one| *one == OLD), Ok(None), "it is about to end");
    assert_eq!(giver(None, &[MUTE], lives), Ok(None));
    assert_eq!(giver(None, &[], lives), Ok(None));
    assert_eq!(Giving::begin(3, 3), Err("generation 3 is not newer than 3".to_owned()));
    assert_eq!(Giving::begin(3, 4), Ok(()));
}

#[test]
fn p5_at_the_second_name_only_a_predecessor_counts() {
    let listens = |first, second| listener(first, || second, |pid| *pid, &[MUTE, OLD]);
    assert_eq!(listens(Some(31), Some(30)), Some(31), "who has the path is asked");
    assert_eq!(listens(None, Some(30)), Some(30));
    assert_eq!(listens(None, Some(31)), None);
    assert_eq!(listener(None, || panic!("nobody stands by"), |pid| *pid, &[]), None);
}

#[test]
fn p5_a_path_is_taken_from_a_predecessor_alone() {
    assert!(may_take_path(Some(20), &[MUTE, OLD]));
    assert!(!may_take_path(Some(31), &[MUTE, OLD]));
    assert!(may_take_path(None, &[OLD]), "it may be that one");
    assert!(!may_take_path(None, &[]) && !may_take_path(Some(30), &[]));
}

#[test]
fn p12_what_nobody_gives_is_looked_for_where_it_can_be() {
    let nothing = |crashed| sources(Gave::Nothing { crashed });
    assert_eq!(nothing(Some(7)), [Source::Launcher(7)]);
    assert_eq!(nothing(None), [Source::Copies, Source::Draining]);
    // The launcher has them all, and an address would be in use by its duplicates.
    let half = |crashed| sources(Gave::Half { crashed });
    assert_eq!(half(Some(7)), [Source::Launcher(7), Source::WhatCame]);
    assert_eq!(half(None), [Source::Copies, Source::WhatCame]);
    assert_eq!(sources(Gave::All { flows: false }), [Source::Draining]);
    assert_eq!(sources(Gave::All { flows: true }), []);
}

const WHOLE: Duration = Duration::from_secs(10);

fn numbered(number: u64, hands_over: bool) -> Predecessor {
    Predecessor { number, pid: 10, hands_over }
}

/// The one that hangs is on probation, and the last that was proven before it stands by.
#[test]
fn p1_if_one_does_not_give_the_newest_older_one_does() {
    let one = numbered;
    let known = [one(1, true), one(2, true), one(3, false), one(4, true), one(5, true)];
    let givers = |place: usize| Givers::new(known[place], &known);
    assert_eq!(givers(4), Givers { first: known[4], second: Some(known[3]) });
    assert_eq!(givers(3).second, Some(known[1]));
    assert_eq!(givers(0).second, None);
    // The second one needs its time.
    assert_eq!(givers(4).first_limit(WHOLE), WHOLE / 2);
    assert_eq!(givers(0).first_limit(WHOLE), WHOLE);
    let hangs = |place| givers(place).failed(false, || true);
    assert_eq!(hangs(4), Failed::TakeFrom { next: known[3], keep: false });
    let dies = |place| givers(place).failed(true, || true);
    assert_eq!(dies(4), Failed::TakeFrom { next: known[3], keep: true }, "it has them all");
    assert_eq!(givers(4).failed(true, || false), Failed::Refuse, "the first one has closed it");
    assert_eq!(hangs(0), Failed::Refuse, "nobody else has the sockets");
}

/// Sockets that have come from a process that is gone are held by the new generation alone.
#[test]
fn p1_what_came_from_one_that_has_died_is_used() {
    let known = [numbered(1, true), numbered(2, true)];
    let givers = Givers::new(known[0], &known);
    assert_eq!(givers.failed(true, || true), Failed::UseWhatCame);
    assert_eq!(givers.failed(true, || false), Failed::Refuse, "it lives, and has them");
}

#[test]
fn p14_the_newest_that_drains_is_asked_first_for_flows() {
    let one = numbered;
    let known = [one(2, false), one(5, true), one(4, false), one(3, false)];
    let (givers, limit) = flow_givers(&known, WHOLE);
    assert_eq!(givers, [known[2], known[3], known[0]]);
    assert_eq!(limit, Duration::from_secs(1), "one that hangs does not hold up the start");
    let short = Duration::from_millis(300);
    assert_eq!(flow_givers(&known[1..2], short), (Vec::new(), short));
}

/// Both sides, message by message, for each number of sockets and of states.
#[test]
fn the_two_sides_understand_each_other() {
    for (count, bytes, states) in (0..6)
        .flat_map(|count| [(count, None), (count, Some(7))])
        .flat_map(|(count, bytes)| (0..5).map(move |states| (count, bytes, states)))
    {
        let (mut taking, first) = Taking::begin(4, &OLD);
        assert_eq!(first, Request::Take { generation: 4, known: Known::ALL });
        let mut giving = Giving::new(count, bytes.is_some(), states);
        let (mut taken, mut taken_states) = (Vec::new(), Vec::new());
        let (mut ports, mut names) = (0.., 0..);
        loop {
            let Some(give) = giving.next(|left| left.min(2)) else {
                assert!(giving.is_through());
                break;
            };
            let (answer, fds) = match give {
                Give::Offer => {
                    let generation = OLD.number;
                    (Answer::Offer { generation, sockets: count, state: bytes, states }, 0)
                }
                Give::Sockets(count) => {
                    (Answer::Sockets(ports.by_ref().take(count).map(socket).collect()), count)
                }
                Give::State => (Answer::State { bytes: 7 }, 1),
                Give::States(count) => {
                    (Answer::States(names.by_ref().take(count).map(state).collect()), count)
                }
                Give::End => (Answer::End, 0),
            };
            let (took, request) = taking.on(answer, fds).expect("what was due");
            match took {
                Took::Sockets(sockets) => taken.extend(sockets),
                Took::States(states) => taken_states.extend(states),
                Took::Offer(_) | Took::State(_) | Took::End => {}
            }
            if let Some(request) = request {
                giving.on(request).expect("what was due");
            }
        }
        assert!(taking.on(Answer::End, 0).is_err(), "nothing is due any more");
        assert_eq!(taken, (0..count as u16).map(socket).collect::<Vec<_>>());
        assert_eq!(taken_states, (0..states).map(state).collect::<Vec<_>>());
    }
}

#[test]
fn what_is_not_due_ends_it() {
    let begun = || Taking::begin(4, &OLD).0;
    let refuses = |mut taking: Taking, answer, fds, why: &str| {
        assert_eq!(taking.on(answer, fds), Err(why.to_owned()));
    };
    let other = Answer::Offer { generation: 2, sockets: 0, state: None, states: 0 };
    refuses(begun(), other, 0, "it says that it is generation 2, and the record says 3");
    refuses(begun(), Answer::End, 0, "it sent the end with 0 descriptors where an offer was due");
    refuses(
        begun(),
        offer(1, None),
        1,
        "it sent an offer with 1 descriptors where an offer was due",
    );
    refuses(begun(), Answer::Refused("no".to_owned()), 0, "it refuses: no");
    let mut offered = begun();
    offered.on(offer(1, Some(9)), 0).expect("an offer");
    let two = || Answer::Sockets(vec![socket(1), socket(2)]);
    refuses(offered.clone(), two(), 2, "it sent more than the 1 sockets that it offered");
    refuses(offered.clone(), two(), 1, "it sent 1 descriptors with 2 sockets");
    let end = "it sent the end with 0 descriptors where sockets was due";
    refuses(offered.clone(), Answer::End, 0, end);
    let mut half = begun();
    half.on(offer(2, None), 0).expect("an offer");
    half.on(Answer::Sockets(vec![socket(3)]), 1).expect("a socket");
    refuses(half.clone(), two(), 2, "it sent more than the 2 sockets that it offered");
    half.on(Answer::Sockets(vec![socket(4)]), 1).expect("the last one");
    let end = "it sent the end with 1 descriptors where the end was due";
    refuses(half, Answer::End, 1, end);
    offered.on(Answer::Sockets(vec![socket(1)]), 1).expect("a socket");
    let state = "it sent a state with 1 descriptors where the state was due";
    refuses(offered, Answer::State { bytes: 8 }, 1, state);
    let mut named = begun();
    let offer = Answer::Offer { generation: 3, sockets: 0, state: None, states: 1 };
    named.on(offer, 0).expect("an offer");
    let states = |count| Answer::States((0..count).map(self::state).collect());
    refuses(named.clone(), states(2), 2, "it sent more states than it offered");
    refuses(named.clone(), states(1), 0, "it sent 0 descriptors with 1 states");
    let end = "it sent the end with 0 descriptors where named states was due";
    refuses(named.clone(), Answer::End, 0, end);
    named.on(states(1), 1).expect("a state");
    let late = "it sent named states with 1 descriptors where the end was due";
    refuses(named, states(1), 1, late);
    let mut giving = Giving::new(1, false, 0);
    assert_eq!(giving.next(|_| 1), Some(Give::Offer));
    assert_eq!(giving.next(|_| 1), Some(Give::Sockets(1)));
    assert_eq!(giving.next(|_| 1), None);
    let wrong = "it sent Done where Got { count: 1 } was due".to_owned();
    assert_eq!(giving.clone().on(Request::Done), Err(wrong));
    giving.on(Request::Got { count: 1 }).expect("what was due");
    assert_eq!(giving.next(|_| 1), Some(Give::End));
    assert!(!giving.is_through(), "the other side has not confirmed it");
    giving.on(Request::Done).expect("what was due");
    assert!(giving.is_through());
}
