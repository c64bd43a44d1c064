//! `axum::serve` without a lost request: `axum [PID_FILE [ADDRESS]]`.

use axum::Router;
use std::{env, error::Error, process};
use tokio::runtime::Runtime;

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = env::args().skip(1);
    let pid_file = args.next().unwrap_or("/run/web/web.pid".into());
    let address = args.next().unwrap_or("127.0.0.1:8080".into());
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("info")).init();

    seamless::init(pid_file)?; // before the runtime exists: the launcher stays small
    Runtime::new()?.block_on(async {
        let listener = seamless::sockets::tokio::tcp(address)?; // stops accepting in the drain
        let app = Router::new()
            .fallback(async || format!("Server pid: {}\n", process::id()))
            .layer(seamless::tower::ConnectionClose); // asks clients to leave in the drain
        seamless::started()?;
        axum::serve(listener, app)
            .with_graceful_shutdown(seamless::draining()) // 1 s later: closes idle connections
            .await?;
        seamless::finished().await;
        Ok(())
    })
}
