//! What comes of a restart, and of the probation of the new generation.

use super::look::{Generation, Look};
use super::rejected::Rejected;
use super::service::Service;
use crate::proto::generation::rejection;
use std::thread;
use std::time::{Duration, Instant};

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(20);
/// How long the one that serves again may take to write down why the new one has failed.
const BOOKED: Duration = Duration::from_secs(2);

/// How far a [`Restart`] has come.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome {
    /// No new generation serves so far.
    Pending,
    /// A new generation serves and has still to prove itself. The old one stands by.
    OnProbation {
        /// Its number.
        generation: u64,
        /// The PID of its daemon.
        daemon: i32,
    },
    /// A new generation has taken over: it has passed its probation, or there was none.
    Committed {
        /// Its number.
        generation: u64,
        /// The PID of its daemon.
        daemon: i32,
    },
    /// A new generation has failed in its probation. The old one serves again.
    RolledBack {
        /// Its number.
        generation: u64,
        /// Why it has failed.
        why: &'static str,
    },
}

/// A restart that was asked for: it follows the service from one look to the next.
///
/// ```no_run
/// use seamless::client::{Outcome, Restart, Service};
/// use std::time::Duration;
///
/// let service = Service::at("/run/web/web.pid")?;
/// let (before, asked) = service.restart(Duration::from_secs(5));
/// if let (Ok(()), Some(mut restart)) = (asked, Restart::since(before)) {
///     match restart.wait(&service, Duration::from_secs(60)) {
///         Outcome::Committed { generation, .. } => println!("generation {generation} serves"),
///         Outcome::RolledBack { why, .. } => println!("the old version serves again: {why}"),
///         _ => println!("not yet"),
///     }
/// }
/// # Ok::<(), seamless::Error>(())
/// ```
#[derive(Debug)]
pub struct Restart {
    old: Generation,
    /// Those that ran beside it: one that had stood by and serves again is no successor.
    older: Vec<Generation>,
    /// The number of the last claim: what has failed before does not count.
    last_claim: u64,
    /// The newest generation that was seen on probation.
    on_probation: Option<u64>,
    /// Since when that one does not serve any more, and nobody has written down why.
    failed: Option<Instant>,
}

impl Restart {
    /// `before`: the look that [`Service::restart`] has returned. `None` if no generation was there.
    pub fn since(before: Look) -> Option<Restart> {
        let last_claim = before.last_claim();
        let mut older = before.into_generations();
        let old = older.pop()?;
        Some(Restart { old, older, last_claim, on_probation: None, failed: None })
    }

    /// The generation that was asked for the restart.
    pub fn old(&self) -> &Generation {
        &self.old
    }

    /// How far it has come, as this look sees it.
    ///
    /// A new generation that is replaced by a still newer one does not end it: what comes of that one counts. Nor does
    /// one that ran beside the [`old`](Restart::old) one and serves again.
    pub fn outcome(&mut self, now: &Look) -> Outcome {
        let rejected = now.rejected().filter(|one| one.generation > Some(self.last_claim));
        if let Some(Rejected { generation: Some(generation), why, .. }) = rejected {
            return Outcome::RolledBack { generation, why };
        }
        let proven = now.standby().or(now.newest().filter(|one| !one.is_on_probation()));
        let proven = proven.filter(|one| !one.is_keeper() && !one.is_draining());
        if let Some(new) = proven.filter(|one| self.is_successor(one)) {
            return Outcome::Committed { generation: new.number(), daemon: new.daemon() };
        }
        let newest = now.newest().filter(|one| one.is_on_probation() && self.is_successor(one));
        if let Some(new) = newest {
            (self.on_probation, self.failed) = (Some(new.number()), None);
            return Outcome::OnProbation { generation: new.number(), daemon: new.daemon() };
        }
        if let (Some(generation), Some(_)) = (self.on_probation, proven) {
            let since = self.failed.get_or_insert_with(Instant::now);
            if since.elapsed() >= BOOKED {
                let why = rejection::RollbackCause::Ended.text();
                return Outcome::RolledBack { generation, why };
            }
        }
        Outcome::Pending
    }

    /// Looks again and again until it is [committed](Outcome::Committed) or
    /// [rolled back](Outcome::RolledBack), for at most `limit`. Returns the last outcome.
    ///
    /// A start that fails before it serves is not the end: the supervisor tries again, and the old
    /// generation serves meanwhile.
    pub fn wait(&mut self, service: &Service, limit: Duration) -> Outcome {
        let began = Instant::now();
        loop {
            let outcome = self.outcome(&service.look());
            let left = limit.saturating_sub(began.elapsed());
            let over = matches!(outcome, Outcome::Committed { .. } | Outcome::RolledBack { .. });
            if over || left.is_zero() {
                return outcome;
            }
            thread::sleep(PAUSE.min(left));
        }
    }

    /// Numbers begin anew if the lock file was removed, so the number alone is not enough.
    fn is_successor(&self, one: &Generation) -> bool {
        !one.is_same(&self.old)
            && !self.older.iter().any(|older| one.is_same(older))
            && (one.number() > self.old.number() || self.old.has_ended())
    }
}
