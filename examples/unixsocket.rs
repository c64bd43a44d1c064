//! A web server (axum, tokio) on a Unix socket whose path always leads to a listener.
//!
//! ```sh
//! unixsocket --unix-socket /run/web/web.sock --pid-file /run/web/web.pid
//! curl --unix-socket /run/web/web.sock 'http://localhost/?delay=10s'
//! ```

mod options;
mod web;

use std::{
    ffi::OsString,
    fs,
    io::{self, ErrorKind},
    path::{Path, PathBuf},
    process::{self, ExitCode},
    thread,
};

use options::Options;
use seamless::DrainReason;
use tokio::net::{UnixListener, UnixStream};

fn main() -> ExitCode {
    options::main(PathBuf::from("/run/web/web.sock"), run)
}

fn run(options: &Options<PathBuf>) -> Result<(), Box<dyn std::error::Error>> {
    // Before the runtime exists: the launcher, which never gets past this call, then stays a
    // process of one thread.
    options.config().init()?;
    thread::sleep(options.startup_delay);
    let reason = serve(options)?;
    log::info!("process {} has drained: {reason:?}", process::id());
    Ok(())
}

#[tokio::main]
async fn serve(options: &Options<PathBuf>) -> Result<DrainReason, Box<dyn std::error::Error>> {
    let path = &options.places;
    let (listener, place) =
        bind(path).map_err(|error| format!("cannot listen on {}: {error}", path.display()))?;
    log::info!("process {} listens on {}", process::id(), path.display());
    let app = web::app();

    // Until this guard and its clones are dropped, the drain goes on and `drain_timeout` counts.
    let serving = seamless::drain_guard();

    // From here connections reach this process, so the old one may go.
    match seamless::started() {
        Ok(()) => place.keep(),
        Err(error) => {
            place.give_back();
            return Err(error.into());
        }
    }

    let mut draining = seamless::draining();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    tokio::spawn(web::converse(stream, app.clone(), serving.clone()));
                }
                Err(error) => web::cannot_accept(error).await,
            },
            () = &mut draining => break,
        }
    }

    // Closing a listener resets the connections in its queue: empty the queue first. The standard
    // library's listener asks the kernel each time; tokio's would rely on what it was told last.
    // Nothing unlinks the path here: by now it leads to the successor's socket.
    let listener = listener.into_std()?;
    loop {
        match listener.accept() {
            Ok((stream, _)) => {
                stream.set_nonblocking(true)?;
                let stream = UnixStream::from_std(stream)?;
                tokio::spawn(web::converse(stream, app.clone(), serving.clone()));
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) => web::cannot_accept(error).await,
        }
    }
    drop(listener);

    // What was accepted is answered: each connection has a guard of its own.
    drop(serving);
    Ok(seamless::finished().await)
}

/// Binds beside `path`, then renames over it: at every moment the path leads to a listener.
/// The fixed names beside it are safe, for only one generation starts at a time.
fn bind(path: &Path) -> io::Result<(UnixListener, Place<'_>)> {
    let beside = |suffix| {
        let mut name = OsString::from(path);
        name.push(suffix);
        PathBuf::from(name)
    };
    let (new, old) = (beside(".new"), beside(".old"));
    for left_by_a_kill in [&new, &old] {
        match fs::remove_file(left_by_a_kill) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    let listener = UnixListener::bind(&new)?;
    let old = fs::hard_link(path, &old).is_ok().then_some(old);
    fs::rename(&new, path)?;
    Ok((listener, Place { path, old }))
}

/// The path, taken over. `started` ends the old process, so this comes first; where `started`
/// refuses (somebody else runs this service), there is a way back.
struct Place<'a> {
    path: &'a Path,
    old: Option<PathBuf>,
}

impl Place<'_> {
    fn keep(self) {
        if let Some(old) = self.old {
            let _ = fs::remove_file(old);
        }
    }

    /// The old process serves on, so the path leads to it again.
    fn give_back(self) {
        if let Some(old) = self.old {
            if let Err(error) = fs::rename(&old, self.path) {
                log::error!("cannot give {} back: {error}", self.path.display());
            }
        }
    }
}
