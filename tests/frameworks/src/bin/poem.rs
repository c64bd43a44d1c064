//! poem, whose acceptor is a trait.

use poem::http::uri::Scheme;
use poem::listener::Acceptor;
use poem::web::{LocalAddr, RemoteAddr};
use poem::{EndpointExt, Response, Route, Server, get, handler};
use seamless::sockets::tokio::TcpListener;
use seamless_frameworks::{arguments, hello};
use std::error::Error;
use std::io;
use tokio::net::TcpStream;

struct Listener(TcpListener);

impl Acceptor for Listener {
    type Io = TcpStream;

    fn local_addr(&self) -> Vec<LocalAddr> {
        self.0.local_addr().map(|address| LocalAddr(address.into())).into_iter().collect()
    }

    async fn accept(&mut self) -> io::Result<(TcpStream, LocalAddr, RemoteAddr, Scheme)> {
        let (stream, peer) = self.0.accept().await;
        let local = LocalAddr(stream.local_addr()?.into());
        Ok((stream, local, RemoteAddr(peer.into()), Scheme::HTTP))
    }
}

#[handler]
fn answer() -> String {
    hello()
}

fn main() -> Result<(), Box<dyn Error>> {
    let (pid_file, address) = arguments();
    seamless::init(pid_file)?;
    tokio::runtime::Runtime::new()?.block_on(async {
        let listener = Listener(seamless::sockets::tokio::tcp(address)?);
        let app =
            Route::new().at("/", get(answer)).after(async |answered: poem::Result<Response>| {
                let mut answered = answered?;
                if seamless::draining().has_begun() {
                    answered.headers_mut().insert("connection", "close".parse().expect("a value"));
                }
                Ok::<_, poem::Error>(answered)
            });
        seamless::started()?;
        let server = Server::new_with_acceptor(listener);
        server.run_with_graceful_shutdown(app, seamless::draining(), None).await?;
        seamless::finished().await;
        Ok(())
    })
}
