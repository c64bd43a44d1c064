//! How a counter is found.

use super::{Shared, State};
use crate::driver::log::{self, counters::Event};
use crate::driver::shared::PROCESS;
use crate::driver::sockets::{descriptors, obtain};
use crate::proto::control::frame::Address;
use crate::proto::counters::{DESCRIPTOR, NAME_MAX, SLOTS, Table, Unusable};
use crate::shutdown::lock;
use crate::sys::counters as sys;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

/// The memory, for a process that wants to read the counters. `None`: there is none, or the drain has begun.
pub(in crate::driver) fn memory() -> Option<Arc<OwnedFd>> {
    let asked = Address::Name(DESCRIPTOR.to_owned());
    let mut held = PROCESS.sockets.held()?.into_iter();
    held.find(|entry| entry.socket.asked == asked).map(|entry| entry.fd)
}

/// What there is to say in the log, once no lock is held.
enum Note {
    Refused(String),
    Own(String),
    Afresh(String),
}

pub(crate) fn get(name: &str) -> &'static AtomicU64 {
    let refused = refused(name);
    // Before the lock: a transfer may take a while.
    let taken = refused.is_none() && obtain::take_over_or_log();
    let mut notes = Vec::new();
    let counter = match refused {
        Some(reason) => lock(&PROCESS.counters.0).own(name, || notes.push(Note::Refused(reason))),
        None => lock(&PROCESS.counters.0).get(name, taken, &mut notes),
    };
    write(name, notes);
    counter
}

/// This generation is about to serve. If it has asked for no counter, it still keeps the predecessor's, for a later
/// call and for its successor.
pub(in crate::driver) fn carry_on() {
    let mut notes = Vec::new();
    {
        let state = &mut *lock(&PROCESS.counters.0);
        if matches!(state.shared, Shared::Unknown) {
            match open(&mut notes) {
                Ok(Some(table)) => state.shared = Shared::Memory(table),
                Ok(None) => {}
                Err(error) => notes.push(Note::Afresh(format!("cannot use its memory: {error}"))),
            }
        }
    }
    write("", notes);
}

fn write(name: &str, notes: Vec<Note>) {
    for note in notes {
        match note {
            Note::Refused(reason) => log::write(Event::Refused { name, reason: &reason }),
            Note::Own(reason) => log::write(Event::Own { name, reason: &reason }),
            Note::Afresh(reason) => log::write(Event::Afresh { reason: &reason }),
        }
    }
}

fn refused(name: &str) -> Option<String> {
    if PROCESS.daemon().is_none() {
        return Some("init was not called, or failed".to_owned());
    }
    let fits = (1..=NAME_MAX).contains(&name.len());
    (!fits).then(|| format!("a name has 1 to {NAME_MAX} bytes"))
}

impl State {
    /// `taken`: what the predecessor has is here.
    fn get(&mut self, name: &str, taken: bool, notes: &mut Vec<Note>) -> &'static AtomicU64 {
        if let Some(own) = self.own.get(name) {
            return own;
        }
        if !crate::sys::RESTARTS {
            return self.own(name, || {}); // there are no other generations
        }
        if !taken {
            let reason = "the transfer from the predecessor failed".to_owned();
            return self.own(name, || notes.push(Note::Own(reason)));
        }
        if matches!(self.shared, Shared::Unknown) {
            let opened = open(notes).and_then(|there| there.map_or_else(make, Ok));
            self.shared = opened.map_or_else(
                |error| {
                    notes.push(Note::Own(format!("cannot make memory for it: {error}")));
                    Shared::Nothing
                },
                Shared::Memory,
            );
        }
        let Shared::Memory(table) = &self.shared else { return self.own(name, || {}) };
        if let Some(counter) = table.get(name) {
            return counter;
        }
        let is_first = !std::mem::replace(&mut self.warned, true);
        let reason = format!("there are {SLOTS} counters already");
        self.own(name, || notes.extend(is_first.then_some(Note::Own(reason))))
    }
}

/// The predecessor's, or what the store has kept.
fn open(notes: &mut Vec<Note>) -> io::Result<Option<Table<'static>>> {
    let Some(memory) = descriptors::take_any(DESCRIPTOR) else { return Ok(None) };
    let memory = match sys::check(memory) {
        Ok(memory) => memory,
        Err(why) => {
            notes.push(Note::Afresh(why));
            return Ok(None);
        }
    };
    let why = match Table::open(sys::map(&memory)?) {
        Ok(table) => return keep(table, &memory).map(Some),
        Err(Unusable::Foreign) => "it is no memory of counters".to_owned(),
        Err(Unusable::Layout(version)) => format!("its layout is of version {version}"),
    };
    notes.push(Note::Afresh(why));
    Ok(None)
}

fn make() -> io::Result<Table<'static>> {
    let memory = sys::make()?;
    keep(Table::make(sys::map(&memory)?), &memory)
}

fn keep(table: Table<'static>, memory: &OwnedFd) -> io::Result<Table<'static>> {
    descriptors::keep_any(DESCRIPTOR, memory.as_fd(), true).map_err(io::Error::other)?;
    Ok(table)
}

#[cfg(test)]
mod tests {
    use super::{Note, SLOTS, Shared, State};
    use crate::proto::counters::Table;
    use crate::sys::{RESTARTS, counters as sys};
    use std::collections::BTreeMap;
    use std::sync::atomic::Ordering;

    /// A counter beyond the last place is the process's own, and one warning is enough.
    #[test]
    fn counters_beyond_the_last_place_are_told_of_once() {
        if !RESTARTS {
            return;
        }
        let memory = sys::make().expect("memory");
        let table = Table::make(sys::map(&memory).expect("a place for it"));
        let mut state =
            State { shared: Shared::Memory(table), own: BTreeMap::new(), warned: false };
        let mut notes = Vec::new();
        for at in 0..SLOTS {
            state.get(&at.to_string(), true, &mut notes);
        }
        assert!(notes.is_empty());
        let own = state.get("one more", true, &mut notes);
        assert!(matches!(&notes[..], [Note::Own(_)]));
        own.fetch_add(1, Ordering::SeqCst);
        assert_eq!(state.get("one more", true, &mut notes).load(Ordering::SeqCst), 1);
        state.get("and another", true, &mut notes);
        assert_eq!(notes.len(), 1);
    }
}
