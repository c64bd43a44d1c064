//! Restarts an example server again and again under full load, and tells what became of every
//! request. See `scripts/demo`.
//!
//! Exit status: 0 all went well, 1 something failed, 2 it could not run, 130 interrupted.

use std::{
    error::Error,
    ffi::OsString,
    io::{self, IsTerminal, Write},
    path::Path,
    process::ExitCode,
    time::{Duration, Instant},
};

use lexopt::prelude::*;
use seamless_campaigns::{
    deploy::{Deployment, End, RESPAWN, Restart, Server, Supervised, Watcher},
    family::Family,
    load::{Latency, Load, Report, Running, Target},
    port::ReservedPort,
};
use seamless_testing::{bin, supervisor::Supervisor};

const USAGE: &str = "\
Restarts an example server under full load and counts what becomes of every request.

scripts/demo [--restarts 10] [--clients 128] [--keep-alive] [--unix]
             [--example takeover|threads|reuseport|unixsocket]
             [--supervisor builtin|daemontools|runit]";

/// From one restart to the next. The supervisors start a service at most once a second, and
/// daemontools listens to nobody in the first second after a start.
const PERIOD: Duration = Duration::from_millis(2400);
/// Load before the first restart, for latencies of a server that is left alone.
const CALM: Duration = Duration::from_secs(3);
/// Between two looks at whether it listens.
const PAUSE: Duration = Duration::from_millis(5);
const REDRAW: Duration = Duration::from_millis(200);
fn main() -> ExitCode {
    let options = match seamless_campaigns::options("demo", USAGE, Options::from_args()) {
        Ok(options) => options,
        Err(end) => return end,
    };
    match run(&options) {
        Ok(end) => end,
        Err(error) => {
            eprintln!("demo: {error}");
            ExitCode::from(2)
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Example {
    Takeover,
    Threads,
    Reuseport,
    Unixsocket,
}

impl Example {
    fn name(self) -> &'static str {
        match self {
            Example::Takeover => "takeover",
            Example::Threads => "threads",
            Example::Reuseport => "reuseport",
            Example::Unixsocket => "unixsocket",
        }
    }
}

struct Options {
    example: Example,
    supervisor: Option<Supervisor>,
    restarts: usize,
    clients: usize,
    keep_alive: bool,
    /// Ask by a Unix socket.
    unix: bool,
}

impl Options {
    /// `None` where help was asked for.
    fn from_args() -> Result<Option<Self>, lexopt::Error> {
        let mut options = Options {
            example: Example::Takeover,
            supervisor: None,
            restarts: 10,
            clients: 128,
            keep_alive: false,
            unix: false,
        };
        let mut args = lexopt::Parser::from_env();
        while let Some(arg) = args.next()? {
            match arg {
                Long("example") => {
                    options.example = args.value()?.parse_with(|name| match name {
                        "takeover" => Ok(Example::Takeover),
                        "threads" => Ok(Example::Threads),
                        "reuseport" => Ok(Example::Reuseport),
                        "unixsocket" => Ok(Example::Unixsocket),
                        _ => Err("takeover, threads, reuseport or unixsocket"),
                    })?;
                }
                Long("supervisor") => {
                    options.supervisor = args.value()?.parse_with(|name| match name {
                        "builtin" => Ok(None),
                        "daemontools" => Ok(Some(Supervisor::Daemontools)),
                        "runit" => Ok(Some(Supervisor::Runit)),
                        "s6" => Ok(Some(Supervisor::S6)),
                        _ => Err("builtin, daemontools, runit or s6"),
                    })?;
                }
                Long("restarts") => options.restarts = args.value()?.parse()?,
                Long("clients") => options.clients = args.value()?.parse()?,
                Long("keep-alive") => options.keep_alive = true,
                Long("unix") => options.unix = true,
                Short('h') | Long("help") => return Ok(None),
                _ => return Err(arg.unexpected()),
            }
        }
        if options.clients == 0 {
            return Err("--clients: at least 1".into());
        }
        match options.example {
            Example::Takeover => {}
            Example::Unixsocket => options.unix = true,
            _ if options.unix => return Err("--unix: not with this example".into()),
            _ => {}
        }
        Ok(Some(options))
    }
}

fn run(options: &Options) -> Result<ExitCode, Box<dyn Error>> {
    if let Some(supervisor) = options.supervisor {
        check_installed(supervisor)?;
    }
    // Dropped in the reverse order: the service ends, then whatever it left, then the folder goes.
    let folder = tempfile::Builder::new().prefix("seamless-demo.").tempdir()?;
    let family = Family::adopt()?;
    let port = ReservedPort::new()?;
    let server = server(options, &port, folder.path());
    let supervised = Supervised::start(options.supervisor, &server, folder.path(), RESPAWN)?;
    let mut demo = Deployment { family: &family, supervised, watcher: Screen::new() };

    let end = restarts(&mut demo, options, &server);
    demo.watcher.clear();
    let problems = match end {
        Ok(outcome) => {
            print(&outcome.table(options));
            outcome.problems()
        }
        Err(End::Interrupted) => {
            eprintln!("demo: interrupted");
            return Ok(ExitCode::from(130));
        }
        Err(End::Failed(what)) => vec![what],
    };
    if problems.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    eprintln!("\nFAILED: {}", problems.join("; "));
    eprintln!("The server's log ends with:\n{}", server.last_lines(20));
    Ok(ExitCode::FAILURE)
}

fn check_installed(supervisor: Supervisor) -> Result<(), String> {
    let programs: &[&str] = match supervisor {
        Supervisor::Daemontools => &["supervise", "svc", "svok"],
        Supervisor::Runit => &["runsv", "sv"],
        Supervisor::S6 => &["s6-supervise", "s6-svc", "s6-svok"],
    };
    let path = std::env::var_os("PATH").unwrap_or_default();
    let missing = |program: &&&str| {
        !std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
    };
    match programs.iter().find(missing) {
        Some(program) => Err(format!("{program} is not installed: run scripts/setup")),
        None => Ok(()),
    }
}

/// The example and where it listens. The port stays reserved where others than the example may
/// bind it, that is where it sets SO_REUSEPORT.
fn server(options: &Options, port: &ReservedPort, folder: &Path) -> Server {
    let address = port.address();
    let path = folder.join("web.sock");
    let mut args: Vec<OsString> = vec!["--pid-file".into(), folder.join("web.pid").into()];
    if options.unix {
        args.extend(["--unix-socket".into(), path.clone().into()]);
    }
    if options.example != Example::Unixsocket {
        args.extend(["--listen".into(), address.to_string().into()]);
    }
    let target = if options.unix { Target::Unix(path) } else { Target::Tcp(address) };
    Server::new(bin::example(options.example.name()), args, target, folder)
}

type Demo<'a> = Deployment<'a, Screen>;

fn restarts(demo: &mut Demo, options: &Options, server: &Server) -> Result<Outcome, End> {
    demo.watcher.line(&format!(
        "{} starts, with {} clients",
        options.example.name(),
        options.clients
    ));
    demo.until("the server listens", None, |slice| {
        std::thread::sleep(slice.min(PAUSE));
        server.listens()
    })?;
    let mut load = Load::new(server.target().clone()).clients(options.clients);
    if options.keep_alive {
        load = load.keep_alive();
    }
    let load = load.start();
    demo.until("the server answers", Some(&load), |slice| load.wait_for_pids(1, slice))?;
    let mut handoffs = Vec::new();
    let problem = match restart_often(demo, options.restarts, &load, &mut handoffs) {
        Ok(()) => None,
        Err(End::Failed(what)) => Some(what),
        Err(End::Interrupted) => return Err(End::Interrupted),
    };
    Ok(Outcome { report: load.stop(), handoffs, problem })
}

fn restart_often(
    demo: &mut Demo,
    count: usize,
    load: &Running,
    handoffs: &mut Vec<Duration>,
) -> Result<(), End> {
    demo.pass(CALM, load)?;
    for turn in 1..=count {
        let begin = Instant::now();
        let Restart { handoff, answered, ended } = demo.restart(load)?;
        handoffs.push(handoff);
        demo.watcher.line(&format!(
            "restart {turn:>2} of {count}: handoff {}, successor answers after {}, \
             predecessor ended after {}; {} requests, {} failed",
            millis(handoff),
            millis(answered),
            millis(ended),
            thousands(load.requests()),
            thousands(load.report().failures_but(&[])),
        ));
        demo.pass(PERIOD.saturating_sub(begin.elapsed()), load)?;
    }
    Ok(())
}

struct Outcome {
    report: Report,
    handoffs: Vec<Duration>,
    problem: Option<String>,
}

impl Outcome {
    fn problems(&self) -> Vec<String> {
        let mut problems = Vec::from_iter(self.problem.clone());
        let failures = self.report.failures_but(&[]);
        if failures > 0 {
            problems.push(format!("{} requests failed", thousands(failures)));
        }
        let (seen, expected) = (self.report.answers.len(), self.handoffs.len() + 1);
        if seen != expected {
            problems.push(format!("{seen} generations answered, not {expected}"));
        }
        problems
    }

    fn table(&self, options: &Options) -> String {
        let report = &self.report;
        let restarts = self.handoffs.len();
        let supervisor = options.supervisor.map_or("the built-in supervisor", Supervisor::program);
        let connections =
            if options.keep_alive { "kept connections" } else { "a connection a request" };
        let mut rows = vec![
            format!(
                "\n{}, {} clients, {connections}, {restarts} restarts under {supervisor}, {:.1} s\n",
                options.example.name(),
                options.clients,
                report.elapsed.as_secs_f64(),
            ),
            row(
                "requests",
                &thousands(report.requests.total()),
                &format!("{:.0} answers a second", report.rate()),
            ),
            row("failed", &thousands(report.failures_but(&[])), ""),
        ];
        for (failure, split) in &report.failures {
            let place = format!("{} during restarts, {} outside", split.during, split.outside);
            rows.push(row(&format!("  {failure}"), &thousands(split.total()), &place));
        }
        if report.retried > 0 {
            rows.push(row(
                "sent again",
                &thousands(report.retried),
                "their kept connection had ended, as HTTP allows",
            ));
        }
        rows.push(row(
            "generations",
            &report.answers.len().to_string(),
            &format!("of {} expected", restarts + 1),
        ));
        if let Some((median, longest)) = median_and_longest(&self.handoffs) {
            let text = format!("the longest {}; TERM to the launcher's exit", millis(longest));
            rows.push(row("handoff", &millis(median), &text));
        }
        rows.push(format!(
            "\n{:<18}{:>11}{:>11}{:>11}{:>11}",
            "latency", "p50", "p99", "p99.9", "max"
        ));
        rows.push(latency("during restarts", &report.during));
        rows.push(latency("outside restarts", &report.outside));
        rows.push(format!("\n{:<18}{:>11}{:>11}{:>11}", "answers by PID", "", "first", "last"));
        for answers in &report.answers {
            let at = |time: Duration| format!("{:.3} s", time.as_secs_f64());
            let (pid, count) = (answers.pid, thousands(answers.count));
            rows.push(format!(
                "  {pid:<16}{count:>11}{:>11}{:>11}",
                at(answers.first),
                at(answers.last)
            ));
        }
        rows.join("\n")
    }
}

fn median_and_longest(times: &[Duration]) -> Option<(Duration, Duration)> {
    let mut times = times.to_vec();
    times.sort();
    Some((*times.get(times.len() / 2)?, *times.last()?))
}

fn row(name: &str, value: &str, text: &str) -> String {
    format!("{name:<18}{value:>11}   {text}").trim_end().to_owned()
}

fn latency(name: &str, latency: &Latency) -> String {
    if latency.count() == 0 {
        return row(name, "none", "");
    }
    let quantile = |part| millis(latency.quantile(part));
    let (p50, p99, p999) = (quantile(0.5), quantile(0.99), quantile(0.999));
    format!("{name:<18}{p50:>11}{p99:>11}{p999:>11}{:>11}", millis(latency.max()))
}

fn millis(time: Duration) -> String {
    format!("{:.2} ms", time.as_secs_f64() * 1e3)
}

fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let groups =
        digits.as_bytes().rchunks(3).rev().map(|group| std::str::from_utf8(group).expect("digits"));
    groups.collect::<Vec<_>>().join(",")
}

/// Where nobody reads any more there is nobody to tell.
fn print(text: &str) {
    let mut output = io::stdout().lock();
    let _ = writeln!(output, "{text}").and_then(|()| output.flush());
}

/// The progress: a line for each step, and on a terminal one below them that is always new.
struct Screen {
    terminal: bool,
    drawn: Option<Instant>,
}

impl Screen {
    fn new() -> Self {
        Screen { terminal: io::stdout().is_terminal(), drawn: None }
    }

    fn clear(&mut self) {
        if self.drawn.take().is_some() {
            let mut output = io::stdout().lock();
            let _ = write!(output, "\r\x1b[K").and_then(|()| output.flush());
        }
    }

    fn line(&mut self, text: &str) {
        self.clear();
        print(text);
    }
}

impl Watcher for Screen {
    fn live(&mut self, what: &str, load: Option<&Running>) {
        let Some(load) = load else {
            return;
        };
        if !self.terminal || self.drawn.is_some_and(|drawn| drawn.elapsed() < REDRAW) {
            return;
        }
        let report = load.report();
        let requests = thousands(report.requests.total());
        let failed = thousands(report.failures_but(&[]));
        let mut output = io::stdout().lock();
        let _ = write!(
            output,
            "\r{requests} requests, {:.0} answers a second, {failed} failed ({what})\x1b[K",
            report.rate()
        );
        let _ = output.flush();
        self.drawn = Some(Instant::now());
    }
}
