//! The control socket, `web.pid.sock`: where a successor takes over sockets and state, and commands ask.
//!
//! `server` answers in the old daemon, `transfer` takes in the new one, `link` is what both speak through.

pub(crate) mod link;
pub(in crate::driver) mod server;
pub(in crate::driver) mod status;
pub(in crate::driver) mod transfer;

use crate::driver::log::{self, sockets::Event};
use crate::error::{Error, ErrorKind, Result};
use crate::proto::paths;
use crate::shutdown::lock;
use crate::sys::process::Held;
use crate::sys::seqpacket::{Link, Listener};
use crate::sys::unix_path::Beside;
use crate::sys::wait::Waker;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

/// What the thread `seamless-sockets` serves.
pub(in crate::driver) struct Server {
    path: PathBuf,
    timeout: Duration,
    since: Instant,
    waker: Waker,
    /// Ours, once `started` has put it in place.
    listener: Mutex<Option<Arc<Listener>>>,
    /// Older generations, after whose end the retired members of groups are closed.
    older: Mutex<Vec<Held>>,
    connections: AtomicUsize,
}

/// Our control socket, before it is put in place. The caller holds the claim.
pub(in crate::driver) struct Prepared {
    path: PathBuf,
    beside: Beside,
}

/// Does all that can fail for want of descriptors or memory.
pub(in crate::driver) fn prepare(pid_file: &Path) -> Result<Prepared> {
    let path = paths::control_socket(pid_file);
    let beside = Listener::bind(&path).map_err(|error| cannot_bind(&path, error))?;
    Ok(Prepared { path, beside })
}

impl Prepared {
    pub(in crate::driver) fn place(self, server: &OnceLock<Server>) -> Result<()> {
        let listener = self.listener()?;
        if let Some(server) = server.get() {
            *lock(&server.listener) = Some(Arc::new(listener));
            server.waker.wake();
        }
        Ok(())
    }

    pub(in crate::driver) fn listener(self) -> Result<Listener> {
        Listener::place(self.beside).map_err(|error| cannot_bind(&self.path, error))
    }
}

/// If this process listens at the path of the control socket, its socket gets a second name. Under the claim.
/// What the second name stood for before stays otherwise: a generation that has died meanwhile may have put
/// its own socket at the path. If the system refuses the link, a start that would need it fails, and the one
/// after it finds the socket put back.
pub(in crate::driver) fn keep_name(pid_file: &Path, pid: i32) {
    let (path, second) = (paths::control_socket(pid_file), paths::standby_socket(pid_file));
    let listens = || Link::connect(&path).ok()?.listener().ok()?.map(|peer| peer.pid);
    if listens() == Some(pid) {
        _ = fs::remove_file(&second);
        _ = fs::hard_link(&path, &second);
    }
}

pub(in crate::driver) fn drop_name(pid_file: &Path) {
    _ = fs::remove_file(paths::standby_socket(pid_file)); // it may never have been made
}

/// Our control socket has lost its path: it is put back. Under the claim.
pub(in crate::driver) fn put_back(pid_file: &Path, server: &OnceLock<Server>) -> Result<()> {
    prepare(pid_file)?.place(server)?;
    log::write(Event::ControlSocketPutBack { path: &paths::control_socket(pid_file) });
    Ok(())
}

fn cannot_bind(path: &Path, error: io::Error) -> Error {
    let denied =
        matches!(error.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem);
    let error = Error::io(ErrorKind::Takeover, format!("cannot bind {path:?} (takeover)"), error);
    if denied { error.hint(crate::sys::pid_file::must_be_writable()) } else { error }
}

impl Server {
    pub(in crate::driver) fn new(pid_file: &Path, timeout: Duration) -> Result<Server> {
        let waker = Waker::new().map_err(|error| {
            Error::io(ErrorKind::System, "cannot make a socket pair (init)", error)
        })?;
        Ok(Server {
            path: paths::control_socket(pid_file),
            timeout,
            since: Instant::now(),
            waker,
            listener: Mutex::new(None),
            older: Mutex::new(Vec::new()),
            connections: AtomicUsize::new(0),
        })
    }

    pub(in crate::driver) fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Has our control socket lost its name, and nobody else has it?
    pub(in crate::driver) fn has_lost_its_path(&self) -> bool {
        let listener = lock(&self.listener);
        listener.as_ref().is_some_and(|listener| listener.is_lost(&self.path))
    }

    /// Closes the retired members of groups once these have ended.
    pub(in crate::driver) fn retire_after(&self, older: Vec<Held>) {
        *lock(&self.older) = older;
        self.waker.wake();
    }
}
