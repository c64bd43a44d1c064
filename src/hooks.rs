//! Hooks before and after each stage of a restart, and hooks for signals.
//!
//! ```no_run
//! use seamless::hooks::{self, Stage};
//!
//! seamless::init("/run/web/web.pid")?;
//! hooks::on_signal(1, || { /* HUP: read the configuration again */ })?;
//! hooks::on_signal(10, || { /* USR1: open the logs again */ })?;
//! hooks::before(Stage::Drain, || { /* tell the load balancer */ });
//! # Ok::<(), seamless::Error>(())
//! ```
//!
//! What belongs to a stage itself has hooks of its own:
//! [`on_shutdown_request`](crate::on_shutdown_request), [`on_shutdown`](crate::on_shutdown),
//! [`on_hammer`](crate::on_hammer).
//!
//! Each signal that the crate handles leads to a stage, and what is to come before or after what it
//! does is a hook of that stage: TERM and INT of [`Stage::Drain`], a USR2 of [`Stage::Handoff`], or,
//! to a process that drains, of [`on_hammer`](crate::on_hammer). The crate waits for the hooks of a
//! stage, and not for those of a signal.

use crate::driver::hooks;
use crate::error::{Error, ErrorKind, Result};

/// A stage of a restart, as this process lives through it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Stage {
    /// Stage 1: a restart was asked for, the `on_shutdown_request` hooks run, the launcher is let go.
    /// After it: just before the launcher is let go.
    Handoff,
    /// Stage 2, in the new generation: [`started`](crate::started). Before it: nothing has been
    /// announced, the predecessor serves. After it: the predecessor drains.
    Takeover,
    /// Stage 3: the `on_shutdown` hooks run. Before it: [`draining`](crate::draining) has not
    /// resolved. After it: [`wait`](crate::wait) is about to return.
    Drain,
}

/// Adds a hook before a stage.
///
/// The stage begins when every such hook has returned, so one that blocks holds it up: a handoff no
/// longer than [`handoff_timeout`](crate::Config::handoff_timeout), a drain until the hammer, a
/// takeover for ever. The hooks of a takeover run in the thread that calls
/// [`started`](crate::started), at its first call; the others as those of
/// [`on_shutdown_request`](crate::on_shutdown_request) do: once, in the order in which they were
/// added, in the daemon only. A panic in one is logged and the next runs. One that is added after its
/// stage is dropped, and the log says so.
pub fn before(stage: Stage, hook: impl FnOnce() + Send + 'static) {
    hooks::add_before(stage, Box::new(hook));
}

/// Adds a hook after a stage. As [`before`]; those after a takeover run when [`started`](crate::started)
/// has succeeded, before it returns.
pub fn after(stage: Stage, hook: impl FnOnce() + Send + 'static) {
    hooks::add_after(stage, Box::new(hook));
}

/// Adds a hook that runs whenever this signal has arrived in the daemon, by its number
/// (`signal(7)`). The launcher passes on what it gets.
///
/// For signals that mean nothing to the crate, such as HUP and USR1: without a hook their default
/// action ends the process. For those that it handles, TERM, INT and USR2, the hook runs beside what
/// the crate does. A signal of [`Config::reload_signals`](crate::Config::reload_signals) is the
/// launcher's and does not come this far.
///
/// All such hooks run on one thread of their own, in the order in which they were added, each as
/// often as its signal arrived, though signals of a kind that come close together may merge. One that
/// blocks holds up the other hooks, and nothing else. A panic in one is logged. May be called before
/// [`init`](crate::init): then it counts from there on, in the daemon only. Other users of
/// signal-hook, tokio among them, see the same signals.
///
/// # Errors
///
/// [`ErrorKind::InvalidConfig`]: there is no such signal, or it cannot be caught (KILL, STOP; ILL, FPE
/// and SEGV, from which no handler may return). [`ErrorKind::System`]: no handler or thread to be had.
pub fn on_signal(signal: i32, hook: impl FnMut() + Send + 'static) -> Result<()> {
    if !crate::driver::can_catch(signal) {
        let text = format!("cannot hook signal {signal} (hooks): it cannot be caught");
        return Err(Error::new(ErrorKind::InvalidConfig, text));
    }
    hooks::on_signal(signal, Box::new(hook))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p10_a_signal_that_cannot_be_caught_is_refused() {
        for signal in [9, 19, 4, 8, 11, 0, -1, 65, 1000] {
            let refused = on_signal(signal, || {}).expect_err("refused");
            assert_eq!(refused.kind(), ErrorKind::InvalidConfig, "{refused}");
        }
    }
}
