//! A program that uses the whole crate, on a system that has no restarts: `elsewhere PID_FILE FOLDER`. It
//! says what it sees line by line.

use axum::Router;
use axum::routing::get;
use seamless::hooks::{self, Stage};
use seamless::{http, signal, sockets};
use seamless_elsewhere as seamless;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::PathBuf;
use std::time::Duration;
use std::{env, io, process, thread};

/// In one write, so that the lines of several threads do not mix.
fn say(line: &str) {
    _ = io::stdout().write_all(format!("{line}\n").as_bytes());
}

fn says(line: &'static str) -> impl FnMut() + Send + 'static {
    move || say(line)
}

/// Answers each byte by the same byte; a drain waits for it.
fn echo(mut stream: impl Read + Write + Send + 'static) {
    let guard = seamless::drain_guard();
    thread::spawn(move || {
        let mut byte = [0];
        while stream.read(&mut byte).is_ok_and(|count| count > 0) && stream.write_all(&byte).is_ok()
        {
        }
        drop(guard);
    });
}

fn accept(listener: TcpListener) {
    thread::spawn(move || {
        for stream in listener.incoming() {
            stream.map_or_else(|error| say(&format!("accept {error}")), echo);
        }
    });
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    env_logger::init();
    let mut arguments = env::args_os().skip(1).map(PathBuf::from);
    let pid_file = arguments.next().expect("a PID file");
    let folder = arguments.next().expect("a folder");

    let error = seamless::started().expect_err("before init");
    say(&format!("before {:?} {:?} {:?}", seamless::state(), seamless::generation(), error.kind()));
    let states = seamless::states();
    thread::spawn(|| {
        for state in states {
            say(&format!("state {state:?}"));
        }
    });
    hooks::on_signal(signal::USR1, says("USR1"))?;
    hooks::before_signal(signal::TERM, says("before TERM"))?;
    hooks::before(Stage::Drain, says("before drain"));
    hooks::after(Stage::Takeover, says("after takeover"));
    seamless::Config::new(&pid_file)
        .reload_signals([signal::HUP])
        .drain_timeout(Duration::from_secs(60))
        .on_launch(says("launched"))
        .hand_over("state", || b"state".to_vec())
        .watchdog(|| true)
        .init()?;
    let again = seamless::init(&pid_file).expect_err("the second").kind();
    say(&format!("init {} {again:?} {:?}", process::id(), seamless::state()));
    say(&format!("inherited {:?} {:?}", seamless::inherited("state"), seamless::inherited_from()));

    let tcp = sockets::Options::new().backlog(9000).tcp("127.0.0.1:0")?;
    say(&format!("tcp {}", tcp.local_addr()?));
    let taken = sockets::tcp(tcp.local_addr()?).expect_err("in use").kind();
    say(&format!("taken {taken:?}"));
    let dual = sockets::Options::new().only_v6(true).name("six").tcp("[::1]:0")?;
    say(&format!("tcp {}", dual.local_addr()?));
    for member in sockets::Options::new().name("group").tcp_group("127.0.0.1:0", 2)? {
        say(&format!("member {}", member.local_addr()?));
    }
    let udp = sockets::udp("127.0.0.1:0")?;
    say(&format!("udp {}", udp.local_addr()?));
    let unix = sockets::Options::new().mode(0o666).unix(folder.join("unix"))?;
    let datagram = sockets::unix_datagram(folder.join("datagram"))?;
    let long = folder.join("l".repeat(200));
    say(&format!("long {:?}", sockets::unix(long).expect_err("too long").kind()));
    say("bound");

    accept(tcp);
    accept(dual);
    thread::spawn(move || {
        for stream in unix.incoming() {
            stream.map_or_else(|error| say(&format!("accept {error}")), echo);
        }
    });
    thread::spawn(move || {
        let mut bytes = [0; 9];
        while let Ok((count, from)) = udp.recv_from(&mut bytes) {
            _ = udp.send_to(&bytes[..count], from);
        }
    });
    thread::spawn(move || {
        let mut bytes = [0; 9];
        while let Ok(count) = datagram.recv(&mut bytes) {
            say(&format!("datagram {count}"));
        }
    });
    seamless::on_shutdown_request(|| say("request"));
    seamless::on_shutdown(|| say("shutdown"));
    seamless::on_hammer(|| say("hammer"));

    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let app = |name: &'static str| {
            let slow = get(move || async move {
                say(&format!("asked {name}"));
                seamless::draining().await;
                "slow\n"
            });
            Router::new().route("/", get(|| async { "Hello\n" })).route("/slow", slow)
        };
        let listener = sockets::Options::new().name("http").nonblocking(true).tcp("127.0.0.1:0")?;
        say(&format!("http {}", listener.local_addr().expect("an address")));
        let bound = http::Server::new().tcp_listener(listener, app("http")).bind().await?;
        let listener = sockets::Options::new().name("axum").nonblocking(true).tcp("127.0.0.1:0")?;
        let listener = sockets::tokio::TcpListener::from_std(listener)?;
        say(&format!("axum {}", listener.local_addr().expect("an address")));
        let app = app("axum").layer(seamless::tower::ConnectionClose);
        let framework = axum::serve(listener, app).with_graceful_shutdown(seamless::draining());
        let framework = tokio::spawn(framework.into_future());
        seamless::started()?;
        seamless::started()?; // does nothing
        say(&format!("started {:?} {:?}", seamless::generation(), seamless::state()));
        let error = seamless::restart().expect_err("no restarts");
        say(&format!("restart {:?} {error}", error.kind()));
        say("ready");
        let reason = bound.run().await?;
        framework.await.expect("no panic").expect("served");
        say(&format!("drained {reason:?} {:?}", seamless::draining().reason()));
        Ok::<(), Box<dyn std::error::Error>>(())
    })?;
    say(&format!("end {:?}", seamless::wait()));
    Ok(())
}
