//! warp, by `seamless::http::serve`.

use seamless_frameworks::{arguments, hello};
use warp::Filter;

fn main() -> seamless::Result<()> {
    let (pid_file, address) = arguments();
    seamless::init(pid_file)?;
    serve(address)
}

#[tokio::main] // after `init`: the launcher stays small
async fn serve(address: String) -> seamless::Result<()> {
    let app = warp::path::end().map(hello);
    seamless::http::serve(address, warp::service(app)).await?;
    Ok(())
}
