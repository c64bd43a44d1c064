//! Named states: what this process hands over, and what its predecessor has handed to it.
//!
//! The program's hooks run on a thread of their own, one after the other, while this process serves on. Each
//! result goes into sealed memory (`memfd_create(2)`), which the successor gets.

use crate::driver::control::link::Deadline;
use crate::driver::log::{self, sockets::Event};
use crate::driver::settings::HandOver;
use crate::proto::control::frame::{self, NamedState};
use crate::shutdown::{lock, panic_text};
use crate::sys::memfd;
use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, TryLockError, mpsc};
use std::thread;
use std::time::Duration;

/// The beginning of names that only the crate itself uses.
pub(crate) const OWN: &str = "seamless/";

/// A state, in sealed memory.
pub(in crate::driver) type Sealed = (NamedState, OwnedFd);

/// A state of the crate's own: quickly made, and never a panic.
type OwnState = fn() -> Vec<u8>;

/// What this process hands over, and what it was handed.
pub(in crate::driver) struct Handed {
    /// The program's. Held while one of them runs.
    hooks: Mutex<Vec<HandOver>>,
    own: Mutex<Vec<(&'static str, u32, OwnState)>>,
    inherited: Mutex<BTreeMap<String, Sealed>>,
}

/// Why the name of a state or of a descriptor cannot be used; `None`: it can.
pub(crate) fn refused_name(name: &str) -> Option<String> {
    if name.len() > frame::NAME_MAX {
        return Some(format!("a name has at most {} bytes", frame::NAME_MAX));
    }
    let is_own = name.starts_with(OWN);
    is_own.then(|| format!("names that begin with {OWN:?} belong to the crate"))
}

impl Handed {
    pub(in crate::driver) const fn new() -> Handed {
        let inherited = Mutex::new(BTreeMap::new());
        Handed { hooks: Mutex::new(Vec::new()), own: Mutex::new(Vec::new()), inherited }
    }

    pub(in crate::driver) fn set(&self, hooks: Vec<HandOver>) {
        *lock(&self.hooks) = hooks;
    }

    /// Adds a state of the crate's own. No other one has its name.
    pub(in crate::driver) fn add_own(&self, name: &'static str, version: u32, state: OwnState) {
        lock(&self.own).push((name, version, state));
    }

    // ---- in the new daemon ----

    pub(in crate::driver) fn inherit(&self, states: Vec<Sealed>) {
        let named = states.into_iter().map(|state| (state.0.name.clone(), state));
        *lock(&self.inherited) = named.collect();
    }

    /// It is given once.
    pub(in crate::driver) fn take(&self, name: &str) -> Option<(u32, Vec<u8>)> {
        let (state, memory) = lock(&self.inherited).remove(name)?;
        match memfd::read_sealed(memory, state.bytes) {
            Ok(bytes) => Some((state.version, bytes)),
            Err(why) => {
                log::write(Event::ReceiveFailed { error: &why });
                None
            }
        }
    }

    /// This generation is about to serve.
    pub(in crate::driver) fn close_unclaimed(&self) {
        for (state, _) in std::mem::take(&mut *lock(&self.inherited)).into_values() {
            let NamedState { name, version, bytes } = &state;
            log::write(Event::StateUnclaimed { name, version: *version, bytes: *bytes });
        }
    }

    // ---- in the old daemon ----

    /// All states. `timeout`: what the deadline is called in an error. `named`: the successor knows names;
    /// otherwise only the state without one is made.
    pub(in crate::driver) fn give(
        &'static self,
        named: bool,
        deadline: Deadline,
        timeout: Duration,
    ) -> Result<Vec<Sealed>, String> {
        let asked = move |name: &str| named || name.is_empty();
        let asks = match self.hooks.try_lock() {
            Ok(hooks) => hooks.iter().any(|hook| asked(&hook.name)),
            Err(TryLockError::WouldBlock) => return Err("hand_over still runs".to_owned()),
            Err(TryLockError::Poisoned(hooks)) => {
                hooks.into_inner().iter().any(|hook| asked(&hook.name))
            }
        };
        let mut states =
            if asks { self.ask_program(asked, deadline, timeout)? } else { Vec::new() };
        let own = if named { lock(&self.own).clone() } else { Vec::new() };
        for (name, version, state) in own {
            states.push(seal(name, version, &state())?);
        }
        Ok(states)
    }

    /// The program is asked on a thread of its own: it may take too long, or panic.
    fn ask_program(
        &'static self,
        asked: impl Fn(&str) -> bool + Send + 'static,
        deadline: Deadline,
        timeout: Duration,
    ) -> Result<Vec<Sealed>, String> {
        let (sender, receiver) = mpsc::sync_channel(1);
        let running = Arc::new(Mutex::new(String::new()));
        let now = Arc::clone(&running);
        let run = move || {
            let mut hooks = lock(&self.hooks);
            let hooks = hooks.iter_mut().filter(|hook| asked(&hook.name));
            let all = hooks.map(|hook| {
                *lock(&now) = call(&hook.name);
                run_one(hook)
            });
            _ = sender.send(all.collect());
        };
        let thread = thread::Builder::new().name("seamless-state".to_owned()).spawn(run);
        thread.map_err(|error| format!("cannot start a thread for hand_over: {error}"))?;
        receiver.recv_timeout(deadline.left()?).map_err(|_| {
            let hook = lock(&running).clone();
            format!("{hook} takes longer than {timeout:?} (takeover_timeout)")
        })?
    }
}

/// As it stands in an error.
fn call(name: &str) -> String {
    if name.is_empty() { "hand_over".to_owned() } else { format!("hand_over({name:?})") }
}

fn run_one(hook: &mut HandOver) -> Result<Sealed, String> {
    let give = &mut hook.give;
    let state = catch_unwind(AssertUnwindSafe(give)).map_err(|panic| {
        log::write(Event::HandOverPanicked { name: &hook.name, panic: panic_text(&*panic) });
        format!("{} panicked", call(&hook.name))
    })?;
    seal(&hook.name, hook.version, &state)
}

fn seal(name: &str, version: u32, state: &[u8]) -> Result<Sealed, String> {
    let bytes = state.len() as u64;
    if bytes > frame::STATE_MAX {
        let limit = frame::STATE_MAX;
        return Err(format!("{} gave {bytes} bytes, and {limit} are the limit", call(name)));
    }
    let memory = memfd::seal(state).map_err(|error| format!("cannot seal the state: {error}"))?;
    Ok((NamedState { name: name.to_owned(), version, bytes }, memory))
}
