//! What the servers on axum share: what they answer, and how a connection is served to its end.

use std::{
    collections::HashMap,
    io,
    pin::pin,
    process,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use axum::{
    Router,
    extract::Query,
    http::{HeaderValue, StatusCode, header::CONNECTION},
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
use seamless::DrainGuard;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::sleep,
};

/// How long a connection that waits for its next request stays open once the drain has begun. Its
/// client may send that again if it is closed.
const IDLE_GRACE: Duration = Duration::from_secs(1);
/// The same for its first request, which the client may not send again: a connection that was
/// accepted is a promise.
const FIRST_GRACE: Duration = Duration::from_secs(10);

/// Answers every request with the PID, and after a while where that is asked for: `/?delay=10s`.
pub(crate) fn app() -> Router {
    Router::new().fallback(answer).layer(middleware::map_response(close_while_draining))
}

type Answer = Result<String, (StatusCode, String)>;

async fn answer(Query(query): Query<HashMap<String, String>>) -> Answer {
    if let Some(delay) = query.get("delay") {
        let delay = humantime::parse_duration(delay)
            .map_err(|error| (StatusCode::BAD_REQUEST, format!("delay: {error}\n")))?;
        sleep(delay).await;
    }
    Ok(format!("Server pid: {}\n", process::id()))
}

async fn close_while_draining(mut response: Response) -> Response {
    if seamless::draining().has_begun() {
        let close = HeaderValue::from_static("close");
        response.headers_mut().insert(CONNECTION, close);
    }
    response
}

/// Serves one connection to its end, and holds up the end of the drain until then.
///
/// `axum::serve` with a graceful shutdown would close, the moment the drain begins, also a
/// connection whose first or next request is on its way. Here such a connection has
/// its grace to bring that request, which is answered with `Connection: close`.
pub(crate) async fn converse<S>(stream: S, app: Router, _guard: DrainGuard)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (app, asked) = (TowerToHyperService::new(app), AtomicBool::new(false));
    let service = service_fn(|request| {
        asked.store(true, Ordering::Relaxed);
        app.call(request)
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new()) // a client that stops in the middle of its headers gets 30 s
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    let grace_is_over = async {
        seamless::draining().await;
        sleep(IDLE_GRACE).await;
        if !asked.load(Ordering::Relaxed) {
            sleep(FIRST_GRACE - IDLE_GRACE).await;
        }
    };
    let result = tokio::select! {
        biased;
        result = connection.as_mut() => result,
        () = grace_is_over => {
            // Ends an idle connection now, a busy one after its answer.
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = result {
        log::debug!("connection: {error}");
    }
}

/// Out of descriptors, or a client that left the queue: no reason to end, but one to pause.
pub(crate) async fn cannot_accept(error: io::Error) {
    log::warn!("cannot accept: {error}");
    sleep(Duration::from_millis(50)).await;
}
