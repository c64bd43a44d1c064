//! What the servers have in common: the command line, the answer, and how a connection is served,
//! all as in the crate's own examples.

use std::{
    convert::Infallible,
    error::Error,
    future::Future,
    io,
    net::SocketAddr,
    path::PathBuf,
    pin::pin,
    process,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use axum::{
    Router,
    http::{HeaderValue, header::CONNECTION},
    middleware,
    response::Response,
};
use hyper::{
    server::conn::http1,
    service::{Service, service_fn},
};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use lexopt::prelude::*;
use socket2::{Domain, Socket, Type};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    time::sleep,
};

/// How long a connection that waits for its next request stays open once the drain has begun.
const IDLE_GRACE: Duration = Duration::from_secs(1);
/// The same for its first request.
const FIRST_GRACE: Duration = Duration::from_secs(10);

/// `--listen ADDRESS --pid-file PATH [--upgrade]`
pub struct Options {
    pub listen: SocketAddr,
    pub pid_file: PathBuf,
    /// Pingora's: the socket of another process is taken over.
    pub upgrade: bool,
}

impl Options {
    pub fn from_args() -> Result<Self, Box<dyn Error>> {
        let mut options = Options {
            listen: SocketAddr::from(([127, 0, 0, 1], 8080)),
            pid_file: PathBuf::from("/run/web/web.pid"),
            upgrade: false,
        };
        let mut args = lexopt::Parser::from_env();
        while let Some(arg) = args.next()? {
            match arg {
                Long("listen") => options.listen = args.value()?.parse()?,
                Long("pid-file") => options.pid_file = args.value()?.into(),
                Long("upgrade") => options.upgrade = true,
                _ => return Err(arg.unexpected().into()),
            }
        }
        Ok(options)
    }
}

/// A listener beside which others may listen on the same port.
pub fn reuse_port(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(4096)?;
    TcpListener::from_std(socket.into())
}

pub fn text() -> String {
    format!("Server pid: {}\n", process::id())
}

/// Tells every connection when the drain begins.
#[derive(Clone)]
pub struct Draining(watch::Receiver<()>);

/// Dropped, it begins the drain.
pub struct Serving(#[expect(dead_code)] watch::Sender<()>);

impl Draining {
    pub fn new() -> (Serving, Self) {
        let (sender, receiver) = watch::channel(());
        (Serving(sender), Draining(receiver))
    }

    async fn begun(mut self) {
        let _ = self.0.changed().await; // fails when the sender is gone
    }

    fn has_begun(&self) -> bool {
        self.0.has_changed().is_err()
    }
}

pub fn app(draining: &Draining) -> Router {
    let draining = draining.clone();
    let close = move |mut response: Response| {
        if draining.has_begun() {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        async { Ok::<_, Infallible>(response) }
    };
    Router::new().fallback(async || text()).layer(middleware::map_response(close))
}

/// Serves one connection to its end.
pub fn converse(
    stream: TcpStream,
    app: Router,
    draining: Draining,
) -> impl Future<Output = ()> + Send + 'static {
    let _ = stream.set_nodelay(true);
    async move {
        let (app, asked) = (TowerToHyperService::new(app), AtomicBool::new(false));
        let service = service_fn(|request| {
            asked.store(true, Ordering::Relaxed);
            app.call(request)
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .serve_connection(TokioIo::new(stream), service);
        let mut connection = pin!(connection);
        let grace_is_over = async {
            draining.begun().await;
            sleep(IDLE_GRACE).await;
            if !asked.load(Ordering::Relaxed) {
                sleep(FIRST_GRACE - IDLE_GRACE).await;
            }
        };
        let _ = tokio::select! {
            biased;
            result = connection.as_mut() => result,
            () = grace_is_over => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
    }
}
