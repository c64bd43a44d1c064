//! The command line of the three servers: the same for each, but for the place where it listens.

use std::{error::Error, path::PathBuf, process, str::FromStr, time::Duration};

use lexopt::prelude::*;

pub(crate) struct Options<A> {
    /// Where to listen.
    pub(crate) address: A,
    /// The PID file; empty: no seamless restarts, TERM drains.
    pub(crate) pid_file: PathBuf,
    /// How long requests in flight may take once the drain has begun.
    pub(crate) graceful_timeout: Duration,
    /// How long to sleep before the socket is bound, to play a slow start.
    pub(crate) startup_delay: Duration,
}

impl<A: FromStr<Err: Into<Box<dyn Error + Send + Sync>>>> Options<A> {
    /// Reads the command line; where it makes no sense, says so and ends the process.
    /// `flag` names the option that takes the address: `listen` or `unix-socket`.
    pub(crate) fn from_args(flag: &str, default: A) -> Self {
        Self::parse(lexopt::Parser::from_env(), flag, default).unwrap_or_else(|error| {
            eprintln!("{error}");
            eprintln!(
                "options: --{flag} ADDRESS, --pid-file PATH (empty disables), \
                 --graceful-timeout 60s, --startup-delay 0s"
            );
            process::exit(2);
        })
    }

    fn parse(mut args: lexopt::Parser, flag: &str, default: A) -> Result<Self, lexopt::Error> {
        let mut options = Options {
            address: default,
            pid_file: PathBuf::from("/run/web/web.pid"),
            graceful_timeout: Duration::from_secs(60),
            startup_delay: Duration::ZERO,
        };
        while let Some(arg) = args.next()? {
            match arg {
                Long(name) if name == flag => options.address = args.value()?.parse()?,
                Long("pid-file") => options.pid_file = args.value()?.into(),
                Long("graceful-timeout") => options.graceful_timeout = duration(&mut args)?,
                Long("startup-delay") => options.startup_delay = duration(&mut args)?,
                _ => return Err(arg.unexpected()),
            }
        }
        Ok(options)
    }
}

fn duration(args: &mut lexopt::Parser) -> Result<Duration, lexopt::Error> {
    args.value()?.parse_with(humantime::parse_duration)
}
