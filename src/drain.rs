//! The public functions around the end of a generation: hooks, the beginning of the drain and its end.

use crate::driver;
use crate::proto::DrainReason;
use crate::shutdown::{DrainGuard, Draining, Finished};
use std::time::Duration;

/// Adds a hook for stage 1: a restart was asked for, and no successor runs yet.
///
/// Use it to release what a successor needs for itself, such as an administrative port or a lock. Go on
/// serving. The launcher is released when every such hook has returned. A hook that takes longer than
/// [`handoff_timeout`](crate::Config::handoff_timeout) no longer delays the release.
///
/// In a restart in place ([`reload_signals`](crate::Config::reload_signals)) the launcher starts the
/// successor when every such hook has returned, and after `handoff_timeout` at the latest. If the
/// successor fails, the [`on_resume`] hooks run.
///
/// Hooks run once, on a thread of their own, in the order in which they were added. If one panics, the
/// panic is logged and the next hook runs. Hooks may be added before [`init`](crate::init); they run in the
/// daemon only. A hook that is added after its stage is dropped, and the log says so.
pub fn on_shutdown_request(hook: impl FnOnce() + Send + 'static) {
    driver::on_shutdown_request(Box::new(hook));
}

/// Adds a hook for a restart that was prepared and then does not happen.
///
/// This generation has run its [`on_shutdown_request`] hooks for a restart in place, and then the successor
/// has failed, or the launcher refused to start one. Take back what those hooks have released, and add
/// them again: a hook of `on_shutdown_request` runs once.
///
/// ```no_run
/// fn hold_lock() {
///     let lock = std::fs::File::create("/run/web/lock").expect("a file in a folder of ours");
///     fs2::FileExt::lock_exclusive(&lock).expect("nobody else holds it for long");
///     seamless::on_shutdown_request(move || drop(lock));
/// }
/// hold_lock();
/// seamless::on_resume(hold_lock);
/// ```
///
/// These hooks may run several times. They run in the order in which they were added, on the thread of the
/// `on_shutdown_request` hooks, so never at the same time as those. If one panics, the panic is logged and
/// the next one runs. The call is allowed before [`init`](crate::init).
///
/// They do not run if the supervisor is to start the successor. It tries again as often as its settings
/// say, each attempt needs what was released, and no attempt is known to be the last one. So a daemon that
/// is detached stays prepared until a successor has taken over.
///
/// They also run when a generation that [stands by](crate::State::Standby) serves again, since its successor has
/// failed in its probation. If the supervisor is to start the next successor, the `on_shutdown_request` hooks
/// that they have added run right after them.
pub fn on_resume(hook: impl FnMut() + Send + 'static) {
    driver::on_resume(Box::new(hook));
}

/// Adds a hook for stage 3, the drain: a successor serves, or the service is to end.
///
/// Stop accepting when the queue is empty, and answer what is in flight. The drain is finished when
/// every such hook has returned and every [`DrainGuard`] has been dropped. Order, panics and late
/// additions are as with [`on_shutdown_request`], with one difference: a hook that is added while other
/// hooks of this stage run is not dropped, but runs.
pub fn on_shutdown(hook: impl FnOnce() + Send + 'static) {
    driver::on_shutdown(Box::new(hook));
}

/// Adds a hook that runs when this generation begins to [stand by](crate::State::Standby): its successor is on
/// [probation](crate::Config::probation), and serves.
///
/// The program may stop accepting, but must keep its sockets open, and completes what it has accepted. If it
/// goes on accepting, both generations share the queue, which loses nothing. What the successor needs for
/// itself alone, such as a lock or a scheduler, is released here and taken again in [`on_resume`].
///
/// Hooks run one after the other on a thread of the crate, and may run several times. Nothing waits for them:
/// if the successor fails meanwhile, this generation serves again at once, and the [`on_resume`] hooks follow.
/// Panics are as with [`on_shutdown_request`].
pub fn on_standby(hook: impl FnMut() + Send + 'static) {
    driver::on_standby(Box::new(hook));
}

/// Adds a hook for the hammer: a drain is about to be ended by force.
///
/// Use it to note what is being cut. All these hooks together have 1 s. Then the process ends with code
/// 124, without destructors. Order and panics are as with [`on_shutdown_request`]. To run a hook before
/// or after all of these, use [`hooks::before`](crate::hooks::before) and
/// [`hooks::after`](crate::hooks::after) with [`Stage::Hammer`](crate::hooks::Stage::Hammer).
pub fn on_hammer(hook: impl FnOnce() + Send + 'static) {
    driver::on_hammer(Box::new(hook));
}

/// A future, for any runtime, that resolves 1 s after the drain has begun: the moment for a framework
/// to begin its graceful shutdown. A thread without a runtime can wait for it, too.
///
/// ```no_run
/// # #[cfg(feature = "axum")]
/// # async fn serve() -> Result<(), Box<dyn std::error::Error>> {
/// # let app = axum::Router::new();
/// let listener = seamless::sockets::tokio::tcp("0.0.0.0:8080")?; // stops accepting when the drain begins
/// let app = app.layer(seamless::tower::ConnectionClose); // `Connection: close` from then on
/// seamless::started()?;
/// axum::serve(listener, app).with_graceful_shutdown(seamless::draining()).await?;
/// # Ok(())
/// # }
/// ```
///
/// The second in between is what makes a restart lossless: [`Draining`] tells why, and how to change it.
/// For the moment itself use [`draining().at_once()`](Draining::at_once), and for a question without
/// waiting [`draining().has_begun()`](Draining::has_begun).
///
/// The call is allowed before [`init`](crate::init).
pub fn draining() -> Draining {
    driver::draining()
}

/// Delays the end of the drain until the guard, and every clone of it, has been dropped. Take one for each
/// connection, task or server whose work has to be completed.
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
/// Guards are only counted, so they cost next to nothing. They may be taken at any time, also before
/// [`init`](crate::init). A guard that is taken during the drain delays its end as well, if the drain
/// is not finished yet. So code that accepts until the queue is empty holds a guard meanwhile. After
/// the end of the drain, a guard has no effect.
///
/// Guards protect against a program that ends with an answer half written. Without guards, and without
/// hooks that wait, [`wait`] returns when the [`on_shutdown`] hooks have returned. A guard that is
/// never dropped keeps the process until [`drain_timeout`](crate::Config::drain_timeout), or for ever
/// without that limit.
pub fn drain_guard() -> DrainGuard {
    driver::drain_guard()
}

/// A future, for any runtime, that resolves when the drain is finished, and tells why the drain began.
/// Await it at the end of `main`, then return. The process ends then, and an attached launcher ends
/// with it.
///
/// The drain is finished when every [`on_shutdown`] hook has returned, every [`DrainGuard`] has been
/// dropped and, on a stop, every older generation has ended. If a program returns from `main` before
/// that, it ends at once. On a stop, the service may then be reported down while an older generation
/// still drains.
///
/// ```no_run
/// # async fn run() {
/// let reason = seamless::finished().await;
/// println!("drained: {reason:?}");
/// # }
/// ```
///
/// The call is allowed before [`init`](crate::init).
pub fn finished() -> Finished {
    driver::finished()
}

/// Blocks until the drain is finished, as [`finished`] describes it, and tells why it began. Call it at the
/// end of `main`, then return.
///
/// If it is called before [`init`](crate::init), it logs an error and waits all the same.
pub fn wait() -> DrainReason {
    driver::wait()
}

/// Sets the limit of the drain if the program sets none with
/// [`Config::drain_timeout`](crate::Config::drain_timeout). It is meant for a library that serves, and
/// knows how long its answers take. `None`: no limit, as without this call. The last call counts.
///
/// Call it before [`started`](crate::started), which tells the limit to the launcher, so that the
/// launcher can KILL a daemon that hangs. The daemon itself uses the value that is set when the drain
/// begins.
pub fn default_drain_timeout(timeout: impl Into<Option<Duration>>) {
    driver::default_drain_timeout(timeout.into());
}
