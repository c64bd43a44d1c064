//! Open connections move from a generation that drains to the one that serves: what each side does next, and
//! which of the two serves a connection (P13).
//!
//! A message carries many connections, and one message at a time is in doubt: it was sent, and its answer has
//! not come. The successor reads nothing from a connection before its answer `kept` has been sent. The old side
//! takes a connection back only if the answer refuses it, or if the successor has ended and everything that it
//! sent was read. A clock never decides that: a successor that is slow, stopped or swapped out may have sent
//! `kept`, and the connection would be served twice.

use super::frame::{Answer, Batch, Fate};
use crate::proto::generation::verdict::Facts;
use crate::proto::{DrainReason, State};
use std::collections::BTreeSet;
use std::mem;

/// Why a connection was not passed, and stays where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Reason {
    /// No drain has begun: this generation serves.
    NotDraining,
    /// The service is stopped: no successor comes.
    Stopped,
    /// No proven generation serves in the place of this one at the moment. If a successor has died, another
    /// one may come: try again later.
    NoSuccessor,
    /// The successor does not answer. It may be stopped or swapped out: try again later.
    Silent,
    /// The successor refuses it: its program does not want it, is out of descriptors, accepts no connections at
    /// all, or has an earlier version of this crate.
    Refused,
    /// The successor's program accepts connections, but none of this kind.
    UnknownKind,
    /// It can never be passed: the name of its kind is empty or too long, its state and its unread bytes are
    /// more than 16 MiB, or the descriptor is no connection.
    Unusable,
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Reason::NotDraining => "this generation serves, and does not drain",
            Reason::Stopped => "the service is stopped",
            Reason::NoSuccessor => "no other generation serves",
            Reason::Silent => "the successor does not answer",
            Reason::Refused => "the successor refuses it",
            Reason::UnknownKind => "the successor accepts no connections of this kind",
            Reason::Unusable => "it is no connection that can be passed",
        })
    }
}

/// May connections be passed in a drain for this reason? `None`: no drain has begun.
pub(crate) fn may_pass(reason: Option<DrainReason>) -> Result<(), Reason> {
    match reason {
        None => Err(Reason::NotDraining),
        Some(DrainReason::TakenOver | DrainReason::RolledBack) => Ok(()),
        Some(DrainReason::Stopped | DrainReason::Requested) => Err(Reason::Stopped),
    }
}

/// Why a generation takes no connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unwilling {
    /// It will in a moment: its line in the record says that it serves a little before it does. It closes the link
    /// without an answer, because a generation that has refused is not asked again.
    NotYet,
    Refuses(&'static str),
}

impl std::fmt::Display for Unwilling {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Unwilling::NotYet => "it has not started, or is on probation",
            Unwilling::Refuses(why) => why,
        })
    }
}

/// May connections be passed to a generation in this state? Not in its probation: if it fails, they end with
/// it.
pub(crate) fn may_receive(state: State, on_probation: bool) -> Result<(), Unwilling> {
    match state {
        State::Starting => Err(Unwilling::NotYet),
        State::Draining => Err(Unwilling::Refuses("it drains")),
        State::Leaving => Err(Unwilling::Refuses("it leaves: the service is stopped")),
        State::Serving | State::Detached | State::Standby if on_probation => Err(Unwilling::NotYet),
        State::Serving | State::Detached | State::Standby => Ok(()),
    }
}

/// To which generation the one with the number `own` passes: the newest that serves and is proven. After a
/// rollback that is an older one.
pub(crate) fn successor<'a>(
    own: u64,
    others: impl Iterator<Item = &'a Facts>,
) -> Option<&'a Facts> {
    let serving = others.filter(|one| one.number != own && one.proof.is_ok() && one.is_proven());
    serving.max_by_key(|one| one.number)
}

/// For how many descriptors room is made at most before they come.
const ROOM_MAX: u64 = 1 << 17;

/// For how many descriptors a new generation makes room, before it starts threads: as many as the largest of the others
/// has room for.
pub(crate) fn room(sizes: impl Iterator<Item = u64>) -> u64 {
    sizes.max().unwrap_or(0).min(ROOM_MAX)
}

/// And at the offer, by the number of open connections that it tells.
pub(crate) fn room_for(open: u64) -> u64 {
    open.min(ROOM_MAX)
}

// ---- the old side ----

/// What has happened on the old side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Input {
    /// There is a link to the generation with this number.
    Linked(u64),
    /// There is none to be had.
    NotLinked,
    /// The message is out. It carried so many connections.
    Sent(usize),
    /// The message is not out, and cannot be: the link is closed.
    NotSent,
    Heard(Answer),
    /// What has come is no answer.
    Garbage,
    /// An answer should have come by now.
    Silent,
    /// The successor has closed the link, and all that it sent was read.
    Closed,
    /// The successor's process has ended.
    Ended,
    /// The process has ended, and then all that it had sent was read.
    ReadOut,
    /// Settled, requeued, given back or hung up.
    Done,
}

/// What the old side does next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Nothing, before another connection is to be passed.
    Rest,
    /// Find the [`successor`], and connect.
    Link,
    /// Send [`Request::Pass`](super::frame::Request::Pass).
    Ask,
    /// Send the first so many of the connections that wait. They are in doubt from then on.
    Send { number: u64, count: usize },
    /// Wait for a message, and for the end of the process. `limited`: not longer than an answer should take.
    /// `link`: it is open.
    Await { limited: bool, link: bool },
    /// Read what the process has sent before its end.
    ReadOut,
    /// The message is decided: what becomes of the connections in doubt, in their order.
    Settle(Vec<Fate>),
    /// The connections in doubt are ours. They wait again, before the others.
    Requeue,
    /// The connections that wait stay here.
    GiveBack(Reason),
    /// Close the link.
    HangUp,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Phase {
    /// There is no link.
    Apart,
    /// The successor has not been asked.
    Linked(u64),
    Asked(u64),
    /// The successor takes connections.
    Open(u64),
    InDoubt(Doubt),
    Settled(u64, Vec<Fate>),
    /// Nothing has come of the message.
    Returned,
    /// No connection is in doubt, and those that wait cannot be passed now.
    Failed(Reason),
    /// The link is of no use any more.
    Over,
}

/// A message that is out.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Doubt {
    to: u64,
    count: usize,
    silent: bool,
    closed: bool,
    ended: bool,
}

/// The old side: it drains.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Sender {
    phase: Phase,
    /// Of the last message on this link.
    number: u64,
    /// Generations that have refused: they are not asked again.
    refused: BTreeSet<u64>,
}

impl Sender {
    pub(crate) const fn new() -> Sender {
        Sender { phase: Phase::Apart, number: 0, refused: BTreeSet::new() }
    }

    /// `waiting`: how many connections wait. `fits`: how many of them fit into a message, at least one.
    pub(crate) fn next(&self, waiting: usize, fits: impl FnOnce() -> usize) -> Next {
        match &self.phase {
            Phase::Apart | Phase::Open(_) if waiting == 0 => Next::Rest,
            Phase::Apart => Next::Link,
            Phase::Linked(_) => Next::Ask,
            Phase::Asked(_) => Next::Await { limited: true, link: true },
            Phase::Open(_) => Next::Send { number: self.number + 1, count: fits().min(waiting) },
            Phase::InDoubt(doubt) if doubt.silent && waiting > 0 => Next::GiveBack(Reason::Silent),
            Phase::InDoubt(doubt) if doubt.ended => Next::ReadOut,
            Phase::InDoubt(doubt) => Next::Await { limited: !doubt.silent, link: !doubt.closed },
            Phase::Settled(_, fates) => Next::Settle(fates.clone()),
            Phase::Returned => Next::Requeue,
            Phase::Failed(why) if waiting > 0 => Next::GiveBack(*why),
            Phase::Failed(_) | Phase::Over => Next::HangUp,
        }
    }

    /// May the generation with this number be asked?
    pub(crate) fn may_ask(&self, number: u64) -> bool {
        !self.refused.contains(&number)
    }

    pub(crate) fn on(&mut self, input: Input) {
        self.phase = match (mem::replace(&mut self.phase, Phase::Over), input) {
            (Phase::Apart, Input::Linked(to)) => {
                self.number = 0;
                Phase::Linked(to)
            }
            (Phase::Apart, Input::NotLinked) => Phase::Failed(match self.refused.is_empty() {
                true => Reason::NoSuccessor,
                false => Reason::Refused,
            }),
            (Phase::Linked(to), Input::Sent(_)) => Phase::Asked(to),
            (Phase::Asked(to), Input::Heard(Answer::Accepted)) => Phase::Open(to),
            (Phase::Open(to), Input::Sent(count)) => {
                self.number += 1;
                Phase::InDoubt(Doubt { to, count, silent: false, closed: false, ended: false })
            }
            (
                Phase::Linked(to) | Phase::Asked(to) | Phase::Open(to),
                Input::Heard(_) | Input::Garbage,
            ) => self.refuses(to),
            // If the link is open, the message cannot be sent for now.
            (Phase::Linked(_) | Phase::Asked(_) | Phase::Open(_), Input::Silent) => {
                Phase::Failed(Reason::Silent)
            }
            (
                Phase::Linked(_) | Phase::Asked(_),
                Input::NotSent | Input::Closed | Input::Ended | Input::ReadOut,
            ) => Phase::Failed(Reason::NoSuccessor),
            // Nothing is in doubt. The next successor is looked for.
            (Phase::Open(to), Input::NotSent | Input::Closed | Input::Ended | Input::ReadOut) => {
                match self.number {
                    0 => self.refuses(to), // it would take us in again and again
                    _ => Phase::Over,
                }
            }
            (Phase::InDoubt(doubt), input) => self.when_in_doubt(doubt, input),
            (Phase::Settled(to, _), Input::Done) => Phase::Open(to),
            (Phase::Returned | Phase::Failed(_), Input::Done) => Phase::Over,
            (Phase::Over, Input::Done) => Phase::Apart,
            (
                same @ Phase::Apart,
                Input::Sent(_)
                | Input::NotSent
                | Input::Heard(_)
                | Input::Garbage
                | Input::Silent
                | Input::Closed
                | Input::Ended
                | Input::ReadOut
                | Input::Done,
            )
            | (
                same @ (Phase::Linked(_) | Phase::Asked(_) | Phase::Open(_)),
                Input::Linked(_) | Input::NotLinked | Input::Sent(_) | Input::Done,
            )
            | (same @ (Phase::Settled(..) | Phase::Returned | Phase::Failed(_) | Phase::Over), _) => {
                same
            }
        };
    }

    fn when_in_doubt(&mut self, doubt: Doubt, input: Input) -> Phase {
        match input {
            Input::Heard(Answer::Kept { number, fates })
                if number == self.number && fates.len() == doubt.count =>
            {
                Phase::Settled(doubt.to, fates)
            }
            Input::Heard(Answer::Refused(_)) => {
                self.refused.insert(doubt.to);
                Phase::Returned
            }
            // Whatever it was meant to say: it may have kept them. Only its end decides now.
            Input::Heard(_) | Input::Garbage | Input::Silent => {
                Phase::InDoubt(Doubt { silent: true, ..doubt })
            }
            // A hint, and no proof: a process that executes itself closes it, and lives.
            Input::Closed => Phase::InDoubt(Doubt { closed: true, ..doubt }),
            Input::Ended => Phase::InDoubt(Doubt { ended: true, ..doubt }),
            Input::ReadOut if doubt.ended => Phase::Returned,
            // If it was given back what waits, the doubt is as it was.
            Input::ReadOut
            | Input::Linked(_)
            | Input::NotLinked
            | Input::Sent(_)
            | Input::NotSent
            | Input::Done => Phase::InDoubt(doubt),
        }
    }

    fn refuses(&mut self, to: u64) -> Phase {
        self.refused.insert(to);
        Phase::Over
    }
}

/// Why a connection of this fate stays; `None`: it is the successor's.
pub(crate) fn stays(fate: Fate) -> Option<Reason> {
    match fate {
        Fate::Kept => None,
        Fate::Unknown => Some(Reason::UnknownKind),
        Fate::Refused => Some(Reason::Refused),
    }
}

// ---- the new side ----

/// The new side: it serves.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Receiver {
    /// Of the last message.
    number: u64,
    due: Due,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Due {
    Message,
    /// What becomes of so many connections.
    Fates(usize),
    /// The answer is being sent.
    Answer(Vec<Fate>),
}

impl Receiver {
    pub(crate) fn new() -> Receiver {
        Receiver { number: 0, due: Due::Message }
    }

    /// A message has come, with so many descriptors; `lost`: some have not come. `willing`: see
    /// [`may_receive`]. An error refuses all connections of the message, and nothing was read from them.
    pub(crate) fn on_message(
        &mut self,
        batch: &Batch,
        (fds, lost): (usize, bool),
        willing: Result<(), Unwilling>,
    ) -> Result<(), String> {
        if self.due != Due::Message {
            return Err("it has not waited for the answer".to_owned());
        }
        if lost {
            return Err(
                "some of the descriptors that it sent are lost (MSG_CTRUNC): the limit of \
                        open files may be too low"
                    .to_owned(),
            );
        }
        if fds != batch.fds() {
            return Err(format!("it sent {fds} descriptors where {} were due", batch.fds()));
        }
        if batch.number != self.number + 1 {
            let due = self.number + 1;
            return Err(format!("it sent message {} where {due} was due", batch.number));
        }
        willing.map_err(|why| why.to_string())?;
        self.number = batch.number;
        self.due = Due::Fates(batch.connections.len());
        Ok(())
    }

    /// The program has decided. Returns what is to be sent; nothing is read from a connection before.
    pub(crate) fn decided(&mut self, fates: Vec<Fate>) -> Answer {
        debug_assert_eq!(self.due, Due::Fates(fates.len()));
        self.due = Due::Answer(fates.clone());
        Answer::Kept { number: self.number, fates }
    }

    /// The message cannot be used after all: all of its connections are refused.
    pub(crate) fn give_up(&mut self) {
        self.due = Due::Message;
    }

    /// The answer is out, or cannot be sent since the old side has closed the link: with connections in doubt
    /// it does that only when it ends. Returns the fates: from now on those that were kept are ours.
    pub(crate) fn answered(&mut self) -> Vec<Fate> {
        match mem::replace(&mut self.due, Due::Message) {
            Due::Answer(fates) => fates,
            other @ (Due::Message | Due::Fates(_)) => {
                self.due = other;
                Vec::new()
            }
        }
    }
}

#[cfg(test)]
mod tests;
