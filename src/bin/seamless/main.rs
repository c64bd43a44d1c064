//! The program `seamless`: shows, restarts and stops a service. [`seamless::client`] does the work. Here are the command
//! line, the waiting and the words.

mod check;
mod completions;
mod list;
mod manual;
mod openmetrics;
mod probation;
mod restart;
mod services;
mod stages;
mod status;
mod stop;
mod table;
#[cfg(test)]
mod tests;
mod watch;
mod words;

use lexopt::{Arg, Parser, ValueExt};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use openmetrics::Format;
use seamless::client::Service;
use std::fmt::Display;
use std::io::{self, ErrorKind, Write};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::OnceLock;
use std::time::Duration;
use table::{COMMANDS, Command, Operand};

/// How long a daemon may take to answer.
const ANSWER: Duration = Duration::from_secs(5);
/// How long a command waits for its result, if the command line does not say.
const TIMEOUT: Duration = Duration::from_secs(60);
/// How long no generation may run: a supervisor waits up to a second before it starts the next.
const GAP: Duration = Duration::from_secs(3);

/// The first write to the output that has failed.
static NOT_WRITTEN: OnceLock<io::Error> = OnceLock::new();

/// How a command ends. Documented in `table`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Done = 0,
    /// Or, for `check`: something would go wrong.
    Error = 1,
    Usage = 2,
    /// No generation serves; 3 as LSB's `status`.
    NobodyServes = 3,
    /// The generation that serves stays.
    Stays = 4,
    /// It is under way, and the time is over.
    NotYet = 5,
}

impl From<End> for ExitCode {
    fn from(end: End) -> ExitCode {
        ExitCode::from(end as u8)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verb {
    /// Of any number of services, like [`Verb::List`].
    Status,
    List,
    Restart,
    Stop,
    Commit,
    Rollback,
    Check,
    Watch,
}

/// What `restart` waits for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Until {
    /// A new generation serves.
    #[default]
    Started,
    /// It has passed its probation.
    Committed,
}

/// What the command line asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Ask {
    verb: Verb,
    service: Service,
    json: bool,
    force: bool,
    timeout: Option<Duration>,
    /// What `restart` waits for.
    until: Until,
    /// Whom the service runs as, for `check`.
    user: Option<String>,
    /// The folder of the service, for `check`.
    folder: Option<PathBuf>,
    /// Its systemd unit, for `check`.
    unit: Option<String>,
}

impl Ask {
    fn limit(&self) -> Duration {
        self.timeout.unwrap_or(TIMEOUT)
    }
}

/// What the whole command line comes to.
#[derive(Debug, PartialEq, Eq)]
enum Line {
    Ask(Ask),
    Status(status::Ask),
    List(list::Ask),
    /// Print this text.
    Print(String),
}

fn main() -> ExitCode {
    match parse(Parser::from_env()) {
        Ok(line) => finish(run(line)).into(),
        Err(error) => {
            complain(format_args!("{error}; see seamless --help"));
            End::Usage.into()
        }
    }
}

fn run(line: Line) -> End {
    let ask = match line {
        Line::Ask(ask) => ask,
        Line::Status(ask) => return on_linux(|| status::run(&ask)),
        Line::List(ask) => return on_linux(|| list::run(&ask)),
        Line::Print(text) => {
            say(text.trim_end());
            return End::Done;
        }
    };
    on_linux(|| match ask.verb {
        Verb::Status | Verb::List => End::Usage, // a line of its own
        Verb::Restart => restart::run(&ask),
        Verb::Stop => stop::run(&ask),
        Verb::Commit => probation::run(&ask, true),
        Verb::Rollback => probation::run(&ask, false),
        Verb::Check => check::run(&ask),
        Verb::Watch => watch::run(&ask),
    })
}

/// How it ends, unless some of the output is lost: a script must not take a part for the whole. A reader that has
/// gone away (`head -1`) wanted no more.
fn finish(end: End) -> End {
    match NOT_WRITTEN.get() {
        Some(error) if error.kind() != ErrorKind::BrokenPipe => {
            complain(format_args!("cannot write the output: {error}"));
            End::Error
        }
        _ => end,
    }
}

fn on_linux(run: impl FnOnce() -> End) -> End {
    if !cfg!(target_os = "linux") {
        complain("there are no generations to ask or to tell: services restart under Linux only");
        return End::Error;
    }
    run()
}

fn parse(mut parser: Parser) -> Result<Line, lexopt::Error> {
    let (mut command, mut paths) = (None::<&Command>, Vec::new());
    let (mut json, mut metrics, mut force, mut timeout) = (false, None, false, None);
    let (mut user, mut folder, mut unit) = (None, None, None);
    let mut until = Until::default();
    while let Some(argument) = parser.next()? {
        let takes = |name: &str| command.is_some_and(|command| manual::takes(command, name));
        match argument {
            Arg::Long("help") | Arg::Short('h') => return Ok(Line::Print(manual::help())),
            Arg::Long("version") | Arg::Short('V') => {
                return Ok(Line::Print(concat!("seamless ", env!("CARGO_PKG_VERSION")).to_owned()));
            }
            Arg::Long("man") if command.is_none() => return Ok(Line::Print(manual::page())),
            Arg::Long("completions") if command.is_none() => {
                let shell = parser.value()?.string()?;
                let script = completions::of(&shell).ok_or("completions for bash, zsh or fish")?;
                return Ok(Line::Print(script));
            }
            // This one may stand before the command, too.
            Arg::Long("timeout") if command.is_none() || takes("timeout") => {
                timeout = Some(parser.value()?.parse_with(words::parse_time)?);
            }
            Arg::Long(name) if !takes(name) => return Err(argument.unexpected()),
            Arg::Long("json") => json = true,
            Arg::Long("wait") => {
                until = match parser.value()?.to_str() {
                    Some("started") => Until::Started,
                    Some("committed") => Until::Committed,
                    _ => return Err("--wait started or committed".into()),
                };
            }
            Arg::Long("openmetrics") if metrics.is_none() => metrics = Some(Format::OpenMetrics),
            Arg::Long("prometheus") if metrics.is_none() => metrics = Some(Format::Prometheus),
            Arg::Long("force") => force = true,
            Arg::Long("user") => user = Some(parser.value()?.string()?),
            Arg::Long("service") => folder = Some(parser.value()?.into()),
            Arg::Long("unit") => unit = Some(parser.value()?.string()?),
            Arg::Value(word) if command.is_none() => {
                let named = COMMANDS.iter().find(|command| word == command.name);
                command = Some(named.ok_or_else(|| format!("unknown command {word:?}"))?);
            }
            Arg::Value(path)
                if paths.is_empty()
                    || command.is_some_and(|command| command.operand != Operand::PidFile) =>
            {
                paths.push(PathBuf::from(path));
            }
            _ => return Err(argument.unexpected()),
        }
    }
    let names = || COMMANDS.map(|command| command.name).join(", ");
    let command = command.ok_or_else(|| format!("which command: {}?", names()))?;
    let verb = command.verb;
    if timeout.is_some() && !manual::takes(command, "timeout") {
        return Err(format!("{} has no --timeout", command.name).into());
    }
    if json && metrics.is_some() {
        return Err("--json, --openmetrics or --prometheus, not two of them".into());
    }
    if verb == Verb::List {
        return Ok(Line::List(list::Ask { folders: paths, json, timeout }));
    }
    if verb == Verb::Status {
        if paths.is_empty() || paths.iter().any(|path| path.as_os_str().is_empty()) {
            return Err("which PID file?".into());
        }
        return Ok(Line::Status(status::Ask { services: paths, json, metrics, timeout }));
    }
    let pid_file = paths.pop().filter(|path| path.file_name().is_some());
    let service = Service::at(pid_file.ok_or("which PID file?")?);
    let service = service.map_err(|error| error.to_string())?;
    Ok(Line::Ask(Ask { verb, service, json, force, timeout, until, user, folder, unit }))
}

fn say(text: impl Display) {
    written(writeln!(io::stdout(), "{text}"));
}

/// Remembers for [`finish`] what has failed.
fn written(result: io::Result<()>) {
    if let Err(error) = result {
        _ = NOT_WRITTEN.set(error);
    }
}

/// Whether what is printed gets nowhere any more: a write has failed, or the reader of a pipe has gone away.
fn is_unread() -> bool {
    let out = io::stdout();
    let mut out = [PollFd::new(out.as_fd(), PollFlags::empty())];
    NOT_WRITTEN.get().is_some() || poll(&mut out, PollTimeout::ZERO).is_ok_and(|found| found > 0)
}

fn complain(text: impl Display) {
    _ = writeln!(io::stderr(), "seamless: {}", words::line(&text.to_string()));
}

/// Prints one object.
fn say_json(value: &impl serde::Serialize) {
    match serde_json::to_string_pretty(value) {
        Ok(text) => say(text),
        Err(error) => complain(error),
    }
}
