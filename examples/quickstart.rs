//! An axum app on a socket that is taken over: `quickstart [PID_FILE [ADDRESS]]`.

use std::{env, process};

use axum::{Router, routing::get};

fn main() -> seamless::Result<()> {
    let mut args = env::args().skip(1);
    let pid_file = args.next().unwrap_or("/run/web/web.pid".into());
    let address = args.next().unwrap_or("127.0.0.1:8080".into());
    seamless::init(pid_file)?; // before the runtime: returns in the daemon only
    serve(address)
}

#[tokio::main]
async fn serve(address: String) -> seamless::Result<()> {
    let app = Router::new().route("/", get(async || format!("Server pid: {}\n", process::id())));
    let server = seamless::http::Server::new().tcp(address, app);
    let bound = server.bind().await?; // the predecessor's own socket, or a new one
    seamless::started()?; // ready: the predecessor answers what it has accepted, and ends
    bound.run().await?; // until our successor is ready, and our last request is answered
    Ok(())
}
