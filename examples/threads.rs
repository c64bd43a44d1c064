//! A web server without an async runtime: one thread a connection, on a TCP port that the old and
//! the new process share (SO_REUSEPORT).
//!
//! ```sh
//! threads --listen 127.0.0.1:8080 --pid-file /run/web/web.pid
//! curl 'http://127.0.0.1:8080/?delay=10s'
//! ```

mod options;

use std::{
    io::{self, ErrorKind, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    os::fd::{AsFd, OwnedFd},
    process::{self, ExitCode},
    sync::{Arc, Condvar, Mutex},
    thread,
    time::Duration,
};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
};
use options::Options;
use seamless::DrainGuard;
use socket2::{Domain, Socket, Type};

/// How long a connection may wait for its next request.
const IDLE_LIMIT: u16 = 30_000; // ms
/// The same once the drain has begun. The client may send that request again if it is closed.
const IDLE_GRACE: u16 = 1_000; // ms
/// The same for the first request, which the client may not send again: a connection that was
/// accepted is a promise.
const FIRST_GRACE: u16 = 10_000; // ms
/// How long a client may pause in the middle of a request.
const READ_LIMIT: Duration = Duration::from_secs(10);
/// Between two rounds of the job that only one generation may do.
const JOB_PAUSE: Duration = Duration::from_secs(60);
const MAX_HEAD: usize = 16 * 1024;

fn main() -> ExitCode {
    options::main(SocketAddr::from(([127, 0, 0, 1], 8080)), run)
}

fn run(options: &Options<SocketAddr>) -> Result<(), Box<dyn std::error::Error>> {
    // Before any thread exists and before much memory is allocated: the launcher would keep both for its whole
    // life.
    options.config().init()?;
    thread::sleep(options.startup_delay);

    let address = options.places;
    let listener = bind(address).map_err(|error| format!("cannot listen on {address}: {error}"))?;
    log::info!("process {} listens on {}", process::id(), listener.local_addr()?);

    // While this generation stands by for a new one on probation, it goes on accepting: this socket is its own,
    // and the kernel still gives it its share of the connections. What only one generation may do, it leaves to the
    // new one.
    let job = Arc::new(Job::default());
    let (parks, goes_on, works) = (job.clone(), job.clone(), job.clone());
    seamless::on_standby(move || parks.allow(false));
    seamless::on_resume(move || goes_on.allow(true));

    // Can be read from as soon as the drain begins: it wakes every thread that waits for a client.
    let drained = seamless::draining().at_once().fd()?;
    // Until this guard and its clones, one for each thread at work, are dropped, the drain goes on
    // and `drain_timeout` counts.
    let at_work = seamless::drain_guard();

    // From here connections reach this process, so the old one may end.
    seamless::started()?;
    job.allow(true);
    thread::Builder::new().spawn(move || works.run())?;
    accept(listener, drained, at_work)?;
    job.allow(false);
    let reason = seamless::wait();
    log::info!("process {} has drained: {reason:?}", process::id());
    Ok(())
}

/// What only one generation may do at a time: here it writes a line to the log now and then.
#[derive(Default)]
struct Job {
    allowed: Mutex<bool>,
    changed: Condvar,
}

impl Job {
    /// The hooks of a standby may run several times.
    fn allow(&self, allowed: bool) {
        *self.allowed.lock().expect("no panic") = allowed;
        self.changed.notify_all();
    }

    fn run(&self) {
        let mut allowed = self.allowed.lock().expect("no panic");
        loop {
            allowed = self.changed.wait_while(allowed, |allowed| !*allowed).expect("no panic");
            log::info!("process {} does the job", process::id());
            // Not for the whole pause, if this generation has to stand by.
            let paused = self.changed.wait_timeout_while(allowed, JOB_PAUSE, |allowed| *allowed);
            allowed = paused.expect("no panic").0;
            if !*allowed {
                log::info!("process {} leaves the job to another generation", process::id());
            }
        }
    }
}

/// SO_REUSEPORT lets both generations listen during a restart (both must run as the same user).
fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(4096)?;
    Ok(socket.into())
}

/// Accepts until the drain has begun and the queue is empty, then closes the listener.
fn accept(listener: TcpListener, drained: OwnedFd, at_work: DrainGuard) -> io::Result<()> {
    let drained = Arc::new(drained);
    let draining = seamless::draining();
    loop {
        // Read first: only an EAGAIN that comes after the drain began says that the queue is
        // empty for good. Connections still in it when the listener closes would be reset.
        let last_round = draining.has_begun();
        match listener.accept() {
            Ok((stream, _)) => {
                let (drained, at_work) = (drained.clone(), at_work.clone());
                let converse = move || {
                    let _at_work = at_work;
                    if let Err(error) = converse(&stream, &drained) {
                        log::debug!("connection: {error}");
                    }
                };
                if let Err(error) = thread::Builder::new().spawn(converse) {
                    log::warn!("connection dropped, no thread: {error}");
                }
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                if last_round {
                    return Ok(());
                }
                wait_readable([&listener, &drained], PollTimeout::NONE)?;
            }
            // Out of descriptors, or a client that left the queue: no reason to end.
            Err(error) => {
                log::warn!("cannot accept: {error}");
                thread::sleep(Duration::from_millis(50));
            }
        }
    }
}

/// Waits until one of `sources` can be read or has ended. Returns for each whether it can or has.
fn wait_readable<const N: usize>(
    sources: [&dyn AsFd; N],
    timeout: impl Into<PollTimeout>,
) -> io::Result<[bool; N]> {
    let timeout = timeout.into();
    let mut entries = sources.map(|source| PollFd::new(source.as_fd(), PollFlags::POLLIN));
    while let Err(errno) = poll(&mut entries, timeout) {
        if errno != Errno::EINTR {
            return Err(errno.into());
        }
    }
    Ok(entries.map(|entry| entry.any().unwrap_or(true)))
}

/// Serves one connection to its end.
fn converse(stream: &TcpStream, drained: &OwnedFd) -> io::Result<()> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(READ_LIMIT))?;
    let draining = seamless::draining();
    let mut received = Vec::new();
    let mut grace = FIRST_GRACE;
    while !received.is_empty() || next_request_begins(stream, drained, grace)? {
        grace = IDLE_GRACE;
        let Some(request) = Request::read(stream, &mut received)? else {
            return Ok(());
        };
        let (status, text) = match request.delay() {
            _ if request.malformed => ("400 Bad Request", "malformed request\n".into()),
            Err(error) => ("400 Bad Request", format!("delay: {error}\n")),
            Ok(delay) => {
                thread::sleep(delay);
                ("200 OK", format!("Server pid: {}\n", process::id()))
            }
        };
        // Asked at the last moment: a drain that began during the delay counts.
        let keep_alive = request.keep_alive && !draining.has_begun();
        let connection = if keep_alive { "keep-alive" } else { "close" };
        let length = text.len();
        let mut answer = format!(
            "HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {length}\r\n\
             Connection: {connection}\r\n\r\n"
        );
        if !request.head_only {
            answer.push_str(&text);
        }
        (&mut &*stream).write_all(answer.as_bytes())?;
        if !keep_alive {
            return Ok(());
        }
    }
    Ok(())
}

/// Waits for the first byte of a request. Returns false if none comes in time. A drain shortens that
/// time but does not end it: a request may be on its way, and closing would cut it off.
fn next_request_begins(stream: &TcpStream, drained: &OwnedFd, grace: u16) -> io::Result<bool> {
    match wait_readable([stream, drained], IDLE_LIMIT)? {
        [false, true] => Ok(wait_readable([stream], grace)? == [true]),
        [readable, _] => Ok(readable),
    }
}

struct Request {
    path: String,
    keep_alive: bool,
    head_only: bool,
    malformed: bool,
}

impl Request {
    /// Takes one request, its body included, out of the stream; `received` keeps what was read
    /// beyond it. `None`: the client has closed.
    fn read(mut stream: &TcpStream, received: &mut Vec<u8>) -> io::Result<Option<Self>> {
        let mut chunk = [0; 2048];
        loop {
            if let Some((request, length)) = Self::parse(received) {
                let left = received.len().min(length);
                received.drain(..left);
                let body = (length - left) as u64;
                io::copy(&mut stream.take(body), &mut io::sink())?;
                return Ok(Some(request));
            }
            match stream.read(&mut chunk) {
                Ok(0) => return Ok(None),
                Ok(count) => received.extend_from_slice(&chunk[..count]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// The request at the start of `received` and its length, once its head is complete.
    fn parse(received: &[u8]) -> Option<(Self, usize)> {
        let mut headers = [httparse::EMPTY_HEADER; 64];
        let mut head = httparse::Request::new(&mut headers);
        match head.parse(received) {
            Ok(httparse::Status::Complete(head_length)) => {
                let http_1_1 = head.version == Some(1);
                let mut request = Request {
                    path: head.path.unwrap_or_default().to_owned(),
                    keep_alive: http_1_1,
                    head_only: head.method == Some("HEAD"),
                    malformed: false,
                };
                let mut length = head_length;
                for header in head.headers {
                    let value = String::from_utf8_lossy(header.value);
                    if header.name.eq_ignore_ascii_case("connection") {
                        request.keep_alive = if http_1_1 {
                            !value.eq_ignore_ascii_case("close")
                        } else {
                            value.eq_ignore_ascii_case("keep-alive")
                        };
                    } else if header.name.eq_ignore_ascii_case("content-length") {
                        match value.parse::<usize>().ok().and_then(|n| n.checked_add(length)) {
                            Some(sum) => length = sum,
                            None => request.malformed = true,
                        }
                    } else if header.name.eq_ignore_ascii_case("transfer-encoding") {
                        request.malformed = true; // this server takes plain bodies only
                    }
                }
                request.keep_alive &= !request.malformed;
                Some((request, length))
            }
            Ok(httparse::Status::Partial) if received.len() < MAX_HEAD => None,
            _ => {
                let malformed = Request {
                    path: String::new(),
                    keep_alive: false,
                    head_only: false,
                    malformed: true,
                };
                Some((malformed, received.len()))
            }
        }
    }

    /// The `10s` of `?delay=10s`.
    fn delay(&self) -> Result<Duration, humantime::DurationError> {
        let query = self.path.split_once('?').map_or("", |(_, query)| query);
        query
            .split('&')
            .find_map(|pair| pair.strip_prefix("delay="))
            .map_or(Ok(Duration::ZERO), humantime::parse_duration)
    }
}
