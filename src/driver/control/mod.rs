//! The control socket, `web.pid.sock`: where a successor takes over sockets and state, and commands ask.
//!
//! `server` answers in the old daemon, `transfer` takes in the new one, `link` is what both speak through.

pub(crate) mod link;
pub(in crate::driver) mod server;
pub(in crate::driver) mod status;
pub(in crate::driver) mod transfer;

use crate::driver::log::{self, sockets::Event};
use crate::error::{Error, ErrorKind, Result};
use crate::proto::control::frame::SocketKind;
use crate::proto::paths;
use crate::shutdown::lock;
use crate::sys::process::Held;
use crate::sys::seqpacket::{Link, Listener};
use crate::sys::unix_path::{self, Beside, Occupant};
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
    /// Older generations, and newer ones that have failed, by their numbers. After their end, the retired members
    /// of groups are closed, and their places in steered groups are free.
    older: Mutex<Vec<(u64, Held)>>,
    connections: AtomicUsize,
}

/// Our control socket, before it is put in place. The caller holds the claim.
pub(in crate::driver) struct Prepared {
    path: PathBuf,
    beside: Beside,
}

/// Does everything that can fail because descriptors or memory run out.
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
/// Otherwise the second name stays as it is: a generation that has died meanwhile may have put its own socket
/// at the path. If the system refuses the link, a start that would need it fails, and the one after it finds
/// the socket put back.
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

/// Our control socket is put in place again, and its other name with it. Under the claim.
/// `named`: the number of this generation, if it has steered groups.
pub(in crate::driver) fn place_again(
    pid_file: &Path,
    server: &OnceLock<Server>,
    named: Option<u64>,
) -> Result<()> {
    prepare(pid_file)?.place(server)?;
    if let Some(generation) = named {
        name(pid_file, generation);
    }
    Ok(())
}

/// Our control socket has lost its path: it is put back. Under the claim.
pub(in crate::driver) fn put_back(
    pid_file: &Path,
    server: &OnceLock<Server>,
    named: Option<u64>,
) -> Result<()> {
    place_again(pid_file, server, named)?;
    log::write(Event::ControlSocketPutBack { path: &paths::control_socket(pid_file) });
    Ok(())
}

/// Gives our control socket a name that the next generation does not replace. If the newest generation dies
/// while this one drains, the next one finds it there, and with it the sockets of the flows. Removes the names
/// of generations that have ended. Under the claim.
pub(in crate::driver) fn name(pid_file: &Path, generation: u64) {
    let own = paths::control_socket_of(pid_file, generation);
    let named = match fs::remove_file(&own) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => fs::hard_link(paths::control_socket(pid_file), &own),
    };
    if let Err(error) = named {
        log::write(Event::ControlSocketNotNamed { path: &own, error: &error });
    }
    let Some(folder) = pid_file.parent() else { return };
    let Ok(files) = fs::read_dir(folder) else { return };
    for file in files.flatten() {
        let number = paths::generation_of(pid_file, &file.file_name());
        if number.is_some_and(|number| number != generation) && is_dead(&file.path()) {
            _ = fs::remove_file(file.path());
        }
    }
}

/// Does nobody listen there any more?
fn is_dead(path: &Path) -> bool {
    unix_path::occupant_of(path, SocketKind::UnixSeqpacket)
        .is_ok_and(|there| matches!(there, Occupant::Nobody))
}

/// That generation has ended, or is about to.
pub(in crate::driver) fn forget(pid_file: &Path, generation: u64) {
    _ = fs::remove_file(paths::control_socket_of(pid_file, generation));
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

    /// Does what has to be done with groups of sockets when these have ended as well.
    pub(in crate::driver) fn watch(&self, more: Vec<(u64, Held)>) {
        lock(&self.older).extend(more);
        self.waker.wake();
    }
}
