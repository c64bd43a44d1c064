//! pingora, whose service around the application gets the listener.

use async_trait::async_trait;
use pingora_core::apps::{HttpPersistentSettings, HttpServerApp, ReusedHttpStream, ServerApp};
use pingora_core::protocols::{http::ServerSession, l4::stream::Stream};
use pingora_core::server::{ListenFds, RunArgs, Server, ShutdownSignal};
use pingora_core::server::{ShutdownSignalWatch, ShutdownWatch};
use pingora_core::services::Service;
use pingora_http::ResponseHeader;
use seamless_frameworks::{arguments, hello};
use std::error::Error;
use std::sync::Arc;

struct App;

#[async_trait]
impl HttpServerApp for App {
    async fn process_new_http(
        self: &Arc<Self>,
        mut http: ServerSession,
        _: &ShutdownWatch,
    ) -> Option<ReusedHttpStream> {
        tokio::select! {
            read = http.read_request() => read.ok().filter(|is_whole| *is_whole)?,
            () = seamless::draining() => return None, // idle, a second after the drain began
        };
        let is_draining = seamless::draining().has_begun();
        http.set_keepalive((!is_draining).then_some(60)); // else it says `Connection: close`
        let text = hello();
        let mut head = ResponseHeader::build(200, None).ok()?;
        head.insert_header("content-length", text.len()).ok()?;
        http.write_response_header(Box::new(head)).await.ok()?;
        http.write_response_body(text.into(), true).await.ok()?;
        let settings = HttpPersistentSettings::for_session(&http);
        let stream = http.finish().await.ok()??;
        Some(ReusedHttpStream::from_reusable_stream(stream, settings))
    }
}

struct Place {
    address: String,
    app: Arc<App>,
}

#[async_trait]
impl Service for Place {
    async fn start_service(&mut self, _: Option<ListenFds>, shutdown: ShutdownWatch, _: usize) {
        let serving = seamless::drain_guard();
        let listener = seamless::sockets::tokio::tcp(&self.address);
        let mut listener = listener.expect("an address to listen at");
        seamless::started().expect("a PID file");
        while let Some((stream, _)) = listener.next().await {
            let (app, shutdown) = (self.app.clone(), shutdown.clone());
            let serving = serving.clone(); // until the last connection is closed
            tokio::spawn(async move {
                app.process_new(Box::new(Stream::from(stream)), &shutdown).await;
                drop(serving);
            });
        }
    }

    fn name(&self) -> &str {
        "web"
    }
}

/// pingora ends when the drain has ended.
struct Drained;

#[async_trait]
impl ShutdownSignalWatch for Drained {
    async fn recv(&self) -> ShutdownSignal {
        seamless::finished().await;
        ShutdownSignal::FastShutdown
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let (pid_file, address) = arguments();
    seamless::init(pid_file)?;
    let mut server = Server::new(None)?;
    server.bootstrap();
    server.add_service(Place { address, app: Arc::new(App) });
    server.run(RunArgs { shutdown_signal: Box::new(Drained) });
    Ok(())
}
