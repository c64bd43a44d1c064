//! A web server (axum, tokio) on a TCP port that the old and the new process share (SO_REUSEPORT).
//!
//! ```sh
//! reuseport --listen 127.0.0.1:8080 --pid-file /run/web/web.pid
//! curl 'http://127.0.0.1:8080/?delay=10s'
//! ```

mod options;
mod web;

use std::{
    io,
    net::SocketAddr,
    process::{self, ExitCode},
    thread,
};

use options::Options;
use seamless::{DrainReason, sockets::tokio::TcpListener};
use socket2::{Domain, Socket, Type};

fn main() -> ExitCode {
    options::main(SocketAddr::from(([127, 0, 0, 1], 8080)), run)
}

fn run(options: &Options<SocketAddr>) -> Result<(), Box<dyn std::error::Error>> {
    // Before the runtime exists: the launcher never gets past this call, and so has only one thread.
    options.config().init()?;
    thread::sleep(options.startup_delay);
    let reason = serve(options)?;
    log::info!("process {} has drained: {reason:?}", process::id());
    Ok(())
}

#[tokio::main]
async fn serve(options: &Options<SocketAddr>) -> Result<DrainReason, Box<dyn std::error::Error>> {
    let address = options.places;
    let mut listener =
        bind(address).map_err(|error| format!("cannot listen on {address}: {error}"))?;
    log::info!("process {} listens on {}", process::id(), listener.local_addr()?);
    let app = web::app();

    // Until this guard and its clones are dropped, the drain goes on and `drain_timeout` counts.
    let serving = seamless::drain_guard();

    // From here connections reach this process, so the old one may end.
    seamless::started()?;

    // It ends when the drain has begun and the queue is empty: closing it resets what is still there.
    while let Some((stream, _)) = listener.next().await {
        tokio::spawn(web::converse(stream, app.clone(), serving.clone()));
    }

    // What was accepted is answered: each connection has a guard of its own.
    drop(serving);
    Ok(seamless::finished().await)
}

/// SO_REUSEPORT lets both generations listen during a restart (both must run as the same user).
fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(4096)?;
    TcpListener::from_std(socket.into())
}
