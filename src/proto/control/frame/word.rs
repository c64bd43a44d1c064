//! What is said on a connection that stays open.

/// A word on the lifeline between a generation on probation and the one that stands by; and between a process
/// that waits in `init` and the generation that serves meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Word {
    /// To the one that stands by, ten times a second; `Resume`: serve again, say so, and I drain. `Unwell`:
    /// the same, because the check of the program has failed.
    Well,
    Resume,
    Unwell,
    /// The answer to `Resume` and `Unwell`; unasked if the one that stands by was told to serve again.
    Resumed,
    /// To the one that stands by: TERM follows. `Leaving`: I end, and no successor of mine has come.
    Committed,
    Leaving,
    /// From a process that waits in `init`: it is told to end. To one: it need not wait any longer.
    Told,
    Go,
}

impl Word {
    const ALL: [Word; 8] = [
        Word::Well,
        Word::Resume,
        Word::Unwell,
        Word::Resumed,
        Word::Committed,
        Word::Leaving,
        Word::Told,
        Word::Go,
    ];
    const NAMES: [&str; 8] =
        ["well", "resume", "unwell", "resumed", "committed", "leaving", "told", "go"];

    pub(crate) fn name(self) -> &'static str {
        Word::NAMES[self as usize]
    }

    pub(super) fn from_name(name: &str) -> Option<Word> {
        Word::ALL.into_iter().find(|word| word.name() == name)
    }
}
