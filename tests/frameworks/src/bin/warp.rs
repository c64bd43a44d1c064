//! warp, by `seamless::http::serve`.

use seamless_frameworks::{arguments, hello};
use warp::Filter;

#[tokio::main]
async fn main() -> seamless::Result<()> {
    let (pid_file, address) = arguments();
    seamless::init(pid_file)?;
    let app = warp::path::end().map(hello);
    seamless::http::serve(address, warp::service(app)).await?;
    Ok(())
}
