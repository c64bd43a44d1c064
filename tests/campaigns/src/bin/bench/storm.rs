//! Connections that do not move: they are closed one after the other, and TLS clients resume their sessions.

use std::{
    error::Error,
    fs,
    net::{SocketAddr, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use rustls::{ClientConfig, ClientConnection, HandshakeKind, StreamOwned};
use seamless_campaigns::port::ReservedPort;
use seamless_testing::strict;

use crate::{
    Bench,
    kept::{Clients, LIMIT, Pace, Site, allowed},
    table::{self, Samples, millis, thousands},
};

/// Silent connections.
pub(crate) const OPEN: usize = 20_000;
const SPREAD: Duration = Duration::from_secs(10);
const SLICE: Duration = Duration::from_millis(100);
/// Clients that ask all the time beside them; nothing of theirs is closed, for they come and go.
const BESIDE: usize = 8;
const PAUSE: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(15));
/// After each restart, handshakes are counted for so long.
pub(crate) const COUNTED: Duration = Duration::from_secs(10);
const RUSTLS: usize = 32;
/// Between two connections of a client.
const EVERY: Duration = Duration::from_millis(250);

pub(crate) fn run(bench: &Bench, open: usize, restarts: usize) -> Result<bool, Box<dyn Error>> {
    let clean = closes(bench, allowed(open))?;
    Ok(clean & sessions(bench, restarts)?)
}

// ---- closes ----

fn closes(bench: &Bench, open: usize) -> Result<bool, Box<dyn Error>> {
    table::title(&format!(
        "{} silent connections are closed over {} s, and come back at once",
        thousands(open as u64),
        SPREAD.as_secs()
    ));
    let options = format!(
        "--pass=no --spread={}s --idle-grace=1ms --drain-timeout=60s --max-connections=65000",
        SPREAD.as_secs()
    );
    let mut site = Site::start(bench, &options)?;
    let address = bench.port.address();
    let silent = Clients::start(address, open, Pace::Idle { comes_back: true })?;
    let beside = Beside::start(address);
    bench.pass(Duration::from_secs(1), "all is quiet")?;
    let calm = Instant::now();
    bench.pass(SPREAD, "nothing is restarted")?;
    let restart = site.restart(bench)?;
    bench.pass(Duration::from_secs(1), "the last come back")?;
    let (asked, failed_beside) = beside.stop();
    let silent = silent.stop();
    let log = site.last_lines();
    site.end(bench)?;

    let mut of_slice = vec![0_usize; (SPREAD.as_millis() / SLICE.as_millis()) as usize + 50];
    let began = silent.closed.iter().min().copied().unwrap_or(restart.taken_over);
    for at in &silent.closed {
        let slice = (*at - began).as_millis() / SLICE.as_millis();
        let last = of_slice.len() - 1;
        of_slice[(slice as usize).min(last)] += 1;
    }
    let share = open as f64 * SLICE.as_secs_f64() / SPREAD.as_secs_f64();
    let most = of_slice.iter().max().copied().unwrap_or(0);
    let of = |from: Instant, to: Instant| -> Samples {
        let within = asked.iter().filter(|(begin, took)| *begin >= from && *begin + *took <= to);
        within.map(|(_, took)| *took).collect()
    };
    let alone = of(calm, restart.told);
    let meanwhile = of(restart.told, restart.ended);
    table::header();
    let failed = silent.failed.len() as u64 + failed_beside;
    table::target("failed requests", &thousands(failed), "0", failed == 0);
    table::note("connections that were closed", &thousands(silent.closed.len() as u64));
    let last = silent.closed.iter().max().map_or(Duration::ZERO, |last| *last - began);
    table::note("from the first close to the last", &millis(last));
    let text = format!("{most} of {share:.0}: {:.2}", most as f64 / share);
    table::target(
        "most closes in 100 ms, of an even share",
        &text,
        "<= 2",
        most as f64 <= 2.0 * share,
    );
    let (calm, storm) = (alone.quantile(0.99), meanwhile.quantile(0.99));
    table::note("p99 of requests beside them, alone", &millis(calm));
    table::note("p99 of requests beside them, meanwhile", &millis(storm));
    let ratio = storm.as_secs_f64() / calm.as_secs_f64();
    table::target("ratio", &format!("{ratio:.2} times"), "<= 1.5", ratio <= 1.5);
    for failure in silent.failed.iter().take(5) {
        table::print(&format!("  {failure}"));
    }
    if failed > 0 {
        table::print(&log);
    }
    Ok(failed == 0)
}

/// Requests that were answered: when they began, and how long they took; and how many were not.
type Answers = (Vec<(Instant, Duration)>, u64);

/// Clients that make a connection for each request.
struct Beside {
    stopping: Arc<AtomicBool>,
    threads: Vec<thread::JoinHandle<Answers>>,
}

impl Beside {
    fn start(address: SocketAddr) -> Beside {
        let stopping = Arc::new(AtomicBool::new(false));
        let threads = (0..BESIDE).map(|_| {
            let stopping = Arc::clone(&stopping);
            thread::spawn(move || {
                let (mut asked, mut failed) = (Vec::new(), 0);
                while !stopping.load(Ordering::Relaxed) {
                    let begin = Instant::now();
                    match once(address) {
                        Ok(()) => asked.push((begin, begin.elapsed())),
                        Err(_) => failed += 1,
                    }
                    thread::sleep(PAUSE.0 + (PAUSE.1 - PAUSE.0).mul_f64(fastrand::f64()));
                }
                (asked, failed)
            })
        });
        let threads = threads.collect();
        Beside { stopping, threads }
    }

    fn stop(self) -> Answers {
        self.stopping.store(true, Ordering::Relaxed);
        let mut all = (Vec::new(), 0);
        for thread in self.threads {
            let (asked, failed) = thread.join().expect("no panic");
            all.0.extend(asked);
            all.1 += failed;
        }
        all
    }
}

fn once(address: SocketAddr) -> std::io::Result<()> {
    use std::io::{Read, Write};
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    match answer.starts_with(b"HTTP/1.1 200 ") {
        true => Ok(()),
        false => Err(std::io::Error::other("no answer")),
    }
}

// ---- TLS sessions ----

/// `cert.pem` and `key.pem` in this folder.
pub(crate) fn make_certificate(folder: &Path) -> Result<(), Box<dyn Error>> {
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"])
        .args(["-nodes", "-days", "2", "-subj", "/CN=localhost"])
        .args(["-addext", "subjectAltName=DNS:localhost", "-addext", "basicConstraints=CA:FALSE"])
        .args(["-keyout", "key.pem", "-out", "cert.pem"])
        .current_dir(folder)
        .stderr(Stdio::null())
        .status();
    match made.is_ok_and(|made| made.success()) {
        true => Ok(()),
        false => Err("openssl makes no certificate".into()),
    }
}

/// Clients that make a connection for each request, and resume the session of the one before.
pub(crate) struct Rustls {
    pub(crate) counts: Arc<Handshakes>,
    stopping: Arc<AtomicBool>,
    threads: Vec<thread::JoinHandle<()>>,
}

impl Rustls {
    /// They trust the `cert.pem` of this folder.
    pub(crate) fn start(folder: &Path, address: SocketAddr) -> Result<Rustls, Box<dyn Error>> {
        let counts = Arc::new(Handshakes::default());
        let stopping = Arc::new(AtomicBool::new(false));
        let mut threads = Vec::new();
        for _ in 0..RUSTLS {
            let config = strict::trusting_file(&folder.join("cert.pem"), false)?;
            let (counts, stopping) = (counts.clone(), stopping.clone());
            threads.push(thread::spawn(move || {
                while !stopping.load(Ordering::Relaxed) {
                    match of_rustls(&config, address) {
                        Ok(resumed) => counts.add(resumed),
                        Err(_) => _ = counts.failed.fetch_add(1, Ordering::Relaxed),
                    }
                    thread::sleep(EVERY);
                }
            }));
        }
        Ok(Rustls { counts, stopping, threads })
    }

    pub(crate) fn stop(mut self) {
        self.stopping.store(true, Ordering::Relaxed);
        self.threads.drain(..).for_each(|thread| _ = thread.join());
    }
}

impl Drop for Rustls {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::Relaxed);
    }
}

/// Handshakes since a mark: all, and those that have resumed a session.
#[derive(Default)]
pub(crate) struct Handshakes {
    all: AtomicU64,
    resumed: AtomicU64,
    failed: AtomicU64,
}

impl Handshakes {
    fn add(&self, resumed: bool) {
        self.all.fetch_add(1, Ordering::Relaxed);
        self.resumed.fetch_add(u64::from(resumed), Ordering::Relaxed);
    }

    /// All of them, those that have resumed a session, and requests that have failed.
    pub(crate) fn get(&self) -> (u64, u64, u64) {
        let get = |one: &AtomicU64| one.load(Ordering::Relaxed);
        (get(&self.all), get(&self.resumed), get(&self.failed))
    }

    pub(crate) fn reset(&self) {
        for one in [&self.all, &self.resumed, &self.failed] {
            one.store(0, Ordering::Relaxed);
        }
    }
}

fn sessions(bench: &Bench, restarts: usize) -> Result<bool, Box<dyn Error>> {
    table::title(&format!(
        "TLS handshakes in the {} s after a restart, {restarts} restarts",
        COUNTED.as_secs()
    ));
    let folder = bench.folder("sessions")?;
    if let Err(why) = make_certificate(&folder) {
        table::print(&format!("not measured: {why}"));
        return Ok(true);
    }
    let port = ReservedPort::new()?;
    let tls = port.address();
    let options = format!("--tls-listen={tls} --spread=1s --idle-grace=1s");
    let mut site = Site::start_in(folder.clone(), bench.port.address(), &options)?;
    let rustls = Rustls::start(&folder, tls)?;
    let [openssl, curl] = [(); 2].map(|()| Arc::new(Handshakes::default()));
    let stopping = Arc::new(AtomicBool::new(false));
    let (counts, stops, theirs) = (openssl.clone(), stopping.clone(), folder.clone());
    let thread = thread::spawn(move || {
        while !stops.load(Ordering::Relaxed) {
            match of_openssl(&theirs, tls) {
                Some(resumed) => counts.add(resumed),
                None => _ = counts.failed.fetch_add(1, Ordering::Relaxed),
            }
            thread::sleep(EVERY);
        }
    });
    bench.pass(Duration::from_secs(2), "all have a session")?;
    let mut totals = [(0, 0, 0); 3];
    for restart in 0..restarts {
        // One process of curl keeps its sessions for as long as it runs: it begins before the restart.
        let of_curl = Curl::start(&folder, tls)?;
        bench.pass(Duration::from_millis(500), "curl has a session")?;
        site.restart(bench)?;
        rustls.counts.reset();
        openssl.reset();
        bench.pass(COUNTED, &format!("restart {} of {restarts}", restart + 1))?;
        curl.reset();
        of_curl.end(&curl)?;
        for (total, one) in totals.iter_mut().zip([&rustls.counts, &openssl, &curl]) {
            let (all, resumed, failed) = one.get();
            *total = (total.0 + all, total.1 + resumed, total.2 + failed);
        }
    }
    stopping.store(true, Ordering::Relaxed);
    rustls.stop();
    _ = thread.join();
    site.end(bench)?;
    table::header();
    let mut failures = 0;
    for (name, (all, resumed, failed)) in ["rustls", "openssl s_client", "curl"].iter().zip(totals)
    {
        let share = resumed as f64 / (all as f64).max(1.0) * 100.0;
        let text = format!("{share:.2} % of {}", thousands(all));
        table::target(&format!("resumed, {name}"), &text, ">= 99 %", share >= 99.0 && all > 0);
        failures += failed;
    }
    table::target("handshakes or requests that failed", &thousands(failures), "0", failures == 0);
    Ok(failures == 0)
}

fn of_rustls(config: &Arc<ClientConfig>, address: SocketAddr) -> Result<bool, Box<dyn Error>> {
    use std::io::{Read, Write};
    let tcp = TcpStream::connect(address)?;
    tcp.set_read_timeout(Some(LIMIT))?;
    let client = ClientConnection::new(config.clone(), "localhost".try_into()?)?;
    let mut stream = StreamOwned::new(client, tcp);
    stream.write_all(b"GET /name HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    match answer.starts_with("HTTP/1.1 200 ") {
        true => Ok(stream.conn.handshake_kind() == Some(HandshakeKind::Resumed)),
        false => Err("no answer".into()),
    }
}

/// A process that resumes the session of the one before. `None`: it has failed.
fn of_openssl(folder: &Path, address: SocketAddr) -> Option<bool> {
    use std::io::Write;
    let session = folder.join("session");
    let mut client = Command::new("openssl");
    client.args(["s_client", "-connect", &address.to_string(), "-servername", "localhost"]);
    client.args(["-ign_eof", "-CAfile"]).arg(folder.join("cert.pem"));
    if session.exists() {
        client.arg("-sess_in").arg(&session);
    }
    client.arg("-sess_out").arg(folder.join("session.new"));
    client.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut client = client.spawn().ok()?;
    let mut input = client.stdin.take()?;
    let request = b"GET /name HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    input.write_all(request).ok()?;
    let output = client.wait_with_output().ok()?;
    drop(input);
    _ = fs::rename(folder.join("session.new"), &session);
    let text = String::from_utf8_lossy(&output.stdout);
    match (text.contains("\nReused, TLSv1."), text.contains("\nNew, TLSv1.")) {
        (true, _) => Some(true),
        (false, true) => Some(false),
        (false, false) => None,
    }
}

/// One process of curl that makes a connection for each of many requests.
struct Curl {
    child: Child,
    said: Arc<Mutex<String>>,
    reader: thread::JoinHandle<()>,
}

impl Curl {
    fn start(folder: &Path, address: SocketAddr) -> Result<Curl, Box<dyn Error>> {
        use std::io::Read;
        let url = format!("https://localhost:{}/name", address.port());
        let requests = (COUNTED.as_secs() * 4 + 4) as usize;
        let mut curl = Command::new("curl");
        curl.args(["--silent", "--verbose", "--http1.1", "--rate", "4/s", "--max-time", "60"]);
        curl.args(["--header", "Connection: close", "--cacert"]).arg(folder.join("cert.pem"));
        curl.args(["--resolve", &format!("localhost:{}:127.0.0.1", address.port())]);
        curl.args(vec![url; requests]);
        curl.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = curl.spawn()?;
        let mut errors = child.stderr.take().ok_or("a pipe")?;
        let said = Arc::new(Mutex::new(String::new()));
        let theirs = said.clone();
        let reader = thread::spawn(move || {
            let mut text = Vec::new();
            _ = errors.read_to_end(&mut text);
            *theirs.lock().expect("no panic") = String::from_utf8_lossy(&text).into_owned();
        });
        Ok(Curl { child, said, reader })
    }

    /// The first handshake of a process is one in full, and is not counted.
    fn end(mut self, counts: &Handshakes) -> Result<(), Box<dyn Error>> {
        let status = self.child.wait()?;
        self.reader.join().expect("no panic");
        let said = self.said.lock().expect("no panic");
        let count = |what: &str| said.matches(what).count() as u64;
        let (all, full) = (count("SSL connection using"), count("TLS handshake, Certificate (11)"));
        counts.all.fetch_add(all.saturating_sub(1), Ordering::Relaxed);
        counts.resumed.fetch_add(all.saturating_sub(full), Ordering::Relaxed);
        counts.failed.fetch_add(u64::from(!status.success()), Ordering::Relaxed);
        Ok(())
    }
}
