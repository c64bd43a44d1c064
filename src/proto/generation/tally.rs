//! What has happened to a service since its lock file was made, counted in the record. The file outlives
//! every process, so the counts survive restarts, crashes and stops.

use crate::proto::text::digits;
use std::fmt;

/// No number that is counted on from is larger: so the next one is always larger than the last.
pub(super) const NUMBER_MAX: u64 = u64::MAX / 2;

/// A number of the record that is counted on from.
pub(super) fn number(text: &str) -> Option<u64> {
    digits(text).filter(|number: &u64| *number <= NUMBER_MAX)
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Tally {
    /// Generations that have begun to serve.
    pub(crate) starts: u64,
    /// Those of them that took over from a generation that served.
    pub(crate) restarts: u64,
    /// Starts that took the claim and ended, or gave up, before they served.
    pub(crate) failed_starts: u64,
    /// Generations that served and ended, though nothing had told them to.
    pub(crate) crashes: u64,
    /// Generations that have failed in their probation.
    pub(crate) rollbacks: u64,
}

impl Tally {
    fn fields(&mut self) -> [(&'static str, &mut u64); 5] {
        [
            ("starts=", &mut self.starts),
            ("restarts=", &mut self.restarts),
            ("failed_starts=", &mut self.failed_starts),
            ("crashes=", &mut self.crashes),
            ("rollbacks=", &mut self.rollbacks),
        ]
    }

    /// Reads one word of the record's first line. `false`: the word is no count.
    pub(super) fn read(&mut self, word: &str) -> bool {
        for (name, count) in self.fields() {
            if let Some(number) = word.strip_prefix(name).and_then(number) {
                *count = number;
                return true;
            }
        }
        false
    }
}

/// As the words of the record's first line, each with a space before it. What is 0 is left out.
impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut tally = *self;
        for (name, count) in tally.fields() {
            if *count > 0 {
                write!(f, " {name}{count}")?;
            }
        }
        Ok(())
    }
}
