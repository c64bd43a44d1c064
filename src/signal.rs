//! The numbers of signals by name, without a further crate: for [`hooks::on_signal`](crate::hooks::on_signal),
//! [`Config::reload_signals`](crate::Config::reload_signals) and
//! [`Config::release_signal`](crate::Config::release_signal).
//!
//! ```no_run
//! use seamless::{hooks, signal};
//!
//! seamless::Config::new("/run/web/web.pid").reload_signals([signal::HUP]).init()?;
//! hooks::on_signal(signal::USR1, || { /* open the logs again */ })?;
//! # Ok::<(), seamless::Error>(())
//! ```
//!
//! They are those of this system (`signal(7)`). What the crate itself does with a signal is told
//! by [`hooks`](crate::hooks).

use nix::libc;

/// SIGHUP: the terminal is gone; to a daemon by custom "read the configuration again".
pub const HUP: i32 = libc::SIGHUP;
/// SIGINT: Ctrl-C. The crate drains.
pub const INT: i32 = libc::SIGINT;
/// SIGQUIT: Ctrl-\. The crate stops, as at TERM, unless the program handles it.
pub const QUIT: i32 = libc::SIGQUIT;
/// SIGUSR1: the program's own.
pub const USR1: i32 = libc::SIGUSR1;
/// SIGUSR2. The crate restarts; in a drain it ends the process by force.
pub const USR2: i32 = libc::SIGUSR2;
/// SIGPIPE: a write that nobody reads. Rust programs ignore it.
pub const PIPE: i32 = libc::SIGPIPE;
/// SIGALRM: a timer of `alarm(2)` or `setitimer(2)`.
pub const ALRM: i32 = libc::SIGALRM;
/// SIGTERM: what supervisors send to end or restart a service. The crate finds out which of the two.
pub const TERM: i32 = libc::SIGTERM;
/// SIGCHLD: a child has ended. In the launcher also the release, by default.
pub const CHLD: i32 = libc::SIGCHLD;
/// SIGCONT: go on after a stop.
pub const CONT: i32 = libc::SIGCONT;
/// SIGTSTP: Ctrl-Z.
pub const TSTP: i32 = libc::SIGTSTP;
/// SIGWINCH: the window has changed its size; some servers take it for "end gracefully".
pub const WINCH: i32 = libc::SIGWINCH;
/// SIGPWR: the power fails; LXC stops containers by it. The crate stops, unless the program handles it. Only
/// Linux has it.
#[cfg(target_os = "linux")]
pub const PWR: i32 = libc::SIGPWR;
