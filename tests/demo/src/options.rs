//! What the command line asks for.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
};

use lexopt::prelude::*;

use crate::{clients::Place, server::Way, service::Supervisor};

pub(crate) const USAGE: &str = "\
Restarts a web server under full load, and counts what becomes of every request.

scripts/demo [--restarts 10] [--clients 128] [--keep-alive] [--unix] [--compare] [--record FILE]
             [--example takeover|threads|reuseport|unixsocket]
             [--supervisor builtin|daemontools|runit|s6]

--compare      the same load with a stop and a start, with SO_REUSEPORT, and with takeover
--record FILE  draws a timeline, as SVG: requests a second, failures, latency, restarts
--keep-alive   each client keeps its connection; without it, each request has a new one
--unix         uses a Unix socket
--example      restarts an example of the crate instead of the small server that is built in;
               building the examples takes minutes";

const EXAMPLES: [&str; 4] = ["takeover", "threads", "reuseport", "unixsocket"];

/// Workers of the built-in server if each request has a new connection. They are fewer than the
/// clients, so connections wait in the listener's queue, as they do at any busy server.
const WORKERS: usize = 8;

#[derive(Debug)]
pub(crate) struct Options {
    pub(crate) example: Option<String>,
    pub(crate) supervisor: Supervisor,
    pub(crate) restarts: usize,
    pub(crate) clients: usize,
    pub(crate) keep_alive: bool,
    pub(crate) unix: bool,
    pub(crate) compare: bool,
    pub(crate) record: Option<PathBuf>,
}

impl Options {
    /// `None` if help was asked for.
    pub(crate) fn from_args() -> Result<Option<Self>, lexopt::Error> {
        let mut options = Options {
            example: None,
            supervisor: Supervisor::Builtin,
            restarts: 10,
            clients: 128,
            keep_alive: false,
            unix: false,
            compare: false,
            record: None,
        };
        let mut args = lexopt::Parser::from_env();
        while let Some(arg) = args.next()? {
            match arg {
                Long("example") => {
                    let name = args.value()?.string()?;
                    if !EXAMPLES.contains(&name.as_str()) {
                        return Err(format!("--example: one of {}", EXAMPLES.join(", ")).into());
                    }
                    options.example = Some(name);
                }
                Long("supervisor") => options.supervisor = args.value()?.parse()?,
                Long("restarts") => options.restarts = args.value()?.parse()?,
                Long("clients") => options.clients = args.value()?.parse()?,
                Long("keep-alive") => options.keep_alive = true,
                Long("unix") => options.unix = true,
                Long("compare") => options.compare = true,
                Long("record") => options.record = Some(args.value()?.into()),
                Short('h') | Long("help") => return Ok(None),
                _ => return Err(arg.unexpected()),
            }
        }
        options.check()?;
        Ok(Some(options))
    }

    fn check(&mut self) -> Result<(), lexopt::Error> {
        if self.clients == 0 {
            return Err("--clients: at least 1".into());
        }
        if self.example.as_deref() == Some("unixsocket") {
            self.unix = true;
        } else if self.unix && !matches!(self.example.as_deref(), None | Some("takeover")) {
            return Err("--unix: not with this example".into());
        }
        if self.compare && self.example.is_some() {
            return Err("--compare: not with --example".into());
        }
        if self.compare && self.unix {
            return Err("--compare: not with --unix, where there is no SO_REUSEPORT".into());
        }
        self.supervisor.check_installed()?;
        Ok(())
    }

    pub(crate) fn introduction(&self) -> String {
        let server = match &self.example {
            Some(name) => format!("the example {name}"),
            None => "a small web server".to_owned(),
        };
        let times = match self.restarts {
            1 => "once".to_owned(),
            count => format!("{count} times"),
        };
        format!(
            "Restarting {server} {times} under full load: {} clients, {}, under {}.",
            self.clients,
            self.connections(),
            self.supervisor.name(),
        )
    }

    pub(crate) fn connections(&self) -> &'static str {
        if self.keep_alive { "kept connections" } else { "a new connection for each request" }
    }
}

/// The server of one run.
#[derive(Clone, Debug)]
pub(crate) enum Program {
    Own(Way),
    Example(PathBuf),
}

impl Program {
    pub(crate) fn name(&self) -> String {
        match self {
            Program::Own(Way::StopAndStart) => "stop, then start".to_owned(),
            Program::Own(Way::ReusePort) => "SO_REUSEPORT, a socket for each generation".to_owned(),
            Program::Own(Way::TakenOver) => "takeover, one socket for all generations".to_owned(),
            Program::Example(path) => {
                let name = path.file_name().unwrap_or_default();
                format!("example {}", name.to_string_lossy())
            }
        }
    }

    /// There is no launcher: the server itself ends before the next one starts.
    pub(crate) fn stops_first(&self) -> bool {
        matches!(self, Program::Own(Way::StopAndStart))
    }

    /// The program and its arguments.
    pub(crate) fn command(&self, options: &Options, place: &Place, folder: &Path) -> Vec<OsString> {
        let pid_file = folder.join("web.pid");
        match self {
            Program::Own(way) => {
                let own = std::env::current_exe().expect("the path of this program");
                let workers = if options.keep_alive { options.clients } else { WORKERS };
                vec![
                    own.into(),
                    "serve".into(),
                    way.word().into(),
                    pid_file.into(),
                    place.word(),
                    workers.to_string().into(),
                ]
            }
            Program::Example(path) => {
                let listen = match place {
                    Place::Tcp(_) => "--listen",
                    Place::Unix(_) => "--unix-socket",
                };
                let mut command: Vec<OsString> = vec![
                    path.into(),
                    "--pid-file".into(),
                    pid_file.into(),
                    listen.into(),
                    place.word(),
                ];
                // It listens on TCP as well, by default on a port that may be taken.
                if options.unix && options.example.as_deref() == Some("takeover") {
                    command.extend(["--listen".into(), "127.0.0.1:0".into()]);
                }
                command
            }
        }
    }
}
