//! Is the daemon well? It answers its launcher, which asks on behalf of systemd's watchdog. Without a PID
//! file there is no launcher, and the process speaks for itself.

use crate::driver::log::{self, daemon::Event};
use crate::driver::observers::{self, systemd};
use crate::driver::settings::Check;
use crate::driver::shared::{Daemon, PROCESS};
use crate::driver::threads::spawn;
use crate::proto::channel::Aside;
use crate::proto::supervisor::notices::{Notice, Word};
use crate::shutdown::lock;
use crate::sys::seqpacket::Link;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Weak, mpsc};
use std::thread;

/// Starts the thread of the program's check.
pub(super) fn watch(check: Option<Check>, channel: Weak<Link>) -> crate::error::Result<()> {
    let Some(mut check) = check else { return Ok(()) };
    let (asked, asks) = mpsc::sync_channel(1);
    _ = PROCESS.watchdog.set(asked);
    spawn("seamless-watchdog", move || {
        for () in asks {
            if let (true, Some(channel)) = (is_well(&mut check), channel.upgrade()) {
                say_alive(&channel);
            }
        }
    })
}

fn is_well(check: &mut Check) -> bool {
    let well = catch_unwind(AssertUnwindSafe(check));
    if !matches!(well, Ok(true)) {
        let why = if well.is_ok() { "it says no" } else { "it panicked" };
        log::write(Event::Unwell { reason: &format_args!("the health check failed: {why}") });
    }
    well.unwrap_or(false)
}

/// The launcher asks for a sign of life. This thread's own is one; while we serve, the program's
/// check has to agree, and if that hangs, nothing is answered.
pub(super) fn answer(daemon: &Daemon, channel: &Link) {
    match PROCESS.watchdog.get().filter(|_| daemon.state().serves()) {
        Some(check) => _ = check.try_send(()), // full: it hangs, or is about to run again
        None => say_alive(channel),
    }
}

fn say_alive(channel: &Link) {
    // A launcher that has gone needs none.
    _ = channel.send(&Aside::Alive.format(), &[]);
}

// ---- without a launcher ----

/// Without a PID file: systemd's signs of life, on a thread of their own. systemd may count from the start, so they
/// come before `started` and in the drain as well, whatever the program's check would say.
pub(super) fn watch_alone(check: Option<Check>) -> crate::error::Result<()> {
    let Some(time) = systemd::listener().and_then(|listener| listener.watchdog) else {
        return Ok(());
    };
    let mut check = check.unwrap_or_else(|| Box::new(|| true));
    let serves = |daemon: &Daemon| lock(&daemon.past).has_started && daemon.state().serves();
    spawn("seamless-watchdog", move || {
        loop {
            if !PROCESS.daemon().is_some_and(serves) || is_well(&mut check) {
                observers::tell(&Notice::Say(vec![Word::Watchdog]), None);
            }
            thread::sleep(time / 2);
        }
    })
}
