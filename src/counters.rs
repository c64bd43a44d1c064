//! Counters that survive restarts, and that all generations share.
//!
//! ```no_run
//! use std::sync::atomic::Ordering;
//!
//! seamless::init("/run/web/web.pid")?;
//! let requests = seamless::counters::get("requests"); // a &'static AtomicU64
//! seamless::started()?;
//! requests.fetch_add(1, Ordering::Relaxed); // in each generation, also in one that drains
//! # Ok::<(), seamless::Error>(())
//! ```
//!
//! The counters lie in memory that the predecessor has made and its successors map. So nothing is copied, and
//! what a draining generation still counts is not lost. A counter is an atomic of the standard library: to
//! count costs what it costs there, and needs no lock and no system call.
//!
//! `seamless status --json`, `--openmetrics` and `--prometheus` show all counters of a service. Servers of the
//! module `http` count by themselves: see `http::Server`.
//!
//! # How long they live
//!
//! As long as one process holds them: a generation, the launcher of one, after a crash the
//! [keeper](crate::guide::crashes), or systemd with its descriptor store (feature `systemd`,
//! `FileDescriptorStoreMax=`). Then they begin at 0 again, as after a stop or a
//! reboot: monitoring systems know that of counters. If the crate is disabled (an empty path), they live as
//! long as the process.
//!
//! There is room for 4,096 counters. A counter is never removed, since an older generation may still count.

use crate::driver::counters;
use std::sync::atomic::AtomicU64;

/// The counter of this name, which begins at 0. Each call with the same name returns the same counter, in every
/// generation. Keep the reference: a call takes a lock and looks the name up.
///
/// A name has 1 to 100 bytes. If it consists of letters, digits, `_` and `:`, OpenMetrics uses it as it is.
///
/// Call it between [`init`](crate::init) and [`started`](crate::started) for the first time. Like the first call
/// for a socket, it transfers everything from the predecessor. If nothing was transferred before `started`, a
/// later call begins at 0. A generation that asks for no counter carries all of them on.
///
/// It never fails. Before `init`, with a name that cannot be used, if there is no room, or if the transfer from
/// the predecessor fails, the counter belongs to this process alone, and the log says so
/// (`stage=counters`).
///
/// Do not call it for the first time in a logger: the crate logs during the transfer, which this call would wait for.
///
/// The value may be set as well. But other generations count at the same time, so a gauge, such as the number
/// of open connections, must be changed by addition and subtraction; if a process is KILLed, its share
/// stays.
pub fn get(name: &str) -> &'static AtomicU64 {
    counters::get(name)
}
