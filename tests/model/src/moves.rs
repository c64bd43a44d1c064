//! Open connections that move to the successor: what `driver::passing` does.
//!
//! There are two of them. The first generation that drains has accepted them, and each message carries one. A client
//! is never the first to leave, so a connection ends with the process that has it.

use super::trace::say;
use super::world::{Id, Promise, Setting, World};
use crate::proto::control::frame::{Answer, Batch, Fate, Passed};
use crate::proto::control::passing::{
    Input, Next, Receiver, Sender, Unwilling, may_pass, may_receive, stays, successor,
};
use crate::proto::daemon::Phase;
use crate::variants::{self, Variant};
use std::collections::{BTreeMap, VecDeque};

const CONNECTIONS: usize = 2;
/// So many fit into a message.
const FITS: usize = 1;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MovesAction {
    /// The drain has begun, and the program passes its connections.
    Begin,
    /// The thread of the old side does its next step.
    Old,
    /// The old side sees that the process has ended, before it has read what that has sent.
    SeesEnd,
    /// The thread of the new side that serves this link.
    New(LinkId),
    // Of the budget.
    /// The answer takes long.
    Silent,
    /// The new side receives a message of which the kernel has dropped descriptors.
    Loses(LinkId),
}

/// The old side, the new side, and which of the links between them.
pub(crate) type LinkId = (Id, Id, u8);

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Moves {
    opened: bool,
    connections: [Connection; CONNECTIONS],
    old: BTreeMap<Id, Old>,
    links: BTreeMap<LinkId, Link>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Connection {
    /// Who reads from it.
    reader: Option<Id>,
    /// It was given back to its reader.
    stays: bool,
    /// It has ended with the process that had it.
    gone: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Old {
    sender: Sender,
    linked: Option<LinkId>,
    /// How many links it has made.
    links: u8,
    waiting: Vec<usize>,
    doubt: Vec<usize>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Link {
    receiver: Receiver,
    /// The old side has it open.
    has_audience: bool,
    /// So has the new side.
    open: bool,
    hears: VecDeque<Message>,
    says: VecDeque<Answer>,
    /// Of the message that is answered.
    got: Vec<usize>,
    answer: Option<Answer>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Message {
    Pass,
    Batch(u64, Vec<usize>),
}

impl Link {
    fn is_over(&self) -> bool {
        !self.has_audience && self.hears.is_empty() && self.answer.is_none()
    }

    /// What comes, or has come.
    fn has(&self) -> impl Iterator<Item = usize> {
        let coming = self.hears.iter().flat_map(|message| match message {
            Message::Pass => &[][..],
            Message::Batch(_, sent) => sent,
        });
        coming.chain(&self.got).copied()
    }
}

impl Old {
    fn next(&self) -> Next {
        self.sender.next(self.waiting.len(), || FITS)
    }
}

fn batch(number: u64, count: usize) -> Batch {
    let one = Passed { kind: "chat".to_owned(), state: 0, unread: 0 };
    Batch::new(number, vec![one; count])
}

impl World {
    fn moves(&self) -> &Moves {
        self.moves.as_ref().expect("connections that move")
    }

    fn moves_mut(&mut self) -> &mut Moves {
        self.moves.as_mut().expect("connections that move")
    }

    /// The program of this generation passes connections now.
    fn begins_to_pass(&self, id: Id) -> bool {
        let Some(daemon) = self.daemon(id).filter(|one| one.drain_hooks) else { return false };
        let Phase::Draining(reason) = daemon.machine.phase() else { return false };
        let Moves { opened, connections, .. } = self.moves();
        let has = connections.iter().any(|one| one.reader == Some(id) && !one.stays && !one.gone);
        may_pass(Some(reason)).is_ok() && (!opened || has)
    }

    /// No connection holds up the end of this generation's drain.
    pub(crate) fn has_passed(&self, id: Id) -> bool {
        if self.moves.is_none() {
            return true;
        }
        let rests = self.moves().old.get(&id).is_none_or(|old| old.next() == Next::Rest);
        let mut to_it = self.moves().links.iter().filter(|((_, to, _), _)| *to == id);
        rests && !self.begins_to_pass(id) && to_it.all(|(_, link)| link.answer.is_none())
    }

    pub(crate) fn moves_fair(&self, id: Id) -> Vec<MovesAction> {
        let mut all = Vec::new();
        if self.moves.is_none() || self.daemon(id).is_none() {
            return all;
        }
        if self.begins_to_pass(id) {
            all.push(MovesAction::Begin);
        }
        if let Some(old) = self.moves().old.get(&id) {
            let ended = old.linked.is_some_and(|(_, to, _)| self.daemon(to).is_none());
            match old.next() {
                Next::Rest => {}
                Next::Await { link, .. } => {
                    let there = &self.moves().links[&old.linked.expect("a link")];
                    if link && (!there.says.is_empty() || !there.open) {
                        all.push(MovesAction::Old);
                    }
                    if ended {
                        all.push(MovesAction::SeesEnd);
                    }
                }
                _ => all.push(MovesAction::Old),
            }
        }
        for (at, link) in self.moves().links.iter().filter(|((_, to, _), _)| *to == id) {
            if !link.hears.is_empty() || link.answer.is_some() {
                all.push(MovesAction::New(*at));
            }
        }
        all
    }

    /// What may go wrong, and what it takes of the budget.
    pub(crate) fn moves_budgeted(&self, id: Id) -> Vec<(u8, MovesAction)> {
        let mut all = Vec::new();
        if self.moves.is_none() {
            return all;
        }
        let old = self.moves().old.get(&id).map(Old::next);
        if matches!(old, Some(Next::Await { limited: true, .. })) {
            all.push((self.budget.limits, MovesAction::Silent));
        }
        for (at, link) in self.moves().links.iter().filter(|((_, to, _), _)| *to == id) {
            let has_batch = matches!(link.hears.front(), Some(Message::Batch(..)));
            if has_batch && link.answer.is_none() {
                all.push((self.budget.cuts, MovesAction::Loses(*at)));
            }
        }
        all
    }

    pub(crate) fn moves_act(&mut self, id: Id, action: MovesAction, setting: &Setting) {
        say(|| format!("daemon {id}, connections: {action:?}"));
        match action {
            MovesAction::Begin => self.begin_to_pass(id),
            MovesAction::Old => self.old_side(id, setting),
            MovesAction::SeesEnd => {
                self.tell_old(id, Input::Ended);
                if variants::is(Variant::EndDecides) {
                    self.tell_old(id, Input::ReadOut);
                }
            }
            MovesAction::Silent => {
                self.budget.limits -= 1;
                let in_doubt = self.moves().old.get(&id).is_some_and(|old| !old.doubt.is_empty());
                if variants::is(Variant::SilenceDecides) && in_doubt {
                    self.tell_old(id, Input::Ended);
                    self.tell_old(id, Input::ReadOut);
                } else {
                    self.tell_old(id, Input::Silent);
                }
            }
            MovesAction::New(at) => self.new_side(at, false),
            MovesAction::Loses(at) => {
                self.budget.cuts -= 1;
                self.new_side(at, true);
            }
        }
    }

    // ---- the old side ----

    fn begin_to_pass(&mut self, id: Id) {
        let moves = self.moves_mut();
        if !std::mem::replace(&mut moves.opened, true) {
            moves.connections.iter_mut().for_each(|one| one.reader = Some(id));
        }
        let new = || Old {
            sender: Sender::new(),
            linked: None,
            links: 0,
            waiting: Vec::new(),
            doubt: Vec::new(),
        };
        let old = moves.old.entry(id).or_insert_with(new);
        for (at, one) in moves.connections.iter_mut().enumerate() {
            if one.reader == Some(id) && !one.stays && !one.gone {
                one.reader = None;
                old.waiting.push(at);
            }
        }
    }

    fn tell_old(&mut self, id: Id, input: Input) {
        let old = self.moves_mut().old.get_mut(&id).expect("it drains");
        old.sender.on(input);
    }

    /// The generation to which this one passes, by its number.
    fn successor_of(&self, id: Id, setting: &Setting) -> Option<Id> {
        let own = u64::from(self.at(id).number);
        let facts = self.served_facts(id, setting);
        let number = successor(own, facts.iter().map(|(_, one)| one))?.number;
        facts.iter().find(|(_, one)| one.number == number).map(|(one, _)| *one)
    }

    fn old_side(&mut self, id: Id, setting: &Setting) {
        let old = self.moves().old[&id].clone();
        let input = match old.next() {
            Next::Rest => return,
            Next::Link => {
                let to = self.successor_of(id, setting);
                let to = to.filter(|to| self.daemon(*to).is_some());
                let number = to.map(|to| u64::from(self.at(to).number));
                match to.zip(number).filter(|(_, number)| old.sender.may_ask(*number)) {
                    Some((to, number)) => {
                        let link = Link {
                            receiver: Receiver::new(),
                            has_audience: true,
                            open: true,
                            hears: VecDeque::new(),
                            says: VecDeque::new(),
                            got: Vec::new(),
                            answer: None,
                        };
                        let moves = self.moves_mut();
                        let old = moves.old.get_mut(&id).expect("it drains");
                        old.links += 1;
                        old.linked = Some((id, to, old.links));
                        moves.links.insert((id, to, old.links), link);
                        Input::Linked(number)
                    }
                    None => Input::NotLinked,
                }
            }
            Next::Ask => self.send(id, Message::Pass, 0),
            Next::Send { number, count } => {
                let sent = old.waiting[..count].to_vec();
                let input = self.send(id, Message::Batch(number, sent.clone()), count);
                if input == Input::Sent(count) {
                    let old = self.moves_mut().old.get_mut(&id).expect("it drains");
                    old.waiting.drain(..count);
                    old.doubt = sent;
                }
                input
            }
            Next::Await { .. } | Next::ReadOut => {
                let is_end = old.next() == Next::ReadOut;
                let at = old.linked.expect("a link");
                let link = self.moves_mut().links.get_mut(&at).expect("a link");
                match link.says.pop_front() {
                    Some(answer) => Input::Heard(answer),
                    None if is_end => Input::ReadOut,
                    None => Input::Closed,
                }
            }
            Next::Settle(fates) => {
                for (one, fate) in old.doubt.into_iter().zip(fates) {
                    if stays(fate).is_some() {
                        self.is_given_back(id, one);
                    }
                }
                self.moves_mut().old.get_mut(&id).expect("it drains").doubt.clear();
                Input::Done
            }
            Next::Requeue => {
                let is_read = old.doubt.iter().any(|one| self.is_read(*one));
                if is_read {
                    self.fault(Promise::P13, "a connection that was read is taken back");
                }
                let old = self.moves_mut().old.get_mut(&id).expect("it drains");
                let waiting = std::mem::take(&mut old.waiting);
                old.waiting = std::mem::take(&mut old.doubt);
                old.waiting.extend(waiting);
                Input::Done
            }
            Next::GiveBack(_) => {
                old.waiting.into_iter().for_each(|one| self.is_given_back(id, one));
                self.moves_mut().old.get_mut(&id).expect("it drains").waiting.clear();
                Input::Done
            }
            Next::HangUp => {
                if !old.doubt.is_empty() {
                    self.fault(Promise::P13, "a link is closed while connections are in doubt");
                }
                let moves = self.moves_mut();
                let linked = moves.old.get_mut(&id).expect("it drains").linked.take();
                if let Some(at) = linked {
                    // What it has sent is heard all the same.
                    let link = moves.links.get_mut(&at).expect("a link");
                    link.has_audience = false;
                    link.says.clear();
                    self.forget_link(at);
                }
                Input::Done
            }
        };
        self.tell_old(id, input);
    }

    fn send(&mut self, id: Id, message: Message, count: usize) -> Input {
        let at = self.moves().old[&id].linked.expect("a link");
        let lives = self.daemon(at.1).is_some();
        let link = self.moves_mut().links.get_mut(&at).expect("a link");
        if !lives || !link.open {
            return Input::NotSent;
        }
        link.hears.push_back(message);
        Input::Sent(count)
    }

    fn is_read(&self, one: usize) -> bool {
        let connection = self.moves().connections[one];
        connection.reader.is_some() || connection.gone
    }

    fn is_given_back(&mut self, id: Id, one: usize) {
        if self.is_read(one) {
            self.fault(Promise::P13, "a connection is served by two generations");
        }
        let connection = &mut self.moves_mut().connections[one];
        (connection.reader, connection.stays) = (Some(id), true);
    }

    // ---- the new side ----

    fn new_side(&mut self, at: LinkId, loses: bool) {
        let (_, id, _) = at;
        let daemon = self.daemon(id).expect("alive");
        let willing = may_receive(daemon.machine.state(), daemon.machine.is_on_probation());
        let link = self.moves_mut().links.get_mut(&at).expect("a link");
        if let Some(answer) = link.answer.take() {
            if link.has_audience {
                link.says.push_back(answer);
            }
            let got = std::mem::take(&mut link.got);
            let fates = link.receiver.answered();
            let drops = variants::is(Variant::NeedsAnAudience) && !link.has_audience;
            for (one, fate) in got.into_iter().zip(fates) {
                if fate == Fate::Kept && !drops {
                    self.read(id, one);
                }
            }
            return self.forget_link(at);
        }
        match link.hears.pop_front().expect("a message") {
            Message::Pass => {
                let answer = match willing {
                    Ok(()) => Some(Answer::Accepted),
                    Err(Unwilling::NotYet) => None,
                    Err(why @ Unwilling::Refuses(_)) => Some(Answer::Refused(why.to_string())),
                };
                link.open &= answer.is_some();
                if link.has_audience {
                    link.says.extend(answer);
                }
            }
            Message::Batch(number, mut sent) => {
                let lost = loses && !variants::is(Variant::LossIgnored);
                let message = batch(number, sent.len());
                let came = link.receiver.on_message(&message, (sent.len(), lost), willing);
                if let Err(why) = came {
                    if link.has_audience {
                        link.says.push_back(Answer::Refused(why));
                    }
                    self.mark_gone(&sent); // with an old side that was killed
                    return self.forget_link(at);
                }
                let fates = vec![Fate::Kept; sent.len()];
                if loses {
                    sent.clear(); // they are not there
                }
                link.got.clone_from(&sent);
                link.answer = Some(link.receiver.decided(fates));
                if variants::is(Variant::ReadsAtOnce) {
                    sent.into_iter().for_each(|one| self.read(id, one));
                }
            }
        }
        self.forget_link(at);
    }

    /// A link that the old side has closed is of no account any more when all is done.
    fn forget_link(&mut self, at: LinkId) {
        let links = &mut self.moves_mut().links;
        if links.get(&at).is_some_and(Link::is_over) {
            links.remove(&at);
        }
    }

    fn read(&mut self, id: Id, one: usize) {
        let ours = |old: &Old| old.waiting.contains(&one);
        let other = self.moves().connections[one].reader.filter(|reader| *reader != id);
        if other.is_some() || self.moves().old.values().any(ours) {
            self.fault(Promise::P13, "a connection is served by two generations");
        }
        if self.daemon(id).is_some_and(|daemon| daemon.machine.is_on_probation()) {
            self.fault(Promise::P13, "a connection has moved to a generation on probation");
        }
        let connection = &mut self.moves_mut().connections[one];
        (connection.reader, connection.stays) = (Some(id), false);
    }

    // ---- the end ----

    /// This daemon is gone, and with it what it alone had.
    pub(crate) fn moves_end(&mut self, id: Id) {
        let Some(moves) = self.moves.as_deref_mut() else { return };
        let mut had: Vec<usize> = Vec::new();
        for one in &mut moves.connections {
            if one.reader == Some(id) {
                // What it has read is lost, whoever has a copy.
                (one.reader, one.gone) = (None, true);
            }
        }
        if let Some(old) = moves.old.remove(&id) {
            had.extend(old.waiting.into_iter().chain(old.doubt));
        }
        for ((from, to, _), link) in &mut moves.links {
            if *from == id {
                link.has_audience = false;
                link.says.clear();
            }
            if *to == id {
                had.extend(link.has());
                link.open = false;
                link.hears.clear();
                link.got.clear();
                link.answer = None;
            }
        }
        moves.links.retain(|_, link| !link.is_over());
        self.mark_gone(&had);
    }

    /// Nobody has these any more, unless another process has copies.
    fn mark_gone(&mut self, had: &[usize]) {
        let moves = self.moves_mut();
        for one in had {
            let theirs = |old: &Old| old.waiting.contains(one);
            let doubts = |old: &Old| old.doubt.contains(one);
            let comes = moves.links.values().any(|link| link.has().any(|other| other == *one));
            let is_left = moves.old.values().any(|old| theirs(old) || doubts(old)) || comes;
            let connection = &mut moves.connections[*one];
            connection.gone |= connection.reader.is_none() && !is_left;
        }
    }

    pub(crate) fn check_moves_at_rest(&mut self) {
        let Some(moves) = &self.moves else { return };
        let is_served = |one: &Connection| {
            one.gone || one.reader.is_some_and(|reader| self.daemon(reader).is_some())
        };
        if moves.opened && !moves.connections.iter().all(is_served) {
            self.fault(Promise::P13, "nobody serves a connection, and no process was killed");
        }
    }
}
