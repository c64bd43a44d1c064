//! axum by `seamless::http::serve`: one line. With the client's address, Server-Sent Events that end when
//! the drain begins, and WebSockets that are closed one after the other, with 1012 (service restart).

use axum::extract::ConnectInfo;
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade};
use axum::response::sse::{Event, Sse};
use axum::response::{IntoResponse, Response};
use axum::{Router, routing::get};
use futures_util::{Stream, StreamExt, stream};
use seamless_frameworks::{arguments, hello};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;

fn main() -> seamless::Result<()> {
    let (pid_file, address) = arguments();
    seamless::init(pid_file)?;
    serve(address)
}

#[tokio::main] // after `init`: the launcher stays small
async fn serve(address: String) -> seamless::Result<()> {
    let app = Router::new()
        .route("/", get(async || hello()))
        .route("/peer", get(peer))
        .route("/events", get(events))
        .route(
            "/echo",
            get(async |upgrade: WebSocketUpgrade| -> Response { upgrade.on_upgrade(echo) }),
        );
    seamless::http::serve(address, app.into_make_service_with_connect_info::<SocketAddr>()).await?;
    Ok(())
}

async fn peer(ConnectInfo(peer): ConnectInfo<SocketAddr>) -> impl IntoResponse {
    format!("{peer}\n")
}

async fn events() -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let events = stream::unfold((), async |()| {
        tokio::time::sleep(Duration::from_millis(20)).await;
        Some((Ok(Event::default().data(hello())), ()))
    });
    // The client's browser connects again by itself, and reaches the successor.
    Sse::new(Box::pin(events).take_until(seamless::draining().at_once()))
}

async fn echo(mut socket: WebSocket) {
    // Each client at a moment of its own: all of them connect again.
    let mut moment = seamless::draining().moment(Duration::from_secs(2));
    loop {
        tokio::select! {
            message = socket.recv() => match message {
                Some(Ok(message @ (Message::Text(_) | Message::Binary(_)))) => {
                    if socket.send(message).await.is_err() {
                        return;
                    }
                }
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return,
            },
            () = &mut moment => {
                let close = seamless::http::close_frame();
                let close = CloseFrame { code: close.code, reason: close.reason.into() };
                _ = socket.send(Message::Close(Some(close))).await;
                // Until the client has answered, or has had its time.
                let answered = async { while let Some(Ok(_)) = socket.recv().await {} };
                _ = tokio::time::timeout(Duration::from_secs(5), answered).await;
                return;
            }
        }
    }
}
