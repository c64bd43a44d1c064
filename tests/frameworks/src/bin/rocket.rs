//! rocket 0.5, which cannot be given a listener: behind `seamless::http::serve` in the same process.

use axum::Router;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::http::uri::{Authority, Scheme, Uri};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use rocket::config::{Config, Shutdown};
use rocket::fairing::AdHoc;
use seamless_frameworks::{arguments, hello};
use std::collections::HashSet;
use std::error::Error;
use tokio::sync::oneshot;

#[rocket::get("/")]
fn answer() -> String {
    hello()
}

fn main() -> Result<(), Box<dyn Error>> {
    let (pid_file, address) = arguments();
    seamless::init(pid_file)?;
    tokio::runtime::Runtime::new()?.block_on(async {
        // A port of 127.0.0.1 that the system chooses. The drain is not rocket's: it must not see signals.
        let config = Config {
            port: 0,
            shutdown: Shutdown { ctrlc: false, signals: HashSet::new(), ..Shutdown::default() },
            ..Config::release_default()
        };
        let (tell, port) = oneshot::channel();
        let rocket = rocket::custom(config)
            .mount("/", rocket::routes![answer])
            .attach(AdHoc::on_liftoff("port", |rocket| {
                _ = tell.send(rocket.config().port);
                Box::pin(async {})
            }))
            .ignite()
            .await?;
        let shutdown = rocket.shutdown();
        let rocket = tokio::spawn(rocket.launch());
        let behind: Authority = format!("127.0.0.1:{}", port.await?).parse()?;
        let client = Client::builder(TokioExecutor::new()).build_http();
        let app = Router::new().fallback(async move |mut request: Request| {
            let mut parts = std::mem::take(request.uri_mut()).into_parts();
            (parts.scheme, parts.authority) = (Some(Scheme::HTTP), Some(behind));
            *request.uri_mut() = Uri::from_parts(parts).expect("a URI");
            client.request(request).await.map_err(|_| StatusCode::BAD_GATEWAY)
        });
        seamless::http::serve(address, app).await?;
        shutdown.notify();
        rocket.await??;
        Ok(())
    })
}
