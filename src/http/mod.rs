//! HTTP servers that restart without a failed request, in one line.
//!
//! ```no_run
//! use axum::{Router, routing::get};
//!
//! fn main() -> seamless::Result<()> {
//!     seamless::init("/run/web/web.pid")?; // before the runtime, so that the launcher has no threads
//!     serve()
//! }
//!
//! #[tokio::main]
//! async fn serve() -> seamless::Result<()> {
//!     let app = Router::new().route("/", get(|| async { "Hello\n" }));
//!     seamless::http::serve("0.0.0.0:8080", app).await?;
//!     Ok(())
//! }
//! ```
//!
//! [`serve`] takes the socket over from the predecessor or binds it, calls
//! [`started`](crate::started), serves HTTP/1 and HTTP/2 to any tower service, drains when a
//! successor serves or the service is stopped, and returns. [`Server`] does the same for several
//! places at once, and has the limits; [`Server::bind`] leaves [`started`](crate::started) to the
//! program. Hyper speaks HTTP; this module decides when connections end. It uses the public interface
//! of this crate only, so a server for another protocol can be built in the same way.
//!
//! # The drain
//!
//! The server accepts what is queued, then closes its socket; a successor keeps the same socket open.
//!
//! If another generation serves (a successor, or after a failed [probation](crate::Config::probation) the
//! predecessor), plain HTTP/1 connections are [passed](Server::pass) to it as soon as nothing is in flight:
//! their clients notice nothing. Each connection that cannot be passed leaves at a moment of its own within
//! [`spread`](Server::spread) (5 s): otherwise all clients would come back in the same second. Until its moment it
//! is served as always. On a stop, all leave at once. From its moment on:
//!
//! - **HTTP/1**: each answer says `Connection: close`, and the connection ends with it. If further
//!   requests have already arrived behind it (pipelined), the connection ends with the last of them. An
//!   idle connection, or one whose answer had begun before the drain, stays open for
//!   [`idle_grace`](Server::idle_grace), so that a request on its way is answered. A new connection has
//!   [`header_timeout`](Server::header_timeout) for its first request, as always.
//! - **HTTP/2**: GOAWAY, in two steps as RFC 9113 describes it, the second after
//!   [`idle_grace`](Server::idle_grace), so that requests on their way are served. A client that answers it may take
//!   its time for the rest of its answers, and a tunnel (CONNECT) is one of them. One that is silent instead has gone:
//!   it is cut after twice the [`header_timeout`](Server::header_timeout).
//! - **Upgraded connections** (WebSocket) belong to the app: it should end them with a [`close_frame`] when
//!   [`draining().moment(spread)`](crate::Draining::moment) resolves. Until then this process stays.
//! - **The limit**: [`drain_timeout`](Server::drain_timeout), 60 s. After it, or on USR2 by hand, every
//!   connection with something in flight is reset, the log says how many were cut, and the process ends
//!   with code 124.
//!
//! # Behind a load balancer
//!
//! A proxy of TCP connections, such as HAProxy (`send-proxy`, `send-proxy-v2`), nginx (`proxy_protocol on` in
//! `stream`) or the load balancers of clouds, can say for whom it connects, by the PROXY protocol.
//! [`Server::proxy_protocol`] accepts its versions 1 and 2 from those that are trusted, and [`Peer`] is the
//! client. With TLS, the header comes before the handshake.
//!
//! # Limitations
//!
//! - The server cannot see requests that were pipelined behind one with a body: the answer to
//!   that one may be the last. No client should pipeline there (RFC 9112, 9.3.2).
//! - A client that closes its sending side behind a request (`nc -N`) gets no answer: hyper takes it for one that has
//!   gone.
//! - A Unix socket cannot be reset: an answer to an HTTP/1.0 client, whose body ends with the
//!   connection, looks complete when it is cut.
//! - Call [`serve`] once in a program: it announces the service. For several places, use
//!   [`Server`].
//! - Types of hyper, http and tower are part of this module's interface.

mod accept;
mod app;
mod bound;
mod connection;
mod counters;
mod farewell;
mod goodbye;
mod heads;
mod health;
mod io;
mod library;
mod log;
mod passing;
mod protocol;
mod proxied;
mod server;
mod standby;
mod state;
mod stream;
#[cfg(feature = "tls")]
mod tls;
mod woken;

pub use app::{App, Made, Shared};
pub use bound::Bound;
pub use farewell::{CloseFrame, close_frame};
pub use health::{Health, HealthBody, health};
pub use proxied::Trusted;
pub use server::Server;
pub use stream::{Address, Peer};
#[cfg(feature = "tls")]
pub use tls::Tls;

use crate::{DrainReason, Result};
use std::net::ToSocketAddrs;

/// One server with every default: `Server::new().tcp(addr, app).serve()`.
///
/// `app` is any tower service: an axum `Router` as it is. For axum's extractor `ConnectInfo`:
///
/// ```no_run
/// use axum::{Router, extract::ConnectInfo, routing::get};
/// use std::net::SocketAddr;
///
/// async fn hello(ConnectInfo(client): ConnectInfo<SocketAddr>) -> String {
///     format!("Hello {client}\n")
/// }
///
/// # async fn run() -> seamless::Result<()> {
/// let app = Router::new().route("/", get(hello));
/// let app = app.into_make_service_with_connect_info::<SocketAddr>();
/// seamless::http::serve("0.0.0.0:8080", app).await?;
/// # Ok(())
/// # }
/// ```
///
/// Without it, the address of the client is the extension [`Peer`] of each request.
///
/// # Errors
///
/// As [`Server::serve`].
pub async fn serve<How: 'static>(
    addr: impl ToSocketAddrs + Send + 'static,
    app: impl App<How>,
) -> Result<DrainReason> {
    Server::new().tcp(addr, app).serve().await
}
