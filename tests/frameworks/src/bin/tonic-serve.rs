//! tonic's own server.

use axum::{Router, routing::get};
use seamless_frameworks::{arguments, hello, pids::PidsServer};
use std::error::Error;
use tonic::service::Routes;
use tonic::transport::Server;

fn main() -> Result<(), Box<dyn Error>> {
    let (pid_file, address) = arguments();
    seamless::init(pid_file)?;
    tokio::runtime::Runtime::new()?.block_on(async {
        let listener = seamless::sockets::tokio::tcp(address)?;
        let plain = Router::new().route("/", get(async || hello()));
        let app = Routes::from(plain).add_service(PidsServer);
        seamless::started()?;
        let server = Server::builder().add_routes(app);
        server.serve_with_incoming_shutdown(listener.into_stream(), seamless::draining()).await?;
        seamless::finished().await;
        Ok(())
    })
}
