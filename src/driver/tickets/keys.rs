//! Where the keys of a configuration come from.

use super::Shared;
use crate::driver::log::{self, sockets::Event};
use crate::driver::shared::PROCESS;
use crate::driver::sockets::obtain;
use crate::proto::tickets::{self, Key, Keys, Label, VERSION, format, parse};
use crate::shutdown::lock;
use crate::sys::{RESTARTS, since_boot};
use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

/// The state under which they are handed over.
const NAME: &str = "seamless/tickets";

/// The keys of a configuration: those that this process has already, those of the predecessor, or the fresh
/// one. `None`: `init` was not called, so nobody could hand them over.
pub(crate) fn keys(label: Label, fresh: Key) -> Option<Arc<Shared>> {
    PROCESS.daemon()?;
    let taken = obtain::take_over_or_log();
    let mut unreadable = false;
    let keys = {
        let inner = &mut *lock(&PROCESS.tickets.0);
        if taken && !inner.taken {
            inner.taken = true;
            match inherited() {
                Some(keys) => inner.inherited = keys,
                None => unreadable = true,
            }
            PROCESS.handed.add_own(NAME, VERSION, all);
        }
        let inherited = &mut inner.inherited;
        let keys = || inherited.remove(&label).unwrap_or_else(|| Keys::new(fresh));
        inner.ours.entry(label).or_insert_with(|| Arc::new(Shared::new(keys()))).clone()
    };
    if unreadable {
        let error = "the predecessor's keys for TLS session tickets cannot be read";
        log::write(Event::ReceiveFailed { error: &error });
    }
    Some(keys)
}

/// What a successor gets.
fn all() -> Vec<u8> {
    let inner = lock(&PROCESS.tickets.0);
    let ours = inner.ours.iter();
    let keys: Vec<(Label, Keys)> =
        ours.map(|(label, keys)| (*label, lock(keys).give(now()))).collect();
    format(keys.iter().map(|(label, keys)| (label, keys)))
}

/// What the predecessor has handed over. Keys in the format of another version of the crate are not used: clients
/// make a full handshake. `None`: they cannot be read.
fn inherited() -> Option<BTreeMap<Label, Keys>> {
    match PROCESS.handed.take(NAME) {
        Some((VERSION, bytes)) => Some(parse(&bytes)?.into_iter().collect()),
        Some(_) | None => Some(BTreeMap::new()),
    }
}

/// Without `init` this process alone has the keys.
pub(crate) fn may_rotate() -> bool {
    PROCESS.daemon().is_none_or(|daemon| tickets::may_rotate(&lock(&daemon.machine)))
}

/// The time since the boot, suspensions included: ages go on in the next generation. Where there is none, any
/// clock will do.
pub(crate) fn now() -> Duration {
    static BEGAN: OnceLock<Instant> = OnceLock::new();
    match RESTARTS {
        true => since_boot(),
        false => BEGAN.get_or_init(Instant::now).elapsed(),
    }
}

#[cfg(test)]
mod tests {
    use super::{may_rotate, now};
    use crate::sys::{RESTARTS, since_boot};
    use std::thread;
    use std::time::Duration;

    #[test]
    fn without_init_keys_rotate_with_the_clock() {
        assert!(may_rotate());
        if !RESTARTS {
            return;
        }
        let before = since_boot();
        let told = now();
        assert!(before <= told && told <= since_boot());
        thread::sleep(Duration::from_millis(2));
        assert!(now() > told);
    }
}
