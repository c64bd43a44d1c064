//! A web server whose restarts nobody notices, in one line.
//!
//! ```sh
//! http --listen 127.0.0.1:8080 --pid-file /run/web/web.pid --probation 30s --leave 10s
//! curl http://127.0.0.1:8080/
//! curl http://127.0.0.1:8080/health # for load balancers: 503 when it is about to stop
//! ```

mod options;

use axum::{Router, body::Bytes};
use options::Options;
use std::{error::Error, net::SocketAddr, process, process::ExitCode, thread};

fn main() -> ExitCode {
    options::main(SocketAddr::from(([127, 0, 0, 1], 8080)), run)
}

fn run(options: &Options<SocketAddr>) -> Result<(), Box<dyn Error>> {
    options.config().init()?; // returns in the daemon, a child of the supervisor's process
    thread::sleep(options.startup_delay);
    serve(options.places)
}

#[tokio::main] // after `init`: the launcher stays small
async fn serve(address: SocketAddr) -> Result<(), Box<dyn Error>> {
    let app = Router::new()
        .route_service("/health", seamless::http::health())
        // `Bytes`: the whole body is read, at most 2 MiB. If a body is left unread, the connection is lost.
        .fallback(async |_: Bytes| {
            options::request_arrived();
            format!("Server pid: {}\n", process::id())
        });
    seamless::http::serve(address, app).await?; // the line
    Ok(())
}
