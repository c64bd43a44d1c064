//! salvo on a listener of `sockets::tokio`, with an acceptor that keeps salvo's time limits.

use salvo::conn::tcp::TcpAcceptor;
use salvo::conn::{Accepted, Acceptor, ConnCtrl, Holding, StraightStream};
use salvo::fuse::{ArcFusePolicy, FuseAction, FuseInfo, TransProto};
use salvo::http::{HeaderValue, Version, uri::Scheme};
use salvo::prelude::*;
use seamless::sockets::tokio::TcpListener;
use seamless_frameworks::{arguments, hello};
use std::error::Error;
use std::io;

struct Listener {
    listener: TcpListener,
    holdings: [Holding; 1],
}

impl Listener {
    fn new(listener: TcpListener) -> io::Result<Listener> {
        let holding = Holding {
            local_addr: listener.local_addr()?.into(),
            http_versions: vec![Version::HTTP_11],
            http_scheme: Scheme::HTTP,
        };
        Ok(Listener { listener, holdings: [holding] })
    }
}

impl Acceptor for Listener {
    type Coupler = <TcpAcceptor as Acceptor>::Coupler;
    type Stream = <TcpAcceptor as Acceptor>::Stream;

    fn holdings(&self) -> &[Holding] {
        &self.holdings
    }

    async fn accept(
        &mut self,
        policy: Option<ArcFusePolicy>,
    ) -> io::Result<Accepted<Self::Coupler, Self::Stream>> {
        loop {
            let (stream, peer) = self.listener.accept().await;
            let info = FuseInfo {
                trans_proto: TransProto::Tcp,
                remote_addr: peer.into(),
                local_addr: self.holdings[0].local_addr.clone(),
            };
            let conn_ctrl = ConnCtrl::new();
            // salvo's time limits, or those that the server was given.
            let (fuse_config, observer) = match &policy {
                Some(policy) => match policy.decide(&info).await {
                    FuseAction::Accept(limits) => (Some(limits), policy.observe(&info, &conn_ctrl)),
                    FuseAction::Reject => continue,
                },
                None => (None, None),
            };
            return Ok(Accepted {
                coupler: Default::default(),
                stream: StraightStream::new(stream, fuse_config, conn_ctrl.clone(), observer),
                fuse_config,
                conn_ctrl,
                local_addr: info.local_addr,
                remote_addr: info.remote_addr,
                http_scheme: Scheme::HTTP,
            });
        }
    }
}

#[handler]
fn answer() -> String {
    hello()
}

#[handler]
async fn close_in_the_drain(
    request: &mut Request,
    depot: &mut Depot,
    response: &mut Response,
    next: &mut FlowCtrl,
) {
    next.call_next(request, depot, response).await;
    if seamless::draining().has_begun() {
        response.headers_mut().insert("connection", HeaderValue::from_static("close"));
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let (pid_file, address) = arguments();
    seamless::init(pid_file)?;
    tokio::runtime::Runtime::new()?.block_on(async {
        let listener = Listener::new(seamless::sockets::tokio::tcp(address)?)?;
        let app = Router::new().hoop(close_in_the_drain).get(answer);
        seamless::started()?;
        let server = Server::new(listener);
        let handle = server.handle();
        tokio::spawn(async move {
            seamless::draining().await; // a second after the drain began
            handle.stop_graceful(None);
        });
        server.try_serve(app).await?;
        seamless::finished().await;
        Ok(())
    })
}
