//! What has happened to a service since its lock file was made, counted in the record. The file outlives
//! every process, so the counts survive restarts, crashes and stops.

use std::fmt;

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
            if let Some(number) = word.strip_prefix(name).and_then(|text| text.parse().ok()) {
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
