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
//! The count of requests moves along: each process goes on from that of its predecessor.
//! With `--workers 4` there are four threads, each with a runtime and a socket of its own on the
//! port (SO_REUSEPORT), and as many sockets are taken over.

mod options;
mod web;

use std::{
    future::poll_fn,
    io::{self, ErrorKind},
    net::{self, SocketAddr},
    os::unix::net as unix,
    path::PathBuf,
    process::{self, ExitCode},
    sync::atomic::{AtomicU64, Ordering},
    task::{Context, Poll, ready},
    thread,
};

use axum::{Router, middleware, response::Response, routing::get};
use options::{Options, Places};
use seamless::{DrainGuard, sockets};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream, UnixListener, UnixStream},
    runtime::Builder,
    task::JoinSet,
};

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
    // Before the runtime exists: the launcher, which never gets past this call, then stays a
    // process of one thread.
    options
        .config()
        .hand_over(|| REQUESTS.load(Ordering::Relaxed).to_le_bytes().to_vec())
        .init()?;
    thread::sleep(options.startup_delay);

    // What the predecessor has is taken over, what it has not is bound.
    let places = &options.places;
    let mut sockets = sockets::Options::new();
    sockets.nonblocking(true); // as tokio needs them
    let (web, group) = match places.workers {
        None => (Some(sockets.tcp(places.web)?), Vec::new()),
        Some(count) => (None, sockets.tcp_group(places.web, count)?),
    };
    let unix = places.unix.as_ref().map(|path| sockets.unix(path)).transpose()?;
    let admin = places.admin.map(|address| sockets.tcp(address)).transpose()?;
    if let Some(Ok(count)) = seamless::inherited().map(<[u8; 8]>::try_from) {
        REQUESTS.store(u64::from_le_bytes(count), Ordering::Relaxed);
    }
    log::info!("process {} listens on {}", process::id(), places.web);

    // Until this guard and its clones are dropped, the drain goes on and `drain_timeout` counts.
    let serving = seamless::drain_guard();

    // Connections reach this process already: it has the sockets. So the old one may go.
    seamless::started()?;

    let app = web::app().layer(middleware::map_response(count));
    let requests = || async { format!("{}\n", REQUESTS.load(Ordering::Relaxed)) };
    let admin_app = app.clone().route("/requests", get(requests));
    let mut workers = Vec::new();
    for listener in group {
        let (app, serving) = (app.clone(), serving.clone());
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let work = move || {
            runtime.block_on(async { serve(TcpListener::from_std(listener)?, app, serving).await })
        };
        workers.push(thread::Builder::new().name("worker".to_owned()).spawn(work)?);
    }
    Builder::new_multi_thread().enable_all().build()?.block_on(async {
        let mut served = JoinSet::new();
        if let Some(web) = web {
            served.spawn(serve(TcpListener::from_std(web)?, app.clone(), serving.clone()));
        }
        if let Some(unix) = unix {
            served.spawn(serve(UnixListener::from_std(unix)?, app, serving.clone()));
        }
        if let Some(admin) = admin {
            served.spawn(serve(TcpListener::from_std(admin)?, admin_app, serving.clone()));
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

/// Accepts until the drain has begun and the queue is empty, and answers what it has accepted.
async fn serve<L: Listener>(listener: L, app: Router, serving: DrainGuard) -> io::Result<()> {
    let mut draining = seamless::draining();
    loop {
        tokio::select! {
            accepted = poll_fn(|context| listener.poll_accept(context)) => match accepted {
                Ok(stream) => {
                    tokio::spawn(web::converse(stream, app.clone(), serving.clone()));
                }
                Err(error) => web::cannot_accept(error).await,
            },
            () = &mut draining => break,
        }
    }

    // A successor has this queue as well and would answer what is in it. But there is none where the
    // service is stopped, nor for a socket that the successor did not ask for. The standard
    // library's listener asks the kernel each time; tokio's would rely on what it was told last.
    let listener = listener.into_std()?;
    loop {
        match L::accept(&listener) {
            Ok(stream) => {
                tokio::spawn(web::converse(stream, app.clone(), serving.clone()));
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) => web::cannot_accept(error).await,
        }
    }
    drop((listener, serving));
    seamless::finished().await; // this runtime lives until every connection has been served
    Ok(())
}

/// What TCP and Unix sockets have in common.
trait Listener: Send + Sync + 'static {
    type Stream: AsyncRead + AsyncWrite + Send + Unpin + 'static;
    type Std: Send + Sync;

    fn poll_accept(&self, context: &mut Context<'_>) -> Poll<io::Result<Self::Stream>>;
    fn into_std(self) -> io::Result<Self::Std>;
    fn accept(listener: &Self::Std) -> io::Result<Self::Stream>;
}

impl Listener for TcpListener {
    type Stream = TcpStream;
    type Std = net::TcpListener;

    fn poll_accept(&self, context: &mut Context<'_>) -> Poll<io::Result<TcpStream>> {
        let (stream, _) = ready!(self.poll_accept(context))?;
        let _ = stream.set_nodelay(true);
        Poll::Ready(Ok(stream))
    }

    fn into_std(self) -> io::Result<net::TcpListener> {
        self.into_std()
    }

    fn accept(listener: &net::TcpListener) -> io::Result<TcpStream> {
        let (stream, _) = listener.accept()?;
        stream.set_nonblocking(true)?;
        let _ = stream.set_nodelay(true);
        TcpStream::from_std(stream)
    }
}

impl Listener for UnixListener {
    type Stream = UnixStream;
    type Std = unix::UnixListener;

    fn poll_accept(&self, context: &mut Context<'_>) -> Poll<io::Result<UnixStream>> {
        let (stream, _) = ready!(self.poll_accept(context))?;
        Poll::Ready(Ok(stream))
    }

    fn into_std(self) -> io::Result<unix::UnixListener> {
        self.into_std()
    }

    fn accept(listener: &unix::UnixListener) -> io::Result<UnixStream> {
        let (stream, _) = listener.accept()?;
        stream.set_nonblocking(true)?;
        UnixStream::from_std(stream)
    }
}

/// Another answer is on its way.
async fn count(response: Response) -> Response {
    REQUESTS.fetch_add(1, Ordering::Relaxed);
    response
}
