//! What the hooks before a signal hold back: the signal itself, and what the launcher says before it
//! sends one. Nothing overtakes anything here.

use crate::driver::daemon::hooks;
use crate::driver::log::note;
use crate::proto::Intent;
use crate::proto::daemon::Input;
use crate::sys::process;
use crate::sys::signals::{Received, SIGTERM, SIGUSR2};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// How long hooks may hold it back: a hammer, or a stop, must not wait for a hook that hangs.
const LIMIT: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, Debug)]
pub(in crate::driver) enum What {
    /// From the launcher, over the channel.
    Said(Input),
    Signal(Received),
}

struct Held {
    what: What,
    /// Whose hooks these are; `None` where they have run already.
    signal: Option<i32>,
    /// True once those before it have run. `None`: there are none.
    through: Option<Arc<AtomicBool>>,
    since: Instant,
}

#[derive(Default)]
pub(in crate::driver) struct Gate {
    held: VecDeque<Held>,
    /// What the launcher announced last: a further intent with the same signal comes without one.
    told: Option<i32>,
    /// This signal is still to come from the launcher, and its hooks have run.
    announced: Option<i32>,
}

impl Gate {
    /// The launcher says it before it signals, and that counts as the signal: either may get lost.
    pub(in crate::driver) fn told(&mut self, intent: Intent) {
        let signal = match intent {
            Intent::Restart | Intent::Unknown => SIGUSR2,
            Intent::Stop(_) => SIGTERM,
        };
        let new = self.told.replace(signal) != Some(signal);
        if new {
            self.announced = Some(signal);
        }
        self.hold(What::Said(Input::Told(intent)), Some(signal).filter(|_| new));
    }

    /// The launcher says it for a successor whose TERM did not arrive.
    pub(in crate::driver) fn taken_over(&mut self) {
        self.hold(What::Said(Input::Term { from_successor: true }), Some(SIGTERM));
    }

    pub(in crate::driver) fn signal(&mut self, received: Received, launcher: Option<i32>) {
        let announced = received.from == launcher && self.announced == Some(received.signal);
        if announced {
            self.announced = None;
        }
        let signal = Some(received.signal).filter(|_| !announced);
        self.hold(What::Signal(received), signal);
    }

    fn hold(&mut self, what: What, signal: Option<i32>) {
        let through = signal.and_then(hooks::run_before_signal);
        self.held.push_back(Held { what, signal, through, since: Instant::now() });
    }

    /// When the first of them has been held back for long enough.
    pub(in crate::driver) fn next(&self) -> Option<Duration> {
        Some((self.held.front()?.since + LIMIT).saturating_duration_since(Instant::now()))
    }

    /// What is to be acted on now, and whose hooks run after it.
    pub(in crate::driver) fn due(&mut self) -> Option<(What, Option<i32>)> {
        let first = self.held.front()?;
        let waits = first.through.as_ref().is_some_and(|through| !through.load(Ordering::SeqCst));
        if waits {
            if first.since.elapsed() < LIMIT {
                return None;
            }
            note!(
                Warn,
                "stage=hooks daemon={} hook=before_signal signal={} reason=\"it has not returned: \
                 going on without it\"",
                process::own_pid(),
                first.signal.unwrap_or_default(),
            );
        }
        self.held.pop_front().map(|held| (held.what, held.signal))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::Scope;

    const LAUNCHER: Option<i32> = Some(5);

    #[test]
    fn what_the_launcher_announces_counts_as_its_signal() {
        let mut gate = Gate::default();
        let told = |gate: &mut Gate, intent| {
            gate.told(intent);
            gate.due().expect("nothing holds it back").1
        };
        let signal = |gate: &mut Gate, signal, from| {
            gate.signal(Received { signal, from: Some(from), evicts: false }, LAUNCHER);
            gate.due().expect("nothing holds it back").1
        };
        assert_eq!(told(&mut gate, Intent::Restart), Some(SIGUSR2));
        assert_eq!(signal(&mut gate, SIGUSR2, 5), None);
        assert_eq!(told(&mut gate, Intent::Unknown), None, "no signal comes behind it");
        assert_eq!(signal(&mut gate, SIGUSR2, 5), Some(SIGUSR2), "one that is passed on");
        assert_eq!(told(&mut gate, Intent::Stop(Scope::Service)), Some(SIGTERM));
        assert_eq!(signal(&mut gate, SIGTERM, 7), Some(SIGTERM), "a successor's");
        assert_eq!(signal(&mut gate, SIGTERM, 5), None);
    }

    #[test]
    fn nothing_overtakes_what_a_hook_holds_back_and_no_hook_does_for_ever() {
        let through = Arc::new(AtomicBool::new(false));
        let what = What::Said(Input::LauncherGone);
        for hangs in [false, true] {
            let now = Instant::now();
            let mut gate = Gate::default();
            gate.held.push_back(Held {
                what,
                signal: Some(SIGTERM),
                through: Some(through.clone()),
                since: if hangs { now.checked_sub(LIMIT).expect("uptime") } else { now },
            });
            gate.taken_over();
            if !hangs {
                assert!(gate.due().is_none() && gate.next().is_some());
                through.store(true, Ordering::SeqCst);
            }
            assert!(matches!(gate.due(), Some((What::Said(Input::LauncherGone), Some(SIGTERM)))));
            assert!(matches!(gate.due(), Some((What::Said(Input::Term { .. }), Some(SIGTERM)))));
            assert!(gate.due().is_none() && gate.next().is_none());
            through.store(false, Ordering::SeqCst);
        }
    }
}
