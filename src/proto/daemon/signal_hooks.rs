//! Delays a signal, and the launcher's message that announces it, until the `before_signal` hooks have
//! returned. Strict FIFO.

use super::{Input, Sender};
use crate::proto::Intent;
use std::collections::VecDeque;

/// The signals that the crate handles in a daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Signal {
    Term,
    Int,
    Usr2,
}

/// What arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Arrived {
    /// The launcher tells the intent of a TERM.
    Told(Intent),
    /// The launcher cancels this start.
    Cancelled,
    /// The launcher tells that a successor serves, whose TERM did not arrive.
    TakenOver,
    /// `announced`: the launcher has said on the channel what it wants.
    Signal { signal: Signal, from: i32, announced: bool },
}

/// The hooks before one signal, which run now. Each run has a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Run {
    number: u64,
    pub(crate) signal: Signal,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Held {
    arrived: Arrived,
    /// The signal whose hooks run before and after it. `None`: they ran for the announcement.
    signal: Option<Signal>,
    /// The hooks before it still run.
    waits: Option<Run>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct SignalHooks {
    held: VecDeque<Held>,
    /// What the launcher told last. A further intent that has the same signal comes without one.
    told: Option<Signal>,
    /// This signal is still to come from the launcher. Its hooks have run for the message before it.
    announced: Option<Signal>,
    /// The number of the last run.
    runs: u64,
}

impl SignalHooks {
    /// A message of the launcher that announces a signal. It counts as the signal, since either of the
    /// two can be lost. `hooked`: are there hooks before this signal? If so, this returns their run,
    /// and [`returned`](SignalHooks::returned) has to be called when they have returned.
    pub(crate) fn told(
        &mut self,
        intent: Intent,
        hooked: impl FnOnce(Signal) -> bool,
    ) -> Option<Run> {
        let signal = match intent {
            Intent::Restart | Intent::Unknown => Signal::Usr2,
            Intent::Stop(_) => Signal::Term,
        };
        let new = self.told.replace(signal) != Some(signal);
        if new {
            self.announced = Some(signal);
        }
        self.hold(Arrived::Told(intent), Some(signal).filter(|_| new), hooked)
    }

    pub(crate) fn cancelled(&mut self, hooked: impl FnOnce(Signal) -> bool) -> Option<Run> {
        self.announced = Some(Signal::Usr2);
        self.hold(Arrived::Cancelled, Some(Signal::Usr2), hooked)
    }

    /// No signal follows.
    pub(crate) fn taken_over(&mut self, hooked: impl FnOnce(Signal) -> bool) -> Option<Run> {
        self.hold(Arrived::TakenOver, Some(Signal::Term), hooked)
    }

    pub(crate) fn signal(
        &mut self,
        signal: Signal,
        from: i32,
        by_launcher: bool,
        hooked: impl FnOnce(Signal) -> bool,
    ) -> Option<Run> {
        let announced = by_launcher && self.announced.take_if(|one| *one == signal).is_some();
        let hooks = Some(signal).filter(|_| !announced);
        self.hold(Arrived::Signal { signal, from, announced }, hooks, hooked)
    }

    fn hold(
        &mut self,
        arrived: Arrived,
        signal: Option<Signal>,
        hooked: impl FnOnce(Signal) -> bool,
    ) -> Option<Run> {
        let waits = signal.filter(|signal| hooked(*signal)).map(|signal| {
            self.runs += 1;
            Run { number: self.runs, signal }
        });
        self.held.push_back(Held { arrived, signal, waits });
        waits
    }

    /// These hooks have returned, or are no longer waited for.
    pub(crate) fn returned(&mut self, run: Run) {
        for held in &mut self.held {
            if held.waits == Some(run) {
                held.waits = None;
            }
        }
    }

    /// The hooks that delay the first item.
    pub(crate) fn waits_for(&self) -> Option<Run> {
        self.held.front()?.waits
    }

    /// The item to act on now, and the signal whose hooks run after it.
    pub(crate) fn next(&mut self) -> Option<(Arrived, Option<Signal>)> {
        if self.waits_for().is_some() {
            return None;
        }
        self.held.pop_front().map(|held| (held.arrived, held.signal))
    }
}

impl Arrived {
    /// What the machine is told of it. `launcher`: our launcher. `other`: who has sent a signal, if it was not the
    /// launcher.
    pub(crate) fn input(self, launcher: Option<i32>, other: impl FnOnce(i32) -> Sender) -> Input {
        match self {
            Arrived::Told(intent) => Input::Told(intent),
            Arrived::Cancelled => Input::Cancelled,
            Arrived::TakenOver => Input::Term(Sender::Successor),
            Arrived::Signal { signal, from, announced } => {
                let by_launcher = launcher == Some(from);
                let sender = if by_launcher { Sender::Launcher { announced } } else { other(from) };
                match signal {
                    Signal::Term | Signal::Int => Input::Term(sender),
                    Signal::Usr2 => Input::Usr2(sender),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::Scope;

    #[test]
    fn what_the_launcher_announces_counts_as_its_signal() {
        let mut hooks = SignalHooks::default();
        let told = |hooks: &mut SignalHooks, intent| {
            hooks.told(intent, |_| false);
            hooks.next().expect("nothing holds it back").1
        };
        let signal = |hooks: &mut SignalHooks, signal, by_launcher| {
            hooks.signal(signal, 5, by_launcher, |_| false);
            hooks.next().expect("nothing holds it back")
        };
        let usr2 = |announced| Arrived::Signal { signal: Signal::Usr2, from: 5, announced };
        assert_eq!(told(&mut hooks, Intent::Restart), Some(Signal::Usr2));
        assert_eq!(signal(&mut hooks, Signal::Usr2, true), (usr2(true), None));
        assert_eq!(told(&mut hooks, Intent::Unknown), None, "no signal comes behind it");
        let passed_on = signal(&mut hooks, Signal::Usr2, true);
        assert_eq!(passed_on, (usr2(false), Some(Signal::Usr2)), "one that is passed on");
        assert_eq!(told(&mut hooks, Intent::Stop(Scope::Service)), Some(Signal::Term));
        let term = |announced| Arrived::Signal { signal: Signal::Term, from: 5, announced };
        let successor = signal(&mut hooks, Signal::Term, false);
        assert_eq!(successor, (term(false), Some(Signal::Term)));
        assert_eq!(signal(&mut hooks, Signal::Term, true), (term(true), None));
    }

    #[test]
    fn only_the_launcher_speaks_for_itself() {
        let input = |signal, from, launcher| {
            let arrived = Arrived::Signal { signal, from, announced: false };
            arrived.input(launcher, |pid| if pid == 9 { Sender::Successor } else { Sender::Other })
        };
        let launcher = Sender::Launcher { announced: false };
        assert_eq!(input(Signal::Term, 5, Some(5)), Input::Term(launcher));
        assert_eq!(input(Signal::Usr2, 5, Some(5)), Input::Usr2(launcher));
        assert_eq!(input(Signal::Term, 9, Some(5)), Input::Term(Sender::Successor));
        assert_eq!(input(Signal::Int, 6, Some(5)), Input::Term(Sender::Other));
        assert_eq!(input(Signal::Usr2, 5, None), Input::Usr2(Sender::Other));
    }

    /// A start that is cancelled too late is told of the restart or the stop all the same.
    #[test]
    fn a_cancelled_start_is_still_told_what_follows() {
        let mut hooks = SignalHooks::default();
        hooks.cancelled(|_| false);
        assert_eq!(hooks.next(), Some((Arrived::Cancelled, Some(Signal::Usr2))));
        hooks.signal(Signal::Usr2, 5, true, |_| false);
        let announced = Arrived::Signal { signal: Signal::Usr2, from: 5, announced: true };
        assert_eq!(hooks.next(), Some((announced, None)));
        hooks.told(Intent::Restart, |_| false);
        let told = Some((Arrived::Told(Intent::Restart), Some(Signal::Usr2)));
        assert_eq!(hooks.next(), told);
        hooks.signal(Signal::Usr2, 5, true, |_| false);
        assert_eq!(hooks.next(), Some((announced, None)));
    }

    #[test]
    fn nothing_overtakes_what_a_hook_holds_back() {
        let mut hooks = SignalHooks::default();
        let run = hooks.taken_over(|_| true).expect("there are hooks");
        assert_eq!((hooks.waits_for(), run.signal), (Some(run), Signal::Term));
        hooks.told(Intent::Restart, |_| false);
        assert_eq!(hooks.next(), None);
        hooks.returned(run);
        assert_eq!(hooks.next(), Some((Arrived::TakenOver, Some(Signal::Term))));
        let told = Some((Arrived::Told(Intent::Restart), Some(Signal::Usr2)));
        assert_eq!(hooks.next(), told);
        assert_eq!((hooks.next(), hooks.waits_for()), (None, None));
    }

    #[test]
    fn each_signal_waits_for_its_own_hooks() {
        let mut hooks = SignalHooks::default();
        let first = hooks.signal(Signal::Int, 5, false, |_| true).expect("there are hooks");
        let second = hooks.signal(Signal::Int, 5, false, |_| true).expect("there are hooks");
        hooks.returned(first);
        assert!(hooks.next().is_some());
        assert_eq!((hooks.waits_for(), hooks.next()), (Some(second), None));
        assert_eq!(second.signal, Signal::Int);
    }
}
