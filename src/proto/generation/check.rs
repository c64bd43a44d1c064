//! A daemon's check of what others see of its service: the record, the PID file, the control socket.

use super::lines::older_serves;
use super::record::Identity;
use super::verdict::Facts;

/// What stands at the PID file's path now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Content {
    /// The PID in it, if it holds one.
    pub(crate) pid: Option<i32>,
    /// Another process has it open and locked, so its owner lives.
    pub(crate) locked: bool,
}

impl Content {
    /// If nothing can be proven, the lock on the PID file tells that its owner lives.
    pub(crate) fn is_held_by(self, pid: i32) -> bool {
        self.locked && self.pid == Some(pid)
    }
}

/// What one check has seen, under the claim.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Seen {
    pub(crate) own: Own,
    /// The number of the last claim.
    pub(crate) last: u64,
    /// The generations of the record.
    pub(crate) lines: Vec<(Identity, Facts)>,
    /// `None`: the PID file cannot be read.
    pub(crate) content: Option<Content>,
    /// There is a process with the PID in the PID file. It may be any process.
    pub(crate) named_lives: bool,
    /// No process listens at the path of our control socket.
    pub(crate) socket_lost: bool,
}

/// Who checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Own {
    pub(crate) number: u64,
    pub(crate) identity: Identity,
}

/// What a daemon remembers from one check to the next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Memory {
    /// The number of the last claim.
    pub(crate) last_claim: u64,
    /// The last check could not read the record, and the PID file named a newer generation.
    pub(crate) newer_without_record: bool,
    /// The living process that the PID file names and that the record does not list.
    pub(crate) stranger: Option<i32>,
}

/// What follows from what was seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Findings {
    /// A newer generation is in the record and alive.
    pub(crate) newer: bool,
    /// The record does not list us: it was lost, and we enter it again.
    pub(crate) record_lost: bool,
    /// The PID file is missing or names no live generation.
    pub(crate) file_lost: bool,
    /// Claims were taken since the last check: another generation tries to start.
    pub(crate) claims_moved: bool,
    /// An older generation serves in our place, as the record says.
    pub(crate) replaced: bool,
}

pub(crate) fn check(seen: &Seen, memory: &mut Memory) -> Findings {
    let Seen { own, last, lines, content, named_lives, .. } = seen;
    let listed = lines.iter().any(|(identity, _)| *identity == own.identity);
    // In a record that does not list us, numbers began anew: the start times decide.
    let is_newer = |(identity, facts): &&(Identity, Facts)| {
        let later = match listed {
            true => facts.number > own.number,
            false => identity.start >= own.identity.start,
        };
        later && facts.lives() && !facts.keeps // a keeper serves nobody
    };
    let mut newer = lines.iter().filter(is_newer);
    let named = content.and_then(|content| content.pid);
    let accounted = named.is_some_and(|pid| {
        pid == own.identity.pid || newer.clone().any(|(identity, _)| identity.pid == pid)
    });
    let stranger = named.filter(|_| !accounted && *named_lives);
    // A living stranger in the file may be a successor that keeps no record (the Go original)
    // and is about to send its TERM: it is believed for one check.
    let file_lost = !accounted && (stranger.is_none() || stranger == memory.stranger);
    let record_lost = !listed && newer.clone().next().is_none();
    let claims_moved = *last != memory.last_claim;
    let ours = lines.iter().find(|(identity, _)| *identity == own.identity);
    let replaced = ours.is_some_and(|(_, facts)| facts.is_replaced())
        && older_serves(own.number, lines.iter().map(|(_, facts)| facts));
    // In a record that is entered again, the last claim is no earlier than ours.
    let last_claim = if record_lost { own.number.max(*last) } else { *last };
    *memory = Memory { last_claim, newer_without_record: false, stranger };
    // While it is on probation it has not taken over, but the PID file names it.
    let newer = newer.any(|(_, facts)| !facts.unproven);
    Findings { newer, record_lost, file_lost, claims_moved, replaced }
}

/// If the record cannot be read: does the PID file tell that a newer generation serves? A living
/// process, started no earlier than we were, holds the lock on it and is the one that it names.
pub(crate) fn names_newer(own: Identity, content: Content, named: Option<Identity>) -> bool {
    named.is_some_and(|named| {
        content.is_held_by(named.pid) && named.pid != own.pid && named.start >= own.start
    })
}

#[cfg(test)]
mod tests;
