//! The counters of this process: in memory that it shares with all other generations.

mod get;

use crate::proto::counters::Table;
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::AtomicU64;

pub(crate) use get::get;
pub(in crate::driver) use get::{carry_on, memory};

pub(in crate::driver) struct Counters(Mutex<State>);

struct State {
    shared: Shared,
    /// Counters that only this process has, by their names.
    own: BTreeMap<String, &'static AtomicU64>,
    /// There was a warning that there is no room.
    warned: bool,
}

enum Shared {
    /// No counter has been asked for.
    Unknown,
    /// There is none, and there was a warning.
    Nothing,
    Memory(Table<'static>),
}

impl Counters {
    pub(in crate::driver) const fn new() -> Counters {
        let state = State { shared: Shared::Unknown, own: BTreeMap::new(), warned: false };
        Counters(Mutex::new(state))
    }
}

impl State {
    /// A counter that lives as long as this process. `new` is called if it is made now.
    fn own(&mut self, name: &str, new: impl FnOnce()) -> &'static AtomicU64 {
        self.own.entry(name.to_owned()).or_insert_with(|| {
            new();
            Box::leak(Box::new(AtomicU64::new(0)))
        })
    }
}
