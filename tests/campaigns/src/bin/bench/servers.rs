//! The servers that are compared: the same answer, other ways to keep the sockets.

use std::{
    env,
    error::Error,
    ffi::OsString,
    io,
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use seamless_campaigns::{
    deploy::{Deployment, Server, Supervised},
    load::{Load, Running, Target},
};
use seamless_testing::bin;
use signal_hook::consts::{SIGHUP, SIGUSR1};

use crate::{
    Bench,
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
}

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
        }
    }

    /// The crate's own promise: not one request fails.
    pub(crate) fn is_takeover(self) -> bool {
        matches!(self, Way::TakeoverTcp | Way::TakeoverUnix | Way::TakeoverGroup)
    }

    /// `None` where it has not been built.
    fn program(self) -> Option<PathBuf> {
        let peer = |name| {
            let program = PathBuf::from(env::var_os(PEERS)?).join(name);
            program.is_file().then_some(program)
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
        }
    }

    /// Starts it; `None` where it has not been built.
    pub(crate) fn start<'a>(self, bench: &Bench<'a>) -> Result<Option<Site<'a>>, Box<dyn Error>> {
        let Some(program) = self.program() else {
            return Ok(None);
        };
        let folder = bench.folder("web")?;
        let address = bench.port.address();
        let socket = folder.join("web.sock");
        let mut args: Vec<OsString> = vec!["--pid-file".into(), folder.join("web.pid").into()];
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
        let target = if by_unix { Target::Unix(socket) } else { Target::Tcp(address) };
        let server = Server::new(program, args, target, &folder);
        let supervised = match self {
            Way::Ecdysis => Supervised::start_itself(&server, SIGHUP)?,
            Way::Shellflip => Supervised::start_itself(&server, SIGUSR1)?,
            _ => Supervised::start(None, &server, &folder, RESPAWN)?,
        };
        let watcher = Progress(self.text().to_owned());
        let deployment = Deployment { family: bench.family, supervised, watcher };
        let mut site = Site { deployment, server, address };
        site.wait_listens()?;
        Ok(Some(site))
    }
}

/// A server that runs.
pub(crate) struct Site<'a> {
    pub(crate) deployment: Deployment<'a, Progress>,
    pub(crate) server: Server,
    address: SocketAddr,
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
        let mut site = Site { deployment, server, address };
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
