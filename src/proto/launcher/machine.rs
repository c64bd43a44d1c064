//! The launcher's machine.

use super::children::Children;
use super::intent::Understanding;
use super::{Child, InPlace, Input, Output, Timer};
use crate::proto::supervisor::StartsAgain;
use crate::proto::{Intent, Kind, Reading, Report};

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Launcher {
    understanding: Understanding,
    children: Children,
    gone: bool,
}

impl Launcher {
    /// `supervisor`: its PID, if it has one. `first`: the daemon. `in_place`: the launcher restarts
    /// the program itself.
    pub(crate) fn new(
        kind: Kind,
        supervisor: Option<i32>,
        first: Child,
        in_place: Option<InPlace>,
    ) -> Self {
        let children = Children::new(first, in_place, kind.starts_again == StartsAgain::Never);
        Launcher { understanding: Understanding::new(kind, supervisor), children, gone: false }
    }

    #[must_use]
    pub(crate) fn on(&mut self, input: Input) -> Vec<Output> {
        let mut out = Vec::new();
        if self.gone {
            return out;
        }
        let children = &mut self.children;
        match input {
            Input::Report(_, Report::Unhandled) => self.term(0, true, &mut out),
            Input::Report(child, report) => children.report(child, report, &mut out),
            Input::ChannelClosed(child) => children.ready(child, &mut out),
            Input::Ended(child, end) => children.ended(child, end, &mut out),
            Input::Spawned(child) => children.spawned(child, &mut out),
            Input::Reload => children.reload(&mut out),
            Input::Restart(signal) => children.pass_restart_on(signal, &mut out),
            Input::Halt(signal) => {
                // Before a daemon is ready its program handles nothing, and the signal would end it.
                if !children.pass_halt_on(signal, &mut out) {
                    self.term(0, true, &mut out);
                }
            }
            Input::Term { from } => self.term(from, false, &mut out),
            Input::Cont { from } => self.understanding.cont(from, &mut out),
            Input::Signal { signal, to_all } => children.forward(signal, to_all, &mut out),
            Input::Status(reading) => self.status(reading, &mut out),
            Input::Timer(Timer::Cont) => self.understanding.cont_is_too_old(),
            Input::Timer(Timer::Settle) => self.understanding.read_status(&mut out),
            Input::Timer(Timer::Handoff) => children.handoff_expired(&mut out),
            Input::Timer(Timer::Cancel) => children.cancel_expired(&mut out),
            Input::Timer(Timer::Gather) => children.gathered(&mut out),
            Input::Timer(Timer::Prepare) => children.prepared(None, &mut out),
            Input::Timer(Timer::Start) => children.start_expired(&mut out),
            Input::Timer(Timer::Overdue) => children.overdue(&mut out),
            Input::Timer(Timer::Keeper) => children.keeper_expired(&mut out),
            Input::Given(child) => children.given(child, &mut out),
            Input::NoneGiven(child) => children.none_given(child, &mut out),
            Input::NeedsNoKeeper(child) => children.needs_no_keeper(child, &mut out),
            Input::Keeper(keeper) => children.keeper(keeper),
            Input::OlderTold { awaited, again } => children.older_told(awaited, again, &mut out),
            Input::OlderGone => children.older_gone(&mut out),
            Input::Timer(Timer::TellOlder) => children.tell_older_again(&mut out),
            Input::Timer(Timer::Kill(child)) => children.kill_expired(child, &mut out),
            Input::Quiet => children.quiet(self.understanding.is_settled(), &mut out),
        }
        if self.understanding.is_settled() {
            self.children.end_if_due(&mut out);
        }
        let is_last = |output: &Output| matches!(output, Output::Leave { .. } | Output::Mirror(..));
        self.gone = out.iter().any(is_last);
        out
    }

    /// The child that serves, or was the last to serve and drains.
    pub(crate) fn current(&self) -> Option<Child> {
        self.children.current()
    }

    fn term(&mut self, from: i32, halt: bool, out: &mut Vec<Output>) {
        if self.children.stopping() {
            return; // a stop cannot be taken back
        }
        if let Some(intent) = self.understanding.term(from, halt, out) {
            self.decide(intent, out);
        }
    }

    fn status(&mut self, reading: Reading, out: &mut Vec<Output>) {
        if let Some(intent) = self.understanding.status(reading, out) {
            self.decide(intent, out);
        }
    }

    /// The TERM has been understood.
    fn decide(&mut self, intent: Intent, out: &mut Vec<Output>) {
        let again = self.understanding.decided();
        self.children.decided(intent, out);
        if let Some((from, halt)) = again {
            self.term(from, halt, out);
        }
    }
}

#[cfg(test)]
mod tests;
