//! Servers that have their sockets, and their life from there on.

use super::io::Shared;
use super::passing::Take;
use super::stream::Address;
use crate::hooks::{self, Stage};
use crate::http::log;
use crate::{DrainGuard, DrainReason, Error, ErrorKind, Result, State};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::{fmt, io};
use tokio::task::{JoinSet, spawn_blocking};

/// Accepts, and returns with the listener closed.
pub(super) type Running = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Servers that have their sockets and accept nothing yet: what [`Server::bind`](super::Server::bind)
/// returns. Call [`started`](crate::started), then [`run`](Bound::run).
///
/// Dropped instead, it closes its sockets in this process.
#[must_use = "nothing is accepted before `run`"]
pub struct Bound {
    addresses: Vec<Address>,
    running: Vec<Running>,
    guard: DrainGuard,
    /// What the hook of the forced exit looks at.
    shared: Arc<Shared>,
    /// For connections that other generations pass.
    takes: Vec<Take>,
}

impl Bound {
    pub(super) fn new(shared: Arc<Shared>) -> Bound {
        let cut = Arc::downgrade(&shared);
        hooks::before(Stage::Hammer, move || {
            let Some(shared) = cut.upgrade() else { return };
            let (connections, cut) = shared.open.hammer();
            log::hammer(connections, cut);
        });
        let guard = crate::drain_guard();
        Bound { addresses: Vec::new(), running: Vec::new(), guard, shared, takes: Vec::new() }
    }

    pub(super) fn add(&mut self, address: Address, running: Running, take: Option<Take>) {
        self.addresses.push(address);
        self.running.push(running);
        self.takes.extend(take);
    }

    /// Where it listens, in the order in which the servers were added.
    pub fn addresses(&self) -> &[Address] {
        &self.addresses
    }

    /// Serves, drains, and returns when all is answered: what [`wait`](crate::wait) returns. Then return
    /// from `main`. Call it after [`started`](crate::started), in the runtime of
    /// [`bind`](super::Server::bind).
    ///
    /// When the drain begins, it accepts what is queued and closes the sockets. The open connections move to the
    /// successor or leave, as [the module](super#the-drain) tells.
    ///
    /// Dropped before its end, it accepts nothing more, and what was accepted is served as long as
    /// the runtime lives. Each connection holds a [`DrainGuard`].
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotInitialized`] before [`started`](crate::started) has returned: whatever this
    /// process accepted would be lost if it were told to end.
    pub async fn run(self) -> Result<DrainReason> {
        if crate::state() == State::Starting {
            let text = "cannot serve (http): started was not called, or failed";
            return Err(Error::new(ErrorKind::NotInitialized, text));
        }
        let mut accepting = JoinSet::new();
        for (running, address) in self.running.into_iter().zip(self.addresses) {
            log::serve(&address);
            accepting.spawn(running);
        }
        while let Some(accepted) = accepting.join_next().await {
            accepted.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()));
        }
        drop(self.guard); // each connection has its own
        let reason = crate::finished().await;
        drop((self.shared, self.takes));
        Ok(reason)
    }
}

impl fmt::Debug for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bound").field("addresses", &self.addresses).finish_non_exhaustive()
    }
}

/// Off the threads of the runtime.
pub(super) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let done = spawn_blocking(work).await;
    done.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
}

pub(super) fn system(error: io::Error) -> Error {
    Error::io(ErrorKind::System, "cannot use a listener (http)", error)
}
