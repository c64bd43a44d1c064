//! The server that is restarted: a pool of threads that accept, answer with their PID, and close.
//!
//! `serve WAY PID_FILE PLACE WORKERS`. Only the socket differs from way to way.

use std::{
    error::Error,
    ffi::OsString,
    io::{self, ErrorKind, Read, Write},
    net::SocketAddr,
    os::fd::OwnedFd,
    process, thread,
    time::Duration,
};

use nix::unistd::setsid;
use socket2::{Domain, Socket, Type};

use crate::clients::Place;

/// How long `accept` waits before it looks whether the drain has begun.
const TICK: Duration = Duration::from_millis(50);
/// How long a kept connection may wait for its next request once the drain has begun.
const IDLE: Duration = Duration::from_millis(500);

/// What becomes of the listening socket at a restart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// The server ends, then the next one starts and binds it anew. No seamless restart.
    StopAndStart,
    /// Each generation binds a socket of its own, and closes it when it drains.
    ReusePort,
    /// The successor takes over the very socket.
    TakenOver,
}

impl Way {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Way::StopAndStart => "stop-and-start",
            Way::ReusePort => "reuseport",
            Way::TakenOver => "takeover",
        }
    }

    fn from_word(word: &str) -> Option<Self> {
        [Way::StopAndStart, Way::ReusePort, Way::TakenOver]
            .into_iter()
            .find(|way| way.word() == word)
    }
}

pub(crate) fn run(mut args: impl Iterator<Item = OsString>) -> Result<(), Box<dyn Error>> {
    let mut next = || args.next().ok_or("serve: WAY PID_FILE PLACE WORKERS");
    let way = next()?.to_str().and_then(Way::from_word).ok_or("serve: unknown way")?;
    let (pid_file, place) = (next()?, Place::from_word(next()?));
    let workers: usize = next()?.to_string_lossy().parse()?;
    log::set_logger(&Log).map(|()| log::set_max_level(log::LevelFilter::Info))?;

    match way {
        Way::StopAndStart => {
            // As a daemon has one: Linux shares processors between sessions (sched_autogroup), so a
            // server in the session of its clients would not be comparable. It fails if the supervisor,
            // like s6, has seen to that.
            let _ = setsid();
            seamless::init("")?; // TERM drains; nothing else happens
        }
        Way::ReusePort | Way::TakenOver => seamless::init(pid_file)?,
    }
    let listener: Socket = match (place, way) {
        (Place::Unix(path), _) => Socket::from(OwnedFd::from(seamless::sockets::unix(path)?)),
        (Place::Tcp(address), Way::TakenOver) => seamless::sockets::tcp(address)?.into(),
        (Place::Tcp(address), Way::ReusePort) => listening(address, true)?,
        (Place::Tcp(address), Way::StopAndStart) => listening(address, false)?,
    };
    listener.set_read_timeout(Some(TICK))?;
    seamless::started()?; // the predecessor drains now

    thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| work(&listener));
        }
    }); // goes on when the drain has begun and each worker has answered
    drop(listener);
    seamless::wait();
    Ok(())
}

fn work(listener: &Socket) {
    let draining = seamless::draining();
    while !draining.has_begun() {
        match listener.accept() {
            // A client that goes away has only itself to blame.
            Ok((connection, _)) => drop(converse(&connection, &draining)),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => {
                log::warn!("accept: {error}");
                thread::sleep(TICK);
            }
        }
    }
}

fn converse(mut connection: &Socket, draining: &seamless::Draining) -> io::Result<()> {
    connection.set_read_timeout(Some(IDLE))?;
    let (mut request, mut chunk) = (Vec::new(), [0; 1024]);
    loop {
        while !request.ends_with(b"\r\n\r\n") {
            match connection.read(&mut chunk) {
                Ok(0) => return Ok(()),
                Ok(length) => request.extend_from_slice(&chunk[..length]),
                Err(error) if error.kind() == ErrorKind::WouldBlock && !draining.has_begun() => {}
                Err(error) => return Err(error),
            }
        }
        let text = String::from_utf8_lossy(&request);
        let close = draining.has_begun() || text.contains("Connection: close");
        let body = format!("Server pid: {}\n", process::id());
        let connection_header = if close { "close" } else { "keep-alive" };
        let answer = format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: {connection_header}\r\n\r\n{body}",
            body.len()
        );
        connection.write_all(answer.as_bytes())?;
        if close {
            return Ok(());
        }
        request.clear();
    }
}

/// An address for the server to bind. Nobody else is given its port soon: Linux goes on to others.
pub(crate) fn free_address() -> io::Result<SocketAddr> {
    std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()
}

fn listening(address: SocketAddr, reuse_port: bool) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(reuse_port)?;
    socket.bind(&address.into())?;
    socket.listen(4096)?;
    Ok(socket)
}

/// Writes what the crate logs to standard error, a line each.
struct Log;

impl log::Log for Log {
    fn enabled(&self, _: &log::Metadata) -> bool {
        true
    }

    fn log(&self, record: &log::Record) {
        let _ = writeln!(io::stderr(), "{} {}", record.level(), record.args());
    }

    fn flush(&self) {}
}
