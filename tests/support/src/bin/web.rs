//! The test service of the module `http`: one app, at as many places as are asked for.
//!
//! - `/`: `Server pid: N`; `?delay=1s` later
//! - `/upload`: the same, behind the length of the body
//! - `/download?pieces=3&every=10ms`: so many pieces of 1,000 bytes, chunked; `&size=9`: of so many bytes;
//!   `&length`: with a length
//! - `/health`: the answer to a health check; `/ready`: its status, from a handler
//! - `/name`, `/peer`: the place, the client's address
//! - `/socket`: a WebSocket, which sends back what it gets, each text behind its PID; `?polite`: until the
//!   drain begins
//! - `/busy?time=100ms`: for ever, the runtime does something for so long each time that it looks for work
//! - `/block`: no answer, and a thread of the runtime less
//! - `/echo`: another protocol, which sends back what it gets (`Upgrade: echo`); so does a tunnel (`CONNECT`)
//!
//! `--hooks 1,10` hooks these signals, those that the crate handles, and stages; `--hang-before 12` hangs
//! before one, `hammer` in its hook, `first` in one
//! before it, `--stop-before drain` stops the process then. `--tls-listen` takes `cert.pem` and `key.pem`
//! from the working folder. `--labelled-listen ADDRESS=LABEL`: with a ticketer of this label;
//! `--mutual-listen ADDRESS=LABEL`: and it asks for client certificates of `ca.pem`. `--threads 1`: of the runtime. `--steps 3`: bind, started and run, each by itself;
//! `--second-listen ADDRESS`: then with a second server of this program.

use std::{collections::HashMap, convert::Infallible, path::PathBuf, process};

use axum::{
    Router,
    body::{Body, Bytes, HttpBody},
    extract::{
        Query, Request, WebSocketUpgrade,
        ws::{CloseFrame, Message, WebSocket},
    },
    http::{Method, StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use http_body_util::BodyExt;
use hyper::body::Frame;
use lexopt::prelude::*;
use seamless::{
    hooks::{self, Stage},
    http::{Peer, Server, Tls},
};
use seamless_testing::{process::signal, signal::STOP};
use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::{Interval, interval, sleep},
};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    env_logger::init();
    let mut server = Server::new();
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let (mut pid_file, mut steps, mut leave, mut keep) = (PathBuf::new(), false, None, None);
    let mut probation = None;
    let (mut labelled, mut second) = (Vec::new(), Server::new().pass(true));
    let mut has_second = false;
    let mut args = lexopt::Parser::from_env();
    while let Some(arg) = args.next()? {
        let Long(name) = arg else { return Err(arg.unexpected().into()) };
        let name = name.to_owned();
        let value = args.value()?.string()?;
        if name == "hooks" {
            add_hooks(&value)?;
            continue;
        }
        if name == "hang-before" {
            let hang = || {
                loop {
                    std::thread::park();
                }
            };
            match &*value {
                "hammer" => seamless::on_hammer(hang),
                "first" => hooks::before(Stage::Hammer, hang),
                signal => hooks::before_signal(signal.parse()?, hang)?,
            }
            continue;
        }
        if name == "stop-before" {
            assert_eq!(value, "drain");
            hooks::before(Stage::Drain, || signal(process::id(), STOP));
            continue;
        }
        let time = || humantime::parse_duration(&value);
        server = match &*name {
            "threads" => {
                runtime.worker_threads(value.parse()?);
                server
            }
            "pid-file" => {
                pid_file = value.into();
                server
            }
            "steps" => {
                steps = value == "3";
                server
            }
            "leave" => {
                leave = Some(time()?);
                server
            }
            "probation" => {
                probation = Some(time()?);
                server
            }
            "keep-sockets" => {
                keep = Some(time()?);
                server
            }
            "listen" => server.tcp(value, app("web")),
            "admin-listen" => server.tcp(value, app("admin")),
            "second-listen" => {
                (second, has_second) = (second.tcp(value, app("second")), true);
                server
            }
            "unix-socket" => server.unix(value, app("unix")),
            "tls-listen" => {
                let (chain, key) = (PathBuf::from("cert.pem"), PathBuf::from("key.pem"));
                server.tls(value, Tls::pem(chain, key), app("tls"))
            }
            "labelled-listen" | "mutual-listen" => {
                let (address, label) = value.split_once('=').expect("an address and a label");
                labelled.push((name == "mutual-listen", address.to_owned(), label.to_owned()));
                server
            }
            "header-timeout" => server.header_timeout(time()?),
            "request-timeout" => server.request_timeout(time()?),
            "proxy-protocol" => server.proxy_protocol(value.parse()?),
            "keep-alive" => server.keep_alive(time()?),
            "idle-grace" => server.idle_grace(time()?),
            "spread" => server.spread(time()?),
            "pass" => server.pass(value == "yes"),
            "drain-timeout" => server.drain_timeout(time()?),
            "max-header-size" => server.max_header_size(value.parse()?),
            "max-connections" => server.max_connections(value.parse()?),
            _ => return Err(format!("no such option: {name}").into()),
        };
    }
    let config = seamless::Config::new(pid_file).leave_time(leave).probation(probation);
    match keep {
        Some(time) => config.keep_sockets(time).init()?,
        None => config.init()?,
    }
    for (mutual, address, label) in labelled {
        let config = tls_config(mutual, &label)?;
        server = server.tls(address, Tls::config(config), app("labelled"));
    }
    runtime.enable_all().build()?.block_on(async {
        if !steps {
            return server.serve().await;
        }
        let bound = server.bind().await?;
        let other = if has_second { Some(second.bind().await?) } else { None };
        let state = seamless::state();
        let addresses: Vec<_> = bound.addresses().iter().map(ToString::to_string).collect();
        log::info!(
            "stage=bound daemon={} at={} state={state:?}",
            process::id(),
            addresses.join(",")
        );
        seamless::started()?;
        if let Some(other) = other {
            tokio::spawn(other.run());
        }
        bound.run().await
    })?;
    Ok(())
}

/// A configuration of our own, with the files that [`Tls::pem`] would read.
fn tls_config(
    mutual: bool,
    label: &str,
) -> Result<Arc<rustls::ServerConfig>, Box<dyn std::error::Error>> {
    use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
    use rustls::server::WebPkiClientVerifier;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let read = |path| CertificateDer::pem_file_iter(path)?.collect::<Result<Vec<_>, _>>();
    let builder = rustls::ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()?;
    let builder = if mutual {
        let mut roots = rustls::RootCertStore::empty();
        roots.add_parsable_certificates(read("ca.pem")?);
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
        builder.with_client_cert_verifier(verifier.build()?)
    } else {
        builder.with_no_client_auth()
    };
    let mut config =
        builder.with_single_cert(read("cert.pem")?, PrivateKeyDer::from_pem_file("key.pem")?)?;
    config.ticketer = seamless::tls::Ticketer::new(label)?.into();
    Ok(Arc::new(config))
}

/// Those around each stage, and of these signals: each says so in the log.
fn add_hooks(signals: &str) -> Result<(), Box<dyn std::error::Error>> {
    let say = |what: String| log::info!("stage=hook daemon={} name={what}", process::id());
    for stage in [Stage::Handoff, Stage::Takeover, Stage::Drain] {
        hooks::before(stage, move || say(format!("before-{stage:?}")));
        hooks::before(stage, || panic!("on purpose"));
        hooks::after(stage, move || say(format!("after-{stage:?}")));
    }
    for signal in signals.split(',') {
        let (signal, mut count) = (signal.parse()?, 0);
        hooks::on_signal(signal, move || {
            count += 1;
            say(format!("signal-{signal}-{count}"));
        })?;
    }
    for signal in [2, 12, 15] {
        hooks::before_signal(signal, move || say(format!("before-signal-{signal}")))?;
        hooks::before_signal(signal, || panic!("on purpose"))?;
        hooks::after_signal(signal, move || say(format!("after-signal-{signal}")))?;
    }
    Ok(())
}

fn app(name: &'static str) -> Router {
    Router::new()
        .route("/", get(answer))
        .route_service("/health", seamless::http::health())
        .route("/ready", get(async || seamless::http::health().status()))
        .route("/name", get(move || async move { name }))
        .route("/peer", get(peer))
        .route("/upload", post(upload))
        .route("/download", get(download))
        .route("/block", get(block))
        .route("/busy", get(busy))
        .route("/socket", get(socket))
        .route("/echo", get(echo))
        .fallback(tunnel)
}

fn pid() -> String {
    format!("Server pid: {}\n", process::id())
}

async fn answer(Query(query): Query<HashMap<String, String>>) -> String {
    if let Some(delay) = query.get("delay") {
        sleep(humantime::parse_duration(delay).expect("a time")).await;
    }
    pid()
}

async fn peer(request: Request) -> String {
    request.extensions().get::<Peer>().map_or("none".to_owned(), |peer| peer.0.to_string())
}

async fn upload(body: Body) -> Result<String, StatusCode> {
    let body = body.collect().await.map_err(|_| StatusCode::BAD_REQUEST)?.to_bytes();
    Ok(format!("{} bytes\n{}", body.len(), pid()))
}

async fn download(Query(query): Query<HashMap<String, String>>) -> Response {
    let left = query["pieces"].parse().expect("a number");
    let every = humantime::parse_duration(&query["every"]).expect("a time");
    let size = query.get("size").map_or(1000, |size| size.parse().expect("a number"));
    let piece = Bytes::from(vec![b'x'; size]);
    let whole = query.contains_key("length");
    let pieces = Pieces { left, every: interval(every), piece, whole };
    let answer = Response::builder().header("Server-Pid", process::id());
    answer.body(Body::new(pieces)).expect("an answer")
}

/// From now on the runtime is mostly at work, and looks for what has come between two pieces of it.
async fn busy(Query(query): Query<HashMap<String, String>>) -> String {
    let time = humantime::parse_duration(&query["time"]).expect("a time");
    for _ in 0..3 {
        tokio::spawn(async move {
            loop {
                sleep(std::time::Duration::from_millis(1)).await;
                std::thread::sleep(time);
            }
        });
    }
    pid()
}

/// Holds a thread of the runtime for good.
async fn block() {
    log::info!("stage=block daemon={}", process::id());
    loop {
        std::thread::park();
    }
}

/// A body that takes its time.
struct Pieces {
    left: u64,
    every: Interval,
    piece: Bytes,
    whole: bool,
}

impl HttpBody for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        ready!(self.every.poll_tick(context));
        self.left -= 1;
        Poll::Ready(Some(Ok(Frame::data(self.piece.clone()))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> hyper::body::SizeHint {
        if self.whole {
            hyper::body::SizeHint::with_exact(self.left * self.piece.len() as u64)
        } else {
            hyper::body::SizeHint::default()
        }
    }
}

async fn socket(
    Query(query): Query<HashMap<String, String>>,
    upgrade: WebSocketUpgrade,
) -> Response {
    upgrade.on_upgrade(move |socket| talk(socket, query.contains_key("polite")))
}

async fn talk(mut socket: WebSocket, polite: bool) {
    let moment = seamless::draining().moment(std::time::Duration::from_secs(1));
    let (mut draining, mut leaving) = (moment, false);
    loop {
        tokio::select! {
            () = &mut draining, if polite && !leaving => {
                leaving = true; // and its answer is awaited
                let close = seamless::http::close_frame();
                let (code, reason) = (close.code, close.reason.into());
                _ = socket.send(Message::Close(Some(CloseFrame { code, reason }))).await;
            }
            message = socket.recv() => {
                let answer = match message {
                    Some(Ok(Message::Text(text))) => Message::text(format!("{}{text}", pid())),
                    Some(Ok(message @ Message::Binary(_))) => message,
                    Some(Ok(_)) => continue,
                    Some(Err(_)) | None => return,
                };
                _ = socket.send(answer).await;
            }
        }
    }
}

async fn echo(request: Request) -> Response {
    send_back(request);
    let headers = [(header::UPGRADE, "echo"), (header::CONNECTION, "upgrade")];
    (StatusCode::SWITCHING_PROTOCOLS, headers).into_response()
}

/// A tunnel to ourselves, if that is what is asked for.
async fn tunnel(request: Request) -> StatusCode {
    if request.method() != Method::CONNECT {
        return StatusCode::NOT_FOUND;
    }
    send_back(request);
    StatusCode::OK
}

fn send_back(request: Request) {
    tokio::spawn(async {
        let upgraded = hyper::upgrade::on(request).await.expect("an upgrade");
        let mut io = hyper_util::rt::TokioIo::new(upgraded);
        let mut bytes = [0; 1000];
        while let Ok(count @ 1..) = io.read(&mut bytes).await {
            io.write_all(&bytes[..count]).await.expect("an echo");
        }
    });
}
