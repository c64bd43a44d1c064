//! The server of the example `http` on the underlying library alone, as its users write it: what the
//! module `http` costs is measured against this. `bare ADDRESS`. TERM ends it at once.

use std::{env, io, process};

use axum::Router;
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
    service::TowerToHyperService,
};
use tokio::net::TcpListener;

#[tokio::main]
async fn main() -> io::Result<()> {
    let app = Router::new().fallback(async || format!("Server pid: {}\n", process::id()));
    let service = TowerToHyperService::new(app);
    let listener = TcpListener::bind(env::args().nth(1).expect("an address")).await?;
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let service = service.clone();
        tokio::spawn(async move {
            let library = auto::Builder::new(TokioExecutor::new());
            let io = TokioIo::new(stream);
            let _ = library.serve_connection_with_upgrades(io, service).await;
        });
    }
}
