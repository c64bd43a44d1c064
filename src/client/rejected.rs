//! What has failed in its probation.

use crate::proto::generation::rejection;
use crate::sys::since_boot;
use std::time::Duration;

/// A program file that has failed in its [probation](crate::Config::probation). See
/// [`Look::rejected`](super::Look::rejected).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Rejected {
    /// The generation that has failed last; `None` if it is unknown.
    pub generation: Option<u64>,
    /// How often the same file has failed in a row.
    pub tries: u32,
    /// Why it has failed last, in words.
    pub why: &'static str,
    /// How long a process that runs this file still waits in [`init`](crate::init) before it tries again, if the
    /// record says so. It does if the process could not tell the generation that serves; otherwise ask that one:
    /// [`Status::next_try`](super::Status::next_try).
    pub next_try: Option<Duration>,
}

impl Rejected {
    pub(super) fn of(rejected: &rejection::Rejected) -> Rejected {
        let left = |next: Duration| next.checked_sub(since_boot());
        Rejected {
            generation: Some(rejected.generation).filter(|number| *number > 0),
            tries: rejected.tries,
            why: rejected.cause.text(),
            next_try: rejected.next_try.and_then(left),
        }
    }
}
