//! Single requests, each on a connection of its own, and the [`Prober`] that keeps asking.

use std::{
    collections::BTreeMap,
    fmt,
    io::{self, ErrorKind, Read, Write},
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant, SystemTime},
};

use rustix::io::Errno;
use socket2::{Domain, SockAddr, Socket, Type};

use crate::{LIMIT, boxed, wait_for};

/// How long one request may take unless told otherwise.
const REQUEST: Duration = Duration::from_secs(10);
/// How often a [`Prober`] asks unless told otherwise.
pub const EVERY: Duration = Duration::from_millis(20);

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
    let mut socket = connect(limit, target)?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    socket.write_all(request.as_bytes())?;
    receive(&mut socket)
}

/// Asks for `/` once, and tells the port that it asked from: `None` where it found nobody to ask.
pub fn get_from(target: &Target) -> (Option<u16>, Result<Response, Failure>) {
    let mut held = match connect(REQUEST, target) {
        Ok(socket) => Held(socket),
        Err(error) => return (None, Err(error.into())),
    };
    let sent = held.begin().map_err(Failure::from);
    (Some(held.port()), sent.and_then(|()| held.finish()))
}

/// The PID of the server that answers.
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

/// A request in flight.
#[derive(Debug)]
pub struct Pending(JoinHandle<Result<Response, Failure>>);

impl Pending {
    #[track_caller]
    pub fn finish(self) -> Result<Response, Failure> {
        self.0.join().expect("the request does not panic")
    }
}

/// Connects and sends the request; the answer comes by [`Pending::finish`].
#[track_caller]
pub fn start(target: &Target, path: &str) -> Pending {
    let mut socket = connect(REQUEST, target).unwrap_or_else(|error| panic!("{target}: {error}"));
    socket.set_read_timeout(Some(REQUEST * 6)).expect("a read timeout");
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    socket.write_all(request.as_bytes()).expect("the request is sent");
    Pending(thread::spawn(move || receive(&mut socket)))
}

/// A request whose last line is still to be sent, so that its server cannot answer yet.
#[derive(Debug)]
pub struct Held(Socket);

#[track_caller]
pub fn hold(target: &Target) -> Held {
    let socket = connect(LIMIT, target).unwrap_or_else(|error| panic!("{target}: {error}"));
    let mut held = Held(socket);
    held.begin().expect("the first part");
    held
}

impl Held {
    fn begin(&mut self) -> io::Result<()> {
        self.0.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n")
    }

    /// The client's.
    pub fn port(&self) -> u16 {
        let address = self.0.local_addr().ok().and_then(|address| address.as_socket());
        address.expect("a TCP socket has an address").port()
    }

    /// Sends the rest, and waits for the answer.
    pub fn finish(mut self) -> Result<Response, Failure> {
        self.0.write_all(b"Connection: close\r\n\r\n")?;
        receive(&mut self.0)
    }
}

pub(crate) fn connect(limit: Duration, target: &Target) -> io::Result<Socket> {
    match connect_once(limit, target) {
        Err(error) if boxed::is_reset_by_linux(&error) => connect_once(limit, target),
        ended => ended,
    }
}

fn connect_once(limit: Duration, target: &Target) -> io::Result<Socket> {
    let (domain, address) = match target {
        Target::Tcp(address) => (Domain::for_address(*address), SockAddr::from(*address)),
        Target::Unix(path) => (Domain::UNIX, SockAddr::unix(path)?),
    };
    let socket = Socket::new(domain, Type::STREAM, None)?;
    socket.set_read_timeout(Some(limit))?;
    // Linux takes it for the connect, too.
    socket.set_write_timeout(Some(limit))?;
    socket.connect(&address)?;
    Ok(socket)
}

fn receive(socket: &mut Socket) -> Result<Response, Failure> {
    let mut bytes = Vec::new();
    loop {
        if let Some(response) = parse(&bytes)? {
            return Ok(response);
        }
        let mut part = [0; 4096];
        match socket.read(&mut part) {
            Ok(0) => {
                let text = format!("after {} bytes of an answer", bytes.len());
                return Err(Failure { kind: FailureKind::Closed, text });
            }
            Ok(count) => bytes.extend_from_slice(&part[..count]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
    }
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

/// Asks a server again and again, each time on a new connection.
#[derive(Debug)]
pub struct Prober {
    target: Target,
    probes: Arc<Mutex<Probes>>,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Prober {
    /// Every 20 ms: so long from one request to the next, and none is left out where an answer takes
    /// longer.
    pub fn start(target: &Target) -> Self {
        Self::start_every(EVERY, target)
    }

    pub fn start_every(pause: Duration, target: &Target) -> Self {
        let began = time_now();
        let probes = Arc::new(Mutex::new(Probes { began, ..Probes::default() }));
        let stop = Arc::new(AtomicBool::new(false));
        let thread = thread::spawn({
            let (target, probes, stop) = (target.clone(), probes.clone(), stop.clone());
            move || probe(&target, pause, began, &probes, &stop)
        });
        Prober { target: target.clone(), probes, stop, thread }
    }

    /// What it has seen so far.
    pub fn seen(&self) -> Probes {
        self.probes.lock().expect("the prober does not panic").clone()
    }

    /// Waits until this server has answered.
    #[track_caller]
    pub fn wait_pid(&self, pid: u32) {
        let what = format!("{pid} answers at {}", self.target);
        wait_for(what, LIMIT, || self.seen().pids().contains(&pid).then_some(()));
    }

    /// Waits for so many requests more, answered or not.
    #[track_caller]
    pub fn wait_more(&self, count: usize) {
        let enough = self.seen().requests() + count;
        let what = format!("{count} more requests at {}", self.target);
        wait_for(what, LIMIT, || (self.seen().requests() >= enough).then_some(()));
    }

    /// Lets the request in flight end, and tells what happened.
    pub fn stop(self) -> Probes {
        self.stop.store(true, Ordering::Relaxed);
        let seen = self.probes.clone();
        self.thread.join().expect("the prober does not panic");
        let seen = seen.lock().expect("it has ended");
        seen.clone()
    }
}

/// Times are all taken from one clock: between looks at two, this thread may have to wait.
fn probe(
    target: &Target,
    pause: Duration,
    began: Duration,
    probes: &Mutex<Probes>,
    stop: &AtomicBool,
) {
    let mut next = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        let at = time_now().saturating_sub(began);
        let result = get(target, "/");
        let took = time_now().saturating_sub(began + at);
        let mut probes = probes.lock().expect("no reader panics");
        let failure = match result {
            Ok(Response { status: 200, pid: Some(pid), .. }) => {
                probes.answers.push(Answer { at, took, pid });
                None
            }
            Ok(other) => {
                Some(Failure { kind: FailureKind::Unexpected, text: format!("{other:?}") })
            }
            Err(failure) => Some(failure),
        };
        probes.failures.extend(failure.map(|failure| FailedProbe { at, took, failure }));
        drop(probes);
        next = (next + pause).max(Instant::now());
        thread::sleep(next.saturating_duration_since(Instant::now()));
    }
}

/// What a [`Prober`] saw. Times count from its start.
#[derive(Clone, Debug, Default)]
pub struct Probes {
    /// Its start, by [`time_now`].
    pub began: Duration,
    pub answers: Vec<Answer>,
    pub failures: Vec<FailedProbe>,
}

#[derive(Clone, Copy, Debug)]
pub struct Answer {
    pub at: Duration,
    pub took: Duration,
    pub pid: u32,
}

#[derive(Clone, Debug)]
pub struct FailedProbe {
    pub at: Duration,
    pub took: Duration,
    pub failure: Failure,
}

impl Probes {
    pub fn requests(&self) -> usize {
        self.answers.len() + self.failures.len()
    }

    /// Those that were asked after the one moment and answered before the other, by [`time_now`].
    pub fn answers_between(&self, from: Duration, to: Duration) -> Vec<Answer> {
        let mut answers = self.answers.clone();
        answers.retain(|one| self.began + one.at >= from && self.answered_at(one) <= to);
        answers
    }

    /// When this server answered first, by [`time_now`].
    #[track_caller]
    pub fn first_answer_of(&self, pid: u32) -> Duration {
        let first = self.answers.iter().find(|one| one.pid == pid);
        self.answered_at(first.unwrap_or_else(|| panic!("no answer of {pid}")))
    }

    fn answered_at(&self, answer: &Answer) -> Duration {
        self.began + answer.at + answer.took
    }

    /// The longest time from one request to the next of those since this moment, by [`time_now`]:
    /// more than its pause is what the machine, or the server, made it wait.
    pub fn longest_gap(&self, from: Duration) -> Duration {
        let mut asked: Vec<Duration> = self.answers.iter().map(|one| one.at).collect();
        asked.extend(self.failures.iter().map(|one| one.at));
        asked.sort_unstable();
        let gaps = asked.windows(2).filter(|pair| self.began + pair[1] >= from);
        gaps.map(|pair| pair[1] - pair[0]).max().unwrap_or_default()
    }

    /// In the order of their first answer.
    pub fn pids(&self) -> Vec<u32> {
        let mut pids = Vec::new();
        for answer in &self.answers {
            if !pids.contains(&answer.pid) {
                pids.push(answer.pid);
            }
        }
        pids
    }

    pub fn failures_by_kind(&self) -> BTreeMap<FailureKind, usize> {
        let mut counts = BTreeMap::new();
        for failed in &self.failures {
            *counts.entry(failed.failure.kind).or_default() += 1;
        }
        counts
    }

    /// Some requests, and none failed.
    #[track_caller]
    pub fn assert_all_answered(&self) {
        assert!(!self.answers.is_empty(), "no request was answered: {:?}", self.failures);
        assert!(
            self.failures.is_empty(),
            "{} of {} requests failed: {:?}",
            self.failures.len(),
            self.requests(),
            self.failures
        );
    }
}
