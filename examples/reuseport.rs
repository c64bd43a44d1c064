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
    sync::mpsc,
    thread,
};

use options::Options;
use socket2::{Domain, Socket, Type};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

fn main() -> ExitCode {
    options::main(SocketAddr::from(([127, 0, 0, 1], 8080)), run)
}

fn run(options: &Options<SocketAddr>) -> Result<(), Box<dyn std::error::Error>> {
    // Before the runtime exists: the launcher, which never gets past this call, then stays a
    // process of one thread.
    options.config().init()?;
    thread::sleep(options.startup_delay);

    // The drain counts as through when its hooks have returned; until then `drain_timeout` holds.
    let (serving, ended) = mpsc::channel::<()>();
    seamless::on_shutdown(move || {
        let _ = ended.recv(); // fails once `serving` is dropped
    });
    serve(options)?;
    drop(serving);
    let reason = seamless::wait();
    log::info!("process {} has drained: {reason:?}", process::id());
    Ok(())
}

#[tokio::main]
async fn serve(options: &Options<SocketAddr>) -> Result<(), Box<dyn std::error::Error>> {
    let address = options.places;
    let listener = bind(address).map_err(|error| format!("cannot listen on {address}: {error}"))?;
    log::info!("process {} listens on {}", process::id(), listener.local_addr()?);
    let app = web::app();

    // From here connections reach this process, so the old one may go.
    seamless::started()?;

    let mut draining = seamless::draining();
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => { connections.spawn(web::converse(stream, app.clone())); }
                Err(error) => web::cannot_accept(error).await,
            },
            Some(_) = connections.join_next() => {}
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
                connections.spawn(web::converse(TcpStream::from_std(stream)?, app.clone()));
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) => web::cannot_accept(error).await,
        }
    }
    drop(listener);

    // What was accepted is answered.
    while connections.join_next().await.is_some() {}
    Ok(())
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
