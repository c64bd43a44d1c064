//! Signals and messages that hooks hold back, and what they mean.

use super::events::{Due, Events};
use super::signal_hooks::{has_hooks, number};
use crate::driver::log::{self, daemon::Event};
use crate::driver::shared::PROCESS;
use crate::proto::daemon::signal_hooks::{Arrived, Run, Signal};
use crate::proto::daemon::{Input, Sender};
use crate::shutdown::lock;
use crate::sys::process;
use crate::sys::signals::{self, SIGINT, SIGTERM, SIGUSR2};
use std::collections::BTreeSet;
use std::time::Duration;

/// How long hooks may hold back a signal: a hammer, or a stop, must not wait for a hook that hangs.
const SIGNAL_HOOKS_TIME: Duration = Duration::from_secs(1);

impl Events {
    /// A signal that the program does not handle itself.
    pub(super) fn yielded(&mut self, signal: i32, by_launcher: bool) {
        let launcher = self.daemon.service.as_ref().map_or(0, |service| service.launcher);
        log::write(Event::Signal { signal, from: if by_launcher { launcher } else { 0 } });
        let sender = match by_launcher {
            true => Sender::Launcher { announced: false },
            false => Sender::Other,
        };
        let reloads = self.daemon.reload_signals.contains(&signal);
        self.feed(if reloads { Input::Reload } else { Input::Halt(sender) });
    }

    // ---- what hooks hold back ----

    pub(super) fn hold(&mut self, received: signals::Received) {
        let signal = match received.signal {
            SIGTERM => Signal::Term,
            SIGINT => Signal::Int,
            SIGUSR2 => Signal::Usr2,
            _ => return, // no handler of ours is installed for it
        };
        let from = received.from.unwrap_or(0);
        let launcher = self.daemon.service.as_ref().map(|service| service.launcher);
        let run = self.hooks.signal(signal, from, launcher == Some(from), has_hooks);
        self.run_hooks(run);
    }

    /// Starts the hooks before a signal, and acts on what none of them holds back.
    pub(super) fn run_hooks(&mut self, run: Option<Run>) {
        if let Some(run) = run {
            let (returned, daemon) = (self.hooks_returned.0.clone(), self.daemon);
            PROCESS.hooks.run_before_signal(number(run.signal), move || {
                _ = returned.send(run);
                daemon.waker.wake();
            });
            self.timers.arm(Due::Hooks(run), SIGNAL_HOOKS_TIME);
        }
        self.act_on_arrivals();
    }

    pub(super) fn give_up_hooks(&mut self, run: Run) {
        // Only the first one has run for all this time. The others wait for it.
        if self.hooks.waits_for() == Some(run) {
            log::write(Event::SignalHookHangs { signal: number(run.signal) });
        }
        self.hooks.returned(run);
        self.act_on_arrivals();
    }

    pub(super) fn act_on_arrivals(&mut self) {
        for run in self.hooks_returned.1.try_iter().collect::<BTreeSet<Run>>() {
            self.timers.disarm(Due::Hooks(run));
            self.hooks.returned(run);
        }
        while let Some((arrived, signal)) = self.hooks.next() {
            let by =
                matches!(arrived, Arrived::Signal { signal: Signal::Int, .. }).then_some("INT");
            let input = self.input_of(arrived);
            self.feed_by(input, by);
            if let Some(signal) = signal {
                PROCESS.hooks.run_after_signal(number(signal));
            }
        }
    }

    fn input_of(&self, arrived: Arrived) -> Input {
        if let Arrived::Signal { signal, from, .. } = arrived {
            log::write(Event::Signal { signal: number(signal), from });
        }
        let service = self.daemon.service.as_ref();
        let own = process::own_pid();
        arrived.input(service.map(|service| service.launcher), |from| match service {
            Some(service) if from != own => {
                // Not locked while the record is read: whoever has the files may want the machine.
                let machine = lock(&self.daemon.machine).clone();
                let listed = || service.lists(from);
                Sender::of(from, service.named(), &machine, listed, || service.is_succeeded())
            }
            Some(_) | None => Sender::Other,
        })
    }
}
