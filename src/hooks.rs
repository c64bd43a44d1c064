//! Hooks before and after each stage of a restart and each signal that the crate handles, and hooks for
//! all other signals.
//!
//! ```no_run
//! use seamless::hooks::{self, Stage};
//! use seamless::signal;
//!
//! seamless::init("/run/web/web.pid")?;
//! hooks::on_signal(signal::HUP, || { /* read the configuration again */ })?;
//! hooks::on_signal(signal::USR1, || { /* open the logs again */ })?;
//! hooks::before(Stage::Drain, || { /* tell the load balancer */ });
//! # Ok::<(), seamless::Error>(())
//! ```
//!
//! What belongs to a stage itself has hooks of its own:
//! [`on_shutdown_request`](crate::on_shutdown_request), [`on_shutdown`](crate::on_shutdown),
//! [`on_hammer`](crate::on_hammer).
//!
//! # Signals
//!
//! All hooks run in the daemon, none in the launcher. What the crate handles there:
//!
//! - **TERM, INT**: the [drain](Stage::Drain)
//! - **USR2**: the [handoff](Stage::Handoff); to a process that drains, the hammer
//!
//! [`before_signal`] and [`after_signal`] hook these. What a supervisor sends, TERM as a rule, goes to the
//! launcher, which finds out what it means and sends the daemon USR2 for a restart, TERM for a stop; a
//! successor sends TERM. The launcher keeps to itself CHLD (or what else is the release signal), PIPE, and
//! the signals of [`Config::reload_signals`](crate::Config::reload_signals): those start the next
//! generation, which has [`Stage::Takeover`], and the old one hears of it by its TERM. All others it passes
//! on, for [`on_signal`].

use crate::driver;
use crate::error::{Error, ErrorKind, Result};

pub use crate::shutdown::Stage;

/// Adds a hook before a stage.
///
/// The stage begins when every such hook has returned, so one that blocks holds it up: a handoff no
/// longer than [`handoff_timeout`](crate::Config::handoff_timeout), a drain until the hammer, a
/// takeover for ever. The hooks of a takeover run in the thread that calls
/// [`started`](crate::started), at its first call; the others as those of
/// [`on_shutdown_request`](crate::on_shutdown_request) do: once, in the order in which they were
/// added, in the daemon only. A panic in one is logged and the next runs. One that is added after its
/// stage is dropped, and the log says so.
///
/// A forced exit waits for no hook for long. The hooks before [`Stage::Hammer`], the
/// [`on_hammer`](crate::on_hammer) hooks and the hooks after it run in this order, each group on a
/// thread of its own and for 1 s at most. Before it, a hook that takes longer than 100 ms no longer
/// holds up the others of its group, which then run at the same time. This is the place for a library
/// that must leave nothing half done: the module `http` resets there the connections whose answer
/// is not complete, so that no client takes a part for the whole. Such a hook takes no locks that a
/// request may hold and waits for nothing.
///
/// ```no_run
/// use seamless::hooks::{self, Stage};
///
/// # fn reset_what_is_in_flight() {}
/// hooks::before(Stage::Hammer, reset_what_is_in_flight); // first, whatever else hangs
/// seamless::on_hammer(|| { /* then: note what is being cut */ });
/// ```
pub fn before(stage: Stage, hook: impl FnOnce() + Send + 'static) {
    driver::add_before(stage, Box::new(hook));
}

/// Adds a hook after a stage. As [`before`]; those after a takeover run when [`started`](crate::started)
/// has succeeded, before it returns.
pub fn after(stage: Stage, hook: impl FnOnce() + Send + 'static) {
    driver::add_after(stage, Box::new(hook));
}

/// Adds a hook that runs whenever this signal has arrived in the daemon, by its number
/// ([`signal`](crate::signal), `signal(7)`). The launcher passes on what it gets.
///
/// For signals that mean nothing to the crate, such as HUP and USR1: without a hook their default
/// action ends the process. For those that it handles, TERM, INT and USR2, the hook runs beside what
/// the crate does; for an order, see [`before_signal`]. A signal of [`Config::reload_signals`](crate::Config::reload_signals) is the
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
    if !driver::can_catch(signal) {
        let text = format!("cannot hook signal {signal} (hooks): it cannot be caught");
        return Err(Error::new(ErrorKind::InvalidConfig, text));
    }
    driver::on_signal(signal, Box::new(hook))
}

/// Adds a hook that runs whenever [TERM](crate::signal::TERM), [INT](crate::signal::INT) or
/// [USR2](crate::signal::USR2) has arrived in the daemon, before the crate acts on it.
///
/// What the launcher announces counts as arrived: the signal follows. The crate waits for these hooks,
/// but no longer than a second for those of one signal: then it goes on, and the log says so, so that a
/// hook that hangs keeps nobody from a stop or the hammer. Whatever arrives meanwhile waits its turn.
/// Nothing waits for the launcher's end, time limits, and what the program itself calls.
///
/// They run on one thread of their own, together with those of [`after_signal`], in the order in which
/// they were added, each as often as its signal arrived, though signals of a kind that come close
/// together may merge. A panic in one is logged and the next runs. May be called before
/// [`init`](crate::init).
///
/// # Errors
///
/// [`ErrorKind::InvalidConfig`]: the crate does nothing at this signal. [`ErrorKind::System`]: no thread to
/// be had.
pub fn before_signal(signal: i32, hook: impl FnMut() + Send + 'static) -> Result<()> {
    check_handled(signal)?;
    driver::before_signal(signal, Box::new(hook))
}

/// Adds a hook that runs after the crate has acted on TERM, INT or USR2, as [`before_signal`] otherwise.
/// By then the stage that it leads to has begun, as a rule, and has not ended: for the end see
/// [`after`]. Where the crate ends the process at once, as in a start or by the hammer, it does not run.
///
/// # Errors
///
/// As [`before_signal`].
pub fn after_signal(signal: i32, hook: impl FnMut() + Send + 'static) -> Result<()> {
    check_handled(signal)?;
    driver::after_signal(signal, Box::new(hook))
}

fn check_handled(signal: i32) -> Result<()> {
    if driver::handles(signal) {
        return Ok(());
    }
    let text = format!("cannot hook signal {signal} (hooks): nothing is done at it, see on_signal");
    Err(Error::new(ErrorKind::InvalidConfig, text))
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
        for signal in [1, 10, 17, 9, 0, -1] {
            for refused in [before_signal(signal, || {}), after_signal(signal, || {})] {
                assert_eq!(refused.expect_err("refused").kind(), ErrorKind::InvalidConfig);
            }
        }
    }
}
