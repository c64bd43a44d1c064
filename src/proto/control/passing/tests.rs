use super::{
    Input, Next, Reason, Receiver, Sender, Unwilling, may_pass, may_receive, room, room_for, stays,
    successor,
};
use crate::proto::control::frame::{Answer, Batch, Fate, Passed, Request};
use crate::proto::generation::verdict::{Facts, Unproven};
use crate::proto::{DrainReason, State, are_told_apart};
use std::collections::{BTreeSet, HashSet, VecDeque};

#[test]
fn p13_connections_move_only_to_a_generation_that_is_proven() {
    let one = |number, serves, unproven, proof| Facts {
        holds_pid_file: true,
        serves,
        unproven,
        ..Facts::of_test(number, proof)
    };
    let to = |own, others: &[Facts]| successor(own, others.iter()).map(|one| one.number);
    let serving = |number| one(number, true, false, Ok(()));
    let drains = |number| one(number, false, false, Ok(()));
    assert_eq!(to(1, &[serving(2)]), Some(2));
    assert_eq!(to(1, &[drains(2), serving(3)]), Some(3));
    // One on probation, and the one that stands by for it.
    assert_eq!(to(1, &[serving(2), one(3, true, true, Ok(()))]), Some(2));
    // It was rolled back.
    assert_eq!(to(3, &[drains(1), serving(2), one(3, false, true, Ok(()))]), Some(2));
    for unproven in [Unproven::Gone, Unproven::Ours, Unproven::Elsewhere, Unproven::Unknown] {
        assert_eq!(to(1, &[one(2, true, false, Err(unproven))]), None);
    }
    let keeper = Facts { keeps: true, ..drains(2) };
    assert_eq!(to(1, &[keeper]), None);
}

#[test]
fn room_is_made_for_what_others_have_room_for_and_not_without_end() {
    assert_eq!(room(std::iter::empty()), 0);
    assert_eq!(room([64, 16_384, 256].into_iter()), 16_384);
    assert_eq!(room([u64::MAX].into_iter()), 131_072);
    assert_eq!((room_for(7), room_for(u64::MAX)), (7, 131_072));
}

#[test]
fn p13_when_connections_may_move() {
    for (reason, may) in [
        (None, Err(Reason::NotDraining)),
        (Some(DrainReason::TakenOver), Ok(())),
        (Some(DrainReason::RolledBack), Ok(())),
        (Some(DrainReason::Stopped), Err(Reason::Stopped)),
        (Some(DrainReason::Requested), Err(Reason::Stopped)),
    ] {
        assert_eq!(may_pass(reason), may);
    }
    for state in [State::Serving, State::Detached, State::Standby] {
        assert_eq!(may_receive(state, false), Ok(()));
        assert_eq!(may_receive(state, true), Err(Unwilling::NotYet));
    }
    // The record may name it already.
    assert_eq!(may_receive(State::Starting, false), Err(Unwilling::NotYet));
    for state in [State::Leaving, State::Draining] {
        assert!(matches!(may_receive(state, false), Err(Unwilling::Refuses(_))));
    }
}

fn batch(number: u64, count: usize) -> Batch {
    let one = Passed { kind: "chat".to_owned(), state: 0, unread: 0 };
    Batch::new(number, vec![one; count])
}

#[test]
fn p13_a_message_that_is_not_whole_is_refused_as_a_whole() {
    let refuses = |fds, lost, number, willing| {
        let mut receiver = Receiver::new();
        let refused = receiver.on_message(&batch(number, 3), (fds, lost), willing);
        // It is as before: the next message may come.
        assert_eq!(receiver.on_message(&batch(1, 3), (3, false), Ok(())), Ok(()));
        refused.expect_err("refused")
    };
    assert!(refuses(3, true, 1, Ok(())).contains("MSG_CTRUNC"));
    assert_eq!(refuses(2, false, 1, Ok(())), "it sent 2 descriptors where 3 were due");
    assert_eq!(refuses(4, false, 1, Ok(())), "it sent 4 descriptors where 3 were due");
    assert_eq!(refuses(3, false, 2, Ok(())), "it sent message 2 where 1 was due");
    assert_eq!(refuses(3, false, 1, Err(Unwilling::Refuses("it drains"))), "it drains");
    let mut receiver = Receiver::new();
    receiver.on_message(&batch(1, 1), (1, false), Ok(())).expect("a message");
    let hasty = receiver.on_message(&batch(2, 1), (1, false), Ok(()));
    assert_eq!(hasty, Err("it has not waited for the answer".to_owned()));
    assert_eq!(receiver.answered(), []); // nothing was decided
    receiver.decided(vec![Fate::Kept]);
    assert_eq!(receiver.answered(), [Fate::Kept]);
    assert_eq!(receiver.answered(), []);
}

/// What could not be used costs the message, and not the link.
#[test]
fn p13_after_a_message_that_is_given_up_the_next_one_is_taken() {
    let mut receiver = Receiver::new();
    receiver.on_message(&batch(1, 3), (3, false), Ok(())).expect("a message");
    receiver.give_up();
    assert_eq!(receiver.answered(), []);
    assert_eq!(receiver.on_message(&batch(2, 1), (1, false), Ok(())), Ok(()));
}

#[test]
fn each_reason_says_why_a_connection_stays() {
    assert!(are_told_apart([
        Reason::NotDraining,
        Reason::Stopped,
        Reason::NoSuccessor,
        Reason::Silent,
        Reason::Refused,
        Reason::UnknownKind,
        Reason::Unusable,
    ]));
}

/// A sender with one message of so many connections in doubt.
fn in_doubt(count: usize) -> Sender {
    let mut sender = Sender::new();
    assert_eq!(sender.next(0, || 0), Next::Rest);
    assert_eq!(sender.next(count, || count), Next::Link);
    sender.on(Input::Linked(2));
    assert_eq!(sender.next(count, || count), Next::Ask);
    sender.on(Input::Sent(0));
    sender.on(Input::Heard(Answer::Accepted));
    assert_eq!(sender.next(count, || count), Next::Send { number: 1, count });
    sender.on(Input::Sent(count));
    assert_eq!(sender.next(0, || 0), Next::Await { limited: true, link: true });
    sender
}

#[test]
fn p13_what_is_in_doubt_stays_so_until_the_successor_has_decided_or_has_ended() {
    let kept = |number, count| Answer::Kept { number, fates: vec![Fate::Kept; count] };
    let waits = |limited, link| Next::Await { limited, link };
    // Those that wait are given back as soon as no answer is to be hoped for soon; nothing more is sent.
    let quiet = (waits(false, true), Next::GiveBack(Reason::Silent));
    let as_before = (waits(true, true), waits(true, true));
    for (input, (then, with_more)) in [
        (Input::Silent, quiet.clone()),
        (Input::Garbage, quiet.clone()),
        (Input::Heard(Answer::Accepted), quiet.clone()),
        (Input::Heard(kept(2, 3)), quiet.clone()),
        (Input::Heard(kept(1, 2)), quiet),
        (Input::Closed, (waits(true, false), waits(true, false))),
        (Input::Ended, (Next::ReadOut, Next::ReadOut)),
        (Input::ReadOut, as_before.clone()), // of nothing: it has not ended
        (Input::Done, as_before.clone()),
        (Input::NotSent, as_before),
    ] {
        let mut sender = in_doubt(3);
        sender.on(input.clone());
        assert_eq!(sender.next(0, || 0), then, "{input:?}");
        assert_eq!(sender.next(5, || 5), with_more, "{input:?}");
        // The answer still counts.
        sender.on(Input::Heard(kept(1, 3)));
        assert_eq!(sender.next(0, || 0), Next::Settle(vec![Fate::Kept; 3]));
    }
    // What is decided stays so until it is carried out, whatever happens meanwhile.
    let later = [Input::Closed, Input::Ended, Input::Silent, Input::NotSent, Input::Linked(3)];
    let mut settled = in_doubt(3);
    settled.on(Input::Heard(kept(1, 3)));
    let mut returned = in_doubt(3);
    returned.on(Input::Heard(Answer::Refused("no".to_owned())));
    let mut over = returned.clone();
    over.on(Input::Done);
    for (mut sender, decided) in [
        (settled, Next::Settle(vec![Fate::Kept; 3])),
        (returned, Next::Requeue),
        (over, Next::HangUp),
    ] {
        for input in later.clone() {
            sender.on(input);
            assert_eq!(sender.next(5, || 5), decided);
        }
    }
    let mut sender = in_doubt(3);
    sender.on(Input::Ended);
    assert_eq!(sender.next(0, || 0), Next::ReadOut);
    sender.on(Input::ReadOut);
    assert_eq!(sender.next(0, || 0), Next::Requeue);
}

#[test]
fn a_generation_that_refuses_is_not_asked_again() {
    let mut sender = in_doubt(2);
    sender.on(Input::Heard(Answer::Refused("it drains".to_owned())));
    assert_eq!(sender.next(1, || 1), Next::Requeue);
    sender.on(Input::Done);
    assert_eq!(sender.next(3, || 3), Next::HangUp);
    sender.on(Input::Done);
    assert_eq!(sender.next(3, || 3), Next::Link);
    assert!(!sender.may_ask(2) && sender.may_ask(3));
    sender.on(Input::NotLinked);
    assert_eq!(sender.next(3, || 3), Next::GiveBack(Reason::Refused));
    sender.on(Input::Done);
    sender.on(Input::Done);
    assert_eq!(sender.next(0, || 0), Next::Rest);
    let mut first = Sender::new();
    first.on(Input::NotLinked);
    assert_eq!(first.next(3, || 3), Next::GiveBack(Reason::NoSuccessor), "nobody has refused");
    // A successor that takes links and closes them, again and again.
    let mut sender = Sender::new();
    sender.on(Input::Linked(2));
    sender.on(Input::Sent(0));
    sender.on(Input::Heard(Answer::Accepted));
    sender.on(Input::NotSent);
    assert!(!sender.may_ask(2));
}

#[test]
fn one_that_ends_before_anything_is_sent_costs_one_try() {
    for input in [Input::Closed, Input::Ended, Input::NotSent] {
        let mut sender = Sender::new();
        sender.on(Input::Linked(2));
        sender.on(input);
        assert_eq!(sender.next(0, || 0), Next::HangUp, "nothing waits");
        assert_eq!(sender.next(1, || 1), Next::GiveBack(Reason::NoSuccessor));
        sender.on(Input::Done);
        assert_eq!(sender.next(0, || 0), Next::HangUp);
        sender.on(Input::Done);
        assert_eq!(sender.next(1, || 1), Next::Link);
    }
}

// ---- the walk ----

const CONNECTIONS: u8 = 5;
/// So many fit into a message.
const FITS: usize = 2;
/// The program of the successors does not know its kind.
const UNKNOWN: u8 = 1;

/// A rule that is broken, to see that the walk finds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Broken {
    Nothing,
    /// The old side takes back what is in doubt after a while.
    SilenceDecides,
    /// It does not read what the successor sent before its end.
    EndDecides,
    /// The successor reads from a connection before it has answered.
    ReadsAtOnce,
    /// The successor keeps connections although descriptors are lost.
    IgnoresLoss,
    /// The successor drops what it has kept if the old side has ended.
    NeedsAnAudience,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Message {
    Pass(Request),
    Batch(u64, Vec<u8>),
}

/// A generation that may get connections.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Successor {
    number: u64,
    lives: bool,
    /// It has started, and does not drain.
    serves: bool,
    receiver: Receiver,
    /// A link, until both have closed it.
    link: bool,
    hears: VecDeque<Message>,
    says: VecDeque<Answer>,
    /// Of the message that it answers: what it has descriptors of.
    got: Vec<u8>,
    answer: Option<Answer>,
    /// It has read from these.
    reads: BTreeSet<u8>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct World {
    old_lives: bool,
    sender: Sender,
    linked: Option<usize>,
    waiting: Vec<u8>,
    doubt: Vec<u8>,
    /// The old side serves these on.
    back: BTreeSet<u8>,
    /// The old side has been told that they are kept.
    kept: BTreeSet<u8>,
    successors: [Successor; 2],
    kills: u8,
    losses: u8,
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Old,
    /// The old side sees that the process has ended, before it has read what that has sent.
    SeesEnd,
    /// The answer takes long.
    Silent,
    New(usize),
    /// It receives a message of which the kernel has dropped descriptors.
    Loses(usize),
    KillOld,
    Kill(usize),
    /// It begins to drain, and the last one serves.
    Drain,
}

impl World {
    fn new() -> World {
        let successor = |number, serves| Successor {
            number,
            lives: serves,
            serves,
            receiver: Receiver::new(),
            link: false,
            hears: VecDeque::new(),
            says: VecDeque::new(),
            got: Vec::new(),
            answer: None,
            reads: BTreeSet::new(),
        };
        World {
            old_lives: true,
            sender: Sender::new(),
            linked: None,
            waiting: (0..CONNECTIONS).collect(),
            doubt: Vec::new(),
            back: BTreeSet::new(),
            kept: BTreeSet::new(),
            successors: [successor(2, true), successor(3, false)],
            kills: 0,
            losses: 0,
        }
    }

    fn next(&self) -> Next {
        self.sender.next(self.waiting.len(), || FITS.min(self.waiting.len()))
    }

    fn steps(&self) -> Vec<Step> {
        let mut steps = Vec::new();
        if self.old_lives {
            let can = match self.next() {
                Next::Rest => false,
                Next::Await { link, .. } => {
                    let there = &self.successors[self.linked.expect("a link")];
                    (link && (!there.says.is_empty() || !there.link)) || !there.lives
                }
                _ => true,
            };
            steps.extend(can.then_some(Step::Old));
            if let Next::Await { limited, .. } = self.next() {
                steps.extend(limited.then_some(Step::Silent));
                let ended = self.linked.is_some_and(|at| !self.successors[at].lives);
                steps.extend(ended.then_some(Step::SeesEnd));
            }
        }
        for (at, one) in self.successors.iter().enumerate().filter(|(_, one)| one.lives) {
            if !one.hears.is_empty() || one.answer.is_some() {
                steps.push(Step::New(at));
            }
            let has_batch = matches!(one.hears.front(), Some(Message::Batch(..)));
            if has_batch && one.answer.is_none() && self.losses == 0 {
                steps.push(Step::Loses(at));
            }
            if self.kills < 2 {
                steps.push(Step::Kill(at));
            }
        }
        if self.kills < 2 && self.old_lives {
            steps.push(Step::KillOld);
        }
        if self.successors[0].serves && !self.successors[1].lives {
            steps.push(Step::Drain);
        }
        steps
    }

    /// The old side takes these back.
    fn take_back(&mut self) -> Result<(), String> {
        for one in self.doubt.clone() {
            self.is_ours(one)?;
        }
        let waiting = std::mem::take(&mut self.waiting);
        self.waiting = std::mem::take(&mut self.doubt);
        self.waiting.extend(waiting);
        Ok(())
    }

    fn is_ours(&self, one: u8) -> Result<(), String> {
        match self.successors.iter().find(|other| other.reads.contains(&one)) {
            Some(other) => Err(format!("{one} was read by {}", other.number)),
            None => Ok(()),
        }
    }

    fn old(&mut self) -> Result<(), String> {
        let next = self.next();
        let input = match next {
            Next::Rest => return Ok(()),
            Next::Link => {
                let newest = self.successors.iter().rposition(|one| one.lives && one.serves);
                let newest = newest.filter(|at| self.sender.may_ask(self.successors[*at].number));
                match newest {
                    Some(at) => {
                        self.linked = Some(at);
                        let there = &mut self.successors[at];
                        there.link = true;
                        there.receiver = Receiver::new();
                        Input::Linked(there.number)
                    }
                    None => Input::NotLinked,
                }
            }
            Next::Ask => self.send(Message::Pass(Request::Pass { generation: 1, open: 3 }), 0),
            Next::Send { number, count } => {
                let sent: Vec<u8> = self.waiting[..count].to_vec();
                let input = self.send(Message::Batch(number, sent.clone()), count);
                if input == Input::Sent(count) {
                    self.doubt = sent;
                    self.waiting.drain(..count);
                }
                input
            }
            Next::Await { link, .. } => {
                let there = &mut self.successors[self.linked.expect("a link")];
                match there.says.pop_front().filter(|_| link) {
                    Some(answer) => Input::Heard(answer),
                    None if link => Input::Closed,
                    None => Input::Ended,
                }
            }
            Next::ReadOut => {
                let there = &mut self.successors[self.linked.expect("a link")];
                there.says.pop_front().map_or(Input::ReadOut, Input::Heard)
            }
            Next::Settle(fates) => {
                for (one, fate) in std::mem::take(&mut self.doubt).into_iter().zip(fates) {
                    match stays(fate) {
                        None => _ = self.kept.insert(one),
                        Some(_) => {
                            self.is_ours(one)?;
                            self.back.insert(one);
                        }
                    }
                }
                Input::Done
            }
            Next::Requeue => {
                self.take_back()?;
                Input::Done
            }
            Next::GiveBack(_) => {
                for one in std::mem::take(&mut self.waiting) {
                    self.is_ours(one)?;
                    self.back.insert(one);
                }
                Input::Done
            }
            Next::HangUp => {
                if let Some(at) = self.linked.take() {
                    let there = &mut self.successors[at];
                    there.says.clear();
                    there.link = false;
                    if !self.doubt.is_empty() {
                        return Err("a link is closed while connections are in doubt".to_owned());
                    }
                }
                Input::Done
            }
        };
        self.sender.on(input);
        Ok(())
    }

    fn send(&mut self, message: Message, count: usize) -> Input {
        let there = &mut self.successors[self.linked.expect("a link")];
        match there.lives && there.link {
            true => {
                there.hears.push_back(message);
                Input::Sent(count)
            }
            false => Input::NotSent,
        }
    }

    fn new_side(&mut self, at: usize, loses: bool, broken: Broken) -> Result<(), String> {
        let has_audience = self.old_lives && self.linked == Some(at);
        let there = &mut self.successors[at];
        if let Some(answer) = there.answer.take() {
            if has_audience {
                there.says.push_back(answer);
            }
            let got = std::mem::take(&mut there.got);
            for (one, fate) in got.into_iter().zip(there.receiver.answered()) {
                let drops = broken == Broken::NeedsAnAudience && !has_audience;
                if fate == Fate::Kept && !drops {
                    self.read(at, one)?;
                }
            }
            return Ok(());
        }
        let willing =
            may_receive(if there.serves { State::Serving } else { State::Draining }, false);
        match there.hears.pop_front().expect("a message") {
            Message::Pass(_) => {
                let answer = match willing {
                    Ok(()) => Answer::Accepted,
                    Err(why) => Answer::Refused(why.to_string()),
                };
                if has_audience {
                    there.says.push_back(answer);
                }
            }
            Message::Batch(number, mut sent) => {
                let message = batch(number, sent.len());
                let lost = loses && broken != Broken::IgnoresLoss;
                let came = there.receiver.on_message(&message, (sent.len(), lost), willing);
                if loses {
                    sent[0] = u8::MAX; // it is not there
                }
                if let Err(why) = came {
                    if has_audience {
                        there.says.push_back(Answer::Refused(why));
                    }
                    return Ok(());
                }
                let fate = |one: &u8| match *one {
                    UNKNOWN => Fate::Unknown,
                    _ => Fate::Kept,
                };
                let fates: Vec<Fate> = sent.iter().map(fate).collect();
                there.got.clone_from(&sent);
                there.answer = Some(there.receiver.decided(fates.clone()));
                if broken == Broken::ReadsAtOnce {
                    for (one, _) in sent.into_iter().zip(fates).filter(|(_, it)| *it == Fate::Kept)
                    {
                        self.read(at, one)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn read(&mut self, at: usize, one: u8) -> Result<(), String> {
        if one == u8::MAX {
            return Ok(());
        }
        let other = &self.successors[1 - at];
        let served_by_old = self.back.contains(&one) || self.waiting.contains(&one);
        if (served_by_old && self.old_lives) || other.reads.contains(&one) {
            return Err(format!("{one} is served twice"));
        }
        self.successors[at].reads.insert(one);
        Ok(())
    }

    fn step(&mut self, step: Step, broken: Broken) -> Result<(), String> {
        match step {
            Step::Old => return self.old(),
            Step::SeesEnd => {
                self.sender.on(Input::Ended);
                if broken == Broken::EndDecides {
                    self.sender.on(Input::ReadOut);
                }
            }
            Step::Silent if broken == Broken::SilenceDecides && !self.doubt.is_empty() => {
                self.sender.on(Input::Ended);
                self.sender.on(Input::ReadOut);
            }
            Step::Silent => self.sender.on(Input::Silent),
            Step::New(at) => return self.new_side(at, false, broken),
            Step::Loses(at) => {
                self.losses += 1;
                return self.new_side(at, true, broken);
            }
            Step::KillOld => {
                self.kills += 1;
                self.old_lives = false;
                self.linked = None;
            }
            Step::Kill(at) => {
                self.kills += 1;
                let there = &mut self.successors[at];
                (there.lives, there.serves, there.link) = (false, false, false);
                there.hears.clear();
                there.got.clear();
                there.answer = None;
            }
            Step::Drain => {
                self.successors[0].serves = false;
                (self.successors[1].lives, self.successors[1].serves) = (true, true);
            }
        }
        Ok(())
    }

    /// Nothing more happens, unless somebody is killed.
    fn at_rest(&self) -> Result<(), String> {
        for one in 0..CONNECTIONS {
            let readers: Vec<&Successor> =
                self.successors.iter().filter(|other| other.reads.contains(&one)).collect();
            let is_back = self.back.contains(&one);
            if self.old_lives && readers.is_empty() && !is_back {
                let lost = self.kept.contains(&one) && self.kills > 0;
                if !lost {
                    return Err(format!("nobody serves {one}"));
                }
            }
            if !self.old_lives && self.kills == 1 && readers.is_empty() && self.doubt.contains(&one)
            {
                // The message had reached a successor that lives, and may have refused it.
                let was_refused = one == UNKNOWN || self.losses > 0 || !self.successors[0].serves;
                if !was_refused {
                    return Err(format!("{one} ended with the old side, and was in doubt"));
                }
            }
        }
        Ok(())
    }
}

/// Walks all that can happen. Returns how many states there are.
fn walk(broken: Broken) -> Result<usize, String> {
    let mut seen = HashSet::from([World::new()]);
    let mut open = vec![World::new()];
    while let Some(world) = open.pop() {
        let steps = world.steps();
        let goes_on = |step: &Step| matches!(step, Step::Old | Step::SeesEnd | Step::New(_));
        if !steps.iter().any(goes_on) {
            world.at_rest().map_err(|why| format!("{why}: {world:?}"))?;
        }
        for step in steps {
            let mut after = world.clone();
            after.step(step, broken).map_err(|why| format!("{why} by {step:?}: {world:?}"))?;
            if seen.insert(after.clone()) {
                open.push(after);
            }
        }
    }
    Ok(seen.len())
}

#[test]
fn p13_p9_each_connection_is_served_once_whoever_is_killed_at_whatever_step() {
    let states = walk(Broken::Nothing).unwrap_or_else(|why| panic!("{why}"));
    println!("{states} states");
    assert!(states > 3_000, "{states}");
    for broken in [
        Broken::SilenceDecides,
        Broken::EndDecides,
        Broken::ReadsAtOnce,
        Broken::IgnoresLoss,
        Broken::NeedsAnAudience,
    ] {
        let found = walk(broken).expect_err(&format!("{broken:?}"));
        println!("{broken:?}: {}", found.split_once(": World").map_or("", |(why, _)| why));
    }
}
