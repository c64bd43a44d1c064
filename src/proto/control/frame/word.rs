//! What is said on a connection that stays open.

use crate::proto::names::names;

/// A word on the lifeline between a generation on probation and the one that stands by; and between a process
/// that waits in `init` and the generation that serves meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Word {
    /// To the one that stands by, ten times a second.
    Well,
    /// To the one that stands by: serve again, and say so. Then this generation drains.
    Resume,
    /// The same as `Resume`, because the check of the program has failed.
    Unwell,
    /// The answer to `Resume` and `Unwell`; unasked if the one that stands by was told to serve again.
    Resumed,
    /// To the one that stands by: TERM follows.
    Committed,
    /// To the one that stands by: this generation ends, and has no successor.
    Leaving,
    /// From a process that waits in `init`: it is told to end.
    Told,
    /// To a process that waits in `init`: it need not wait any longer.
    Go,
}

names!(Word:
    Well = "well",
    Resume = "resume",
    Unwell = "unwell",
    Resumed = "resumed",
    Committed = "committed",
    Leaving = "leaving",
    Told = "told",
    Go = "go",
);
