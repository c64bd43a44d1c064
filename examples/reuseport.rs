//! A web server (axum, tokio) on a TCP port that the old and the new process share (SO_REUSEPORT).
//!
//! ```sh
//! reuseport --listen 127.0.0.1:8080 --pid-file /run/web/web.pid
//! curl 'http://127.0.0.1:8080/?delay=10s'
//! ```

mod options;
mod web;

use std::{
    io::{self, ErrorKind},
    net::SocketAddr,
    process::{self, ExitCode},
    thread,
};

use options::Options;
use seamless::DrainReason;
use socket2::{Domain, Socket, Type};
use tokio::net::{TcpListener, TcpStream};

fn main() -> ExitCode {
    options::main(SocketAddr::from(([127, 0, 0, 1], 8080)), run)
}

fn run(options: &Options<SocketAddr>) -> Result<(), Box<dyn std::error::Error>> {
    // Before the runtime exists: the launcher, which never gets past this call, then stays a
    // process of one thread.
    options.config().init()?;
    thread::sleep(options.startup_delay);
    let reason = serve(options)?;
    log::info!("process {} has drained: {reason:?}", process::id());
    Ok(())
}

#[tokio::main]
async fn serve(options: &Options<SocketAddr>) -> Result<DrainReason, Box<dyn std::error::Error>> {
    let address = options.places;
    let listener = bind(address).map_err(|error| format!("cannot listen on {address}: {error}"))?;
    log::info!("process {} listens on {}", process::id(), listener.local_addr()?);
    let app = web::app();

    // Until this guard and its clones are dropped, the drain goes on and `drain_timeout` counts.
    let serving = seamless::drain_guard();

    // From here connections reach this process, so the old one may go.
    seamless::started()?;

    let mut draining = seamless::draining();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    tokio::spawn(web::converse(stream, app.clone(), serving.clone()));
                }
                Err(error) => web::cannot_accept(error).await,
            },
            () = &mut draining => break,
        }
    }

    // Closing a listener resets the connections in its queue: empty the queue first, and leave
    // nothing between the first EAGAIN and the close. The standard library's listener asks the
    // kernel each time; tokio's would rely on what it was told last.
    let listener = listener.into_std()?;
    loop {
        match listener.accept() {
            Ok((stream, _)) => {
                stream.set_nonblocking(true)?;
                let stream = TcpStream::from_std(stream)?;
                tokio::spawn(web::converse(stream, app.clone(), serving.clone()));
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) => web::cannot_accept(error).await,
        }
    }
    drop(listener);

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
