//! A layer for every tower service that answers HTTP: axum, tonic, warp's `service`, and others.
//!
//! ```
//! # #[cfg(feature = "axum")] {
//! let app = axum::Router::<()>::new().fallback(|| async { "Hello\n" });
//! let app = app.layer(seamless::tower::ConnectionClose); // the last `layer`, so that it sees every answer
//! # }
//! ```
//!
//! `seamless::http` does the same by itself.

use http::header::{CONNECTION, HeaderValue};
use http::{Method, Request, Response, StatusCode, Version};
use pin_project_lite::pin_project;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tower_layer::Layer;
use tower_service::Service;

/// Adds `Connection: close` to the answers that are given in the drain, over HTTP/1, so that clients
/// leave this process before its framework closes their connections:
/// [`Draining`](crate::Draining#why-a-grace) tells why.
///
/// An answer whose head was sent before the drain began does not have it, and its connection stays open
/// until the framework's shutdown begins. Answers over HTTP/2, and answers after which the connection is
/// no longer HTTP (101 Switching Protocols, or 2xx to CONNECT), are left alone.
#[derive(Clone, Copy, Debug, Default)]
pub struct ConnectionClose;

impl<S> Layer<S> for ConnectionClose {
    type Service = ConnectionCloseService<S>;

    fn layer(&self, inner: S) -> ConnectionCloseService<S> {
        ConnectionCloseService { inner }
    }
}

/// What [`ConnectionClose`] makes of a service.
#[derive(Clone, Copy, Debug, Default)]
pub struct ConnectionCloseService<S> {
    inner: S,
}

impl<S, A, B> Service<Request<A>> for ConnectionCloseService<S>
where
    S: Service<Request<A>, Response = Response<B>>,
{
    type Response = Response<B>;
    type Error = S::Error;
    type Future = Answering<S::Future>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<A>) -> Answering<S::Future> {
        let is_http1 = request.version() <= Version::HTTP_11;
        let connects = request.method() == Method::CONNECT;
        Answering { answer: self.inner.call(request), is_http1, connects }
    }
}

pin_project! {
    /// The future of [`ConnectionCloseService`].
    #[derive(Debug)]
    pub struct Answering<F> {
        #[pin]
        answer: F,
        is_http1: bool,
        connects: bool,
    }
}

impl<F, B, E> Future for Answering<F>
where
    F: Future<Output = Result<Response<B>, E>>,
{
    type Output = Result<Response<B>, E>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let mut answer = ready!(this.answer.poll(context))?;
        let upgrades = answer.status() == StatusCode::SWITCHING_PROTOCOLS
            || *this.connects && answer.status().is_success();
        if *this.is_http1 && !upgrades && crate::draining().has_begun() {
            answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        Poll::Ready(Ok(answer))
    }
}
