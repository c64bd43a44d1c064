//! HTTP servers that restart without a failed request, in one line.
//!
//! ```no_run
//! use axum::{Router, routing::get};
//!
//! #[tokio::main]
//! async fn main() -> seamless::Result<()> {
//!     seamless::init("/run/web/web.pid")?;
//!     let app = Router::new().route("/", get(|| async { "Hello\n" }));
//!     seamless::http::serve("0.0.0.0:8080", app).await?;
//!     Ok(())
//! }
//! ```
//!
//! [`serve`] takes the socket over from the predecessor or binds it, calls
//! [`started`](crate::started), serves HTTP/1 and HTTP/2 to any tower service, drains when a
//! successor serves or the service is stopped, and returns. [`Server`] does the same for several
//! places at once, and has the limits. Hyper does the HTTP; this module adds when to stop.
//!
//! # The drain
//!
//! What is queued is accepted, then the socket is closed in this process; a successor goes on with it.
//!
//! - **HTTP/1**: each answer says `Connection: close`, and the connection ends with it; where more
//!   requests have come behind it (pipelined), with the last of them. An idle connection, or one whose
//!   answer had begun before the drain, stays open for [`idle_grace`](Server::idle_grace): a request
//!   that is on its way is answered. A new connection has
//!   [`header_timeout`](Server::header_timeout) for its first request, as always.
//! - **HTTP/2**: GOAWAY at once, in two steps as RFC 9113 has it, the second after
//!   [`idle_grace`](Server::idle_grace): requests on their way are served.
//! - **Upgraded connections** (WebSocket) are the app's: it should end them when
//!   [`draining`](crate::draining) resolves. Until then this process stays.
//! - **The limit**: [`drain_timeout`](Server::drain_timeout), 60 s. Then, or on USR2 by hand, everything
//!   left is reset, the log tells how many connections were cut, and the process ends with code 124.
//!
//! # Limitations
//!
//! - Requests that were pipelined behind one with a body are not known to have come: the answer to
//!   that one may be the last. No client should pipeline there (RFC 9112, 9.3.2).
//! - Over a Unix socket there is no reset: an answer to an HTTP/1.0 client, whose body ends with the
//!   connection, looks whole when it is cut.
//! - [`serve`] is for one call in a program: it announces the service. For several places, use
//!   [`Server`].
//! - Types of hyper, http and tower are part of this module's interface.

mod accept;
mod bound;
mod connection;
mod goodbye;
mod heads;
mod server;
mod state;
mod stream;
#[cfg(feature = "tls")]
mod tls;
mod woken;

pub use bound::Bound;
pub use server::Server;
pub use stream::{Address, Peer};
#[cfg(feature = "tls")]
pub use tls::Tls;

use crate::{DrainReason, Result};
use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use std::error::Error;
use std::net::ToSocketAddrs;
use tower_service::Service;

/// One server with every default: `Server::new().tcp(addr, app).serve()`.
///
/// # Errors
///
/// As [`Server::serve`].
pub async fn serve<S, B>(addr: impl ToSocketAddrs + Send + 'static, app: S) -> Result<DrainReason>
where
    S: Service<Request<Incoming>, Response = Response<B>> + Clone + Send + Sync + 'static,
    S::Error: Into<Box<dyn Error + Send + Sync>> + Send,
    S::Future: Send + 'static,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    Server::new().tcp(addr, app).serve().await
}
