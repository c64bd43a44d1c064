//! tonic, by `seamless::http::serve`: gRPC and plain HTTP at one address.

use axum::{Router, routing::get};
use seamless_frameworks::{arguments, hello, pids::PidsServer};
use tonic::service::Routes;

#[tokio::main]
async fn main() -> seamless::Result<()> {
    let (pid_file, address) = arguments();
    seamless::init(pid_file)?;
    let plain = Router::new().route("/", get(async || hello()));
    let app = Routes::from(plain).add_service(PidsServer).into_axum_router();
    seamless::http::serve(address, app).await?;
    Ok(())
}
