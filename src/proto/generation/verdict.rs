//! May we touch this process, and for what? One table, asked before a process is signalled, before
//! anything is taken from it, and before it is asked for anything (P5).
//!
//! The facts come from the record (`record`), from `/proc` and pidfds, and from the lock on the PID
//! file. What follows from them is decided here and nowhere else.

/// Why a process is not proven to be the one that the record names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
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

/// What is known of a generation that the record lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Facts {
    pub(crate) number: u64,
    /// When its daemon started (`proc_pid_stat(5)`, field 22).
    pub(crate) start: u64,
    pub(crate) proof: Result<(), Unproven>,
    /// Its launcher lives, is not ours, and still has the supervisor that it started with.
    pub(crate) foreign: bool,
    /// The record belongs to this user, who could not signal the process himself. Guards against a
    /// record that was planted, so that root signals somebody else's process.
    pub(crate) beyond: Option<u32>,
    /// It holds the lock on the PID file, which names it: its owner lives.
    pub(crate) holds_pid_file: bool,
    /// The record says that it serves, and hands over its sockets to a successor.
    pub(crate) serves: bool,
    /// The record says that it is on probation, or was and has not passed.
    pub(crate) unproven: bool,
    /// The record says that it is a keeper.
    pub(crate) keeps: bool,
}

/// What is to be done with the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Purpose {
    /// `started`: TERM, since we serve in its place.
    TakeOver,
    /// The service is to be down: TERM.
    Stop,
    /// Take its sockets and its state.
    Transfer,
    /// A command from outside asks it for something, or signals it.
    Ask,
}

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Asker {
    /// The number of our claim; `None` before it.
    pub(crate) number: Option<u64>,
    pub(crate) start: u64,
}

impl Asker {
    /// A command: it is no generation, and every generation is older.
    pub(crate) const OUTSIDE: Asker = Asker { number: Some(u64::MAX), start: u64::MAX };

    /// Is a generation of this number and start older than we are? Before we have a number of our
    /// own, the start times decide: newer ones may have come while we waited for the claim.
    pub(crate) fn is_newer_than(self, number: u64, start: u64) -> bool {
        match self.number {
            Some(own) => number < own,
            None => start < self.start,
        }
    }
}

/// What may be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Verdict {
    /// It is proven to be an older generation of ours: go ahead. `awaited`: its end can be waited for.
    Touch { awaited: bool },
    /// Nothing can be proven here, but it holds the lock on the PID file: it may be signalled by its
    /// number. Its end cannot be waited for.
    TouchByNumber,
    /// Leave it alone. `awaited`: it will find out by itself, so its end can be waited for.
    Leave { why: Why, awaited: bool },
    /// The PID file belongs to another service. `started` fails, and no process is signalled.
    Refuse(Why),
}

/// Why a process is left alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Why {
    /// It is not older than we are.
    NotOlder,
    /// It is not proven to be what the record names.
    Unproven(Unproven),
    /// Another supervisor runs it.
    SupervisedByAnother,
    /// It runs in another PID namespace, and holds the PID file.
    HoldsFileElsewhere,
    /// The record belongs to this user, and the process to another one.
    RecordOf(u32),
}

impl Why {
    /// Is it more than what the record says of every service sooner or later?
    pub(crate) fn is_worth_a_warning(self) -> bool {
        match self {
            Why::NotOlder | Why::Unproven(Unproven::Gone) => false,
            Why::Unproven(Unproven::Ours | Unproven::Elsewhere | Unproven::Unknown)
            | Why::SupervisedByAnother
            | Why::HoldsFileElsewhere
            | Why::RecordOf(_) => true,
        }
    }
}

impl std::fmt::Display for Why {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Why::NotOlder => f.write_str("is not older than this generation"),
            Why::Unproven(Unproven::Gone) => f.write_str("has ended"),
            Why::Unproven(Unproven::Ours) => f.write_str("is this process or its launcher"),
            Why::Unproven(Unproven::Elsewhere) => f.write_str("is in another PID namespace"),
            Why::Unproven(Unproven::Unknown) => f.write_str("cannot be proven to be a generation"),
            Why::SupervisedByAnother => f.write_str("is supervised by somebody else"),
            Why::HoldsFileElsewhere => f.write_str("runs in another PID namespace"),
            Why::RecordOf(uid) => {
                write!(f, "belongs to another user than uid {uid}, who owns the record")
            }
        }
    }
}

/// The table. Its rows are tried from the first to the last.
pub(crate) fn verdict(facts: &Facts, purpose: Purpose, asker: Asker) -> Verdict {
    let leave = |why| Verdict::Leave { why, awaited: false };
    if !asker.is_newer_than(facts.number, facts.start) {
        return leave(Why::NotOlder);
    }
    match (facts.proof, purpose) {
        // A service that others run is nobody's predecessor. `started` says so, and ends there.
        (Ok(()), Purpose::TakeOver) if facts.foreign => Verdict::Refuse(Why::SupervisedByAnother),
        (Ok(()), Purpose::Stop | Purpose::Transfer) if facts.foreign => {
            leave(Why::SupervisedByAnother)
        }
        (Err(Unproven::Elsewhere), Purpose::TakeOver) if facts.holds_pid_file => {
            Verdict::Refuse(Why::HoldsFileElsewhere)
        }
        // It is not signalled, and finds the newer generation at its next check.
        (Ok(()), Purpose::TakeOver | Purpose::Stop | Purpose::Ask) => match facts.beyond {
            Some(owner) => Verdict::Leave { why: Why::RecordOf(owner), awaited: true },
            None => Verdict::Touch { awaited: true },
        },
        // Who gives its sockets is asked by the kernel who it is: no signal is sent.
        (Ok(()), Purpose::Transfer) => Verdict::Touch { awaited: true },
        (Err(Unproven::Unknown), Purpose::Transfer) if facts.holds_pid_file => {
            Verdict::TouchByNumber
        }
        (Err(Unproven::Unknown), Purpose::TakeOver | Purpose::Stop | Purpose::Ask)
            if facts.holds_pid_file && facts.beyond.is_none() && !facts.foreign =>
        {
            Verdict::TouchByNumber
        }
        (Err(unproven), _) => leave(Why::Unproven(unproven)),
    }
}

impl Facts {
    /// Is it alive, as far as can be known?
    pub(crate) fn lives(&self) -> bool {
        match self.proof {
            Ok(()) => true,
            Err(Unproven::Unknown) => self.holds_pid_file,
            Err(Unproven::Gone | Unproven::Ours | Unproven::Elsewhere) => false,
        }
    }

    /// May it have flows that datagrams have to reach? A keeper stands for a generation that has ended.
    pub(crate) fn may_have_flows(&self) -> bool {
        let may_live = matches!(self.proof, Ok(()) | Err(Unproven::Unknown | Unproven::Elsewhere));
        may_live && !self.keeps
    }

    #[cfg(test)]
    pub(crate) const fn of_test(number: u64, proof: Result<(), Unproven>) -> Facts {
        Facts {
            number,
            start: number * 100,
            proof,
            foreign: false,
            beyond: None,
            holds_pid_file: false,
            serves: true,
            unproven: false,
            keeps: false,
        }
    }

    /// It was never proven to serve well, and another one has taken over from it or serves in its place.
    pub(crate) fn is_replaced(&self) -> bool {
        self.unproven && !self.serves
    }

    /// Does it serve, and is it proven to serve well?
    pub(crate) fn is_proven(&self) -> bool {
        self.serves && !self.unproven && self.lives()
    }

    /// Does its line stay in the record when a new generation is entered? Of another PID namespace only
    /// the generation that holds the PID file could have been alive.
    pub(crate) fn stays_in_record(&self) -> bool {
        matches!(self.proof, Ok(()) | Err(Unproven::Unknown))
    }

    /// May it be on probation still? Also in another PID namespace, if it holds the PID file.
    pub(crate) fn may_be_tried(&self) -> bool {
        self.stays_in_record() || self.proof == Err(Unproven::Elsewhere) && self.holds_pid_file
    }
}

#[cfg(test)]
mod tests;
