//! actix-web.

use actix_web::dev::{ServerHandle, Service};
use actix_web::http::ConnectionType;
use actix_web::{App, HttpServer, web};
use seamless::DrainReason;
use seamless_frameworks::{arguments, hello};
use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    let (pid_file, address) = arguments();
    seamless::init(pid_file)?;
    // actix makes each socket nonblocking, so it is asked for in that mode.
    let listener = seamless::sockets::Options::new().nonblocking(true).tcp(address)?;
    actix_web::rt::System::new().block_on(async {
        let server = HttpServer::new(|| {
            App::new()
                .wrap_fn(|request, app| {
                    let answer = app.call(request);
                    async {
                        let mut answer = answer.await?;
                        if seamless::draining().has_begun() {
                            let head = answer.response_mut().head_mut();
                            head.set_connection_type(ConnectionType::Close);
                        }
                        Ok(answer)
                    }
                })
                .route("/", web::get().to(async || hello()))
        });
        let server = server.workers(2).listen(listener)?.shutdown_timeout(60);
        seamless::started()?;
        let server = server.shutdown_signal(seamless::draining()).run();
        actix_web::rt::spawn(leave_new_connections_to_the_successor(server.handle()));
        server.await?;
        seamless::finished().await;
        Ok(())
    })
}

/// actix accepts until its shutdown begins, and drops what it has accepted just before. So it stops
/// accepting a second earlier, when the drain begins. If the service is stopped, nobody else would accept.
async fn leave_new_connections_to_the_successor(server: ServerHandle) {
    let mut draining = seamless::draining().at_once();
    (&mut draining).await;
    if draining.reason() == Some(DrainReason::TakenOver) {
        server.pause().await;
    }
}
