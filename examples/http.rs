//! A web server whose restarts nobody notices, in one line: `http [PID_FILE [ADDRESS]]`.

use axum::{Router, body::Bytes};
use std::{env, process};

fn main() -> seamless::Result<()> {
    let mut args = env::args().skip(1);
    let pid_file = args.next().unwrap_or("/run/web/web.pid".into());
    let address = args.next().unwrap_or("127.0.0.1:8080".into());
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("info")).init();

    seamless::init(pid_file)?; // returns in the daemon, a child of the supervisor's process
    serve(address)
}

#[tokio::main] // after `init`: the launcher stays small
async fn serve(address: String) -> seamless::Result<()> {
    // `Bytes`: the whole body is read, at most 2 MiB. Who leaves a body unread loses the connection.
    let app = Router::new().fallback(async |_: Bytes| format!("Server pid: {}\n", process::id()));
    seamless::http::serve(address, app).await?; // the line
    Ok(())
}
