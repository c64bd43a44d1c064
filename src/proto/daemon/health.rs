//! The program's own check, while it is on probation.

use std::time::Duration;

/// How often the program is asked, and how long it may take.
pub(crate) const ASK: Duration = Duration::from_secs(1);
pub(crate) const ANSWER: Duration = Duration::from_secs(5);

/// What came of asking it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Health {
    Says(bool),
    Panicked,
    /// It has not answered in time, or nobody could ask it.
    Silent,
}

impl Health {
    /// Why the probation has failed. `None`: it goes on.
    pub(crate) fn fails(self) -> Option<&'static str> {
        match self {
            Health::Says(true) => None,
            Health::Says(false) => Some("probation_check says no"),
            Health::Panicked => Some("probation_check panicked"),
            Health::Silent => Some("probation_check has not answered within 5 s"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{ANSWER, Health};

    #[test]
    fn p11_who_says_no_panics_or_hangs_has_failed() {
        assert_eq!(Health::Says(true).fails(), None);
        let failures = [Health::Says(false), Health::Panicked, Health::Silent].map(Health::fails);
        assert!(crate::proto::are_told_apart(failures.map(|why| why.expect("a reason"))));
        assert!(failures[2].is_some_and(|why| why.ends_with(&format!(" {} s", ANSWER.as_secs()))));
    }
}
