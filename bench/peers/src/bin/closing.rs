//! SO_REUSEPORT as it is used most: the old process closes its listener when the drain begins, with
//! whatever is queued there. The restart itself is this crate's.

use std::error::Error;

use axum::Router;
use seamless_bench_peers::{Options, answer, reuse_port};

fn main() -> Result<(), Box<dyn Error>> {
    let options = Options::from_args()?;
    seamless::init(&options.pid_file)?;
    serve(&options)?;
    seamless::wait();
    Ok(())
}

#[tokio::main]
async fn serve(options: &Options) -> Result<(), Box<dyn Error>> {
    let listener = reuse_port(options.listen)?;
    seamless::started()?;
    let app = Router::new().fallback(answer);
    axum::serve(listener, app).with_graceful_shutdown(seamless::draining()).await?;
    Ok(())
}
