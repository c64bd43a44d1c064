//! The two sides of a transfer: from which process a new generation takes its sockets, and what each side
//! sends next. The drivers carry messages and descriptors. Which message may follow which is decided here.

use super::frame::{Answer, Known, NamedState, Request, Socket};

// ---- the new daemon ----

/// A live process that is proven to be an older generation of this service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Predecessor {
    pub(crate) number: u64,
    pub(crate) pid: i32,
    /// The record says that it listens for its successor.
    pub(crate) hands_over: bool,
}

/// Why nothing can be taken from the process at the control socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Untakeable {
    /// No process listens, and this predecessor should.
    NobodyListens(Predecessor),
    /// The process with this PID listens, and is not proven to be a predecessor.
    Stranger(i32),
}

/// From which process a new generation takes its sockets. `listens`: the PID of the process that listens at
/// the control socket. Returns `None` if there is nothing to take: then the new generation binds its own.
pub(crate) fn giver(
    listens: Option<i32>,
    predecessors: &[Predecessor],
) -> Result<Option<Predecessor>, Untakeable> {
    // P5 for this direction: we take sockets only from a process that is proven to be our predecessor.
    let proven = |pid| predecessors.iter().find(|one| one.pid == pid).copied();
    match listens {
        Some(pid) => proven(pid).map(Some).ok_or(Untakeable::Stranger(pid)),
        None => match predecessors.iter().find(|one| one.hands_over) {
            Some(one) => Err(Untakeable::NobodyListens(*one)),
            None => Ok(None),
        },
    }
}

/// From whom it takes them if that one hangs or refuses: while it is on probation, an older generation stands by,
/// which has the sockets as well.
pub(crate) fn second_giver(
    first: &Predecessor,
    predecessors: &[Predecessor],
) -> Option<Predecessor> {
    let stands_by = |one: &&Predecessor| one.hands_over && one.number < first.number;
    predecessors.iter().filter(stands_by).max_by_key(|one| one.number).copied()
}

/// What an answer means to the new daemon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Took {
    /// This number of sockets follows.
    Offer(usize),
    /// Each with the descriptor that came with it.
    Sockets(Vec<Socket>),
    /// The descriptor that came with it holds this number of bytes.
    State(u64),
    /// The same, for each of these.
    States(Vec<NamedState>),
    /// That was all.
    End,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Due {
    Offer,
    Sockets,
    State,
    States,
    End,
    Nothing,
}

/// The new daemon's side.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Taking {
    from: u64,
    sockets: usize,
    got: usize,
    state: Option<u64>,
    /// Named states that have not come.
    states: usize,
    due: Due,
}

impl Taking {
    /// For the generation `own`, which takes from `giver`. Returns the first message as well.
    pub(crate) fn begin(own: u64, giver: &Predecessor) -> (Taking, Request) {
        let from = giver.number;
        let taking = Taking { from, sockets: 0, got: 0, state: None, states: 0, due: Due::Offer };
        (taking, Request::Take { generation: own, known: Known::ALL })
    }

    /// For a process without a number, which wants duplicates of the sockets alone.
    pub(crate) fn copy(giver: &Predecessor) -> (Taking, Request) {
        let (taking, _) = Taking::begin(0, giver);
        (taking, Request::Copy { known: Known::ALL })
    }

    /// Takes an answer, and the number of descriptors that came with it. The request that it returns is
    /// sent when the answer has been acted on. After an error the transfer is over, and nothing has
    /// been taken.
    pub(crate) fn on(
        &mut self,
        answer: Answer,
        fds: usize,
    ) -> Result<(Took, Option<Request>), String> {
        let (took, request) = match (self.due, answer) {
            (_, Answer::Refused(why)) => return Err(format!("it refuses: {why}")),
            (Due::Offer, Answer::Offer { generation, sockets, state, states }) if fds == 0 => {
                if generation != self.from {
                    return Err(format!(
                        "it says that it is generation {generation}, and the record says {}",
                        self.from
                    ));
                }
                (self.sockets, self.state, self.states) = (sockets, state, states);
                (Took::Offer(sockets), None)
            }
            (Due::Sockets, Answer::Sockets(claimed)) => {
                let count = claimed.len();
                if count != fds {
                    return Err(format!("it sent {fds} descriptors with {count} sockets"));
                }
                let left = self.sockets - self.got;
                if count > left {
                    return Err(format!(
                        "it sent more than the {} sockets that it offered",
                        self.sockets
                    ));
                }
                self.got += count;
                (Took::Sockets(claimed), Some(Request::Got { count }))
            }
            (Due::State, Answer::State { bytes }) if Some(bytes) == self.state && fds == 1 => {
                self.state = None;
                (Took::State(bytes), Some(Request::Got { count: 1 }))
            }
            (Due::States, Answer::States(states)) => {
                let count = states.len();
                if count != fds {
                    return Err(format!("it sent {fds} descriptors with {count} states"));
                }
                let Some(left) = self.states.checked_sub(count) else {
                    return Err("it sent more states than it offered".to_owned());
                };
                self.states = left;
                (Took::States(states), Some(Request::Got { count }))
            }
            (Due::End, Answer::End) if fds == 0 => (Took::End, Some(Request::Done)),
            (due, other) => return Err(unexpected(&other, fds, due)),
        };
        self.due = match took {
            Took::End => Due::Nothing,
            _ if self.got < self.sockets => Due::Sockets,
            _ if self.state.is_some() => Due::State,
            _ if self.states > 0 => Due::States,
            _ => Due::End,
        };
        Ok((took, request))
    }
}

fn unexpected(answer: &Answer, fds: usize, due: Due) -> String {
    let name = match answer {
        Answer::Offer { .. } => "an offer",
        Answer::Sockets(_) => "sockets",
        Answer::State { .. } => "a state",
        Answer::States(_) => "named states",
        Answer::End => "the end",
        Answer::Status(_) => "a status",
        Answer::Counters => "counters",
        Answer::Accepted => "a consent",
        Answer::Kept { .. } => "a word on connections",
        Answer::Refused(_) => "a refusal",
    };
    let due = match due {
        Due::Offer => "an offer",
        Due::Sockets => "sockets",
        Due::State => "the state",
        Due::States => "named states",
        Due::End => "the end",
        Due::Nothing => "nothing",
    };
    format!("it sent {name} with {fds} descriptors where {due} was due")
}

// ---- the old daemon ----

/// What the old daemon sends next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Give {
    Offer,
    /// This number of the sockets that have not been sent yet.
    Sockets(usize),
    State,
    /// This number of the named states that have not been sent yet.
    States(usize),
    End,
}

/// The old daemon's side.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Giving {
    /// Sockets that have not been sent.
    left: usize,
    /// A state that has not been sent.
    state: bool,
    /// Named states that have not been sent.
    states: usize,
    next: Option<Give>,
    /// The count in the `got` that must come next.
    awaited: Option<usize>,
    done: bool,
}

impl Giving {
    /// For the generation `theirs`. An error means that the transfer is refused.
    pub(crate) fn begin(own: u64, theirs: u64) -> Result<(), String> {
        if theirs <= own {
            return Err(format!("generation {theirs} is not newer than {own}"));
        }
        Ok(())
    }

    pub(crate) fn new(sockets: usize, state: bool) -> Giving {
        let next = Some(Give::Offer);
        Giving { left: sockets, state, states: 0, next, awaited: None, done: false }
    }

    pub(crate) fn with_states(self, states: usize) -> Giving {
        Giving { states, ..self }
    }

    /// What is sent next. `None` if an answer has to come first, or if everything has been sent.
    /// `fits`: how many of the remaining sockets, or of the named states once all sockets have been sent,
    /// fit into a message.
    pub(crate) fn next(&mut self, fits: impl FnOnce(usize) -> usize) -> Option<Give> {
        let give = match self.next.take()? {
            Give::Sockets(_) => Give::Sockets(fits(self.left).min(self.left)),
            Give::States(_) => Give::States(fits(self.states).min(self.states)),
            other => other,
        };
        match give {
            Give::Offer => self.next = Some(self.following()),
            Give::Sockets(count) => {
                self.left -= count;
                self.awaited = Some(count);
            }
            Give::State => {
                self.state = false;
                self.awaited = Some(1);
            }
            Give::States(count) => {
                self.states -= count;
                self.awaited = Some(count);
            }
            Give::End => {}
        }
        Some(give)
    }

    fn following(&self) -> Give {
        match (self.left, self.state, self.states) {
            (0, false, 0) => Give::End,
            (0, false, left) => Give::States(left),
            (0, true, _) => Give::State,
            (left, ..) => Give::Sockets(left),
        }
    }

    /// The other side has confirmed that it has everything.
    pub(crate) fn is_through(&self) -> bool {
        self.done
    }

    /// Takes the request that [`Giving::next`] waits for.
    pub(crate) fn on(&mut self, request: Request) -> Result<(), String> {
        let due = self.awaited.map_or(Request::Done, |count| Request::Got { count });
        if request != due {
            return Err(format!("it sent {request:?} where {due:?} was due"));
        }
        match self.awaited.take() {
            Some(_) => self.next = Some(self.following()),
            None => self.done = true,
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{Give, Giving, Predecessor, Taking, Took, Untakeable, giver, second_giver};
    use crate::proto::control::frame::{
        Address, Answer, Known, NamedState, Request, Socket, SocketKind,
    };

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
        assert_eq!(giver(Some(30), &[MUTE, OLD]), Ok(Some(OLD)));
        assert_eq!(giver(Some(31), &[MUTE, OLD]), Err(Untakeable::Stranger(31)));
        assert_eq!(giver(Some(31), &[]), Err(Untakeable::Stranger(31)));
        assert_eq!(giver(None, &[MUTE, OLD]), Err(Untakeable::NobodyListens(OLD)));
        assert_eq!(giver(None, &[MUTE]), Ok(None));
        assert_eq!(giver(None, &[]), Ok(None));
        assert_eq!(Giving::begin(3, 3), Err("generation 3 is not newer than 3".to_owned()));
        assert_eq!(Giving::begin(3, 4), Ok(()));
    }

    /// The one that hangs is on probation, and the last that was proven before it stands by.
    #[test]
    fn p1_if_one_does_not_give_the_newest_older_one_does() {
        let one = |number, hands_over| Predecessor { number, pid: 10, hands_over };
        let known = [one(1, true), one(2, true), one(3, false), one(4, true), one(5, true)];
        assert_eq!(second_giver(&known[4], &known), Some(known[3]));
        assert_eq!(second_giver(&known[3], &known), Some(known[1]));
        assert_eq!(second_giver(&known[0], &known), None);
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
            let mut giving = Giving::new(count, bytes.is_some()).with_states(states);
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
        refuses(
            begun(),
            Answer::End,
            0,
            "it sent the end with 0 descriptors where an offer was due",
        );
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
        let mut giving = Giving::new(1, false);
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
}
