//! TERM to older generations, as the verdict allows.

use super::{Examined, Service, is_shortage};
use crate::driver::log::{self, daemon::Event};
use crate::error::Error;
use crate::proto::generation::verdict::{Purpose, Verdict, Why, verdict};
use crate::shutdown::lock;
use crate::sys::lock_file::Attempt;
use crate::sys::process::{self, Held};
use crate::sys::signals::SIGTERM;
use std::io;

/// What came of an attempt to stop the older generations.
#[derive(Debug, Default)]
pub(in crate::driver) struct Stopped {
    /// Those whose end can be awaited.
    pub(in crate::driver) awaited: Vec<Held>,
    /// Not all of them could be told, since the system is out of descriptors or memory. They still have to be.
    pub(in crate::driver) again: bool,
}

/// What is to be logged of it.
pub(in crate::driver) enum Told<'a> {
    Sent {
        predecessor: i32,
        generation: u64,
    },
    NotSent {
        predecessor: i32,
        error: &'a io::Error,
    },
    /// It is left alone.
    Refused {
        predecessor: i32,
        why: Why,
    },
    /// They could not be looked up.
    Unknown(&'a Error),
}

/// As a daemon logs it.
pub(in crate::driver) fn log_told(told: Told<'_>) {
    log::write(match told {
        Told::Sent { predecessor, generation } => {
            Event::Takeover { predecessor, predecessor_generation: generation }
        }
        // It checks each second, and then finds us.
        Told::NotSent { predecessor, error } => Event::TakeoverFailed { predecessor, error },
        Told::Refused { predecessor, ref why } => {
            Event::TakeoverRefused { predecessor, refused: why }
        }
        Told::Unknown(error) => Event::StopOlderFailed { error },
    });
}

impl Service {
    /// TERM to every older generation. A generation that stops while it starts gives up the claim first:
    /// those that it waits for check under it. `say`: logs.
    pub(in crate::driver) fn stop_older(&self, say: fn(Told<'_>)) -> Stopped {
        let mut files = lock(&self.files);
        files.lock_file.give_up_if_held();
        let mut stopped = Stopped::default();
        let trouble = |error: Error| {
            say(Told::Unknown(&error));
            is_shortage(&error)
        };
        let read = || {
            let record = self.read_record(&files.lock_file)?;
            Ok((record, files.lock_file.bound()?, self.content()?.unwrap_or_default()))
        };
        let (record, bound, content) = match read() {
            Ok(read) => read,
            Err(error) => {
                stopped.again = trouble(error);
                return stopped;
            }
        };
        for one in &record.live {
            match self.examine(one, bound, content) {
                Ok(one) => {
                    let verdict = verdict(&one.facts, Purpose::Stop, self.asker());
                    if self.touch(&one, verdict, say) {
                        stopped.awaited.extend(one.held);
                    }
                }
                Err(error) => stopped.again |= trouble(error),
            }
        }
        stopped
    }

    /// Writes into the record that this generation was told to end, so that nobody takes its end for a crash.
    /// `false`: it has to be tried again, since another one has the claim or the files. For the thread that takes
    /// signals: it does not wait.
    pub(in crate::driver) fn mark_end(&self) -> bool {
        let (Some(number), Ok(mut files)) = (self.number(), self.files.try_lock()) else {
            return false;
        };
        let held = files.lock_file.is_held();
        if !held && !matches!(files.lock_file.try_claim(&self.world), Ok(Attempt::Claimed)) {
            return false;
        }
        // If it cannot be read or written, the worst that follows is a wrong count.
        let read = self.read_record(&files.lock_file);
        let marked = read.and_then(|mut record| match record.mark_end(number) {
            true => files.lock_file.write(&record),
            false => Ok(()),
        });
        if !held {
            files.lock_file.give_up_if_held();
        }
        marked.is_ok()
    }

    /// TERM, if the verdict says so. Tells whether the end of the process is to be awaited.
    pub(super) fn touch(&self, older: &Examined, verdict: Verdict, say: fn(Told<'_>)) -> bool {
        let predecessor = older.pid();
        let (sent, awaited) = match (verdict, &older.held) {
            (Verdict::Touch { awaited }, Some(held)) => (held.signal(SIGTERM), awaited),
            (Verdict::TouchByNumber, _) => (process::signal_owner(predecessor, SIGTERM), false),
            (Verdict::Touch { .. }, None) => return false, // not proven after all
            (Verdict::Leave { why, awaited }, _) => {
                if why.is_worth_a_warning() {
                    say(Told::Refused { predecessor, why });
                }
                return awaited;
            }
            (Verdict::Refuse(why), _) => {
                say(Told::Refused { predecessor, why });
                return false;
            }
        };
        match &sent {
            Ok(()) => say(Told::Sent { predecessor, generation: older.facts.number }),
            Err(error) => say(Told::NotSent { predecessor, error }),
        }
        awaited
    }
}
