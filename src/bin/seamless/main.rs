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
    let (mut verb, mut paths) = (None::<Verb>, Vec::new());
    let (mut json, mut metrics, mut force, mut timeout) = (false, None, false, None);
    let (mut user, mut folder, mut unit) = (None, None, None);
    let mut until = Until::default();
    while let Some(argument) = parser.next()? {
        let is = |verbs: &[Verb]| verb.is_some_and(|verb| verbs.contains(&verb));
        match argument {
            Arg::Long("help") | Arg::Short('h') => return Ok(Line::Print(manual::help())),
            Arg::Long("version") | Arg::Short('V') => {
                return Ok(Line::Print(concat!("seamless ", env!("CARGO_PKG_VERSION")).to_owned()));
            }
            Arg::Long("man") if verb.is_none() => return Ok(Line::Print(manual::page())),
            Arg::Long("completions") if verb.is_none() => {
                let shell = parser.value()?.string()?;
                let script = completions::of(&shell).ok_or("completions for bash, zsh or fish")?;
                return Ok(Line::Print(script));
            }
            Arg::Long("timeout") if verb != Some(Verb::Check) => {
                timeout = Some(parser.value()?.parse_with(words::parse_time)?);
            }
            Arg::Long("json") if is(&[Verb::Status, Verb::List, Verb::Check, Verb::Restart]) => {
                json = true;
            }
            Arg::Long("wait") if verb == Some(Verb::Restart) => {
                until = match parser.value()?.to_str() {
                    Some("started") => Until::Started,
                    Some("committed") => Until::Committed,
                    _ => return Err("--wait started or committed".into()),
                };
            }
            Arg::Long("openmetrics") if verb == Some(Verb::Status) && metrics.is_none() => {
                metrics = Some(Format::OpenMetrics);
            }
            Arg::Long("prometheus") if verb == Some(Verb::Status) && metrics.is_none() => {
                metrics = Some(Format::Prometheus);
            }
            Arg::Long("force") if verb == Some(Verb::Stop) => force = true,
            Arg::Long("user") if verb == Some(Verb::Check) => {
                user = Some(parser.value()?.string()?);
            }
            Arg::Long("service") if verb == Some(Verb::Check) => {
                folder = Some(parser.value()?.into());
            }
            Arg::Long("unit") if verb == Some(Verb::Check) => {
                unit = Some(parser.value()?.string()?);
            }
            Arg::Value(word) if verb.is_none() => {
                verb = Some(match word.to_str() {
                    Some("status") => Verb::Status,
                    Some("list") => Verb::List,
                    Some("restart") => Verb::Restart,
                    Some("stop") => Verb::Stop,
                    Some("commit") => Verb::Commit,
                    Some("rollback") => Verb::Rollback,
                    Some("check") => Verb::Check,
                    Some("watch") => Verb::Watch,
                    _ => return Err(format!("unknown command {word:?}").into()),
                });
            }
            Arg::Value(path) if paths.is_empty() || is(&[Verb::Status, Verb::List]) => {
                paths.push(PathBuf::from(path));
            }
            _ => return Err(argument.unexpected()),
        }
    }
    let names = || table::COMMANDS.map(|command| command.name).join(", ");
    let verb = verb.ok_or_else(|| format!("which command: {}?", names()))?;
    if verb == Verb::Check && timeout.is_some() {
        return Err("check has no --timeout".into()); // it may stand before the command
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
