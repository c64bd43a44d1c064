//! A web server (axum, tokio) whose sockets are taken over: the old and the new process share them,
//! queues included, and no restart loses a connection.
//!
//! ```sh
//! takeover --listen 127.0.0.1:8080 --admin-listen 127.0.0.1:8081 --unix-socket /run/web/web.sock \
//!     --pid-file /run/web/web.pid
//! curl 'http://127.0.0.1:8080/?delay=10s'
//! curl http://127.0.0.1:8081/requests
//! ```
//!
//! Each process goes on counting requests from the number of its predecessor. `--probation 30s --crash-after 100` is a
//! bad version: it aborts at its 100th request, and the old version serves again. With `--workers 4` there are four
//! threads, each with a runtime and a socket of its own on the port (SO_REUSEPORT); all four sockets are taken over.

mod options;
mod web;

use std::{
    io,
    net::{self, SocketAddr},
    path::PathBuf,
    process::{self, ExitCode},
    sync::atomic::{AtomicU64, Ordering},
    thread,
};

use axum::{Router, middleware, response::Response, routing::get};
use options::{Options, Places};
use seamless::sockets::{
    self,
    tokio::{TcpListener, UnixListener},
};
use seamless::{DrainGuard, State};
use tokio::{runtime::Builder, task::JoinSet};

/// Requests that were answered, by this process and those before it.
static REQUESTS: AtomicU64 = AtomicU64::new(0);

struct Listen {
    web: SocketAddr,
    admin: Option<SocketAddr>,
    unix: Option<PathBuf>,
    workers: Option<usize>,
}

impl Places for Listen {
    const USAGE: &'static str =
        "--listen ADDRESS, --admin-listen ADDRESS, --unix-socket PATH, --workers COUNT";

    fn set(&mut self, name: &str, args: &mut lexopt::Parser) -> Result<bool, lexopt::Error> {
        use lexopt::ValueExt;
        match name {
            "listen" => self.web = args.value()?.parse()?,
            "admin-listen" => self.admin = Some(args.value()?.parse()?),
            "unix-socket" => self.unix = Some(args.value()?.into()),
            "workers" => self.workers = Some(args.value()?.parse()?),
            _ => return Ok(false),
        }
        Ok(true)
    }
}

fn main() -> ExitCode {
    options::main(
        Listen {
            web: SocketAddr::from(([127, 0, 0, 1], 8080)),
            admin: None,
            unix: None,
            workers: None,
        },
        run,
    )
}

fn run(options: &Options<Listen>) -> Result<(), Box<dyn std::error::Error>> {
    // Before the runtime exists: the launcher never gets past this call, and so has only one thread.
    options
        .config()
        .hand_over("requests", || REQUESTS.load(Ordering::Relaxed).to_le_bytes().to_vec())
        .init()?;
    thread::sleep(options.startup_delay);

    // The predecessor's sockets are taken over; others are bound.
    let places = &options.places;
    let mut sockets = sockets::Options::new();
    sockets.nonblocking(true).change_nonblocking(true); // as tokio needs them
    let (web, group) = match places.workers {
        None => (Some(sockets.tcp(places.web)?), Vec::new()),
        Some(count) => (None, sockets.tcp_group(places.web, count)?),
    };
    let unix = places.unix.as_ref().map(sockets::tokio::unix).transpose()?;
    let admin = places.admin.map(|address| sockets.tcp(address)).transpose()?;
    if let Some(Ok(count)) = seamless::inherited("requests").map(<[u8; 8]>::try_from) {
        REQUESTS.store(u64::from_le_bytes(count), Ordering::Relaxed);
    }
    log::info!("process {} listens on {}", process::id(), places.web);

    // Until this guard and its clones are dropped, the drain goes on and `drain_timeout` counts.
    let serving = seamless::drain_guard();

    // Connections reach this process already, since it has the sockets. So the old one may end.
    seamless::started()?;

    let app = web::app().layer(middleware::map_response(count));
    let requests = || async { format!("{}\n", REQUESTS.load(Ordering::Relaxed)) };
    let admin_app = app.clone().route("/requests", get(requests));
    let mut workers = Vec::new();
    for listener in group {
        let (app, serving) = (app.clone(), serving.clone());
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let work = move || runtime.block_on(serve_tcp(listener, app, serving));
        workers.push(thread::Builder::new().name("worker".to_owned()).spawn(work)?);
    }
    Builder::new_multi_thread().enable_all().build()?.block_on(async {
        let mut served = JoinSet::new();
        if let Some(web) = web {
            served.spawn(serve_tcp(web, app.clone(), serving.clone()));
        }
        if let Some(unix) = unix {
            served.spawn(serve_unix(unix, app, serving.clone()));
        }
        if let Some(admin) = admin {
            served.spawn(serve_tcp(admin, admin_app, serving.clone()));
        }
        drop(serving); // each server has its own
        served.join_all().await.into_iter().collect::<io::Result<()>>()
    })?;
    for worker in workers {
        worker.join().expect("a worker panicked")?;
    }
    let reason = seamless::wait();
    log::info!("process {} has drained: {reason:?}", process::id());
    Ok(())
}

/// The next connection: not while this generation stands by, since then the new one, which is on probation, alone is
/// to accept. If both did, no connection would be lost either.
macro_rules! next {
    ($listener:ident, $states:ident) => {
        loop {
            while seamless::state() == State::Standby && $states.changed().await.is_some() {}
            tokio::select! {
                next = $listener.next() => break next,
                Some(_) = $states.changed() => {} // perhaps it has to stand by
            }
        }
    };
}

/// Answers what it accepts. The listener ends when the drain has begun and its queue is empty.
async fn serve_tcp(listener: net::TcpListener, app: Router, serving: DrainGuard) -> io::Result<()> {
    let (mut listener, mut states) = (TcpListener::from_std(listener)?, seamless::states());
    while let Some((stream, _)) = next!(listener, states) {
        let _ = stream.set_nodelay(true);
        tokio::spawn(web::converse(stream, app.clone(), serving.clone()));
    }
    drop(serving); // each connection has its own
    seamless::finished().await; // this runtime lives until every connection has been served
    Ok(())
}

async fn serve_unix(
    mut listener: UnixListener,
    app: Router,
    serving: DrainGuard,
) -> io::Result<()> {
    let mut states = seamless::states();
    while let Some((stream, _)) = next!(listener, states) {
        tokio::spawn(web::converse(stream, app.clone(), serving.clone()));
    }
    drop(serving);
    seamless::finished().await;
    Ok(())
}

/// Another answer is on its way.
async fn count(response: Response) -> Response {
    REQUESTS.fetch_add(1, Ordering::Relaxed);
    response
}
