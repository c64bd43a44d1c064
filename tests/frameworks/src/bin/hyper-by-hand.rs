//! hyper by hand.

use hyper::server::conn::http1;
use hyper::{Request, Response, body::Incoming};
use hyper_util::rt::TokioIo;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use seamless_frameworks::{arguments, hello};
use std::convert::Infallible;
use std::error::Error;
use tower::{Layer, service_fn};

fn main() -> Result<(), Box<dyn Error>> {
    let (pid_file, address) = arguments();
    seamless::init(pid_file)?;
    tokio::runtime::Runtime::new()?.block_on(async {
        let mut listener = seamless::sockets::tokio::tcp(address)?;
        let app =
            service_fn(async |_: Request<Incoming>| Ok::<_, Infallible>(Response::new(hello())));
        let app = TowerToHyperService::new(seamless::tower::ConnectionClose.layer(app));
        seamless::started()?;
        let connections = GracefulShutdown::new();
        while let Some((stream, _)) = listener.next().await {
            let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), app);
            tokio::spawn(connections.watch(connection));
        }
        seamless::draining().await; // a second after the drain began: idle connections may be closed
        connections.shutdown().await;
        seamless::finished().await;
        Ok(())
    })
}
