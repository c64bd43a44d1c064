//! Rocket, behind `seamless::http` in the same program.

use hyper::body::Incoming;
use hyper::header::{CONNECTION, HOST};
use hyper::{Request, Version};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use rocket::config::{Config, Shutdown};
use rocket::fairing::AdHoc;
use rocket::{get, routes};
use seamless::http::Peer;
use seamless_frameworks::{arguments, hello};
use std::collections::HashSet;
use std::error::Error;
use tokio::sync::oneshot;

type Failure = Box<dyn Error + Send + Sync>;

#[get("/")]
fn answer() -> String {
    hello()
}

fn main() -> Result<(), Failure> {
    let (pid_file, address) = arguments();
    seamless::init(pid_file)?;
    rocket::execute(serve(address))
}

async fn serve(address: String) -> Result<(), Failure> {
    // No signal ends Rocket: it has to answer until the server in front has drained.
    let shutdown = Shutdown { ctrlc: false, signals: HashSet::new(), ..Shutdown::default() };
    let config = Config { port: 0, shutdown, ..Config::default() };
    let (tell_port, port) = oneshot::channel();
    let tell_port = AdHoc::on_liftoff("port", |rocket| {
        Box::pin(async { _ = tell_port.send(rocket.config().port) })
    });
    let rocket = rocket::custom(config).mount("/", routes![answer]);
    let rocket = rocket.attach(tell_port).ignite().await?;
    let end = rocket.shutdown();
    let in_front = async {
        serve_in_front(address, port.await?).await?;
        end.notify();
        Ok(())
    };
    tokio::select! {
        ended = rocket.launch() => drop(ended?),
        Err(failure) = in_front => return Err(failure),
    }
    Ok(())
}

/// Takes the socket over, and forwards each request to Rocket until the drain is finished.
async fn serve_in_front(address: String, port: u16) -> Result<(), Failure> {
    let client = Client::builder(TokioExecutor::new()).build_http();
    let app = tower::service_fn(move |request| {
        let client = client.clone();
        async move { Ok::<_, Failure>(client.request(for_rocket(request, port)?).await?) }
    });
    seamless::http::serve(address, app).await?;
    Ok(())
}

fn for_rocket(mut request: Request<Incoming>, port: u16) -> Result<Request<Incoming>, Failure> {
    if let Some(host) = request.uri().authority() {
        let host = host.as_str().parse()?; // HTTP/2 has it there
        request.headers_mut().insert(HOST, host);
    }
    if let Some(Peer(client)) = request.extensions().get() {
        let client = client.ip().to_string().parse()?;
        request.headers_mut().insert("x-real-ip", client); // for Rocket's `client_ip`
    }
    request.headers_mut().remove(CONNECTION);
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
    *request.uri_mut() = format!("http://127.0.0.1:{port}{path}").parse()?;
    *request.version_mut() = Version::HTTP_11;
    Ok(request)
}
