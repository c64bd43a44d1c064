//! What can be served: one tower service for all connections, or one that is made for each.

use super::library::BoxError;
use super::stream::Peer;
use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use tower_service::Service;

/// What [`serve`](super::serve) and [`Server`](super::Server) serve at a TCP address. `How` is always
/// inferred. It is one of:
///
/// - any tower service of requests, such as an axum `Router`;
/// - a service that makes one for each connection, from the address of the client, such as
///   `router.into_make_service_with_connect_info::<SocketAddr>()` of axum. Then axum's extractor
///   `ConnectInfo<SocketAddr>` works.
///
/// Without the second one, the address of the client is the extension [`Peer`] of each request.
///
/// This trait is sealed: it cannot be implemented outside of this crate.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be served",
    note = "it must be a tower service of `http::Request<hyper::body::Incoming>`, or one of \
            `std::net::SocketAddr` that makes such a service; and `Clone + Send + Sync + 'static`"
)]
pub trait App<How: 'static>: sealed::Sealed<How> + Clone + Send + Sync + 'static {
    #[doc(hidden)]
    type Served: Served;
    #[doc(hidden)]
    fn serve(
        self,
        peer: Option<Peer>,
    ) -> impl Future<Output = Result<Self::Served, BoxError>> + Send;
}

/// How an [`App`] is served: it is the service of all connections.
#[derive(Debug)]
pub struct Shared<B>(std::marker::PhantomData<B>);

/// How an [`App`] is served: it makes a service for each connection.
#[derive(Debug)]
pub struct Made<B>(std::marker::PhantomData<B>);

mod sealed {
    pub trait Sealed<How> {}
}

/// A tower service that can be served.
pub trait Served:
    Service<
        Request<Incoming>,
        Response = Response<<Self as Served>::Body>,
        Error: Into<BoxError> + Send,
        Future: Send + 'static,
    > + Clone
    + Send
    + Sync
    + 'static
{
    type Body: Body<Data: Send, Error: Into<BoxError>> + Send + 'static;
}

impl<S, B> Served for S
where
    S: Service<Request<Incoming>, Response = Response<B>> + Clone + Send + Sync + 'static,
    S::Error: Into<BoxError> + Send,
    S::Future: Send + 'static,
    B: Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
{
    type Body = B;
}

impl<S, B> sealed::Sealed<Shared<B>> for S where
    S: Service<Request<Incoming>, Response = Response<B>>
{
}

#[doc(hidden)] // its items are, too
impl<S: Served<Body = B>, B: 'static> App<Shared<B>> for S {
    type Served = S;

    async fn serve(self, _: Option<Peer>) -> Result<S, BoxError> {
        Ok(self)
    }
}

impl<M, S, B> sealed::Sealed<Made<B>> for M
where
    M: Service<SocketAddr, Response = S>,
    S: Service<Request<Incoming>, Response = Response<B>>,
{
}

#[doc(hidden)]
impl<M, S, B> App<Made<B>> for M
where
    M: Service<SocketAddr, Response = S> + Clone + Send + Sync + 'static,
    M::Error: Into<BoxError> + Send,
    M::Future: Send + 'static,
    S: Served<Body = B>,
    B: 'static,
{
    type Served = S;

    async fn serve(mut self, peer: Option<Peer>) -> Result<S, BoxError> {
        let Peer(address) = peer.ok_or("this client has no address")?;
        poll_fn(|context| self.poll_ready(context)).await.map_err(Into::into)?;
        self.call(address).await.map_err(Into::into)
    }
}
