//! warp's own server.

use seamless::DrainReason;
use seamless_frameworks::{arguments, hello};
use std::error::Error;
use std::future;
use tokio::net::TcpListener;
use warp::reply::{Reply, Response};
use warp::{Filter, http::HeaderValue};

fn main() -> Result<(), Box<dyn Error>> {
    let (pid_file, address) = arguments();
    seamless::init(pid_file)?;
    // tokio makes it nonblocking, so it is asked for in that mode.
    let listener = seamless::sockets::Options::new().nonblocking(true).tcp(address)?;
    tokio::runtime::Runtime::new()?.block_on(async {
        let app = warp::path::end().map(hello).map(close_in_the_drain);
        let listener = TcpListener::from_std(listener)?;
        seamless::started()?;
        let server = warp::serve(app).incoming(listener).graceful(future::pending());
        let mut server = Box::pin(server.run());
        let mut draining = seamless::draining().at_once();
        tokio::select! {
            () = &mut server => {}
            () = &mut draining => {}
        }
        // From here on nobody polls the server, so it accepts no more. Its connections have tasks of their
        // own. If the service is stopped, nobody else would accept.
        if draining.reason() == Some(DrainReason::TakenOver) {
            seamless::draining().await;
        } else {
            tokio::select! {
                () = &mut server => {}
                () = seamless::draining() => {}
            }
        }
        drop(server); // idle connections are closed
        seamless::finished().await;
        Ok(())
    })
}

fn close_in_the_drain(reply: impl Reply) -> Response {
    let mut answer = reply.into_response();
    if seamless::draining().has_begun() {
        answer.headers_mut().insert("connection", HeaderValue::from_static("close"));
    }
    answer
}
