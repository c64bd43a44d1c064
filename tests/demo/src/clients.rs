//! The load: each client is a thread that sends its next request when the last one has ended.
//!
//! With a new connection for each request, a restart is most dangerous: a connection is lost if its
//! listener goes away between the SYN and `accept`.

use std::{
    ffi::OsString,
    io::{self, ErrorKind, Read, Write},
    net::{Ipv4Addr, SocketAddr},
    os::unix::ffi::OsStrExt,
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use socket2::{Domain, SockAddr, Socket, Type};

use crate::stats::{Failure, Stats};

/// How long a request may take.
const TIMEOUT: Duration = Duration::from_secs(10);
/// A server that is gone refuses at once: a client that did not pause would count millions.
const REST_AFTER_FAILURE: Duration = Duration::from_millis(1);
/// Source addresses, from 127.0.1.1 on: one alone would run out of local ports within seconds.
const SOURCES: usize = 250;

/// Where the server listens.
#[derive(Clone, Debug)]
pub(crate) enum Place {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

impl Place {
    /// As the server is told.
    pub(crate) fn word(&self) -> OsString {
        match self {
            Place::Tcp(address) => address.to_string().into(),
            Place::Unix(path) => path.into(),
        }
    }

    pub(crate) fn from_word(word: OsString) -> Self {
        match std::str::from_utf8(word.as_bytes()).ok().and_then(|text| text.parse().ok()) {
            Some(address) => Place::Tcp(address),
            None => Place::Unix(word.into()),
        }
    }

    /// Connects. `turn` chooses the source address.
    fn connect(&self, turn: usize) -> io::Result<Socket> {
        let (socket, address) = match self {
            Place::Tcp(address) => {
                let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
                let source = Ipv4Addr::new(127, 0, 1, (turn % SOURCES) as u8 + 1);
                socket.set_reuse_address(true)?;
                socket.bind(&SocketAddr::from((source, 0)).into())?;
                (socket, (*address).into())
            }
            Place::Unix(path) => {
                (Socket::new(Domain::UNIX, Type::STREAM, None)?, SockAddr::unix(path)?)
            }
        };
        socket.set_read_timeout(Some(TIMEOUT))?;
        socket.set_write_timeout(Some(TIMEOUT))?; // for the connect as well
        socket.connect(&address)?;
        Ok(socket)
    }
}

pub(crate) struct Load {
    shared: Arc<Shared>,
    clients: Vec<JoinHandle<()>>,
}

struct Shared {
    place: Place,
    keep_alive: bool,
    stopping: AtomicBool,
    start: Instant,
    stats: Mutex<Stats>,
}

impl Load {
    pub(crate) fn start(place: Place, clients: usize, keep_alive: bool) -> Self {
        let start = Instant::now();
        let shared = Arc::new(Shared {
            place,
            keep_alive,
            stopping: AtomicBool::new(false),
            start,
            stats: Mutex::new(Stats::new(start)),
        });
        let clients = (0..clients)
            .map(|number| {
                let shared = Arc::clone(&shared);
                let client = thread::Builder::new().stack_size(128 * 1024);
                client.spawn(move || shared.client(number)).expect("a thread for a client")
            })
            .collect();
        Load { shared, clients }
    }

    pub(crate) fn stats(&self) -> MutexGuard<'_, Stats> {
        self.shared.stats()
    }

    /// Each client ends the request that it is in. Returns how long the load has run, and the counts.
    pub(crate) fn stop(mut self) -> (Duration, Stats) {
        self.join();
        let elapsed = self.shared.start.elapsed();
        let stats = std::mem::replace(&mut *self.stats(), Stats::new(self.shared.start));
        (elapsed, stats)
    }

    fn join(&mut self) {
        self.shared.stopping.store(true, Ordering::Relaxed);
        for client in self.clients.drain(..) {
            client.join().expect("a client panicked");
        }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.join();
    }
}

impl Shared {
    fn stats(&self) -> MutexGuard<'_, Stats> {
        self.stats.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn client(&self, number: usize) {
        // Before the first answer, nothing is counted: the server may not listen yet.
        while !self.stopping.load(Ordering::Relaxed) && self.ask(&mut None, number).is_err() {
            thread::sleep(REST_AFTER_FAILURE);
        }
        let (mut kept, mut turn) = (None, number);
        while !self.stopping.load(Ordering::Relaxed) {
            let begin = self.start.elapsed();
            let was_kept = kept.is_some();
            let mut outcome = self.ask(&mut kept, turn);
            // HTTP allows this: the connection had been used before and ended without an answer.
            let again = was_kept && matches!(outcome, Err(Failure::ClosedBeforeAnswer));
            if again {
                outcome = self.ask(&mut kept, turn);
            }
            self.stats().count(begin, self.start.elapsed(), outcome, again);
            if outcome.is_err() {
                thread::sleep(REST_AFTER_FAILURE);
            }
            turn += 1;
        }
    }

    /// One request: the PID of the process that answered it.
    fn ask(&self, kept: &mut Option<Socket>, turn: usize) -> Result<u32, Failure> {
        let mut connection = match kept.take() {
            Some(connection) => connection,
            None => self.place.connect(turn).map_err(|error| Failure::of_connect(&error))?,
        };
        let header = if self.keep_alive { "keep-alive" } else { "close" };
        let request = format!("GET / HTTP/1.1\r\nHost: demo\r\nConnection: {header}\r\n\r\n");
        // If this fails, the read tells why, after what the server had sent before.
        let _ = connection.write_all(request.as_bytes());
        let mut answer = Vec::with_capacity(256);
        let mut chunk = [0; 512];
        let whole = loop {
            if let Some(whole) = parse(&answer) {
                break whole?;
            }
            let nothing = answer.is_empty();
            match connection.read(&mut chunk) {
                Ok(0) if nothing => return Err(Failure::ClosedBeforeAnswer),
                Ok(0) => return Err(Failure::Cut),
                Ok(length) => answer.extend_from_slice(&chunk[..length]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    return Err(Failure::TimedOut);
                }
                Err(_) if nothing => return Err(Failure::ClosedBeforeAnswer),
                Err(_) => return Err(Failure::Cut),
            }
        };
        let (pid, closes) = whole;
        if self.keep_alive && !closes {
            *kept = Some(connection);
        }
        Ok(pid)
    }
}

/// The PID in a whole answer, and if the connection is closed after it. `None`: not whole yet.
fn parse(answer: &[u8]) -> Option<Result<(u32, bool), Failure>> {
    let text = std::str::from_utf8(answer).ok()?;
    let (head, body) = text.split_once("\r\n\r\n")?;
    let head = head.to_ascii_lowercase();
    let header = |name: &str| {
        head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
    };
    let length: usize = header("content-length")?.parse().ok()?;
    if body.len() < length {
        return None;
    }
    let pid = body.trim_end().strip_prefix("Server pid: ").and_then(|pid| pid.parse().ok());
    Some(match pid {
        Some(pid) if head.starts_with("http/1.1 200") => {
            Ok((pid, header("connection") == Some("close")))
        }
        _ => Err(Failure::BadAnswer),
    })
}
