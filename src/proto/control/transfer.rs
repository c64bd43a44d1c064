//! The two sides of a transfer: from which process a new generation takes its sockets, and what each side
//! sends next. The drivers carry messages and descriptors. Which message may follow which is decided here.

use super::frame::{Answer, Known, NamedState, Request, Socket};
use std::cmp::Reverse;
use std::time::Duration;

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

/// What listens at the control socket. If nothing does, a predecessor at the second name, which its socket has
/// during a takeover and while it stands by: a generation may have taken the path, and died before it told the
/// older ones to end. `pid`: that of what was found.
pub(crate) fn listener<T>(
    found: Option<T>,
    second: impl FnOnce() -> Option<T>,
    pid: impl Fn(&T) -> i32,
    predecessors: &[Predecessor],
) -> Option<T> {
    let is_known = |one: &T| predecessors.iter().any(|known| known.pid == pid(one));
    found.or_else(|| if predecessors.is_empty() { None } else { second().filter(is_known) })
}

/// From which process a new generation takes its sockets. `listens`: the PID of the process that listens at
/// the control socket. `ends`: the kernel says that this one's process has ended, or is about to. Returns `None` if
/// no process has anything to give: then see [`sources`].
pub(crate) fn giver(
    listens: Option<i32>,
    predecessors: &[Predecessor],
    ends: impl Fn(&Predecessor) -> bool,
) -> Result<Option<Predecessor>, Untakeable> {
    // P5 for this direction: we take sockets only from a process that is proven to be our predecessor.
    let proven = |pid| predecessors.iter().find(|one| one.pid == pid).copied();
    match listens {
        Some(pid) => proven(pid).map(Some).ok_or(Untakeable::Stranger(pid)),
        None => match predecessors.iter().find(|one| one.hands_over && !ends(one)) {
            Some(one) => Err(Untakeable::NobodyListens(*one)),
            None => Ok(None),
        },
    }
}

/// May the path of a Unix socket be taken from the process that listens there? `who`: its PID, if the kernel tells it.
/// If it does not, the process may be a predecessor.
pub(crate) fn may_take_path(who: Option<i32>, predecessors: &[Predecessor]) -> bool {
    predecessors.iter().any(|one| who.is_none_or(|pid| one.pid == pid))
}

/// What the process at the control socket has given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Gave {
    /// `flows`: sockets of steered groups are among them.
    All { flows: bool },
    /// It has ended half-way. `crashed`: as below.
    Half { crashed: Option<u64> },
    /// There is no such process. `crashed`: the daemon that our launcher had before us, and that has ended without a
    /// drain.
    Nothing { crashed: Option<u64> },
}

/// Where else there may be sockets, if no process at the control socket has given them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// The launcher, which holds those of this generation. What came before the end, and the launcher has not, is
    /// used as well.
    Launcher(u64),
    /// The duplicates that were made while we waited in `init`.
    Copies,
    /// What came before the process ended, less the parts of steered groups: a part of one is of no use.
    WhatCame,
    /// Those that drain: they have the sockets of flows.
    Draining,
}

/// The new generation uses the first source that has sockets. If none has, it binds its own.
pub(crate) fn sources(gave: Gave) -> Vec<Source> {
    match gave {
        Gave::All { flows: true } => vec![],
        Gave::All { flows: false } => vec![Source::Draining],
        Gave::Half { crashed: Some(generation) } => {
            vec![Source::Launcher(generation), Source::WhatCame]
        }
        Gave::Half { crashed: None } => vec![Source::Copies, Source::WhatCame],
        // Whatever others have is older.
        Gave::Nothing { crashed: Some(generation) } => vec![Source::Launcher(generation)],
        Gave::Nothing { crashed: None } => vec![Source::Copies, Source::Draining],
    }
}

/// The processes that a new generation takes from, one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Givers {
    pub(crate) first: Predecessor,
    /// It is asked if the first one hangs, refuses or dies. While the first one is on probation, an older
    /// generation stands by, which has the sockets as well.
    pub(crate) second: Option<Predecessor>,
}

/// What becomes of a transfer that has failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failed {
    /// It begins anew, with this one. `keep`: what has come and this one does not have is used as well. The process
    /// that gave it has ended, and would have been the only one to have it.
    TakeFrom { next: Predecessor, keep: bool },
    /// What has come is now held by the new generation alone, and would be lost with it: it uses that.
    UseWhatCame,
    /// The start fails, and the predecessor serves on.
    Refuse,
}

impl Givers {
    pub(crate) fn new(first: Predecessor, predecessors: &[Predecessor]) -> Givers {
        let stands_by = |one: &&Predecessor| one.hands_over && one.number < first.number;
        let second = predecessors.iter().filter(stands_by).max_by_key(|one| one.number).copied();
        Givers { first, second }
    }

    /// How much of `takeover_timeout` the first one may take. The rest is for the second one.
    pub(crate) fn first_limit(&self, timeout: Duration) -> Duration {
        if self.second.is_some() { timeout / 2 } else { timeout }
    }

    /// The first one has not given everything. `closed`: it has closed the connection half-way. `ends`: the kernel
    /// says that its process has ended, or is about to.
    pub(crate) fn failed(&self, closed: bool, ends: impl FnOnce() -> bool) -> Failed {
        let died = closed && ends();
        match self.second {
            Some(next) if died || !closed => Failed::TakeFrom { next, keep: died },
            None if died => Failed::UseWhatCame,
            Some(_) | None => Failed::Refuse,
        }
    }
}

/// One that drains and hangs must not hold up the start for longer.
const FLOWS_LIMIT: Duration = Duration::from_secs(1);

/// If the newest generation has not given the sockets of flows, those that drain are asked for them, each for no longer
/// than the returned time. If the newest one has crashed, the newest of these has the sockets of all flows.
pub(crate) fn flow_givers(
    predecessors: &[Predecessor],
    timeout: Duration,
) -> (Vec<Predecessor>, Duration) {
    let drains = |one: &Predecessor| !one.hands_over;
    let mut draining: Vec<_> = predecessors.iter().copied().filter(drains).collect();
    draining.sort_by_key(|one| Reverse(one.number));
    (draining, timeout.min(FLOWS_LIMIT))
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
    /// The offer has been sent.
    offered: bool,
    /// What has to come before more is sent.
    awaited: Option<Request>,
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

    pub(crate) fn new(sockets: usize, state: bool, states: usize) -> Giving {
        Giving { left: sockets, state, states, offered: false, awaited: None, done: false }
    }

    /// What is sent next. `None` if an answer has to come first, or if everything has been sent.
    /// `fits`: how many of the remaining sockets, or of the named states once all sockets have been sent,
    /// fit into a message.
    pub(crate) fn next(&mut self, fits: impl FnOnce(usize) -> usize) -> Option<Give> {
        if self.awaited.is_some() || self.done {
            return None;
        }
        let give = match (self.left, self.state, self.states) {
            _ if !self.offered => Give::Offer,
            (0, false, 0) => Give::End,
            (0, false, left) => Give::States(fits(left).min(left)),
            (0, true, _) => Give::State,
            (left, ..) => Give::Sockets(fits(left).min(left)),
        };
        self.offered = true;
        let got = |count| Some(Request::Got { count });
        self.awaited = match give {
            Give::Offer => None, // more follows without an answer
            Give::Sockets(count) => {
                self.left -= count;
                got(count)
            }
            Give::State => {
                self.state = false;
                got(1)
            }
            Give::States(count) => {
                self.states -= count;
                got(count)
            }
            Give::End => Some(Request::Done),
        };
        Some(give)
    }

    /// The other side has confirmed that it has everything.
    pub(crate) fn is_through(&self) -> bool {
        self.done
    }

    /// Takes the request that [`Giving::next`] waits for.
    pub(crate) fn on(&mut self, request: Request) -> Result<(), String> {
        let due = self.awaited.take().unwrap_or(Request::Done);
        if request != due {
            return Err(format!("it sent {request:?} where {due:?} was due"));
        }
        self.done = due == Request::Done;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
