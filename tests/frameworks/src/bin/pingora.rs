//! pingora: a proxy at a socket that was taken over.

use async_trait::async_trait;
use pingora_core::apps::ServerApp;
use pingora_core::protocols::Stream;
use pingora_core::server::{ListenFds, RunArgs, Server};
use pingora_core::server::{ShutdownSignal, ShutdownSignalWatch, ShutdownWatch};
use pingora_core::services::{Service, listening};
use pingora_core::upstreams::peer::HttpPeer;
use pingora_core::{Error, ErrorType, Result};
use pingora_http::ResponseHeader;
use pingora_proxy::{ProxyHttp, Session, http_proxy};
use seamless_frameworks::{arguments, hello};
use std::net::TcpListener;
use std::os::fd::IntoRawFd;
use std::sync::Arc;
use tokio::sync::watch;

struct Proxy;

#[async_trait]
impl ProxyHttp for Proxy {
    type CTX = ();

    fn new_ctx(&self) {}

    async fn request_filter(&self, session: &mut Session, _: &mut ()) -> Result<bool> {
        let text = hello();
        let mut head = ResponseHeader::build(200, None)?;
        head.set_content_length(text.len())?;
        if seamless::draining().has_begun() {
            session.set_keepalive(None); // `Connection: close`
        }
        session.write_response_header(Box::new(head), false).await?;
        session.write_response_body(Some(text.into()), true).await?;
        Ok(true)
    }

    async fn upstream_peer(&self, _: &mut Session, _: &mut ()) -> Result<Box<HttpPeer>> {
        Error::err(ErrorType::HTTPStatus(404)) // each request is answered above
    }
}

/// A service of pingora at a listener that it does not bind itself.
struct Listening<A> {
    service: listening::Service<Patient<A>>,
    address: String,
    listener: Option<TcpListener>,
}

#[async_trait]
impl<A: ServerApp + Send + Sync + 'static> Service for Listening<A> {
    async fn start_service(&mut self, fds: Option<ListenFds>, _: ShutdownWatch, listeners: usize) {
        let (fds, listener) = (fds.expect("a table"), self.listener.take().expect("one start"));
        // What is in the table is not bound. pingora owns it from now on.
        fds.lock().add(self.address.clone(), listener.into_raw_fd());
        let _guard = seamless::drain_guard(); // until idle connections are closed
        let (stop, stopping) = watch::channel(false);
        let serve = self.service.start_service(Some(fds), stopping, listeners);
        tokio::join!(serve, async {
            seamless::draining().at_once().await;
            _ = stop.send(true); // it accepts no more, and answers with `Connection: close`
        });
    }

    fn name(&self) -> &str {
        self.service.name()
    }
}

/// pingora's proxy closes idle connections as soon as it accepts no more, also those on which a request is
/// arriving. This makes it wait for a second.
struct Patient<A>(Arc<A>);

#[async_trait]
impl<A: ServerApp + Send + Sync + 'static> ServerApp for Patient<A> {
    async fn process_new(self: &Arc<Self>, to: Stream, stopping: &ShutdownWatch) -> Option<Stream> {
        let _guard = seamless::drain_guard(); // the process lives until the connection has ended
        self.0.process_new(to, stopping).await
    }

    async fn cleanup(&self) {
        seamless::draining().await;
        self.0.cleanup().await;
    }
}

/// Ends the server when the drain is finished. Without it, pingora would handle TERM, QUIT and INT itself.
struct Drained;

#[async_trait]
impl ShutdownSignalWatch for Drained {
    async fn recv(&self) -> ShutdownSignal {
        seamless::finished().await; // each connection has ended
        ShutdownSignal::FastShutdown
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (pid_file, address) = arguments();
    seamless::init(pid_file)?;
    // pingora needs it nonblocking, so it is asked for in that mode.
    let listener = seamless::sockets::Options::new().nonblocking(true).tcp(&address)?;
    let mut server = Server::new(None)?;
    server.bootstrap();
    let proxy = Patient(Arc::new(http_proxy(&server.configuration, Proxy)));
    let mut service = listening::Service::new("web".to_owned(), proxy);
    service.add_tcp(&address);
    server.add_service(Listening { service, address, listener: Some(listener) });
    seamless::started()?;
    server.run(RunArgs { shutdown_signal: Box::new(Drained) });
    Ok(())
}
