//! tonic, by `seamless::http::serve`: gRPC and plain HTTP at one address.

use axum::{Router, routing::get};
use seamless_frameworks::{arguments, hello, pids::PidsServer};
use tonic::service::Routes;

fn main() -> seamless::Result<()> {
    let (pid_file, address) = arguments();
    seamless::init(pid_file)?;
    serve(address)
}

#[tokio::main] // after `init`: the launcher stays small
async fn serve(address: String) -> seamless::Result<()> {
    let plain = Router::new().route("/", get(async || hello()));
    let app = Routes::from(plain).add_service(PidsServer).into_axum_router();
    seamless::http::serve(address, app).await?;
    Ok(())
}
