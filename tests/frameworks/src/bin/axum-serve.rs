//! `axum::serve`, for programs that need it itself.

use axum::{Router, routing::get};
use seamless_frameworks::{arguments, hello};
use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    let (pid_file, address) = arguments();
    seamless::init(pid_file)?; // before the runtime exists: the launcher stays small
    tokio::runtime::Runtime::new()?.block_on(async {
        let listener = seamless::sockets::tokio::tcp(address)?;
        let app = Router::new().route("/", get(async || hello()));
        let app = app.layer(seamless::tower::ConnectionClose);
        seamless::started()?;
        axum::serve(listener, app).with_graceful_shutdown(seamless::draining()).await?;
        seamless::finished().await;
        Ok(())
    })
}
