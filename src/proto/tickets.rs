//! The keys of TLS session tickets: which of them are in use, and how they are handed over. Pure: random bytes
//! and the time come from the caller. What encrypts with them stands elsewhere.
//!
//! A configuration has two keys at most. The newer one encrypts, both decrypt. After [`ROTATION`] a new key
//! comes, and the oldest one is gone. So a ticket is good for one to two times of [`ROTATION`].

use super::State;
use super::daemon::Daemon;
use std::fmt;
use std::iter;
use std::time::Duration;

/// How long a key encrypts: six hours.
pub(crate) const ROTATION: Duration = Duration::from_secs(21_600);
/// A successor that has been given the keys serves by then, or never will.
const STARTS: Duration = Duration::from_secs(3600);
/// The version of the bytes that are handed over.
pub(crate) const VERSION: u32 = 1;
/// No more configurations are taken over.
const MOST: usize = 10_000;

/// What a configuration is known by: a hash, so that all have one length.
pub(crate) type Label = [u8; 32];

#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Key {
    /// In front of each ticket.
    pub(crate) name: [u8; 16],
    pub(crate) secret: [u8; 32],
    /// When it was made, since the boot.
    pub(crate) made: Duration,
}

/// Without the secret.
impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key").field("made", &self.made).finish_non_exhaustive()
    }
}

/// The keys of one configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Keys {
    newer: Key,
    older: Option<Key>,
    /// When a successor was given them.
    given: Option<Duration>,
}

impl Keys {
    pub(crate) fn new(key: Key) -> Keys {
        Keys { newer: key, older: None, given: None }
    }

    /// A new key is to encrypt from now on. One from the future is from another boot. Not while a successor starts that
    /// would not have the new key.
    pub(crate) fn is_due(&self, now: Duration) -> bool {
        let age = |since| now.checked_sub(since);
        let starts = self.given.and_then(age).is_some_and(|age| age < STARTS);
        !starts && age(self.newer.made).is_none_or(|age| age >= ROTATION)
    }

    /// For a successor.
    pub(crate) fn give(&mut self, now: Duration) -> Keys {
        self.given = Some(now);
        Keys { given: None, ..self.clone() }
    }

    pub(crate) fn rotate(&mut self, key: Key) {
        self.older = Some(std::mem::replace(&mut self.newer, key));
    }

    pub(crate) fn encrypts(&self) -> &Key {
        &self.newer
    }

    /// The key of this name, unless it is too old. It may be so without a rotation: in a process that drains
    /// for a long time, or that has encrypted nothing for hours.
    pub(crate) fn decrypts(&self, name: &[u8], now: Duration) -> Option<&Key> {
        let is_young = |key: &Key| now.checked_sub(key.made).is_some_and(|age| age < 2 * ROTATION);
        self.all().find(|key| key.name == name && is_young(key))
    }

    fn all(&self) -> impl Iterator<Item = &Key> {
        iter::once(&self.newer).chain(&self.older)
    }
}

/// All keys, as they are handed over.
pub(crate) fn format<'a>(all: impl IntoIterator<Item = (&'a Label, &'a Keys)>) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (label, keys) in all {
        bytes.extend_from_slice(label);
        bytes.push(keys.all().count() as u8);
        for key in keys.all() {
            bytes.extend_from_slice(&key.name);
            bytes.extend_from_slice(&key.secret);
            bytes.extend_from_slice(&(key.made.as_millis() as u64).to_le_bytes());
        }
    }
    bytes
}

/// `None`: these are no keys.
pub(crate) fn parse(mut bytes: &[u8]) -> Option<Vec<(Label, Keys)>> {
    let mut all = Vec::new();
    while !bytes.is_empty() {
        let label: Label = take(&mut bytes)?;
        let [count @ 1..=2] = take(&mut bytes)? else { return None };
        let newer = key(&mut bytes)?;
        let older = if count == 2 { Some(key(&mut bytes)?) } else { None };
        all.push((label, Keys { newer, older, given: None }));
        if all.len() > MOST {
            return None;
        }
    }
    Some(all)
}

fn key(bytes: &mut &[u8]) -> Option<Key> {
    let (name, secret) = (take(bytes)?, take(bytes)?);
    let made = Duration::from_millis(u64::from_le_bytes(take(bytes)?));
    Some(Key { name, secret, made })
}

fn take<const COUNT: usize>(bytes: &mut &[u8]) -> Option<[u8; COUNT]> {
    let (first, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(*first)
}

/// May it make new keys? One generation alone does: the one that is proven, serves, and awaits no successor. So clients
/// have no tickets of a key that is lost with a rollback, or that the successor does not get.
pub(crate) fn may_rotate(daemon: &Daemon) -> bool {
    daemon.state() == State::Serving && !daemon.is_on_probation()
}

#[cfg(test)]
mod tests {
    use super::{Key, Keys, ROTATION, STARTS, format, may_rotate, parse};
    use crate::proto::daemon::{Daemon, Event, Input};
    use crate::proto::{Intent, Kind};
    use std::time::Duration;

    #[test]
    fn p15_only_one_that_is_proven_and_awaits_no_successor_makes_keys() {
        let mut proven = Daemon::new(Kind::DAEMONTOOLS, false);
        assert!(!may_rotate(&proven), "it has not started");
        let _ = proven.started(1);
        assert!(may_rotate(&proven));
        let change = |input| {
            let mut daemon = proven.clone();
            let _ = daemon.on(input);
            may_rotate(&daemon)
        };
        assert!(!change(Input::Probation(Event::OnProbation)));
        assert!(!change(Input::Probation(Event::AskedToStandBy(2))));
        assert!(!change(Input::Told(Intent::Stop(crate::proto::Scope::Service))));
        let mut detached = proven.clone();
        for input in [Input::Told(Intent::Restart), Input::RequestHooksDone, Input::LauncherGone] {
            let _ = detached.on(input);
        }
        assert!(!may_rotate(&detached));
    }

    fn key(number: u8, made: Duration) -> Key {
        Key { name: [number; 16], secret: [number; 32], made }
    }

    #[test]
    fn two_keys_are_valid_and_the_newer_one_encrypts() {
        let start = Duration::from_secs(1000);
        let mut keys = Keys::new(key(1, start));
        assert!(!keys.is_due(start) && !keys.is_due(start + ROTATION - Duration::from_millis(1)));
        let second = start + ROTATION;
        assert!(keys.is_due(second));
        keys.rotate(key(2, second));
        assert_eq!(keys.encrypts().name, [2; 16]);
        for number in [1, 2] {
            let found = keys.decrypts(&[number; 16], second + Duration::from_secs(1));
            assert_eq!(found.map(|key| key.secret), Some([number; 32]));
        }
        keys.rotate(key(3, second + ROTATION));
        assert!(keys.decrypts(&[1; 16], second + ROTATION).is_none());
        assert!(keys.decrypts(&[2; 16], second + ROTATION).is_some());
        assert!(keys.decrypts(&[], second).is_none() && keys.decrypts(&[9; 16], second).is_none());
    }

    /// In place, the old daemon serves on while its successor starts, which may take long.
    #[test]
    fn p15_no_key_is_made_that_a_successor_does_not_get() {
        let start = Duration::from_secs(1000);
        let mut keys = Keys::new(key(1, start));
        let due = start + ROTATION;
        let moment = Duration::from_millis(1);
        assert_eq!(keys.give(due - moment), Keys::new(key(1, start)));
        assert!(!keys.is_due(due));
        assert!(!keys.is_due(due - moment + STARTS - moment));
        assert!(keys.is_due(due - moment + STARTS), "that successor has failed");
        keys.rotate(key(2, due + STARTS));
        assert!(keys.is_due(Duration::ZERO), "all of it is from another boot");
    }

    /// Nobody has rotated it: the process drains, or encrypts nothing.
    #[test]
    fn an_old_key_is_not_used_and_nor_is_one_of_another_boot() {
        let start = Duration::from_secs(1000);
        let keys = Keys::new(key(1, start));
        assert!(keys.decrypts(&[1; 16], start + 2 * ROTATION - Duration::from_secs(1)).is_some());
        assert!(keys.decrypts(&[1; 16], start + 2 * ROTATION).is_none());
        assert!(keys.decrypts(&[1; 16], start - Duration::from_secs(1)).is_none());
        assert!(keys.is_due(start - Duration::from_secs(1)));
    }

    #[test]
    fn what_is_handed_over_is_read_again_and_nothing_else_is() {
        let mut two = Keys::new(key(1, Duration::from_millis(1_234_567)));
        two.rotate(key(2, Duration::from_millis(u64::MAX)));
        let all = vec![([7; 32], two), ([8; 32], Keys::new(key(3, Duration::ZERO)))];
        let bytes = format(all.iter().map(|(label, keys)| (label, keys)));
        assert_eq!(bytes.len(), 2 * 33 + 3 * 56);
        assert_eq!(parse(&bytes), Some(all));
        assert_eq!(parse(&[]), Some(vec![]));
        let first = 33 + 2 * 56;
        for end in (1..bytes.len()).filter(|end| *end != first) {
            assert_eq!(parse(&bytes[..end]), None, "{end}");
        }
        for count in [0, 3] {
            let mut wrong = bytes.clone();
            wrong[32] = count;
            assert_eq!(parse(&wrong), None);
        }
        assert_eq!(parse(&[1; 10_000 * 89]).map(|all| all.len()), Some(10_000));
        assert_eq!(parse(&[1; 10_001 * 89]), None, "too many");
    }

    #[test]
    fn no_secret_is_shown() {
        let text = format!("{:?}", Keys::new(key(201, Duration::ZERO)));
        assert!(!text.contains("201") && text.contains("made: 0ns"), "{text}");
    }
}
