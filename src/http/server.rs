//! The builder.

use super::accept::{Accepted, Seat, accept_all};
use super::app::App;
use super::bound::{Bound, Running, blocking, system};
use super::connection::{BoxError, Open, Shared, converse};
use super::proxied::{Proxied, Trusted};
use super::state::Times;
use super::stream::{Listener, Peer, Stream};
use crate::{DrainReason, Error, ErrorKind, Result, sockets};
use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use hyper_util::rt::TokioExecutor;
use hyper_util::server::conn::auto;
use std::fmt;
use std::net::ToSocketAddrs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;
use tower_service::Service;

/// The smallest buffer with which hyper can read.
const LEAST_HEADER_SIZE: usize = 8192;
/// A longer time is cut to this, so that sums of times do not overflow.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 3600);

/// Several servers in one program, each at its own place with its own app, and the limits that apply
/// to all of them. Each limit has a default that suits a server on the open network.
///
/// ```no_run
/// use axum::{Router, routing::get};
/// use std::time::Duration;
///
/// # async fn run() -> seamless::Result<()> {
/// let public = Router::new().route("/", get(|| async { "Hello\n" }));
/// let admin = Router::new().route("/healthy", get(|| async { "yes\n" }));
/// seamless::http::Server::new()
///     .tcp("0.0.0.0:8080", public.clone())
///     .unix("/run/web/web.sock", public)
///     .tcp("127.0.0.1:8081", admin)
///     .drain_timeout(Duration::from_secs(30))
///     .serve()
///     .await?;
/// # Ok(())
/// # }
/// ```
#[must_use = "nothing happens before `serve`"]
pub struct Server {
    places: Vec<Place>,
    header_timeout: Duration,
    request_timeout: Option<Duration>,
    keep_alive: Duration,
    idle_grace: Duration,
    drain_timeout: Option<Duration>,
    max_header_size: usize,
    max_connections: usize,
    trusted: Option<Trusted>,
}

/// How a socket is found, and what serves it.
struct Place {
    find: Box<dyn FnOnce() -> Result<(Listener, Start)> + Send>,
}

type Start = Box<dyn FnOnce(Listener, Arc<Shared>, Arc<Semaphore>) -> Running + Send>;

impl Default for Server {
    fn default() -> Self {
        Server::new()
    }
}

impl Server {
    /// No server yet, and every default.
    pub fn new() -> Server {
        Server {
            places: Vec::new(),
            header_timeout: Duration::from_secs(10),
            request_timeout: None,
            keep_alive: Duration::from_secs(75),
            idle_grace: Duration::from_secs(1),
            drain_timeout: Some(Duration::from_secs(60)),
            max_header_size: 64 << 10,
            max_connections: 10_000,
            trusted: None,
        }
    }

    /// Adds a server on a TCP port, found as [`sockets::tcp`] finds it. `app` is any tower service: an
    /// axum `Router` as it is, or with
    /// `into_make_service_with_connect_info::<SocketAddr>()` for axum's `ConnectInfo`. The address of the
    /// client is the extension [`Peer`](super::Peer) of each request.
    pub fn tcp<How: 'static>(
        self,
        addr: impl ToSocketAddrs + Send + 'static,
        app: impl App<How>,
    ) -> Server {
        let find = || sockets::tokio::tcp(addr).map(Listener::Tcp);
        self.add(find, plain(app))
    }

    /// Adds a server on a Unix socket, found as [`sockets::unix`] finds it. Its mode is what the
    /// umask leaves; for another one see [`unix_listener`](Server::unix_listener).
    pub fn unix<S, B>(self, path: impl Into<PathBuf>, app: S) -> Server
    where
        S: Service<Request<Incoming>, Response = Response<B>> + Clone + Send + Sync + 'static,
        S::Error: Into<BoxError> + Send,
        S::Future: Send + 'static,
        B: Body + Send + 'static,
        B::Data: Send,
        B::Error: Into<BoxError>,
    {
        let path = path.into();
        let find = || {
            let listener = sockets::tokio::unix(&path)?;
            Ok(Listener::Unix(listener, Some(path)))
        };
        self.add(find, plain(app))
    }

    /// Adds a server on a TCP listener that the program has got itself, with [`sockets::Options`] of
    /// its own. It should be [nonblocking](sockets::Options::nonblocking); otherwise it is made so
    /// after [`started`](crate::started), see [`sockets::tokio::TcpListener::from_std`].
    pub fn tcp_listener<How: 'static>(
        self,
        listener: std::net::TcpListener,
        app: impl App<How>,
    ) -> Server {
        let find = || {
            let listener = sockets::tokio::TcpListener::from_std(listener);
            Ok(Listener::Tcp(listener.map_err(system)?))
        };
        self.add(find, plain(app))
    }

    /// Adds a server on a Unix listener that the program has got itself, as
    /// [`tcp_listener`](Server::tcp_listener).
    pub fn unix_listener<S, B>(self, listener: std::os::unix::net::UnixListener, app: S) -> Server
    where
        S: Service<Request<Incoming>, Response = Response<B>> + Clone + Send + Sync + 'static,
        S::Error: Into<BoxError> + Send,
        S::Future: Send + 'static,
        B: Body + Send + 'static,
        B::Data: Send,
        B::Error: Into<BoxError>,
    {
        let find = || {
            let listener = sockets::tokio::UnixListener::from_std(listener);
            Ok(Listener::Unix(listener.map_err(system)?, None))
        };
        self.add(find, plain(app))
    }

    /// Adds a server with TLS on a TCP port, found as [`sockets::tcp`] finds it. For one that answers
    /// plain HTTP as well, add another place.
    #[cfg(feature = "tls")]
    pub fn tls<How: 'static>(
        mut self,
        addr: impl ToSocketAddrs + Send + 'static,
        tls: super::Tls,
        app: impl App<How>,
    ) -> Server {
        let find = || {
            let acceptor = tls.load()?;
            let listener = sockets::tokio::tcp(addr)?;
            let start: Start = Box::new(encrypted(app, acceptor));
            Ok((Listener::Tcp(listener), start))
        };
        self.places.push(Place { find: Box::new(find) });
        self
    }

    fn add(
        mut self,
        find: impl FnOnce() -> Result<Listener> + Send + 'static,
        start: impl FnOnce(Listener, Arc<Shared>, Arc<Semaphore>) -> Running + Send + 'static,
    ) -> Server {
        self.places.push(Place { find: Box::new(|| Ok((find()?, Box::new(start)))) });
        self
    }

    /// How long the head of a request may take to arrive, counted from its first byte, and how long a new
    /// connection may take to send its first one, including a TLS handshake. After that it is closed. The
    /// same holds in a drain: a connection that was accepted is a promise. Default: 10 s.
    pub fn header_timeout(mut self, timeout: Duration) -> Server {
        self.header_timeout = timeout.min(LONGEST);
        self
    }

    /// How long the app may take until it begins its answer. After that the client gets a 503 and the
    /// request is dropped. Default: `None`, no limit. Threads and tasks that the app has started go on.
    pub fn request_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Server {
        self.request_timeout = timeout.into();
        self
    }

    /// How long a connection without a request stays open. Default: 75 s. A load balancer in front must
    /// keep its idle connections for a shorter time than this, and for a restart, for a shorter time than
    /// [`idle_grace`](Server::idle_grace).
    pub fn keep_alive(mut self, time: Duration) -> Server {
        self.keep_alive = time.min(LONGEST);
        self
    }

    /// How long an idle HTTP/1 connection stays open once the drain has begun: time for a request
    /// that is on its way. It is answered, and its answer says `Connection: close`. An HTTP/2
    /// connection takes new requests for the same time after its GOAWAY. Default: 1 s.
    ///
    /// It protects clients that never retry. If a client pauses for longer than this between two
    /// requests, and sends the next one at the very moment at which the connection is closed, it gets no
    /// answer; HTTP lets it try again, as on any idle connection (RFC 9112, 9.3.1). What has reached this
    /// machine before that moment is answered.
    ///
    /// So a client or a proxy that reuses connections loses nothing if the grace is longer than its
    /// longest pause, or than the time for which it keeps idle connections. The
    /// [guide](crate::guide::proxies) has the settings for nginx and haproxy.
    pub fn idle_grace(mut self, grace: Duration) -> Server {
        self.idle_grace = grace.min(LONGEST);
        self
    }

    /// How long the drain may take. After that the process is forced to exit (hammer), as with
    /// [`Config::drain_timeout`](crate::Config::drain_timeout): connections with something in flight are
    /// reset, so that no client mistakes a truncated answer for a complete one, and the process ends with
    /// code 124. USR2 to a process that drains does the same by hand. Default: 60 s. `None`: no limit.
    ///
    /// A Unix socket cannot be reset. There, and if the process is KILLed, a body that ends with its
    /// connection (HTTP/1.0) may look complete.
    ///
    /// If [`Config::drain_timeout`](crate::Config::drain_timeout) is set, it holds instead of this one:
    /// see [`default_drain_timeout`](crate::default_drain_timeout). The launcher is told the limit, and
    /// KILLs a daemon that outlives it by 5 s.
    pub fn drain_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Server {
        self.drain_timeout = timeout.into();
        self
    }

    /// How many bytes of a connection are buffered at most, which is also the largest head of a
    /// request: a longer one gets a 431. At least 8 KiB. Default: 64 KiB. A head may have 100 fields at
    /// most.
    pub fn max_header_size(mut self, bytes: usize) -> Server {
        self.max_header_size = bytes.max(LEAST_HEADER_SIZE);
        self
    }

    /// How many connections each server has at most. Further ones wait in its queue, and a restart
    /// leaves them to the successor. An upgraded connection (WebSocket) counts. An HTTP/2 connection has
    /// up to 200 requests at a time. Default: 10,000.
    ///
    /// # Panics
    ///
    /// If `count` is 0, or more than 2^29.
    pub fn max_connections(mut self, count: usize) -> Server {
        assert!((1..=1 << 29).contains(&count), "max_connections: {count}");
        self.max_connections = count;
        self
    }

    /// Accepts the PROXY protocol, versions 1 and 2, from these load balancers, at every place of this server.
    /// [`Peer`](super::Peer) is the client that the header names then. Default: from nobody.
    ///
    /// - **A trusted peer** must begin each connection with a header. It has 5 s for that, or
    ///   [`header_timeout`](Server::header_timeout) if that is shorter. Without one, or with one that is wrong,
    ///   the connection is closed.
    /// - **Every other peer** is served as without this call. If it sends a header, its connection is closed,
    ///   since anybody could claim any address; the log warns of it, at most once a minute.
    /// - If the header names nobody (`UNKNOWN`, `LOCAL`, as in the checks of a load balancer) or names no TCP
    ///   client, [`Peer`](super::Peer) is that of the socket itself.
    ///
    /// Trust only addresses from which nobody else can connect. A network of your own is trusted as a whole:
    /// whoever is in it may claim to be anybody.
    ///
    /// ```no_run
    /// use axum::Router;
    ///
    /// # async fn run(app: Router) -> seamless::Result<()> {
    /// seamless::http::Server::new()
    ///     .tcp("0.0.0.0:8080", app)
    ///     .proxy_protocol("10.0.0.7, 10.0.0.8".parse()?)
    ///     .serve()
    ///     .await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn proxy_protocol(mut self, trusted: Trusted) -> Server {
        self.trusted = Some(trusted);
        self
    }

    /// Takes over or binds every socket, calls [`started`](crate::started), serves, drains, and
    /// returns when all is answered: what [`wait`](crate::wait) returns. Then return from `main`. It is
    /// [`bind`](Server::bind), [`started`](crate::started) and [`run`](Bound::run) in one.
    ///
    /// Call it after [`init`](crate::init), once in a program, in a tokio runtime with I/O and time
    /// enabled.
    ///
    /// # Errors
    ///
    /// As [`bind`](Server::bind) and [`started`](crate::started). Nothing was accepted then, and the
    /// predecessor serves on.
    pub async fn serve(self) -> Result<DrainReason> {
        let bound = self.bind().await?;
        blocking(crate::started).await?;
        bound.run().await
    }

    /// Takes over or binds every socket, and accepts nothing yet: for a program that has something to do
    /// between that and [`started`](crate::started), or that must know its [addresses](Bound::addresses).
    ///
    /// ```no_run
    /// use axum::Router;
    ///
    /// # async fn warm_up(_: &Router) {}
    /// # async fn run() -> seamless::Result<()> {
    /// let app = Router::new().fallback(async || "Hello\n");
    /// let bound = seamless::http::Server::new().tcp("127.0.0.1:0", app.clone()).bind().await?;
    /// println!("listening at {}", bound.addresses()[0]);
    /// warm_up(&app).await; // the predecessor still serves
    /// seamless::started()?; // from here on it drains
    /// bound.run().await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// Call it after [`init`](crate::init) and before [`started`](crate::started), in a tokio runtime
    /// with I/O and time enabled. It also sets [`drain_timeout`](Server::drain_timeout) and the hook
    /// that resets what is in flight at a forced exit
    /// ([`Stage::Hammer`](crate::hooks::Stage::Hammer)).
    ///
    /// # Errors
    ///
    /// As [`sockets::Options::tcp`]; and [`ErrorKind::InvalidConfig`] if no place was given.
    pub async fn bind(self) -> Result<Bound> {
        if self.places.is_empty() {
            let text = "cannot serve (http): no place to listen at was given";
            return Err(Error::new(ErrorKind::InvalidConfig, text));
        }
        let shared = Arc::new(Shared {
            library: self.library(),
            times: Times {
                header: self.header_timeout,
                keep_alive: self.keep_alive,
                grace: self.idle_grace,
            },
            request_timeout: self.request_timeout,
            proxied: self.trusted.map(Proxied::new),
            open: Open::default(),
        });
        // All that waits for files, locks or the predecessor waits on a thread of its own.
        let places = self.places;
        let found = blocking(move || {
            places.into_iter().map(|place| (place.find)()).collect::<Result<Vec<_>>>()
        })
        .await?;
        let mut bound = Bound::new(shared.clone());
        for (listener, start) in found {
            let address = listener.address().map_err(system)?;
            let permits = Arc::new(Semaphore::new(self.max_connections));
            bound.add(address, start(listener, shared.clone(), permits));
        }
        crate::default_drain_timeout(self.drain_timeout);
        Ok(bound)
    }

    fn library(&self) -> auto::Builder<TokioExecutor> {
        let mut library = auto::Builder::new(TokioExecutor::new());
        // Hyper's own limit would also count between two requests; `State` has one that does not.
        library.http1().header_read_timeout(None).max_buf_size(self.max_header_size);
        let size = u32::try_from(self.max_header_size).unwrap_or(u32::MAX);
        library.http2().max_header_list_size(size);
        library
    }
}

fn plain<How: 'static>(
    app: impl App<How>,
) -> impl FnOnce(Listener, Arc<Shared>, Arc<Semaphore>) -> Running + Send {
    move |listener, shared, permits| {
        let take = move |(stream, peer, seat): Accepted| {
            let (app, shared) = (app.clone(), shared.clone());
            tokio::spawn(async move {
                let accepted = Instant::now();
                let Some(client) = shared.client(&stream, peer, accepted).await else { return };
                answer(stream, client, accepted, app, shared, seat).await;
            });
        };
        Box::pin(accept_all(listener, permits, take))
    }
}

/// Serves one connection, by the service that `app` is or makes.
async fn answer<How: 'static>(
    stream: Stream,
    peer: Option<Peer>,
    accepted: Instant,
    app: impl App<How>,
    shared: Arc<Shared>,
    seat: Seat,
) {
    match app.serve(peer).await {
        Ok(served) => converse(stream, peer, accepted, served, shared, seat).await,
        Err(error) => crate::http::log::failed("make", &*error),
    }
}

#[cfg(feature = "tls")]
fn encrypted<How: 'static>(
    app: impl App<How>,
    acceptor: tokio_rustls::TlsAcceptor,
) -> impl FnOnce(Listener, Arc<Shared>, Arc<Semaphore>) -> Running + Send {
    move |listener, shared, permits| {
        let take = move |(stream, peer, seat): Accepted| {
            let (app, shared, acceptor) = (app.clone(), shared.clone(), acceptor.clone());
            tokio::spawn(async move {
                let accepted = Instant::now();
                let Some(peer) = shared.client(&stream, peer, accepted).await else { return };
                let Stream::Tcp(stream) = stream else { return };
                let handshake = tokio::time::timeout(shared.times.header, acceptor.accept(stream));
                match handshake.await {
                    Ok(Ok(stream)) => {
                        let stream = Stream::Tls(Box::new(stream));
                        answer(stream, peer, accepted, app, shared, seat).await;
                    }
                    Ok(Err(error)) => crate::http::log::failed("handshake", &error),
                    Err(timed_out) => crate::http::log::failed("handshake", &timed_out),
                }
            });
        };
        Box::pin(accept_all(listener, permits, take))
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server")
            .field("places", &self.places.len())
            .field("header_timeout", &self.header_timeout)
            .field("request_timeout", &self.request_timeout)
            .field("keep_alive", &self.keep_alive)
            .field("idle_grace", &self.idle_grace)
            .field("drain_timeout", &self.drain_timeout)
            .field("max_header_size", &self.max_header_size)
            .field("max_connections", &self.max_connections)
            .field("trusted", &self.trusted)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::Router;

    fn block_on<T>(work: impl Future<Output = T>) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(work)
    }

    fn refusal(server: Server) -> Error {
        block_on(server.serve()).expect_err("refused")
    }

    #[test]
    fn the_defaults_are_those_of_the_documentation() {
        let text = "Server { places: 0, header_timeout: 10s, request_timeout: None, \
            keep_alive: 75s, idle_grace: 1s, drain_timeout: Some(60s), max_header_size: 65536, \
            max_connections: 10000, trusted: None }";
        assert_eq!(format!("{:?}", Server::default()), text);
    }

    #[test]
    fn p10_what_cannot_be_served_is_refused() {
        let nowhere = refusal(Server::new());
        assert_eq!(nowhere.kind(), ErrorKind::InvalidConfig, "{nowhere}");
        let early = refusal(Server::new().tcp("127.0.0.1:0", Router::new()));
        assert_eq!(early.kind(), ErrorKind::NotInitialized, "{early}");
    }
}
