//! Clients: a single request ([`get`]), a [`Connection`] byte by byte, and the [`Prober`] that keeps asking.
//! For clients by HTTP/2 or TLS see [`strict`](crate::strict).

mod connection;
mod prober;

use std::{
    fmt,
    io::{self, ErrorKind},
    net::SocketAddr,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use rustix::io::Errno;

pub use connection::{Connection, answer_of};
pub use prober::{Answer, EVERY, FailedProbe, Prober, Probes};

use crate::{LIMIT, process, wait_for};

/// How long one request may take unless told otherwise.
const REQUEST: Duration = Duration::from_secs(30);

/// Since 1970, by the clock that all processes share.
pub fn time_now() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("a clock that is set")
}

/// What the body of a long answer of the probe repeats.
pub static PATTERN: [u8; 65_521] = {
    let mut pattern = [0; 65_521]; // a prime: no part of it that gets lost goes unseen
    let mut at = 0;
    while at < pattern.len() {
        pattern[at] = (at % 251) as u8;
        at += 1;
    }
    pattern
};

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

impl From<SocketAddr> for Target {
    fn from(address: SocketAddr) -> Self {
        Target::Tcp(address)
    }
}

impl From<&Path> for Target {
    fn from(path: &Path) -> Self {
        Target::Unix(path.to_owned())
    }
}

/// For `--listen` or `--unix-socket`.
impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Tcp(address) => address.fmt(f),
            Target::Unix(path) => path.display().fmt(f),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    pub status: u16,
    /// The head as it came, status line included.
    pub head: String,
    pub body: String,
    /// From a body `Server pid: N`.
    pub pid: Option<u32>,
}

/// Why a request got no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FailureKind {
    /// Nobody listens.
    Refused,
    /// The path of a Unix socket does not exist.
    Missing,
    Reset,
    /// The connection ended before the answer was complete.
    Closed,
    TimedOut,
    /// Complete, but not 200 with a PID in it.
    Unexpected,
    Other,
}

#[derive(Clone, Debug)]
pub struct Failure {
    pub kind: FailureKind,
    pub text: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.kind, self.text)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        let kind = match error.kind() {
            ErrorKind::ConnectionRefused => FailureKind::Refused,
            ErrorKind::NotFound => FailureKind::Missing,
            ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => FailureKind::Reset,
            ErrorKind::UnexpectedEof => FailureKind::Closed,
            ErrorKind::WouldBlock | ErrorKind::TimedOut => FailureKind::TimedOut,
            // So says a blocking connect whose time is over.
            _ if error.raw_os_error() == Some(Errno::INPROGRESS.raw_os_error()) => {
                FailureKind::TimedOut
            }
            _ => FailureKind::Other,
        };
        Failure { kind, text: error.to_string() }
    }
}

/// Asks once.
pub fn get(target: &Target, path: &str) -> Result<Response, Failure> {
    get_within(REQUEST, target, path)
}

/// Asks once; connecting, sending and each read may take `limit`.
pub fn get_within(limit: Duration, target: &Target, path: &str) -> Result<Response, Failure> {
    let mut connection = Connection::try_within(limit, target)?;
    connection.try_ask(path)?;
    connection.response()
}

/// Asks for `/` once, and tells the port that it asked from: `None` where it found nobody to ask.
pub fn get_from(target: &Target) -> (Option<u16>, Result<Response, Failure>) {
    let mut connection = match Connection::try_within(REQUEST, target) {
        Ok(connection) => connection,
        Err(error) => return (None, Err(error.into())),
    };
    let sent = connection.try_begin().map_err(Failure::from);
    (Some(connection.port()), sent.and_then(|()| connection.try_finish()))
}

/// Waits until new connections reach one generation only.
#[track_caller]
pub fn wait_one_listener(target: &Target) {
    let Target::Tcp(address) = target else { panic!("no port: {target}") };
    wait_for(format!("one listener at {target}"), LIMIT, || {
        (process::listeners(Some(address.port())).len() == 1).then_some(())
    });
}

/// The PID of the server that answers. Right after a restart the old one may answer as well: until it has let its
/// listener go ([`scene::wait_let_go`](crate::scene::wait_let_go)), or its report has the line `wait`.
#[track_caller]
pub fn pid(target: &Target) -> u32 {
    match get(target, "/") {
        Ok(Response { pid: Some(pid), .. }) => pid,
        other => panic!("no server with a PID at {target}: {other:?}"),
    }
}

/// Waits until some server answers, and gives its PID.
#[track_caller]
pub fn wait_pid(target: &Target) -> u32 {
    let what = format!("a server answers at {target}");
    wait_for(what, LIMIT, || get(target, "/").ok()?.pid)
}

/// `None` where more has to come. The length must be given: a connection that was cut must not
/// look like the end of an answer.
fn parse(bytes: &[u8]) -> Result<Option<Response>, Failure> {
    let unexpected = |text: String| Failure { kind: FailureKind::Unexpected, text };
    let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else {
        return Ok(None);
    };
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
    });
    let (Some(status), Some(length)) = (status, length) else {
        return Err(unexpected(head));
    };
    let body = &bytes[end + 4..];
    if body.len() < length {
        return Ok(None);
    }
    let body = String::from_utf8_lossy(&body[..length]).into_owned();
    let pid = body.trim().strip_prefix("Server pid: ").and_then(|pid| pid.parse().ok());
    Ok(Some(Response { status, head, body, pid }))
}
