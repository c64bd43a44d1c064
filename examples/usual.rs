//! A server with clap, anyhow, tracing and tokio: `usual --pid-file=/run/web/web.pid --listen=127.0.0.1:8080`.

use anyhow::Context;
use axum::Router;
use clap::Parser;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::{io, process};

/// A web server whose restarts nobody notices.
#[derive(Parser)]
struct Options {
    /// Generations find each other by this file.
    #[arg(long)]
    pid_file: PathBuf,
    #[arg(long, default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
}

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    // It starts no thread and opens no file. It also takes what the crate logs.
    tracing_subscriber::fmt().with_writer(io::stderr).init();
    seamless::init(&options.pid_file).context("cannot start")?; // returns in the daemon
    serve(options)
}

/// The runtime starts here.
#[tokio::main]
async fn serve(options: Options) -> anyhow::Result<()> {
    let app = Router::new().fallback(async || format!("Server pid: {}\n", process::id()));
    let reason = seamless::http::serve(options.listen, app).await.context("cannot serve")?;
    tracing::info!(?reason, "drained");
    Ok(())
}
