//! The answer to a load balancer's health check.

use crate::State;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use http::{Request, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Bytes;
use std::convert::Infallible;
use std::future::{Ready, ready};
use std::pin::Pin;
use std::task::{Context, Poll};
use tower_service::Service;

/// What a load balancer is to be told: 200 while it may send requests here, 503 from the moment when it should
/// send no more.
///
/// It is 503 while this generation is [leaving](State::Leaving) ([`Config::leave_time`](crate::Config::leave_time))
/// and while it drains, and 200 otherwise. It says nothing of the program's own health. A handler that looks at
/// more asks for [`status`](Health::status) first:
///
/// ```no_run
/// use axum::{Router, http::StatusCode, routing::get};
///
/// # fn database_answers() -> bool { true }
/// async fn ready() -> StatusCode {
///     match database_answers() {
///         true => seamless::http::health().status(),
///         false => StatusCode::SERVICE_UNAVAILABLE,
///     }
/// }
///
/// # async fn run() -> seamless::Result<()> {
/// let app: Router = Router::new()
///     .route_service("/health", seamless::http::health())
///     .route("/ready", get(ready));
/// seamless::http::serve("0.0.0.0:8080", app).await?;
/// # Ok(())
/// # }
/// ```
///
/// During a restart the successor answers 200 as soon as it serves, and its predecessor, which drains, is not
/// asked any more by new connections. A balancer that keeps its connection for health checks open to the
/// predecessor may read one 503 there: it must want at least two failures in a row, as all do by default.
#[must_use = "it only answers"]
pub fn health() -> Health {
    Health(())
}

/// The answer of [`health`]: a tower service that answers every request, and a value to ask.
#[derive(Clone, Copy, Debug)]
pub struct Health(());

impl Health {
    /// 200, or 503. Never blocks.
    pub fn status(self) -> StatusCode {
        self.answer().0
    }

    /// A whole answer, which no cache may keep. Its body is a word: `ok`, `leaving` or `draining`.
    pub fn response(self) -> Response<HealthBody> {
        let (status, word) = self.answer();
        let mut response = Response::new(HealthBody(Some(Bytes::from_static(word.as_bytes()))));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
        response
    }

    fn answer(self) -> (StatusCode, &'static str) {
        match crate::state() {
            State::Leaving => (StatusCode::SERVICE_UNAVAILABLE, "leaving\n"),
            State::Draining => (StatusCode::SERVICE_UNAVAILABLE, "draining\n"),
            State::Starting | State::Serving | State::Detached | State::Standby => {
                (StatusCode::OK, "ok\n")
            }
        }
    }
}

impl<B> Service<Request<B>> for Health {
    type Response = Response<HealthBody>;
    type Error = Infallible;
    type Future = Ready<Result<Response<HealthBody>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<B>) -> Self::Future {
        ready(Ok(self.response()))
    }
}

/// The body of such an answer: one word.
#[derive(Debug)]
pub struct HealthBody(Option<Bytes>);

impl Body for HealthBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.take().map(|word| Ok(Frame::data(word))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0.as_ref().map_or(0, |word| word.len() as u64))
    }
}

#[cfg(test)]
mod tests {
    use super::{Body, health};
    use http::StatusCode;

    /// The other answer needs a daemon: see `tests/http`.
    #[test]
    fn a_process_that_is_not_about_to_end_is_healthy() {
        assert_eq!(health().status(), StatusCode::OK);
        let response = health().response();
        assert_eq!(
            (response.status(), response.body().size_hint().exact()),
            (StatusCode::OK, Some(3))
        );
        assert_eq!(response.headers()["cache-control"], "no-store");
        assert!(!response.body().is_end_stream());
    }
}
