//! The builder.

use super::accept::{Accepted, Seat, accept_all};
use super::app::App;
use super::bound::{Bound, Running, blocking, system};
use super::connection::converse;
use super::counters::{Counters, count};
use super::io::{Open, Shared};
use super::library::{BoxError, Library};
use super::passing::{Place, Take, turns};
use super::protocol::Given;
use super::proxied::{Proxied, Trusted};
use super::state::Times;
use super::stream::{Listener, Peer, Stream};
#[cfg(feature = "tls")]
use super::tls::handshake;
use crate::{DrainReason, Error, ErrorKind, Result, State, sockets};
use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use std::fmt;
use std::future::ready;
use std::net::ToSocketAddrs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;
use tower_service::Service;

mod limits;

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
///
/// # Counters
///
/// All servers of a program, in all generations together, count in [`counters`](crate::counters), which
/// survive restarts. `seamless status --json` and `--openmetrics` show them.
///
/// | counter | what it counts |
/// | --- | --- |
/// | `http_connections` | connections that were accepted |
/// | `http_requests` | requests that the app got; each is counted before its answer is sent |
/// | `http_passed` | connections that a draining generation has [passed](Server::pass) to its successor |
/// | `http_failures` | answers with a status of 500 or more, that of [`request_timeout`](Server::request_timeout) included, and requests for which the app returned an error |
#[must_use = "nothing happens before `serve`"]
pub struct Server {
    places: Vec<Find>,
    header_timeout: Duration,
    request_timeout: Option<Duration>,
    keep_alive: Duration,
    idle_grace: Duration,
    spread: Duration,
    pass: bool,
    drain_timeout: Option<Duration>,
    max_header_size: usize,
    max_connections: usize,
    trusted: Option<Trusted>,
}

/// Finds a socket, and tells what serves it.
type Find = Box<dyn FnOnce() -> Result<(Listener, Start)> + Send>;
type Start = Box<dyn FnOnce(Listener, Setting) -> Serving + Send>;
/// What accepts at a place, and what serves the connections that other generations pass.
type Serving = (Running, Option<Take>);

/// What a place gets when it starts.
#[derive(Clone)]
struct Setting {
    shared: Arc<Shared>,
    permits: Arc<Semaphore>,
    /// If its connections may be passed.
    place: Option<Arc<Place>>,
}

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
            spread: Duration::from_secs(5),
            pass: true,
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
        self.add(find, app)
    }

    /// Adds a server on a Unix socket, found as [`sockets::unix`] finds it. Its mode is what the
    /// umask leaves; for another one see [`unix_listener`](Server::unix_listener).
    pub fn unix<S, B>(self, path: impl Into<PathBuf>, app: S) -> Server
    where
        S: Service<Request<Incoming>, Response = Response<B>> + Clone + Send + Sync + 'static,
        S::Error: Into<BoxError> + Send,
        S::Future: Send + 'static,
        B: Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
    {
        let path = path.into();
        let find = || {
            let listener = sockets::tokio::unix(&path)?;
            Ok(Listener::Unix(listener, Some(path)))
        };
        self.add(find, app)
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
        self.add(find, app)
    }

    /// Adds a server on a Unix listener that the program has got itself, as
    /// [`tcp_listener`](Server::tcp_listener).
    pub fn unix_listener<S, B>(self, listener: std::os::unix::net::UnixListener, app: S) -> Server
    where
        S: Service<Request<Incoming>, Response = Response<B>> + Clone + Send + Sync + 'static,
        S::Error: Into<BoxError> + Send,
        S::Future: Send + 'static,
        B: Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
    {
        let find = || {
            let listener = sockets::tokio::UnixListener::from_std(listener);
            Ok(Listener::Unix(listener.map_err(system)?, None))
        };
        self.add(find, app)
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
            let listener = Listener::Tcp(sockets::tokio::tcp(addr)?);
            let acceptor = tls.load(&listener.address().map_err(system)?)?;
            let encrypt = move |stream, limit| handshake(acceptor.clone(), stream, limit);
            Ok((listener, start(app, false, encrypt)))
        };
        self.places.push(Box::new(find));
        self
    }

    fn add<How: 'static>(
        mut self,
        find: impl FnOnce() -> Result<Listener> + Send + 'static,
        app: impl App<How>,
    ) -> Server {
        let start = start(app, true, |stream, _| ready(Some(stream)));
        self.places.push(Box::new(|| Ok((find()?, start))));
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
        // All that waits for files, locks or the predecessor waits on a thread of its own.
        let places = self.places;
        let found = blocking(move || {
            let found = places.into_iter().map(|place| place()).collect::<Result<Vec<_>>>();
            found.map(|found| (found, Counters::get()))
        });
        let (found, counters) = found.await?;
        let shared = Arc::new(Shared {
            library: Library::new(self.max_header_size),
            times: Times {
                header: self.header_timeout,
                keep_alive: self.keep_alive,
                grace: self.idle_grace,
            },
            request_timeout: self.request_timeout,
            proxied: self.trusted.map(Proxied::new),
            open: Open::default(),
            spread: self.spread,
            turns: turns(),
            counters,
        });
        let mut bound = Bound::new(shared.clone());
        // Once this generation has started it is too late: the predecessor may have passed its connections.
        let accepts = crate::state() == State::Starting;
        for (listener, start) in found {
            let address = listener.address().map_err(system)?;
            let permits = Arc::new(Semaphore::new(self.max_connections));
            let place = Place::of(&address).filter(|_| self.pass);
            let setting = Setting { shared: shared.clone(), permits, place };
            let (running, take) = start(listener, setting.clone());
            if let (Some(place), Some(take), true) = (setting.place, &take, accepts) {
                place.accept(setting.permits, take)?;
            }
            bound.add(address, running, take);
        }
        crate::default_drain_timeout(self.drain_timeout);
        Ok(bound)
    }
}

/// What serves `app` at a listener. `encrypt` makes the handshake of a connection in so much time; `None`: it has
/// failed.
fn start<How: 'static, Encrypted>(
    app: impl App<How>,
    may_pass: bool,
    encrypt: impl Fn(Stream, Duration) -> Encrypted + Clone + Send + Sync + 'static,
) -> Start
where
    Encrypted: Future<Output = Option<Stream>> + Send + 'static,
{
    Box::new(move |listener, Setting { shared, permits, place }| {
        let place = place.filter(|_| may_pass);
        let of_others = place.clone().map(|place| {
            let (app, shared) = (app.clone(), shared.clone());
            Arc::new(move |given, peer, seat| {
                let (app, shared, place) = (app.clone(), shared.clone(), Some(place.clone()));
                tokio::spawn(answer(given, peer, app, shared, seat, place));
            }) as Take
        });
        let take = move |(stream, peer, seat): Accepted| {
            let (app, shared, place) = (app.clone(), shared.clone(), place.clone());
            let encrypt = encrypt.clone();
            count(shared.counters.connections);
            tokio::spawn(async move {
                let accepted = Instant::now();
                let Some(client) = shared.client(&stream, peer, accepted).await else { return };
                let Some(stream) = encrypt(stream, shared.times.header).await else { return };
                answer(Given::new(stream, accepted), client, app, shared, seat, place).await;
            });
        };
        (Box::pin(accept_all(listener, permits, take)), of_others)
    })
}

/// Serves one connection, by the service that `app` is or makes.
async fn answer<How: 'static>(
    given: Given,
    peer: Option<Peer>,
    app: impl App<How>,
    shared: Arc<Shared>,
    seat: Seat,
    place: Option<Arc<Place>>,
) {
    match app.serve(peer).await {
        Ok(served) => converse(given, peer, served, shared, seat, place).await,
        Err(error) => crate::http::log::failed("make", &error),
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
            .field("spread", &self.spread)
            .field("pass", &self.pass)
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
            keep_alive: 75s, idle_grace: 1s, spread: 5s, pass: true, drain_timeout: Some(60s), \
            max_header_size: 65536, max_connections: 10000, trusted: None }";
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
