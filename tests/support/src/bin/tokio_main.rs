//! A program whose `main` runs in a runtime of several threads, with `init` in it:
//! `tokio_main PID_FILE ADDRESS`.

use axum::Router;
use std::{env, process};

#[tokio::main(worker_threads = 3)]
async fn main() -> seamless::Result<()> {
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("info")).init();
    let mut args = env::args().skip(1);
    let mut arg = || args.next().expect("tokio_main PID_FILE ADDRESS");
    seamless::init(arg())?;
    let app = Router::new().fallback(async || format!("Server pid: {}\n", process::id()));
    seamless::http::serve(arg(), app).await?;
    Ok(())
}
