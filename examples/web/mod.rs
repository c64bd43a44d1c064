//! What the servers on axum share: the answers, and how a connection is served to its end.

use std::{
    collections::HashMap,
    pin::pin,
    process,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use axum::{Router, extract::Query, http::StatusCode};
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

/// How much longer than others an idle connection stays open in the drain if its first request has not come yet: the
/// client may not retry.
const FIRST_GRACE: Duration = Duration::from_secs(9);

/// Answers every request with the PID, and with a delay if the request asks for one: `/?delay=10s`.
pub(crate) fn app() -> Router {
    Router::new().fallback(answer).layer(seamless::tower::ConnectionClose)
}

type Answer = Result<String, (StatusCode, String)>;

async fn answer(Query(query): Query<HashMap<String, String>>) -> Answer {
    crate::options::request_arrived();
    if let Some(delay) = query.get("delay") {
        let delay = humantime::parse_duration(delay)
            .map_err(|error| (StatusCode::BAD_REQUEST, format!("delay: {error}\n")))?;
        sleep(delay).await;
    }
    Ok(format!("Server pid: {}\n", process::id()))
}

/// Serves one connection to its end, and holds up the end of the drain until then.
///
/// As `axum::serve` does with `seamless::draining()`, an idle connection has a grace to bring the
/// request that is on its way. Here a connection that has not brought its first one has a longer grace.
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
        seamless::draining().await; // 1 s after its beginning
        if !asked.load(Ordering::Relaxed) {
            sleep(FIRST_GRACE).await;
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
