//! The service of `scripts/soak`: HTTP on a TCP port, on another one with a group of sockets, and on a
//! Unix socket, and datagrams; all taken over. Limits are short, so that a process that is stopped for
//! some seconds outlasts them.
//!
//! - `/`: `Server pid: N`; `?delay=1s` later
//! - `/upload`: the same, when the whole body has come
//! - a datagram: the same, and what it held
//!
//! `--hang` never gets as far as `started`. `--broken` breaks a promise, for tests of the judge.

use std::{
    collections::HashMap,
    error::Error,
    fs::{self, File},
    io::ErrorKind,
    net::{SocketAddr, UdpSocket},
    path::PathBuf,
    process,
    sync::mpsc,
    thread,
    time::Duration,
};

use axum::{
    Router,
    extract::{Query, Request},
    http::StatusCode,
    routing::{get, post},
};
use http_body_util::BodyExt;
use lexopt::prelude::*;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use seamless::{Config, State, http::Server, sockets};
use seamless_testing::{
    process::{Watched, all},
    signal::{HUP, TERM},
};

const GROUP: usize = 2;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Broken {
    /// It ends as soon as it is to drain.
    Drops,
    /// It never ends.
    Stays,
    /// Each generation leaves a file and has a descriptor more than the one before it.
    Leaks,
    /// It signals who is not its predecessor.
    Signals,
}

fn main() -> Result<(), Box<dyn Error>> {
    env_logger::Builder::from_default_env().format_timestamp_millis().init();
    let mut pid_file = PathBuf::new();
    let mut unix = PathBuf::new();
    let none = SocketAddr::from(([127, 0, 0, 1], 0));
    let (mut tcp, mut group, mut udp) = (none, none, none);
    let (mut hang, mut broken) = (false, None);
    let mut args = lexopt::Parser::from_env();
    while let Some(arg) = args.next()? {
        match arg {
            Long("pid-file") => pid_file = args.value()?.into(),
            Long("unix") => unix = args.value()?.into(),
            Long("tcp") => tcp = args.value()?.parse()?,
            Long("group") => group = args.value()?.parse()?,
            Long("udp") => udp = args.value()?.parse()?,
            Long("hang") => hang = true,
            Long("broken") => {
                broken = Some(args.value()?.parse_with(|how| match how {
                    "drops" => Ok(Broken::Drops),
                    "stays" => Ok(Broken::Stays),
                    "leaks" => Ok(Broken::Leaks),
                    "signals" => Ok(Broken::Signals),
                    _ => Err("drops, stays, leaks or signals"),
                })?);
            }
            _ => return Err(arg.unexpected().into()),
        }
    }
    Config::new(&pid_file)
        .reload_signals([HUP])
        .max_draining(None)
        .handoff_timeout(Duration::from_secs(1))
        .takeover_timeout(Duration::from_secs(1))
        .claim_timeout(Duration::from_secs(5))
        .successor_timeout(Duration::from_secs(2))
        .drain_timeout(Duration::from_secs(60))
        .init()?;
    if hang {
        hang_for_ever();
    }

    let app = Router::new().route("/", get(answer)).route("/upload", post(upload));
    let mut options = sockets::Options::new();
    let options = options.nonblocking(true);
    // A client may wait for a processor as long as that.
    let mut server = Server::new()
        .header_timeout(Duration::from_secs(60))
        .tcp(tcp, app.clone())
        .unix(unix, app.clone());
    for member in options.tcp_group(group, GROUP)? {
        server = server.tcp_listener(member, app.clone());
    }
    let udp = options.udp(udp)?;
    socket2::SockRef::from(&udp).set_recv_buffer_size(1 << 20)?;
    let (echoing, echoed) = mpsc::channel::<()>();
    seamless::on_shutdown(move || {
        let _ = echoed.recv(); // fails once `echoing` is dropped
    });
    thread::spawn(move || {
        echo(&udp);
        drop((udp, echoing));
    });

    let mut leaked = Vec::new();
    // The first generation is what the others are compared with.
    match broken.filter(|_| seamless::inherited_from().is_some()) {
        Some(Broken::Leaks) => {
            fs::write(pid_file.with_extension(process::id().to_string()), "")?;
            for _ in 0..seamless::generation().unwrap_or_default() {
                leaked.push(File::open("/dev/null")?);
            }
        }
        Some(Broken::Signals) => {
            for stat in all().into_iter().filter(|stat| stat.comm == "sleep") {
                Watched::new(stat.pid).signal(TERM);
            }
        }
        Some(Broken::Drops | Broken::Stays) | None => {}
    }
    if broken == Some(Broken::Drops) {
        seamless::on_shutdown(|| process::exit(0));
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(server.serve())?;
    if broken == Some(Broken::Stays) {
        hang_for_ever();
    }
    Ok(())
}

fn hang_for_ever() -> ! {
    loop {
        thread::park();
    }
}

fn pid() -> String {
    format!("Server pid: {}\n", process::id())
}

async fn answer(Query(query): Query<HashMap<String, String>>) -> Result<String, StatusCode> {
    if let Some(delay) = query.get("delay") {
        let delay = humantime::parse_duration(delay).map_err(|_| StatusCode::BAD_REQUEST)?;
        tokio::time::sleep(delay).await;
    }
    Ok(pid())
}

async fn upload(request: Request) -> Result<String, StatusCode> {
    // One that is cut fails here.
    request.into_body().collect().await.map_err(|_| StatusCode::BAD_REQUEST)?;
    Ok(pid())
}

/// Answers from `started` on, until the drain has begun and the queue is empty.
fn echo(socket: &UdpSocket) {
    while seamless::state() == State::Starting {
        thread::sleep(Duration::from_millis(1));
    }
    let mut datagram = [0; 2048];
    loop {
        // Read first: only a queue that is empty after the drain began is empty for good.
        let draining = seamless::draining().has_begun();
        match socket.recv_from(&mut datagram) {
            Ok((length, client)) => {
                let answer = [pid().as_bytes(), &datagram[..length]].concat();
                // The client may be gone, and its buffer is its own affair.
                let _ = socket.send_to(&answer, client);
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                if draining {
                    return;
                }
                let soon = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };
                let _ = poll(&mut [PollFd::new(socket, PollFlags::IN)], Some(&soon));
            }
            // An ICMP error of an answer before this one.
            Err(_) => {}
        }
    }
}
