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
//! What a program does in a stage has hooks of its own:
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
//! - **QUIT, PWR, and the signals of [`Config::reload_signals`](crate::Config::reload_signals)**: a stop, and
//!   a restart in place; only as long as the program does not handle them itself
//!
//! [`before_signal`] and [`after_signal`] add hooks for TERM, INT and USR2. A supervisor sends its signals, usually
//! TERM, to the launcher. The launcher finds out what TERM means, and sends the daemon USR2 for a
//! restart or TERM for a stop. A successor sends TERM.
//!
//! The launcher does not forward TERM, CHLD (or another release signal), and the reload signals. The latter
//! start the next generation, which runs the hooks of [`Stage::Takeover`]; the old one then gets TERM. It forwards
//! QUIT and PWR if the program handles them, and most others, for [`on_signal`]. [A table](crate::guide::signals)
//! has all signals.

use crate::driver;
use crate::error::{Error, ErrorKind, Result};

pub use crate::shutdown::Stage;

/// Adds a hook before a stage.
///
/// The stage begins when every such hook has returned, so a hook that blocks delays it. A handoff is
/// delayed up to [`handoff_timeout`](crate::Config::handoff_timeout), a drain until the hammer, a
/// takeover without limit. The hooks of a takeover run on the thread that calls
/// [`started`](crate::started), at its first call. The others run like those of
/// [`on_shutdown_request`](crate::on_shutdown_request): once, in the order in which they were added,
/// and in the daemon only. If one panics, the panic is logged and the next hook runs. A hook that is
/// added after its stage is dropped, and the log says so.
///
/// A forced exit waits for no hook for long. First the hooks before [`Stage::Hammer`] run, then the
/// [`on_hammer`](crate::on_hammer) hooks, then the hooks after it. Each group has a thread of its own
/// and 1 s at most. If a hook before the hammer takes longer than 100 ms, the other hooks of its group
/// no longer wait for it: they run at the same time. These hooks are for a library that must leave
/// nothing half done. The module `http` resets connections there whose answer is not complete, so that
/// no client mistakes a truncated response for a complete one. Such a hook takes no lock that a request
/// may hold, and waits for nothing.
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

/// Adds a hook after a stage. It runs as those of [`before`] do. The hooks after a takeover run when
/// [`started`](crate::started) has succeeded, before it returns.
pub fn after(stage: Stage, hook: impl FnOnce() + Send + 'static) {
    driver::add_after(stage, Box::new(hook));
}

/// Adds a hook that runs whenever this signal has arrived in the daemon. The signal is given by its number
/// ([`signal`](crate::signal), `signal(7)`). The launcher forwards what it gets.
///
/// It is for signals that mean nothing to the crate, such as HUP and USR1: without a hook, their
/// default action ends the process. For TERM, INT and USR2, which the crate handles, the hook runs
/// while the crate acts; if the order matters, see [`before_signal`]. With a hook for QUIT or PWR, the
/// crate no longer stops at that signal. A signal of
/// [`Config::reload_signals`](crate::Config::reload_signals) is not forwarded; if somebody sends it to the
/// daemon itself, the hook runs, and the crate does not restart.
///
/// All such hooks run on one thread, in the order in which they were added. Each runs as often as its
/// signal arrived, but signals of one kind that come close together may merge. A hook that blocks
/// delays the other hooks, and nothing else. A panic in one is logged. The call is allowed before
/// [`init`](crate::init); it then takes effect in the daemon only. Other users of signal-hook, tokio
/// among them, see the same signals.
///
/// # Errors
///
/// [`ErrorKind::InvalidConfig`]: there is no such signal, or it cannot be caught (KILL, STOP; ILL, FPE
/// and SEGV, from which no handler may return). [`ErrorKind::System`]: the system refused a handler or
/// a thread.
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
/// A message of the launcher counts as the arrival of the signal that follows it. The crate waits for
/// these hooks, but for those of one signal a second at most. Then it goes on, and the log says so: a
/// hook that hangs must not block a stop or the hammer. Signals and messages that arrive meanwhile wait
/// their turn. These do not wait: the end of the launcher, timeouts, and calls of the program itself.
///
/// They run on one thread, together with the hooks of [`after_signal`], in the order in which they were
/// added. Each runs as often as its signal arrived, but signals of one kind that come close together
/// may merge. If one panics, the panic is logged and the next hook runs. The call is allowed before
/// [`init`](crate::init).
///
/// # Errors
///
/// [`ErrorKind::InvalidConfig`]: the crate does nothing at this signal. [`ErrorKind::System`]: the system
/// refused a thread.
pub fn before_signal(signal: i32, hook: impl FnMut() + Send + 'static) -> Result<()> {
    check_handled(signal)?;
    driver::before_signal(signal, Box::new(hook))
}

/// Adds a hook that runs after the crate has acted on TERM, INT or USR2. Otherwise it is as with
/// [`before_signal`]. By then the stage that the signal leads to has usually begun and has not ended;
/// for its end, see [`after`]. If the crate ends the process at once, as during a start or by the
/// hammer, the hook does not run.
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
