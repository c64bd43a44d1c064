//! The module `http`: what clients of every kind see of a restart.

mod behind;
mod counters;
mod drain;
mod health;
mod http2;
pub(crate) mod limits;
mod passing;
mod proxied;
mod restarts;
mod spread;
mod tickets;

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Child,
    time::{Duration, Instant},
};

use rustls::pki_types::CertificateDer;
use seamless_testing::{
    LIMIT, bin,
    http::{Connection, Target},
    log::Log,
    process::{self, Watched},
    scene,
    signal::TERM,
    wait_for,
};

/// The service `web`, restarted by hand.
pub(crate) struct Web {
    folder: PathBuf,
    options: String,
    pub(crate) launcher: Child,
    pub(crate) daemon: u32,
}

impl Web {
    #[track_caller]
    pub(crate) fn start(folder: &Path, options: impl Into<String>) -> Self {
        let options = options.into();
        let launcher = launch(folder, &options);
        let daemon = wait_started(folder, 0);
        Web { folder: folder.to_owned(), options, launcher, daemon }
    }

    /// Lets the launcher go, as a supervisor does that restarts the service.
    #[track_caller]
    fn hand_off(&mut self) {
        Watched::new(self.launcher.id()).signal(TERM);
        assert!(self.launcher.wait().expect("its end").success());
    }

    /// Gives the old daemon, which drains by then.
    #[track_caller]
    pub(crate) fn restart(&mut self) -> Watched {
        let old = Watched::new(self.daemon);
        self.hand_off();
        self.launcher = launch(&self.folder, &self.options);
        self.daemon = wait_started(&self.folder, old.pid());
        self.log().wait(&[("stage", "drain"), ("daemon", &old.pid().to_string())]);
        // The line comes before the drain. By now what it serves knows, or is about to.
        process::wait_listens_no_more(old.pid());
        old
    }

    /// The daemon was killed, and its launcher has ended as it did.
    #[track_caller]
    fn start_again(&mut self, dead: u32) {
        self.launcher = launch(&self.folder, &self.options);
        self.daemon = wait_started(&self.folder, dead);
    }

    pub(crate) fn log(&self) -> Log {
        Log::of(&self.folder)
    }
}

fn launch(folder: &Path, options: &str) -> Child {
    let options = format!("--pid-file=web.pid --spread=0s --pass=no {options}");
    scene::logged(folder, &bin::support("web"), &options).spawn().expect("sh")
}

#[track_caller]
fn wait_started(folder: &Path, before: u32) -> u32 {
    let log = Log::of(folder);
    let daemon: u32 = wait_for(format!("another daemon than {before}:\n{log}"), LIMIT, || {
        let text = fs::read_to_string(folder.join("web.pid")).ok()?;
        text.trim().parse().ok().filter(|pid| *pid != before)
    });
    // The file is there a moment before it serves.
    log.wait(&[("stage", "started"), ("daemon", &daemon.to_string())]);
    daemon
}

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

fn connect_to(address: SocketAddr) -> Connection {
    Connection::to(&Target::from(address))
}

/// What the service `web` answers.
trait Answers {
    /// Whose the next answer is, and whether it says that the connection ends.
    fn next_answer(&mut self) -> (u32, bool);
    /// The next answer, of this server: whether it says that the connection ends.
    fn answer_of(&mut self, pid: u32) -> bool;
    /// The next answer is the last one.
    fn last_answer_of(&mut self, pid: u32);
    /// The connection ends so long after this moment.
    fn ends_after(&mut self, begin: Instant, limit: Duration);
}

impl Answers for Connection {
    #[track_caller]
    fn next_answer(&mut self) -> (u32, bool) {
        let head = self.read_until("\r\n\r\n");
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
        let body = self.read_until("\n");
        let body = if body.ends_with("bytes\n") { self.read_until("\n") } else { body };
        let pid = body.strip_prefix("Server pid: ").and_then(|pid| pid.trim_end().parse().ok());
        let closes = head.to_ascii_lowercase().contains("\r\nconnection: close\r\n");
        (pid.unwrap_or_else(|| panic!("no PID: {body}")), closes)
    }

    #[track_caller]
    fn answer_of(&mut self, pid: u32) -> bool {
        let (server, closes) = self.next_answer();
        assert_eq!(server, pid);
        closes
    }

    #[track_caller]
    fn last_answer_of(&mut self, pid: u32) {
        assert!(self.answer_of(pid), "it says close");
        self.ends();
    }

    #[track_caller]
    fn ends_after(&mut self, begin: Instant, limit: Duration) {
        self.set_limit(limit + LIMIT);
        self.ends();
        assert_took(begin, limit);
    }
}

/// The old daemon has ended by itself.
#[track_caller]
fn assert_ended(web: &Web, old: &Watched) {
    old.wait_end(LIMIT);
    assert!(web.log().stage("hammer").is_empty(), "{}", web.log());
}

/// A new one for `localhost`, with its key in the files that the service reads.
fn certificate(folder: &Path) -> CertificateDer<'static> {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    fs::write(folder.join("cert.pem"), made.cert.pem()).expect("cert.pem");
    fs::write(folder.join("key.pem"), made.signing_key.serialize_pem()).expect("key.pem");
    made.cert.der().clone()
}

/// Not less; and how much more is the machine's affair.
#[track_caller]
fn assert_took(begin: Instant, limit: Duration) {
    let took = begin.elapsed();
    assert!(took >= limit && took < limit + LIMIT, "{took:?}, not {limit:?}");
}
