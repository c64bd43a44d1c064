//! The states that a generation hands over.

use super::Config;
use crate::driver::handed::refused_name;
use crate::driver::settings::HandOver;

impl Config {
    /// Hands a state over to the successor, for example a cache: bytes under a name. The successor reads
    /// them with [`inherited`](crate::inherited). Default: none.
    ///
    /// `state` is called in the old daemon when a successor asks, on a thread of its own, while the daemon
    /// still serves. It is called again if that successor fails and another one comes. What it locks, it
    /// should unlock before it makes the bytes: only then does a large state hold up nothing. Several states
    /// are made one after the other, in the order of their names here. Their time counts as part of
    /// [`takeover_timeout`](Config::takeover_timeout). If one of them panics, takes longer or returns more
    /// than 64 MiB, the transfer fails in the successor with an error that says so, and this daemon serves
    /// on.
    ///
    /// A name has at most 255 bytes and does not begin with `seamless/`. For a name that was given before,
    /// the last call counts. The crate does not look at the bytes: if their form may change, use
    /// [`hand_over_version`](Config::hand_over_version).
    ///
    /// What the daemon changes after `state` has returned does not reach the successor. For numbers that
    /// must not be lost, use [`counters`](crate::counters).
    ///
    /// ```no_run
    /// # let cache = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    /// # let shared = cache.clone();
    /// seamless::Config::new("/run/web/web.pid")
    ///     .hand_over("cache", move || cache.lock().unwrap().clone())
    ///     .init()?;
    /// if let Some(bytes) = seamless::inherited("cache") {
    ///     *shared.lock().unwrap() = bytes;
    /// }
    /// # Ok::<(), seamless::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`init`](Config::init) fails with [`ErrorKind::InvalidConfig`](crate::ErrorKind::InvalidConfig) if a
    /// name cannot be used.
    pub fn hand_over(
        self,
        name: impl Into<String>,
        state: impl FnMut() -> Vec<u8> + Send + 'static,
    ) -> Config {
        self.hand_over_version(name, 0, state)
    }

    /// As [`hand_over`](Config::hand_over), with a number for the form of the bytes. A successor gets it from
    /// [`inherited_version`](crate::inherited_version), and can tell whether it understands the bytes: it may
    /// be a later version of the program, or an earlier one after a deploy was taken back. `hand_over`
    /// hands over version 0.
    pub fn hand_over_version(
        mut self,
        name: impl Into<String>,
        version: u32,
        state: impl FnMut() -> Vec<u8> + Send + 'static,
    ) -> Config {
        let name = name.into();
        self.settings.hand_over.retain(|other| other.name != name);
        self.settings.hand_over.push(HandOver { name, version, give: Box::new(state) });
        self
    }

    /// Their names.
    pub(super) fn states(&self) -> Vec<&str> {
        self.settings.hand_over.iter().map(|state| &*state.name).collect()
    }

    /// Why one of the names cannot be used.
    pub(super) fn refused_state(&self) -> Option<String> {
        self.settings.hand_over.iter().find_map(|state| {
            let why = refused_name(&state.name)?;
            Some(format!("cannot hand over {:?} (hand_over): {why}", state.name))
        })
    }
}
