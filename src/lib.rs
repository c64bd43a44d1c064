//! Restarts that nobody can see, for daemons under a supervisor that expects them not to fork:
//! daemontools, runit, s6, systemd, supervisord, OpenRC, and in containers without a supervisor. With
//! two calls in the program, `svc -t` loses no request.
//!
//! ```no_run
//! fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     seamless::init("/run/web/web.pid")?; // first: returns in the daemon only
//!     let listener = seamless::sockets::tcp("127.0.0.1:8080")?; // the predecessor's, or a new one
//!     seamless::on_shutdown(|| { /* stop accepting, complete what is in flight */ });
//!     seamless::started()?; // we are ready: the predecessor drains and ends
//!     # drop(listener);
//!     /* serve, on threads of your own */
//!     seamless::wait(); // until the drain is finished
//!     Ok(())
//! }
//! ```
//!
//! # The protocol
//!
//! ```text
//! supervisor -> launcher -> daemon            init executes the program a second time; the
//!                                             first process becomes the launcher
//! svc -t: TERM -> launcher -> USR2 -> daemon  stage 1, handoff: the daemon prepares, then
//!                                             releases its launcher
//! launcher exits, supervisor starts the next  the old daemon serves on, detached
//! new daemon calls started()                  stage 2, takeover: it finds the old daemon
//!                                             and sends it TERM
//! old daemon gets TERM                        stage 3, drain: on_shutdown hooks run, wait
//!                                             returns, the process ends
//! ```
//!
//! A supervisor sends TERM for a restart and for a stop; the launcher finds out which one is meant.
//! A generation that crashes, hangs or is missing costs no request: its predecessor serves on. A
//! process is signalled only if it is proven to be an older generation of this service.
//!
//! # How to go on
//!
//! - A server with an HTTP framework: [`guide::http`], the module `http` (features `http`, `tls`).
//! - A server with another framework, or with tokio alone: the modules `sockets::tokio` (feature `tokio`)
//!   and `tower` (feature `tower`), and [`draining`].
//! - Which way to keep the sockets: [`guide::sockets`] and [`sockets`]. State, files and other descriptors:
//!   [`guide::state`], [`Config::hand_over`], [`descriptors`]. Counters that survive: [`counters`]. Open
//!   connections that move to the successor: [`connections`].
//! - Time limits, restarts in place and more: [`Config`]. Hooks at each stage and signal: [`hooks`].
//! - Work that the drain waits for: [`drain_guard`]. Its beginning and its end: [`draining`],
//!   [`finished`]. For a metric or a load balancer: [`states`].
//! - What your supervisor needs: [`guide::supervisors`], [`guide::containers`]. A new version:
//!   [`guide::deploying`].
//! - How it works, step by step, and where each part of the code lives: [`guide::protocol`].
//! - What it cannot do: [`guide::limitations`]. From another library: [`guide::migration`].
//! - The program `seamless`: [`guide::command`]. The same for Rust: `client`.
//! - What the log says: [`guide::log`]. All pages: [`guide`].

#![deny(unsafe_code)]

#[cfg(feature = "command")]
pub mod client;
mod config;
pub mod connections;
pub mod counters;
pub mod descriptors;
mod drain;
// What only an optional part asks for is compiled without it too; with all parts, nothing is unused.
#[cfg_attr(not(all(feature = "command", feature = "systemd", feature = "tls")), allow(dead_code))]
mod driver;
mod error;
#[cfg(any(doc, doctest))]
pub mod guide;
pub mod hooks;
#[cfg(feature = "http")]
pub mod http;
#[cfg_attr(not(all(feature = "command", feature = "systemd")), allow(dead_code, unused_imports))]
mod proto;
mod shutdown;
pub mod signal;
pub mod sockets;
mod states;
#[cfg_attr(not(all(feature = "command", feature = "systemd")), allow(dead_code))]
mod sys;
#[cfg(feature = "tls")]
pub mod tls;
#[cfg(feature = "tower")]
pub mod tower;

pub use config::Config;
pub use drain::{
    default_drain_timeout, drain_guard, draining, finished, on_hammer, on_resume, on_shutdown,
    on_shutdown_request, on_standby, wait,
};
pub use error::{Error, ErrorKind, Result};
pub use proto::{DrainReason, State, TooMany};
pub use shutdown::{DrainGuard, Draining, Finished, Moment};
pub use states::States;

use std::path::Path;

/// Splits the process into launcher and daemon, and returns in the daemon only.
///
/// Call it first in `main`, before the program starts threads, opens sockets or allocates much memory:
/// the launcher would otherwise keep them. Before it, do not fork, call `setsid`, or close descriptors that
/// the program has not opened: one of them is the daemon's channel to its launcher. Generations find each other
/// by `pid_file`, for example `/run/web/web.pid`. Its folder must be writable by the user that the service ends
/// up as. A relative path counts from the folder in which the program was started. An empty path disables the
/// crate, and so does every system other than Linux: see [`Config::new`]. Other settings: [`Config`].
///
/// The first process executes the program again, with the same path, arguments, environment and
/// standard descriptors. If the file at that path has been replaced, the new file is executed. The first
/// process becomes the launcher: in it, this call never returns. The second process, the daemon, gets a
/// session of its own and installs its signal handlers. If another generation is starting, the daemon
/// waits up to [`claim_timeout`](Config::claim_timeout). This guards against two generations that start
/// at once. If the program file has failed in its [probation](Config::probation), the daemon waits up to 64 s
/// before it tries again. The launcher holds a TERM back until the daemon can take it.
///
/// A daemon that gets TERM, INT or USR2 or loses its launcher before [`started`] has returned ends at
/// once, also inside this call: nothing depends on it yet, and its predecessor serves. If the service is being
/// stopped, it ends when the older generations have ended.
///
/// # Errors
///
/// If `init` fails, return the error from `main`: the predecessor serves on, and the supervisor tries
/// again.
///
/// - In the first process: [`ErrorKind::PidFile`] if the path is that of a folder;
///   [`ErrorKind::Launch`] if the program cannot be found or executed. Nothing was
///   started then.
/// - In the daemon: [`ErrorKind::Claim`] if the lock file cannot be used or the folder is not writable,
///   [`ErrorKind::ClaimTimeout`] if another generation does not finish starting, [`ErrorKind::TooManyDraining`] as
///   [`Config::too_many_draining`] says, and [`ErrorKind::Channel`] if the channel to the launcher was closed or
///   the launcher cannot be understood.
/// - In both: [`ErrorKind::AlreadyInitialized`] at a second call, and [`ErrorKind::System`] if the system
///   refuses a thread, a handler or a socket.
///
/// See `daemon(7)`, `supervise(8)`, `setsid(2)`, `unix(7)`, `fcntl_locking(2)`.
pub fn init(pid_file: impl AsRef<Path>) -> Result<()> {
    Config::new(pid_file).init()
}

/// Announces that this generation serves, and sends the older ones TERM. On
/// [probation](Config::probation), the predecessor stands by instead.
///
/// Call it when connections reach this process: the sockets are bound and listen. If it is forgotten, a
/// restart or a stop ends this process at once, and cuts what it serves; the log warns of it after 10 s, or
/// after [`claim_timeout`](Config::claim_timeout) if that is shorter. A second call does nothing.
///
/// The call holds the claim while it puts the PID file in place and enters this generation in the
/// record. Only then it signals the older generations, and only those that it can prove to be older
/// generations of this service (`pidfd_open(2)`). This guards against stale PID files, PIDs that were
/// used again, and a death half-way. If the process is told to end meanwhile, this call does not return.
///
/// # Errors
///
/// - [`ErrorKind::AlreadyRunning`]: the PID file belongs to a service under another supervisor. The error
///   names it, and the command that restarts it. Nobody was signalled, and the claim is given up. A call for a
///   [socket](sockets) returns this error earlier.
/// - [`ErrorKind::PidFile`], [`ErrorKind::Claim`], [`ErrorKind::Takeover`]: a file or the control socket cannot be
///   put in place. [`ErrorKind::Socket`]: the settings of a socket that was taken over cannot be changed.
///   [`ErrorKind::System`]: out of descriptors or memory, so it is unknown which processes are predecessors. After
///   these the claim is still held, and the call may be repeated.
/// - [`ErrorKind::NotInitialized`]: [`init`] has not succeeded.
pub fn started() -> Result<()> {
    driver::started()
}

/// Asks for a restart from within the program, as a USR2 to this process does.
///
/// The handoff begins, and the supervisor starts the next generation. With [`Config::reload_signals`] the
/// launcher starts it instead, also if there is no supervisor. This generation serves until the next one
/// has taken over.
///
/// The call does not wait for the restart. Under systemd it asks `systemctl` first whether the service would be
/// started again, which takes some milliseconds, and 5 s if systemd hangs. It does nothing if the handoff has
/// already begun. If the launcher is just starting the next generation in place, it starts another one after that,
/// from the program file as it is then. The log tells if the restart is refused later, or fails.
///
/// # Errors
///
/// [`ErrorKind::CannotRestart`]: this generation has not [`started`] or is draining; restarts are disabled;
/// there is no supervisor that restarts the service, for example below a shell at a terminal; or the
/// supervisor wants it down.
pub fn restart() -> Result<()> {
    driver::restart()
}

/// Ends the [probation](Config::probation) of this generation, passed: its predecessor drains. Returns when the
/// record says so. From then on there is no way back.
///
/// Call it when the program knows that it works, for example after its first thousand requests. Without a
/// probation it does nothing. Do not call it in a hook. While [`started`] runs, another generation starts, or the record cannot
/// be written, the call waits.
///
/// # Errors
///
/// - [`ErrorKind::NotCommitted`]: the probation has ended otherwise. This generation was rolled back, a newer one has
///   taken its place, or it was told to end. [`draining().reason()`](Draining::reason) tells which.
/// - [`ErrorKind::NotInitialized`]: [`init`] has not succeeded.
pub fn commit() -> Result<()> {
    driver::commit()
}

/// The number of this generation. The first one that claimed this PID file has 1. `None` before [`init`]
/// has returned, if restarts are disabled, and after [`ErrorKind::AlreadyRunning`].
pub fn generation() -> Option<u64> {
    driver::generation()
}

/// Where this process is in its life. Never blocks on a hook.
pub fn state() -> State {
    driver::state()
}

/// The changes of [`state`] from now on, for a thread or a task: to tell a load balancer, a metric or a
/// log.
///
/// Ask for [`state`] after this call, not before, or you could miss a change in between. A change is told
/// as soon as it is decided, so [`State::Draining`] comes before the hooks that run
/// [before](hooks::before) the drain. The call is allowed before [`init`].
pub fn states() -> States {
    driver::states()
}

/// The bytes that the predecessor handed over under this name ([`Config::hand_over`]), whatever their version.
/// `None` if there were none, and after the first call: the bytes are given once.
///
/// Call it between [`init`] and [`started`]. The first call of this function, of [`inherited_from`], for
/// a socket, a counter or a descriptor transfers everything from the predecessor. If the transfer fails, the
/// reason is logged, this call returns `None`, and the next call of this kind tries again. What nobody has
/// asked for when `started` is called is dropped.
pub fn inherited(name: &str) -> Option<Vec<u8>> {
    inherited_version(name).map(|(_, bytes)| bytes)
}

/// As [`inherited`], with the version that the predecessor gave
/// ([`Config::hand_over_version`]); 0 if it gave none.
pub fn inherited_version(name: &str) -> Option<(u32, Vec<u8>)> {
    driver::inherited(name)
}

/// The number of the generation that sockets and state were transferred from. `None` if there was none.
/// Like [`inherited`], the first call transfers everything.
pub fn inherited_from() -> Option<u64> {
    driver::inherited_from()
}

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
