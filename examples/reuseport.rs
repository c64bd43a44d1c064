//! A web server (axum, tokio) on a TCP port that the old and the new process share (SO_REUSEPORT).
//!
//! ```sh
//! reuseport --listen 127.0.0.1:8080 --pid-file /run/web/web.pid
//! curl 'http://127.0.0.1:8080/?delay=10s'
//! ```

mod options;

use std::{
    collections::HashMap,
    io::{self, ErrorKind},
    net::SocketAddr,
    pin::pin,
    process::{self, ExitCode},
    sync::mpsc,
    thread,
    time::Duration,
};

use axum::{
    Router,
    extract::Query,
    http::{HeaderValue, StatusCode, header::CONNECTION},
    middleware,
    response::Response,
};
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use options::Options;
use socket2::{Domain, Socket, Type};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::sleep,
};

/// How long a connection without a request stays open once the drain has begun.
const IDLE_GRACE: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    let options = Options::from_args(SocketAddr::from(([127, 0, 0, 1], 8080)));
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("info")).init();
    match run(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            log::error!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options<SocketAddr>) -> Result<(), Box<dyn std::error::Error>> {
    // Before the runtime exists: the launcher, which never gets past this call, then stays a
    // process of one thread.
    seamless::Config::new(&options.pid_file).drain_timeout(options.graceful_timeout).init()?;
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
    let app = Router::new().fallback(answer).layer(middleware::map_response(close_while_draining));

    // From here connections reach this process, so the old one may go.
    seamless::started()?;

    let mut draining = seamless::draining();
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => { connections.spawn(converse(stream, app.clone())); }
                Err(error) => cannot_accept(error).await,
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
                connections.spawn(converse(TcpStream::from_std(stream)?, app.clone()));
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) => cannot_accept(error).await,
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

/// Serves one connection to its end.
///
/// `axum::serve` with a graceful shutdown would close, the moment the drain begins, also a
/// connection whose first or next request is on its way. Here such a connection has
/// `IDLE_GRACE` to bring that request, which is answered with `Connection: close`.
async fn converse(stream: TcpStream, app: Router) {
    let _ = stream.set_nodelay(true);
    let connection = http1::Builder::new()
        .timer(TokioTimer::new()) // a client that stops in the middle of its headers gets 30 s
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(app));
    let mut connection = pin!(connection);
    let grace_is_over = async {
        seamless::draining().await;
        sleep(IDLE_GRACE).await;
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
async fn cannot_accept(error: io::Error) {
    log::warn!("cannot accept: {error}");
    sleep(Duration::from_millis(50)).await;
}

async fn close_while_draining(mut response: Response) -> Response {
    if seamless::draining().has_begun() {
        let close = HeaderValue::from_static("close");
        response.headers_mut().insert(CONNECTION, close);
    }
    response
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
