//! salvo, whose acceptor is a trait.

use salvo::conn::tcp::TcpCoupler;
use salvo::conn::{Accepted, Acceptor, ConnCtrl, Holding, StraightStream};
use salvo::fuse::ArcFusePolicy;
use salvo::http::{Version, uri::Scheme};
use salvo::{Depot, FlowCtrl, Request, Response, Router, Server, handler};
use seamless::sockets::tokio::TcpListener;
use seamless_frameworks::{arguments, hello};
use std::error::Error;
use std::io;
use tokio::net::TcpStream;

struct Listener {
    listener: TcpListener,
    holdings: Vec<Holding>,
}

impl Listener {
    fn new(listener: TcpListener) -> io::Result<Listener> {
        let holding = Holding {
            local_addr: listener.local_addr()?.into(),
            http_versions: vec![Version::HTTP_11],
            http_scheme: Scheme::HTTP,
        };
        Ok(Listener { listener, holdings: vec![holding] })
    }
}

impl Acceptor for Listener {
    type Coupler = TcpCoupler<Self::Stream>;
    type Stream = StraightStream<TcpStream>;

    fn holdings(&self) -> &[Holding] {
        &self.holdings
    }

    async fn accept(
        &mut self,
        _: Option<ArcFusePolicy>,
    ) -> io::Result<Accepted<Self::Coupler, Self::Stream>> {
        let (stream, peer) = self.listener.accept().await;
        let control = ConnCtrl::new();
        Ok(Accepted {
            coupler: TcpCoupler::new(),
            local_addr: stream.local_addr()?.into(),
            remote_addr: peer.into(),
            http_scheme: Scheme::HTTP,
            stream: StraightStream::new(stream, None, control.clone(), None),
            fuse_config: None,
            conn_ctrl: control,
        })
    }
}

#[handler]
async fn answer(response: &mut Response) {
    response.render(hello());
}

#[handler]
async fn close_in_the_drain(
    request: &mut Request,
    depot: &mut Depot,
    response: &mut Response,
    flow: &mut FlowCtrl,
) {
    flow.call_next(request, depot, response).await;
    if seamless::draining().has_begun() {
        response.headers_mut().insert("connection", "close".parse().expect("a value"));
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let (pid_file, address) = arguments();
    seamless::init(pid_file)?;
    tokio::runtime::Runtime::new()?.block_on(async {
        let listener = Listener::new(seamless::sockets::tokio::tcp(address)?)?;
        let app = Router::new().get(answer).hoop(close_in_the_drain);
        let server = Server::new(listener).disable_fuse();
        let handle = server.handle();
        seamless::started()?;
        tokio::spawn(async move {
            seamless::draining().await;
            handle.stop_graceful(None);
        });
        server.try_serve(app).await?;
        seamless::finished().await;
        Ok(())
    })
}
