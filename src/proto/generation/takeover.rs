//! What `started` and the check make of the record and the PID file, and the order in which a
//! generation takes over. The drivers look and act; what follows from what they see is here.

use crate::proto::generation::record::Identity;

/// Why a process is not proven to be the one that the record names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unproven {
    /// It has ended, or its PID now belongs to another process.
    Gone,
    /// It would be PID 0 or 1, ourselves or our launcher: never signalled.
    Ours,
    /// It belongs to another PID namespace: its number means nothing here.
    Elsewhere,
    /// The system gives no means to tell (no pidfd, no `/proc`, or `/proc` hides it).
    Unknown,
}

/// What stands at the PID file's path now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Content {
    /// The PID in it, if it holds one.
    pub(crate) pid: Option<i32>,
    /// Somebody else has it open and locked, so its owner lives.
    pub(crate) locked: bool,
}

impl Content {
    /// Where nothing can be proven, the lock on the PID file tells that its owner lives.
    pub(crate) fn is_held_by(self, pid: i32) -> bool {
        self.locked && self.pid == Some(pid)
    }
}

/// A line of the record, and what the proof says of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Line {
    pub(crate) number: u64,
    pub(crate) daemon: Identity,
    pub(crate) proof: Result<(), Unproven>,
}

impl Line {
    /// Whose the PID file is, if it is somebody else's. `foreign`: a living launcher that is not
    /// ours has a living supervisor.
    pub(crate) fn refusal(&self, foreign: bool, before: Content) -> Option<&'static str> {
        match self.proof {
            Ok(()) if foreign => Some("is supervised by somebody else"),
            Err(Unproven::Elsewhere) if before.is_held_by(self.daemon.pid) => {
                Some("runs in another PID namespace")
            }
            Ok(()) | Err(_) => None,
        }
    }

    /// Does it stay in the record when the generation of this number enters it? Of another PID
    /// namespace only the one that holds the PID file could have been alive.
    pub(crate) fn is_kept(&self, by: u64) -> bool {
        self.number != by && matches!(self.proof, Ok(()) | Err(Unproven::Unknown))
    }

    fn lives(&self, content: Option<Content>) -> bool {
        match self.proof {
            Ok(()) => true,
            Err(Unproven::Unknown) => {
                content.is_some_and(|content| content.is_held_by(self.daemon.pid))
            }
            Err(Unproven::Gone | Unproven::Ours | Unproven::Elsewhere) => false,
        }
    }
}

/// A step of `started`, under the claim and after the record was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Step {
    /// Our PID file is put in place.
    Install,
    /// Our takeover socket is put in place, where there is one.
    Listen,
    /// The record lists us.
    Enter,
    /// The sockets that we have not asked for are closed: what still arrives there is the older ones'
    /// to answer, who learn of us in the next step.
    Close,
    /// The state is Serving, unless we have been told to end meanwhile: then it ends here.
    Serve,
    /// What arrives for a group of sockets goes to those of its members that we have asked for.
    Steer,
    /// TERM to every older generation.
    StopOlder,
    /// The claim is given up.
    GiveUp,
}

/// In this order a death at any point leaves a generation that serves and can be found.
pub(crate) fn steps() -> [Step; 8] {
    use Step::{Close, Enter, GiveUp, Install, Listen, Serve, Steer, StopOlder};
    [Install, Listen, Enter, Close, Serve, Steer, StopOlder, GiveUp]
}

/// Is a generation of this number and start older than we are? Before we have a number of our own,
/// the start times decide: newer ones may have come while we waited for the claim.
pub(crate) fn is_older(number: u64, start: u64, own_number: Option<u64>, own_start: u64) -> bool {
    match own_number {
        Some(own_number) => number < own_number,
        None => start < own_start,
    }
}

/// What a generation knows of itself and remembers from its last look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Own {
    pub(crate) number: u64,
    pub(crate) identity: Identity,
    /// The last claim that the last look has seen.
    pub(crate) last_claim: u64,
    /// A living process in the PID file that nobody accounts for, seen by the last look.
    pub(crate) stranger: Option<i32>,
}

/// What a look round has found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    /// A newer generation is in the record and alive.
    pub(crate) newer: bool,
    /// The record does not list us: it was lost, and we enter it again.
    pub(crate) enter: bool,
    /// The PID file is missing or names no live generation.
    pub(crate) lost_file: bool,
    /// Claims were taken since the last look.
    pub(crate) claims_moved: bool,
    pub(crate) stranger: Option<i32>,
}

/// A look round, under the claim. `last`: the number of the last claim. `lives`: is there a process
/// of this PID, whoever it is?
pub(crate) fn look(
    own: Own,
    last: u64,
    lines: &[Line],
    content: Option<Content>,
    lives: impl FnOnce(i32) -> bool,
) -> Seen {
    let listed = lines.iter().any(|line| line.daemon == own.identity);
    // In a record that does not list us, numbers began anew: the start times decide.
    let is_newer = |line: &&Line| {
        let later = match listed {
            true => line.number > own.number,
            false => line.daemon.start >= own.identity.start,
        };
        later && line.lives(content)
    };
    let mut newer = lines.iter().filter(is_newer).map(|line| line.daemon.pid);
    let named = content.and_then(|content| content.pid);
    let accounted =
        named.is_some_and(|pid| pid == own.identity.pid || newer.clone().any(|one| one == pid));
    let stranger = named.filter(|pid| !accounted && lives(*pid));
    // A living stranger in the file may be a successor that keeps no record (the Go original)
    // and is about to send its TERM: it is believed for one look.
    let lost_file = !accounted && (stranger.is_none() || stranger == own.stranger);
    let newer = newer.next().is_some();
    Seen {
        newer,
        enter: !listed && !newer,
        lost_file,
        claims_moved: last != own.last_claim,
        stranger,
    }
}

/// Where the record cannot be had: does the PID file tell that a newer generation serves? A living
/// process, started no earlier than we were, holds the lock on it and is the one that it names.
pub(crate) fn names_newer(own: Identity, content: Content, named: Option<Identity>) -> bool {
    named.is_some_and(|named| {
        content.is_held_by(named.pid) && named.pid != own.pid && named.start >= own.start
    })
}
