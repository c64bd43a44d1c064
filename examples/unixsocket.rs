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
    os::unix::net,
    path::{Path, PathBuf},
    process::{self, ExitCode},
    thread,
};

use options::Options;
use seamless::{DrainReason, sockets::tokio::UnixListener};

fn main() -> ExitCode {
    options::main(PathBuf::from("/run/web/web.sock"), run)
}

fn run(options: &Options<PathBuf>) -> Result<(), Box<dyn std::error::Error>> {
    // Before the runtime exists: the launcher never gets past this call, and so has only one thread.
    options.config().init()?;
    thread::sleep(options.startup_delay);
    let reason = serve(options)?;
    log::info!("process {} has drained: {reason:?}", process::id());
    Ok(())
}

#[tokio::main]
async fn serve(options: &Options<PathBuf>) -> Result<DrainReason, Box<dyn std::error::Error>> {
    let path = &options.places;
    let (mut listener, place) =
        bind(path).map_err(|error| format!("cannot listen on {}: {error}", path.display()))?;
    log::info!("process {} listens on {}", process::id(), path.display());
    let app = web::app();

    // Until this guard and its clones are dropped, the drain goes on and `drain_timeout` counts.
    let serving = seamless::drain_guard();

    // From here connections reach this process, so the old one may end.
    match seamless::started() {
        Ok(()) => place.keep(),
        Err(error) => {
            place.give_back();
            return Err(error.into());
        }
    }

    // It ends when the drain has begun and the queue is empty: closing it resets what is still there.
    // Nothing unlinks the path then: by now it leads to the successor's socket.
    while let Some((stream, _)) = listener.next().await {
        tokio::spawn(web::converse(stream, app.clone(), serving.clone()));
    }

    // What was accepted is answered: each connection has a guard of its own.
    drop(serving);
    Ok(seamless::finished().await)
}

/// Binds under another name, then renames the socket to `path`: at every moment the path leads to a listener.
/// The other names are fixed, since only one generation starts at a time.
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
    let listener = net::UnixListener::bind(&new)?;
    listener.set_nonblocking(true)?;
    let old = fs::hard_link(path, &old).is_ok().then_some(old);
    fs::rename(&new, path)?;
    Ok((UnixListener::from_std(listener)?, Place { path, old }))
}

/// The path, taken over. `started` ends the old process, so this comes first. If `started`
/// refuses (another supervisor runs this service), it is undone.
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
