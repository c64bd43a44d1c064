//! Seamless restarts for daemons under supervisors that expect non-forking processes: daemontools,
//! runit, s6, systemd and their kin, and in containers without one. One call, [`init`], and `svc -t`
//! no longer costs a request.
//!
//! ```no_run
//! fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     seamless::init("/run/web/web.pid")?; // first: from here on we are the daemon
//!     let listener = std::net::TcpListener::bind("127.0.0.1:8080")?; // or with SO_REUSEPORT
//!     seamless::on_shutdown(|| { /* stop accepting, answer what is in flight */ });
//!     seamless::started()?; // ready: the predecessor may go
//!     # drop(listener);
//!     /* serve, on threads of your own */
//!     seamless::wait(); // until a successor has taken over and the hooks are through
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
//! **Launcher and daemon** share a socketpair, the channel, and prove to each other by it who they
//! are. The launcher does nothing but wait: it turns TERM into USR2, passes every other signal on,
//! and ends as its daemon ends, with the same exit code or by the same signal. It leaves when the
//! daemon releases it, or after [`handoff_timeout`](Config::handoff_timeout). If the launcher
//! dies, the channel tells the daemon at once.
//!
//! **Intent.** A supervisor sends TERM for "restart" and for "stop". The launcher finds out which:
//! under daemontools, runit and s6 from `supervise/status` (under daemontools and s6 20 ms later, since
//! it is written after the signals; where it cannot be read, a CONT beside the TERM means stop); under
//! systemd from the unit's job, or, where it has none, from `Restart=`; as PID 1, below a container's
//! PID 1, or after its supervisor has died, nobody would restart it, and a TERM is a stop. Under any
//! other supervisor, or where the supervisor itself sent the TERM and has died since, the intent is
//! unknown and handled as a restart. On a stop the daemon gets TERM instead of USR2, drains, and the
//! older generations with it; the launcher stays until all of them are gone, so "down" is the truth.
//! A daemon that had not started gives up the claim and waits for them too, as long as its launcher
//! lives.
//!
//! **The claim** is a lock on `web.pid.lock`, held from [`init`] until [`started`] is through: one
//! generation starts at a time, and each claim takes the next generation number. The same file
//! holds the record of the live generations, and of the one that starts: number, PID, start time,
//! boot, PID namespace, launcher, supervisor. A starter that hangs and has lost its supervisor is
//! ended by whoever has waited [`claim_timeout`](Config::claim_timeout) for it. No process is
//! signalled unless a pidfd and the record prove that it is an older generation of this service.
//! `web.pid` itself names the newest ready generation, for people, for monitoring and for
//! rs/seamless, and is locked by its owner for life.
//!
//! **Taking over**, under the claim: `web.pid` is put in place by a rename, the record lists us,
//! the state is Serving, and only then the older generations get TERM. A death at any point in
//! between leaves a generation that serves and can be found.
//!
//! **A detached daemon** looks round at once and then each second, with the claim held so that
//! nothing moves meanwhile. A newer generation serves: drain, its TERM was lost. The PID file is
//! gone or names nobody alive: put it back. The supervisor wants the service down, or has taken it
//! down as its last act: drain, and tell the older generations. It wants it up, if only once, or
//! meant a restart: stay, however long the successor takes, and log it once a minute. If the intent
//! is unknown: stay while others try to start, and drain
//! [`successor_timeout`](Config::successor_timeout) after the last sign of them. While
//! somebody else holds the claim, nothing is decided until the next look.
//!
//! **Draining** ends when the [`on_shutdown`] hooks have returned and every [`DrainGuard`] has been
//! dropped, or by force (the hammer): after [`drain_timeout`](Config::drain_timeout), or on a USR2 from
//! anybody but the launcher. A daemon
//! that drains already when its launcher is told to restart lets it go at once: only then the
//! supervisor starts the next.
//!
//! **Restart in place.** With [`Config::reload_signals`] the launcher stays, and on such a signal
//! starts the next generation itself, from the program file as it is then. The new daemon takes over
//! as after any restart, and the old one drains as the launcher's child. What fails before it serves is
//! logged, and costs nothing; the next attempt ends what hangs. The launcher ends as the last of its
//! serving daemons ended, when none serves and none starts.
//!
//! Where each part lives: `proto` holds the machines, which decide and do nothing else, and the
//! wire formats; `sys` acts and decides nothing; `driver` joins them; `shutdown` holds the hooks.
//!
//! # Sockets
//!
//! Sockets are the caller's. With SO_REUSEPORT, or a Unix socket bound beside the old one and
//! renamed over it, the service stays reachable at every moment; but Linux gives each connection to
//! one listener when it arrives, and resets those in the queue of a listener that is closed.
//!
//! With the feature `sockets`, the module `sockets` finds them instead, in this order: passed by the
//! supervisor, held by the predecessor, bound anew. What the predecessor holds is taken over itself,
//! with its queue, so a restart loses nothing at all. The new daemon connects to `web.pid.sock`
//! when it asks for its first socket; the old one, a thread of which waits there, sends all it has
//! (SCM_RIGHTS), and beside it whatever bytes the program wants to hand over. Each side asks the
//! kernel who the other is: the old one serves its own user and root, the new one takes only from a
//! process that the record proves to be its predecessor, and only sockets that are what they claim
//! to be. A takeover changes nothing in the old daemon: it serves on until it gets TERM, and if the
//! new one dies before that, nothing is lost. If the old one dies in the middle, the new one goes on
//! with what has come, which nobody else holds any more, and binds the rest.
//!
//! With the feature `http`, the module `http` serves HTTP on such sockets and drains as clients need
//! it; with `tls`, also over TLS. Coming from another library: the module `guide`.
//!
//! # Supervisors
//!
//! **s6** gives a service a descriptor to announce readiness on: [`Config::notification_fd`] has the
//! launcher write there when [`started`] takes effect. Then `s6-svwait -U` tells the truth, and the
//! next generation is started milliseconds after the launcher has left, instead of a second.
//!
//! **systemd**, with the feature `systemd`: the launcher, which is the unit's main process
//! (`NotifyAccess=main` is enough), says
//!
//! - `READY=1` when the new generation is in place: `systemctl start` and `restart` return then;
//! - `STATUS=` at each stage, in words;
//! - `RELOADING=1` when a restart in place begins, `READY=1` when it has ended, whatever came of it;
//! - `STOPPING=1` at a stop, and `EXTEND_TIMEOUT_USEC=` every 3 s while a handoff or a drain takes its
//!   time and the daemon lives: a drain may take longer than `TimeoutStopSec=`, and one that hangs
//!   still ends by it;
//! - `WATCHDOG=1` twice in each `WatchdogSec=`, when the daemon's own thread has answered and
//!   `Config::watchdog`, if there is one, has said yes;
//! - `FDSTORE=1` for each socket of the module `sockets`, where the unit has
//!   `FileDescriptorStoreMax=`: after a crash of everything the next start finds them again.
//!
//! The daemon's environment has none of the variables that this needs, so nothing that it starts can
//! speak for the service. Without a PID file the process speaks for itself. Settings of the unit that
//! would cost connections are named in the log at each start, also without the feature.
//!
//! **supervisord** and OpenRC's **supervise-daemon** do not say what they mean: a detached daemon
//! drains when nobody has come for [`successor_timeout`](Config::successor_timeout). The sample
//! services of the source tree lift that. A supervisor that starts nothing again after exit 0 needs a
//! [`Config::release_code`]. supervisord closes the output of a detached daemon, and then `println!`
//! would panic: a standard output or error whose reader is gone becomes `/dev/null` in a daemon that
//! is detached or drains ([`Config::replace_output`]).
//!
//! # Threads and async runtimes
//!
//! [`init`] may be called at any time, also below `#[tokio::main]`: nothing in it relies on being
//! alone in the process. Called first, before threads exist and memory is filled, it leaves the
//! smallest launcher: one thread, no descriptor above 2 but its own. What the program set up
//! before, it sets up twice: once in the launcher, once in the daemon. And a signal that arrives in
//! the very moment in which handlers are installed can get lost where another thread takes it.
//!
//! Hooks run on threads of the crate, never on the one that takes signals: a hook that blocks stops
//! no limit, no hammer and no answer to [`state`].
//!
//! # Programs that the daemon starts
//!
//! Every descriptor of the crate is close-on-exec: a program that the daemon starts after [`init`]
//! inherits none. It inherits two variables that mean something to the daemon alone, `SEAMLESS`
//! (the launcher's PID, as in rs/seamless) and `SEAMLESS_CHANNEL` (a descriptor's number); a
//! program that uses this crate too does not take itself for the launcher's daemon by them. What
//! the launcher starts, in [`on_launch`](Config::on_launch), gets neither. As PID 1 of a container,
//! the launcher reaps what the daemon's children leave behind.
//!
//! # Signals
//!
//! The daemon handles TERM, INT and USR2. A USR2 by hand is a restart; where the supervisor would
//! not start the service again, it is refused, and the log says so. Everything else is the
//! program's own: the launcher passes it on, real-time signals too (not ILL, FPE, SEGV). A program
//! that handles signals with signal-hook or tokio shares them with this crate. The crate blocks no
//! signal. [`hooks`] has hooks for further signals, and for what is to happen before and after each
//! stage.
//!
//! # The log
//!
//! Through [`log`], target `seamless`, one line a stage with fields in a fixed order:
//! `stage=handoff generation=3 launcher=812 daemon=813 … elapsed_ms=0.4`. `info`: every stage.
//! `warn`: what an operator should look at. `error`: what cost something. `debug`: signals,
//! messages, checks. A logger that panics, as `println!` does on a closed pipe, is survived; one
//! that blocks for ever, blocks.
//!
//! A logger with a file of its own is best set up after [`init`]. One that is set up before opens
//! the file twice, once in the launcher and once in the daemon, so it should append. The launcher
//! closes what it does not need, and its own few lines (how long the handoff took, how the daemon
//! ended) are lost, unless [`Config::keep_open`] tells it to keep the file.
//!
//! # The command `seamless`
//!
//! The feature `command` builds a program, `seamless`, which is run as the service's user or as root,
//! in the service's PID namespace, and names the service by its PID file:
//!
//! ```text
//! seamless status  /run/web/web.pid [--json]      what runs; exit 0 serving, 3 not
//! seamless restart /run/web/web.pid               asks for it, and waits for what comes of it
//! seamless stop    /run/web/web.pid [--force]     drains what serves, attached or detached
//! seamless check   /run/web/web.pid [--json]      what would go wrong, and what to do
//! ```
//!
//! It reads the record, proves which of the listed generations live, and asks the newest one over the
//! control socket. An answer counts only if it comes from the proven process. Each question has a
//! limit. If a supervisor would start the service again at once, `stop` does nothing and names the
//! command that keeps the service down; a detached generation is stopped in any case. `seamless --help`
//! has the exit codes. The module `client` does the same for programs.
//!
//! # Users
//!
//! The folder of the PID file should belong to the user that the service ends up as. Then a service
//! may change its user with a deploy, from root to that user and back: what root creates there,
//! `web.pid.lock`, it gives to the owner of the folder. A lock file is used where it belongs to
//! root, to us, to the owner of its folder or to the user of a live generation that it lists, where
//! nobody else may write to it, and where it has no second name.
//!
//! The record in it is believed as far as its owner could act without us: where that is neither
//! root nor we, an older generation gets TERM only if its owner could send it himself (`kill(2)`).
//! So the user of the service cannot make root end anybody else's process. An older generation that
//! is not signalled for that reason, or because an unprivileged successor may not signal root's,
//! finds the newer one when it looks round, within a second.
//!
//! # Without pidfds or `/proc`
//!
//! On kernels before 5.3, or where `/proc` is not mounted, hides processes or belongs to another
//! PID namespace, no start time can be compared. Then only the newest predecessor is signalled: the
//! one that `web.pid` names and that still holds the lock on it, by its PID. That it is not another
//! process by then is likely, not proven. Older generations are left to their own checks, and a PID
//! file shared by two services goes unnoticed.
//!
//! To be short of descriptors or memory is something else, and passes: [`started`] fails and may be
//! called again, a look round decides nothing, and older generations that cannot be told to stop
//! are told a second later.
//!
//! # Limitations
//!
//! - Linux only.
//! - Without the feature `sockets`, or where the predecessor was built without it, connections that
//!   wait in the queue of a listener when it is closed are reset, unless `net.ipv4.tcp_migrate_req`
//!   is set; and even then, now and then, one that is being made in that moment.
//! - Accept only after [`started`]: a starting daemon that is told to end does so at once, with what
//!   it has accepted.
//! - Sockets of different users share no port by SO_REUSEPORT: a deploy that changes the user of a
//!   TCP service has a gap, unless both get the socket from elsewhere. Unix sockets have none.
//! - INT, also to the launcher, is a drain without a handoff: until what is in flight is answered,
//!   nobody serves.
//! - Under runit, a service that cannot read its status drains after
//!   [`successor_timeout`](Config::successor_timeout) where a deploy never gets as far as [`init`].
//! - `svc -k` kills the launcher only. The daemon becomes detached, and its successor ends it; a
//!   wedged one is ended by hand. `svc -p` pauses the launcher only.
//! - `svc -tc`, TERM and CONT together, reads as a stop where the status cannot be read.
//! - `supervise/` has mode 0700, so a service that runs as another user cannot read its status.
//!   `chmod 755 supervise` in the run script, before the user changes, lifts that. Without it, a
//!   service that is told to stop while no launcher runs serves on until somebody tells it.
//! - A run script must `exec` the program: a shell in between takes the TERM.
//! - Workers that the program forks without exec inherit its signal handlers, and must reset them.
//! - A daemon that executes itself anew gives up its channel: the new program starts a launcher of
//!   its own below the old one.
//! - A new deploy without this crate, or with another PID path, leaves the old daemon serving until
//!   it is told otherwise. It says so each minute.
//! - Under systemd, a service that is not root and has no D-Bus to ask by takes each TERM for a restart;
//!   stopped, its detached daemon serves on for [`successor_timeout`](Config::successor_timeout).
//!   `systemctl stop` of a failed unit does nothing: `systemctl reset-failed` makes it inactive, and
//!   the detached daemon drains. Behind a script without `exec`, systemd KILLs the launcher at once.
//! - Under supervisord with its default `stopsignal`, and under OpenRC without the sample's `stop_post`,
//!   a stop leaves the daemon serving for [`successor_timeout`](Config::successor_timeout). What a
//!   detached daemon prints under supervisord is lost. `s6-svc -x` alone says nothing of the next end.
//! - A launcher that restarts in place keeps its own code and its configuration until its supervisor
//!   starts it anew, and what it was started with: one of its inherited sockets that a later program no
//!   longer asks for stays open in it.
//! - A PID file must not be shared between PID namespaces, and its file system must have locks.
//!
//! # Compatibility
//!
//! The record in `web.pid.lock` and the messages on the channel carry a version. Within one, fields
//! and messages may be added: what a reader does not know it leaves alone. A later version than its
//! own it refuses with an error that says so. rs/seamless may be predecessor or successor: it is in
//! no record, so it is never signalled, and ends by its own timer of 10 s; it finds our PID in
//! `web.pid` and sends it TERM as to one of its own.

#![deny(unsafe_code)]

#[cfg(not(target_os = "linux"))]
compile_error!("seamless runs on Linux only: it needs pidfds, /proc and SO_PEERCRED");

#[cfg(feature = "command")]
pub mod client;
mod config;
mod driver;
mod error;
#[cfg(any(doc, doctest))]
pub mod guide;
pub mod hooks;
#[cfg(feature = "http")]
pub mod http;
mod proto;
mod shutdown;
pub mod signal;
pub mod sockets;
mod states;
mod sys;

pub use config::Config;
pub use error::{Error, ErrorKind, Result};
pub use proto::{DrainReason, State};
pub use shutdown::{DrainGuard, Draining, Finished};
pub use states::States;

use std::path::Path;
use std::time::Duration;

/// Splits the process into launcher and daemon, and returns in the daemon only.
///
/// Call it first in `main`: before threads, sockets and large allocations, which the launcher
/// would otherwise keep. `pid_file` is where generations find each other, for example
/// `/run/web/web.pid`; its folder must be writable by the user that the service ends up as, and a
/// relative path counts from the folder in which the program was started. An empty path disables
/// the crate: see [`Config::new`]. Other settings: [`Config`].
///
/// The first process executes the program again, with the same path (the file as it is now, should
/// it have been replaced), arguments, environment and standard descriptors, and becomes the
/// launcher: in it, this call never returns. The second, the daemon, leads a session of its own,
/// installs its handlers and waits for the claim: while another generation is starting, up to
/// [`claim_timeout`](Config::claim_timeout). Guards against two generations that start at once, and
/// against a TERM that comes before the daemon can take it (the launcher holds it back).
///
/// A daemon that gets TERM, INT or USR2, or loses its launcher, before [`started`] has returned
/// ends at once, inside this call too: nothing depends on it yet, and its predecessor serves.
///
/// # Errors
///
/// In the first process, before anything was started: the program cannot be found or executed
/// ([`ErrorKind::Launch`]). In the daemon: the lock file cannot be used, or the folder is not
/// writable ([`ErrorKind::Claim`]), another generation does not finish starting
/// ([`ErrorKind::ClaimTimeout`]), the launcher cannot be understood ([`ErrorKind::Channel`]). In
/// both: a second call ([`ErrorKind::AlreadyInitialized`]), no threads, handlers or sockets to be
/// had ([`ErrorKind::System`]). Return it from `main`: the predecessor serves on, and the
/// supervisor tries again.
///
/// See `daemon(7)`, `supervise(8)`, `setsid(2)`, `unix(7)`, `fcntl_locking(2)`.
pub fn init(pid_file: impl AsRef<Path>) -> Result<()> {
    Config::new(pid_file).init()
}

/// Announces that this generation serves, and sends the older ones TERM.
///
/// Call it when connections reach this process: bound and listening. A second call does nothing.
/// Under the claim it puts the PID file in place, enters the record, and only then signals, and
/// only what it can prove to be an older generation of this service (`pidfd_open(2)`): guards
/// against stale PID files, PIDs that were used again, and a death half-way. If the process is
/// told to end meanwhile, this call does not return.
///
/// # Errors
///
/// [`ErrorKind::AlreadyRunning`]: the PID file belongs to a service that somebody else supervises.
/// Nobody was signalled and the claim is given up. [`ErrorKind::PidFile`] and [`ErrorKind::Claim`]:
/// a file cannot be written. [`ErrorKind::System`]: for want of descriptors or memory it cannot be
/// told who is a predecessor. With these the claim is kept, and the call may be repeated.
/// [`ErrorKind::NotInitialized`]: [`init`] has not succeeded.
pub fn started() -> Result<()> {
    driver::started()
}

/// Adds a hook for stage 1: a restart was asked for, and no successor runs yet.
///
/// The place to let go of what a successor needs for itself, such as an administrative port. Go on
/// serving. Only when every such hook has returned is the launcher released; one that takes longer
/// than [`handoff_timeout`](Config::handoff_timeout) no longer holds up anything.
///
/// Hooks run once, on a thread of their own, in the order in which they were added. A panic in one
/// is logged and the next runs. They may be added before [`init`], where only the daemon's run; one
/// that is added after its stage is dropped, and the log says so.
pub fn on_shutdown_request(hook: impl FnOnce() + Send + 'static) {
    driver::on_shutdown_request(Box::new(hook));
}

/// Adds a hook for stage 3, the drain: a successor serves, or the service is to end.
///
/// Stop accepting when the queue is empty and answer what is in flight. The drain is finished when every
/// such hook has returned and every [`DrainGuard`] has been dropped. Order, panics and late additions are as with [`on_shutdown_request`]; a
/// hook that is added while others of this stage run still runs.
pub fn on_shutdown(hook: impl FnOnce() + Send + 'static) {
    driver::on_shutdown(Box::new(hook));
}

/// Adds a hook for the hammer: a drain is about to be ended by force.
///
/// The place to note what is being cut. All of them together have 1 s; then the process ends with
/// code 124, without destructors. Order and panics are as with [`on_shutdown_request`]. What must come
/// before or after them has [`hooks::before`] and [`hooks::after`] with
/// [`Stage::Hammer`](hooks::Stage::Hammer).
pub fn on_hammer(hook: impl FnOnce() + Send + 'static) {
    driver::on_hammer(Box::new(hook));
}

/// Asks for a restart from within, as USR2 to this process does: the handoff begins, and the
/// supervisor starts the next generation. With [`Config::reload_signals`] the launcher starts it
/// instead, also where no supervisor would; this generation serves until that one has taken over.
///
/// Returns at once. Where the handoff has begun already it does nothing. While the launcher is
/// starting the next generation, it starts it anew, from the program file as it is then. Whether it
/// is refused there, or fails, is told by the log.
///
/// # Errors
///
/// [`ErrorKind::CannotRestart`]: this generation has not [`started`] or is draining, restarts are
/// disabled, or nobody would start the service again: no restarting supervisor, or one that wants
/// it down.
pub fn restart() -> Result<()> {
    driver::restart()
}

/// A future, for any runtime, that resolves when the drain begins:
/// `.with_graceful_shutdown(seamless::draining())`. It can be waited for without a runtime, too.
///
/// It may be made before [`init`].
pub fn draining() -> Draining {
    driver::draining()
}

/// Holds up the end of the drain until the guard, and every clone of it, has been dropped: one for
/// each connection, task or server whose work is to be completed.
///
/// ```no_run
/// use std::net::TcpListener;
///
/// # fn answer(stream: std::net::TcpStream) {}
/// # fn serve(listener: TcpListener) -> std::io::Result<()> {
/// for stream in listener.incoming() {
///     let (stream, guard) = (stream?, seamless::drain_guard());
///     std::thread::spawn(move || {
///         answer(stream);
///         drop(guard); // also dropped if `answer` panics
///     });
/// }
/// # Ok(())
/// # }
/// ```
///
/// Guards are counted, nothing more, so they cost next to nothing. They may be taken at any time, also
/// before [`init`]. One that is taken during the drain holds it up as well, as long as it is not
/// finished: who accepts until the queue is empty therefore holds a guard meanwhile. After the
/// end of the drain it has no effect.
///
/// Guards against a program that ends with an answer half written: without them, or hooks that wait,
/// [`wait`] returns when the [`on_shutdown`] hooks have returned. A guard that is never dropped keeps
/// the process until [`drain_timeout`](Config::drain_timeout), and without that limit for ever.
pub fn drain_guard() -> DrainGuard {
    driver::drain_guard()
}

/// A future, for any runtime, that resolves when the drain is finished, and tells why it began. Await
/// it at the end of `main`, then return: the process ends, and an attached launcher with it.
///
/// The drain is finished when every [`on_shutdown`] hook has returned, every [`DrainGuard`] has been
/// dropped and, on a stop, every older generation has ended. A program that returns from `main` before
/// that ends at once: on a stop, the service may then be reported down while an older generation still
/// drains.
///
/// ```no_run
/// # async fn run() {
/// let reason = seamless::finished().await;
/// println!("drained: {reason:?}");
/// # }
/// ```
///
/// It may be made before [`init`].
pub fn finished() -> Finished {
    driver::finished()
}

/// Blocks until the drain is finished, as [`finished`] describes it, and tells why it began. Call it
/// at the end of `main`, then return.
///
/// Called before [`init`], it logs an error and waits all the same.
pub fn wait() -> DrainReason {
    driver::wait()
}

/// Sets the limit of the drain for a program that sets none with [`Config::drain_timeout`]: for a
/// library that serves, and knows how long its answers take. `None`: no limit, as without this call.
/// The last call counts.
///
/// Call it before [`started`], which tells the launcher, so that it can KILL a daemon that hangs; for
/// the daemon itself it counts until the drain begins.
pub fn default_drain_timeout(timeout: impl Into<Option<Duration>>) {
    driver::default_drain_timeout(timeout.into());
}

/// The number of this generation: the first that claimed this PID file has 1. `None` before
/// [`init`] has returned, where restarts are disabled, and after [`ErrorKind::AlreadyRunning`].
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
/// Ask for [`state`] after this call, not before: a change in between would be missed. A change is told
/// as soon as it is decided, so [`State::Draining`] comes before the hooks that run
/// [before](hooks::before) the drain. It may be called before [`init`].
pub fn states() -> States {
    driver::states()
}

/// What the predecessor handed over with [`Config::hand_over`]. `None` where there was none, or
/// after the first call: the bytes are handed out once.
///
/// Call it between [`init`] and [`started`]: like the first socket that is asked for, it takes over
/// from the predecessor, once for all. Where that fails, the reason is logged, the answer is
/// `None`, and the next call of this kind tries again.
pub fn inherited() -> Option<Vec<u8>> {
    driver::inherited()
}

/// The number of the generation that sockets and state were taken over from; `None` where there was
/// none to take over from. Takes over as [`inherited`] does.
pub fn inherited_from() -> Option<u64> {
    driver::inherited_from()
}

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
