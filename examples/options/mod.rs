//! The command line of the servers. They differ only in the places where they listen.

use std::{
    net::SocketAddr,
    path::PathBuf,
    process::{self, ExitCode},
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use lexopt::prelude::*;
use seamless::Config;

/// Where a server listens, as its own options set it.
pub(crate) trait Places {
    /// The usage of these options, for an error message.
    const USAGE: &'static str;

    /// Takes the value of the option `--NAME`. Returns false if there is no such option.
    fn set(&mut self, name: &str, args: &mut lexopt::Parser) -> Result<bool, lexopt::Error>;

    /// Takes an argument that has no name. Returns false if none is allowed.
    fn set_unnamed(&mut self, _value: &str) -> Result<bool, lexopt::Error> {
        Ok(false)
    }
}

impl Places for SocketAddr {
    const USAGE: &'static str = "--listen ADDRESS";

    fn set(&mut self, name: &str, args: &mut lexopt::Parser) -> Result<bool, lexopt::Error> {
        let known = name == "listen";
        if known {
            *self = args.value()?.parse()?;
        }
        Ok(known)
    }

    fn set_unnamed(&mut self, value: &str) -> Result<bool, lexopt::Error> {
        *self = value.parse().map_err(|error| format!("{value}: {error}"))?;
        Ok(true)
    }
}

impl Places for PathBuf {
    const USAGE: &'static str = "--unix-socket PATH";

    fn set(&mut self, name: &str, args: &mut lexopt::Parser) -> Result<bool, lexopt::Error> {
        let known = name == "unix-socket";
        if known {
            *self = args.value()?.into();
        }
        Ok(known)
    }
}

pub(crate) struct Options<P> {
    /// Where to listen.
    pub(crate) places: P,
    /// The PID file; empty: no seamless restarts, TERM drains.
    pid_file: PathBuf,
    /// How long requests in flight may take once the drain has begun.
    pub(crate) drain_timeout: Duration,
    /// How long to sleep before the sockets are bound, to imitate a slow start.
    pub(crate) startup_delay: Duration,
    /// The signals on which the launcher restarts in place.
    reload_signals: Vec<i32>,
    /// If the supervisor does not tell whether it restarts the service: how long to serve without a successor.
    /// `None`: for ever.
    successor_timeout: Option<Duration>,
    /// How long a new version has to prove itself.
    probation: Option<Duration>,
    /// While this file exists, the check of a version on probation fails.
    check_file: Option<PathBuf>,
    /// How long the process serves on after it was told to stop, so that load balancers notice.
    leave: Option<Duration>,
    /// How long connections wait after a crash.
    keep_sockets: Option<Duration>,
    /// At this signal the process exits with code 1, to imitate a bad version.
    exit_on: Option<i32>,
    /// The descriptor on which the service tells s6 that it is ready.
    notification_fd: Option<i32>,
}

/// Runs a server as the command line says, with a log on standard error.
pub(crate) fn main<P: Places>(
    default: P,
    run: impl FnOnce(&Options<P>) -> Result<(), Box<dyn std::error::Error>>,
) -> ExitCode {
    let options = Options::from_args(default);
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("info")).init();
    match run(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            log::error!("{error}");
            ExitCode::FAILURE
        }
    }
}

impl<P: Places> Options<P> {
    /// Reads the command line. If it is wrong, prints the usage and ends the process.
    fn from_args(default: P) -> Self {
        Self::parse(lexopt::Parser::from_env(), default).unwrap_or_else(|error| {
            eprintln!("{error}");
            eprintln!(
                "options: {}, --pid-file PATH (empty disables), \
                 --drain-timeout 60s, --startup-delay 0s, --reload-signal HUP|USR1|N, \
                 --successor-timeout 10s|none, --probation TIME|none, --check-file PATH, \
                 --keep-sockets 10s|none, --leave TIME|none, --crash-after N, --exit-on SIGNAL, \
                 --notification-fd N; \
                 in place of --pid-file and --listen: [PID_FILE [ADDRESS]]",
                P::USAGE
            );
            process::exit(2);
        })
    }

    /// What the options say about restarts.
    pub(crate) fn config(&self) -> Config {
        let mut config = Config::new(&self.pid_file)
            .drain_timeout(self.drain_timeout)
            .successor_timeout(self.successor_timeout)
            .reload_signals(self.reload_signals.iter().copied())
            .probation(self.probation)
            .leave_time(self.leave)
            .keep_sockets(self.keep_sockets);
        if let Some(path) = self.check_file.clone() {
            config = config.probation_check(move || !path.exists());
        }
        if let Some(signal) = self.exit_on {
            let exits = seamless::hooks::on_signal(signal, || process::exit(1));
            exits.unwrap_or_else(|error| log::error!("--exit-on: {error}"));
        }
        match self.notification_fd {
            Some(fd) => config.notification_fd(fd),
            None => config,
        }
    }

    fn parse(mut args: lexopt::Parser, default: P) -> Result<Self, lexopt::Error> {
        let mut unnamed = 0;
        let mut options = Options {
            places: default,
            pid_file: PathBuf::from("/run/web/web.pid"),
            drain_timeout: Duration::from_secs(60),
            startup_delay: Duration::ZERO,
            reload_signals: Vec::new(),
            successor_timeout: Some(Duration::from_secs(10)),
            probation: None,
            check_file: None,
            leave: None,
            keep_sockets: Some(Duration::from_secs(10)),
            exit_on: None,
            notification_fd: None,
        };
        while let Some(arg) = args.next()? {
            match arg {
                Long("pid-file") => options.pid_file = args.value()?.into(),
                Long("drain-timeout") => options.drain_timeout = duration(&mut args)?,
                Long("startup-delay") => options.startup_delay = duration(&mut args)?,
                Long("reload-signal") => {
                    options.reload_signals.push(args.value()?.parse_with(signal)?);
                }
                Long("successor-timeout") => {
                    options.successor_timeout = args.value()?.parse_with(limit)?
                }
                Long("probation") => options.probation = args.value()?.parse_with(limit)?,
                Long("check-file") => options.check_file = Some(args.value()?.into()),
                Long("keep-sockets") => options.keep_sockets = args.value()?.parse_with(limit)?,
                Long("leave") => options.leave = args.value()?.parse_with(limit)?,
                Long("crash-after") => LEFT.store(args.value()?.parse()?, Ordering::Relaxed),
                Long("exit-on") => options.exit_on = Some(args.value()?.parse_with(signal)?),
                Long("notification-fd") => options.notification_fd = Some(args.value()?.parse()?),
                Long(name) => {
                    let name = name.to_owned();
                    if !options.places.set(&name, &mut args)? {
                        return Err(Long(&name).unexpected());
                    }
                }
                Value(path) if unnamed == 0 => {
                    unnamed += 1;
                    options.pid_file = path.into();
                }
                Value(place) if unnamed == 1 => {
                    unnamed += 1;
                    let place = place.string()?;
                    if !options.places.set_unnamed(&place)? {
                        return Err(Value(place.into()).unexpected());
                    }
                }
                _ => return Err(arg.unexpected()),
            }
        }
        Ok(options)
    }
}

/// How many requests are left until this process crashes, to imitate a bad version.
static LEFT: AtomicU64 = AtomicU64::new(u64::MAX);

/// A request has arrived. With `--crash-after N` the N-th one ends the process.
#[allow(dead_code)] // not every server has requests
pub(crate) fn request_arrived() {
    if LEFT.fetch_sub(1, Ordering::Relaxed) == 1 {
        process::abort();
    }
}

/// A name, without SIG, or a number.
fn signal(text: &str) -> Result<i32, std::num::ParseIntError> {
    match text {
        "HUP" => Ok(seamless::signal::HUP),
        "USR1" => Ok(seamless::signal::USR1),
        number => number.parse(),
    }
}

fn duration(args: &mut lexopt::Parser) -> Result<Duration, lexopt::Error> {
    args.value()?.parse_with(humantime::parse_duration)
}

fn limit(text: &str) -> Result<Option<Duration>, humantime::DurationError> {
    (text != "none").then(|| humantime::parse_duration(text)).transpose()
}
