//! TLS sessions for early data (0-RTT) that survive a restart. Copy this file into a server of your own.
//!
//! What a client sends early could be sent again by somebody who has seen it. So rustls accepts it only once for
//! each session, and only if the server itself stores its sessions. With a `seamless::tls::Ticketer` the clients keep
//! the sessions: then they resume after a restart as well, but send nothing early.

use std::{
    collections::{HashMap, VecDeque},
    fmt,
    sync::{Mutex, MutexGuard},
};

use rustls::server::StoresServerSessions;

/// So many sessions are kept: the newest ones.
const MOST: usize = 20_000;

/// A session is in one process at a time, and is used once.
#[derive(Default)]
pub struct Sessions(Mutex<Stored>);

#[derive(Default)]
struct Stored {
    by_key: HashMap<Vec<u8>, Vec<u8>>,
    /// The oldest one first. Those that were used are still here.
    keys: VecDeque<Vec<u8>>,
}

impl Stored {
    fn put(&mut self, key: Vec<u8>, value: Vec<u8>) {
        self.keys.push_back(key.clone());
        self.by_key.insert(key, value);
        while self.keys.len() > MOST {
            let oldest = self.keys.pop_front().expect("there are many");
            self.by_key.remove(&oldest);
        }
    }
}

impl Sessions {
    fn stored(&self) -> MutexGuard<'_, Stored> {
        self.0.lock().expect("no panic")
    }

    /// All sessions, for the successor. They are forgotten here: a session in two processes could be used twice.
    /// If the successor fails, its clients make full handshakes.
    pub fn hand_over(&self) -> Vec<u8> {
        let Stored { mut by_key, keys } = std::mem::take(&mut *self.stored());
        let mut bytes = Vec::new();
        for key in keys {
            let Some(value) = by_key.remove(&key) else { continue };
            for part in [key, value] {
                bytes.extend((part.len() as u32).to_be_bytes());
                bytes.extend(part);
            }
        }
        bytes
    }

    /// What the predecessor has handed over.
    pub fn take_over(&self, mut bytes: &[u8]) {
        let mut next = || {
            let (length, rest) = bytes.split_first_chunk()?;
            let (part, rest) = rest.split_at_checked(u32::from_be_bytes(*length) as usize)?;
            bytes = rest;
            Some(part.to_vec())
        };
        let mut stored = self.stored();
        while let (Some(key), Some(value)) = (next(), next()) {
            stored.put(key, value);
        }
    }
}

impl StoresServerSessions for Sessions {
    fn put(&self, key: Vec<u8>, value: Vec<u8>) -> bool {
        self.stored().put(key, value);
        true
    }

    fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.stored().by_key.get(key).cloned()
    }

    fn take(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.stored().by_key.remove(key)
    }

    fn can_cache(&self) -> bool {
        true
    }
}

/// Without what they hold.
impl fmt::Debug for Sessions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sessions").finish_non_exhaustive()
    }
}
