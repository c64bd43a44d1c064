//! The servers that are compared: the same answer, other ways to keep the sockets.

use std::{
    env,
    error::Error,
    ffi::OsString,
    fs, io,
    net::{SocketAddr, TcpStream},
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use seamless_campaigns::{
    deploy::{Deployment, Next, Server, Supervised},
    load::{Load, Running, Target},
};
use seamless_testing::bin;
use signal_hook::consts::{SIGHUP, SIGUSR1, SIGUSR2};

use crate::{
    Bench, passing, storm,
    table::{Progress, progress},
};

/// The folder with the programs of `bench/peers`.
const PEERS: &str = "SEAMLESS_BENCH_PEERS";
/// Between two starts by the supervisor that is built in.
pub(crate) const RESPAWN: Duration = Duration::from_millis(250);

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// SO_REUSEPORT, each listener closed with whatever is queued there.
    Closing,
    /// SO_REUSEPORT, the queue emptied before the listener is closed.
    Emptying,
    /// A Unix socket, bound beside its path and renamed over it.
    Rebinding,
    TakeoverTcp,
    TakeoverUnix,
    /// A group of four.
    TakeoverGroup,
    Ecdysis,
    /// With SO_REUSEPORT, the queue emptied before the listener is closed.
    Shellflip,
    /// The test service `web`, whose connections move, with TLS if that is asked for.
    Web,
    Pingora,
    Nginx,
    Haproxy,
}

/// One worker, which is one thread: a generation then answers with one PID, as those of the other servers do.
const NGINX: &str = r#"
user root;
worker_processes 1;
worker_rlimit_nofile 8192;
pid {folder}/web.pid;
error_log {folder}/log error;
events { worker_connections 4096; }
http {
    access_log off;
    keepalive_timeout 1h;
    keepalive_requests 1000000;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    server {
        listen {listen} backlog=4096;
        {tls}
        location / { return 200 "Server pid: $pid\n"; }
    }
}
"#;
const NGINX_TLS: &str = "listen {address} ssl backlog=4096; \
                         ssl_certificate {folder}/cert.pem; ssl_certificate_key {folder}/key.pem;";

/// One worker with two threads, under a master (`-W`).
const HAPROXY: &str = r#"
global
    nbthread 2
    maxconn 4096
    hard-stop-after 60s
    stats socket {folder}/stats.sock mode 600 level admin expose-fd listeners
defaults
    mode http
    timeout connect 5s
    timeout client 1h
    timeout server 5s
    timeout http-request 60s
    timeout http-keep-alive 1h
frontend web
    bind {listen} backlog 4096
    {tls}
    http-request return status 200 content-type text/plain lf-string "Server pid: %pid\n"
"#;
const HAPROXY_TLS: &str = "bind {address} ssl crt {folder}/both.pem";

impl Way {
    pub(crate) fn text(self) -> &'static str {
        match self {
            Way::Closing => "SO_REUSEPORT, closed when the drain begins",
            Way::Emptying => "SO_REUSEPORT, queue emptied, then closed",
            Way::Rebinding => "Unix socket, bound anew at its path",
            Way::TakeoverTcp => "taken over: TCP",
            Way::TakeoverUnix => "taken over: Unix socket",
            Way::TakeoverGroup => "taken over: TCP, a socket a worker",
            Way::Ecdysis => "ecdysis: listener inherited by a fork",
            Way::Shellflip => "shellflip, with SO_REUSEPORT, queue emptied",
            Way::Web => "the test service web",
            Way::Pingora => "pingora: --upgrade, then QUIT to the old one",
            Way::Nginx => "nginx: USR2 to the master, then QUIT to the old one",
            Way::Haproxy => "haproxy: USR2 to the master",
        }
    }

    /// The crate's own promise: not one request fails.
    pub(crate) fn is_takeover(self) -> bool {
        matches!(self, Way::TakeoverTcp | Way::TakeoverUnix | Way::TakeoverGroup | Way::Web)
    }

    pub(crate) fn is_here(self) -> bool {
        self.program().is_some_and(|program| program.is_file())
    }

    /// `None` where it has not been built or is not installed.
    fn program(self) -> Option<PathBuf> {
        let peer = |name| {
            let program = PathBuf::from(env::var_os(PEERS)?).join(name);
            program.is_file().then(|| program.canonicalize().ok())?
        };
        match self {
            Way::Closing => peer("closing"),
            Way::Emptying => Some(bin::example("reuseport")),
            Way::Rebinding => Some(bin::example("unixsocket")),
            Way::TakeoverTcp | Way::TakeoverUnix | Way::TakeoverGroup => {
                Some(bin::example("takeover"))
            }
            Way::Ecdysis => peer("ecdysis"),
            Way::Shellflip => peer("shellflip"),
            Way::Web => Some(bin::support("web")),
            Way::Pingora => peer("pingora"),
            Way::Nginx => installed("nginx"),
            Way::Haproxy => installed("haproxy"),
        }
    }

    /// Starts it; `None` where it has not been built or is not installed.
    pub(crate) fn start<'a>(self, bench: &Bench<'a>) -> Result<Option<Site<'a>>, Box<dyn Error>> {
        self.start_with(bench, None)
    }

    /// The same, also with TLS at this address: `Web`, nginx and haproxy have it.
    pub(crate) fn start_with<'a>(
        self,
        bench: &Bench<'a>,
        tls: Option<SocketAddr>,
    ) -> Result<Option<Site<'a>>, Box<dyn Error>> {
        let Some(program) = self.program() else {
            return Ok(None);
        };
        let folder = bench.folder("web")?;
        let address = bench.port.address();
        if tls.is_some() {
            storm::make_certificate(&folder)?;
        }
        let (args, target) = self.arguments(&folder, address, tls)?;
        let version = match self {
            Way::Haproxy => Version::new(folder.join(CONFIG), folder.join(GOOD), folder.join(BAD)),
            _ => {
                let bad = installed("false").ok_or("no program `false`")?;
                Version::new(folder.join("program"), program.clone(), bad)
            }
        }?;
        let started = if self == Way::Haproxy { program } else { version.link.clone() };
        let server = Server::new(started, args, target, &folder);
        let pid_file = folder.join("web.pid");
        let supervised = match self {
            Way::Ecdysis => Supervised::start_itself(&server, SIGHUP, false)?,
            Way::Shellflip => Supervised::start_itself(&server, SIGUSR1, false)?,
            Way::Haproxy => Supervised::start_itself(&server, SIGUSR2, true)?,
            Way::Nginx => Supervised::start_beside(&server, Next::Told { pid_file })?,
            Way::Pingora => {
                let mut command = Box::new(server.command()?);
                command.arg("--upgrade");
                let next = Next::Started { command, socket: folder.join("web.pid.upgrade") };
                Supervised::start_beside(&server, next)?
            }
            _ => Supervised::start(None, &server, &folder, RESPAWN)?,
        };
        let watcher = Progress(self.text().to_owned());
        let deployment = Deployment { family: bench.family, supervised, watcher };
        let mut site = Site { deployment, server, address, folder, version: Some(version) };
        site.wait_listens()?;
        Ok(Some(site))
    }

    /// What it is started with, and where it answers then. Writes the configuration, if it has one.
    fn arguments(
        self,
        folder: &Path,
        address: SocketAddr,
        tls: Option<SocketAddr>,
    ) -> Result<(Vec<OsString>, Target), Box<dyn Error>> {
        let config = |template: &str, tls_template: &str| {
            let tls = tls.map(|tls| tls_template.replace("{address}", &tls.to_string()));
            let text = template.replace("{tls}", &tls.unwrap_or_default());
            let text = text.replace("{listen}", &address.to_string());
            text.replace("{folder}", &folder.to_string_lossy())
        };
        let pid_file = folder.join("web.pid");
        match self {
            Way::Nginx => {
                let path = folder.join(CONFIG);
                fs::write(&path, config(NGINX, NGINX_TLS))?;
                let log = folder.join("log").into();
                let args = vec!["-c".into(), path.into(), "-e".into(), log];
                return Ok((args, Target::Tcp(address)));
            }
            Way::Haproxy => {
                fs::write(folder.join(GOOD), config(HAPROXY, HAPROXY_TLS))?;
                fs::write(folder.join(BAD), "no such section\n")?;
                if tls.is_some() {
                    let read = |name| fs::read(folder.join(name));
                    fs::write(
                        folder.join("both.pem"),
                        [read("cert.pem")?, read("key.pem")?].concat(),
                    )?;
                }
                let config = folder.join(CONFIG).into();
                let args = ["-W".into(), "-f".into(), config, "-p".into(), pid_file.into()];
                return Ok((args.into(), Target::Tcp(address)));
            }
            _ => {}
        }
        let socket = folder.join("web.sock");
        let mut args: Vec<OsString> = vec!["--pid-file".into(), pid_file.into()];
        let by_unix = matches!(self, Way::Rebinding | Way::TakeoverUnix);
        if by_unix {
            args.extend(["--unix-socket".into(), socket.clone().into()]);
        }
        if self != Way::Rebinding {
            args.extend(["--listen".into(), address.to_string().into()]);
        }
        if self == Way::TakeoverGroup {
            args.extend(["--workers".into(), "4".into()]);
        }
        if self == Way::Web {
            args.extend(passing::OPTIONS.split_ascii_whitespace().map(OsString::from));
            args.extend(tls.map(|tls| format!("--tls-listen={tls}").into()));
        }
        Ok((args, if by_unix { Target::Unix(socket) } else { Target::Tcp(address) }))
    }
}

/// Of nginx and haproxy; of haproxy a link to one of the two.
const CONFIG: &str = "config";
const GOOD: &str = "config.good";
const BAD: &str = "config.bad";

/// A program of this machine.
pub(crate) fn installed(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    // An ordinary user's PATH has no sbin on Debian.
    let folders = env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
    folders.map(|folder| folder.join(name)).find(|program| program.is_file())
}

/// What the next version of a server is: its program, or its configuration, behind a link.
struct Version {
    link: PathBuf,
    good: PathBuf,
    /// With it, a version ends at once.
    bad: PathBuf,
}

impl Version {
    fn new(link: PathBuf, good: PathBuf, bad: PathBuf) -> io::Result<Version> {
        let version = Version { link, good, bad };
        version.set(true)?;
        Ok(version)
    }

    fn set(&self, good: bool) -> io::Result<()> {
        let next = self.link.with_extension("next");
        symlink(if good { &self.good } else { &self.bad }, &next)?;
        fs::rename(next, &self.link)
    }
}

/// A server that runs.
pub(crate) struct Site<'a> {
    pub(crate) deployment: Deployment<'a, Progress>,
    pub(crate) server: Server,
    address: SocketAddr,
    pub(crate) folder: PathBuf,
    /// `None`: always the same.
    version: Option<Version>,
}

impl<'a> Site<'a> {
    /// A program that is to listen at the benchmark's own port.
    pub(crate) fn start_program(
        bench: &Bench<'a>,
        name: &str,
        program: PathBuf,
        args: Vec<OsString>,
        folder: &Path,
    ) -> Result<Self, Box<dyn Error>> {
        let address = bench.port.address();
        let server = Server::new(program, args, Target::Tcp(address), folder);
        let supervised = Supervised::start(None, &server, folder, RESPAWN)?;
        let watcher = Progress(name.to_owned());
        let deployment = Deployment { family: bench.family, supervised, watcher };
        let folder = folder.to_owned();
        let mut site = Site { deployment, server, address, folder, version: None };
        site.wait_listens()?;
        Ok(site)
    }

    fn wait_listens(&mut self) -> Result<(), Box<dyn Error>> {
        self.deployment.until("it listens", None, |slice| {
            thread::sleep(slice.min(Duration::from_millis(5)));
            self.server.listens()
        })?;
        Ok(())
    }

    /// A version that ends at once is tried for this time.
    pub(crate) fn fail(&mut self, load: &Running, time: Duration) -> Result<(), Box<dyn Error>> {
        let version = self.version.as_ref().ok_or("another version")?;
        version.set(false)?;
        Ok(self.deployment.fail(load, time, || version.set(true))?)
    }

    pub(crate) fn load(&self) -> Load {
        Load::new(self.server.target().clone())
    }

    /// Starts the load, and waits until it is answered.
    pub(crate) fn start(&mut self, load: Load) -> Result<Running, Box<dyn Error>> {
        let load = load.start();
        self.deployment.until("it answers", Some(&load), |slice| load.wait_for_pids(1, slice))?;
        Ok(load)
    }

    /// Ends it and all that it has started.
    pub(crate) fn end(self) -> io::Result<()> {
        progress("the server ends");
        let Site { deployment, address, .. } = self;
        let Deployment { family, supervised, .. } = deployment;
        drop(supervised);
        family.end_all()?;
        if TcpStream::connect(address).is_ok() {
            return Err(io::Error::other(format!("somebody still listens at {address}")));
        }
        Ok(())
    }
}
