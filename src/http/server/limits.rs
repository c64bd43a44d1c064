//! The limits of a server, and whom it trusts.

use super::{Server, Trusted};
use std::time::Duration;

/// The smallest buffer with which hyper can read.
const LEAST_HEADER_SIZE: usize = 8192;
/// A longer time is cut to this, so that sums of times do not overflow.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 3600);

impl Server {
    /// How long the head of a request may take to arrive, counted from its first byte, and how long a new
    /// connection may take to send its first one, including a TLS handshake. After that it is closed. The
    /// same holds in a drain: a connection that was accepted is a promise. Default: 10 s.
    pub fn header_timeout(mut self, timeout: Duration) -> Server {
        self.header_timeout = timeout.min(LONGEST);
        self
    }

    /// How long the app may take until it begins its answer. After that the client gets a 503 and the
    /// request is dropped. Default: `None`, no limit. Threads and tasks that the app has started go on.
    ///
    /// It is also the only limit for a client that stops in the middle of an upload and stays connected, for which the
    /// app waits. A TCP client that has gone without a word (no power, no network) is found by the kernel:
    /// accepted connections have `SO_KEEPALIVE`, and one whose client has been silent for 60 s, and then does not
    /// answer the kernel for another 60 s, is closed. On a [listener](Server::tcp_listener) that the program has made,
    /// its own `SO_KEEPALIVE` and times hold.
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

    /// How long an idle HTTP/1 connection stays open once its [moment](Server::spread) in the drain has
    /// come: time for a request
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

    /// Over how long connections leave in a drain if another generation serves. Each gets a moment of its own in this
    /// time, and is served as always until then. From its moment on, answers say `Connection: close`, an HTTP/2
    /// connection gets a GOAWAY, and [`idle_grace`](Server::idle_grace) counts. Default: 5 s, at most a third
    /// of the drain's limit. 0: all leave at once.
    ///
    /// It protects the successor from all clients at once: with 5,000 idle connections that came back within
    /// a second, the slowest hundredth of all other requests took 117 to 204 ms instead of 3 ms. The drain takes
    /// longer by this time. On a stop there is no spread, since nobody can come back.
    pub fn spread(mut self, spread: Duration) -> Server {
        self.spread = spread.min(LONGEST);
        self
    }

    /// Whether open connections are passed to the successor in a drain, so that their clients need not connect
    /// again, and none of them finds its connection closed when it sends its next request. Default: `true`.
    ///
    /// Passed are plain HTTP/1 connections (TCP and Unix), as soon as nothing is in flight: idle ones at once, the
    /// others when their answer has been written. What the client has sent of its next request goes along. No
    /// answer says `Connection: close` before that. The successor has to serve the same place: a TCP address as
    /// [`Bound::addresses`](super::Bound::addresses) shows it, or the path of a Unix socket. A connection counts in
    /// its [`max_connections`](Server::max_connections), and keeps its age.
    ///
    /// The other connections leave in the drain as [`spread`](Server::spread) says: with TLS, with HTTP/2, those
    /// after a request whose body has not come to its end or has no length (until the next request), and all
    /// that the successor refuses, for example since its limit is reached or since it has switched this off. On a
    /// stop nothing is passed.
    ///
    /// Switch it off if the app keeps something in memory that belongs to a connection, such as a session that was
    /// authenticated once for the whole connection (NTLM), or an app that
    /// [is made](super::App) for each connection and keeps state: the successor makes a new one.
    pub fn pass(mut self, pass: bool) -> Server {
        self.pass = pass;
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
}
