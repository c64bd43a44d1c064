//! Restarts a web server again and again under full load, and shows what its clients see. See
//! `scripts/demo`.
//!
//! Exit status: 0 no request failed, 1 something failed, 2 it could not run, 130 interrupted.

mod clients;
mod options;
mod screen;
mod server;
mod service;
mod stats;
mod timeline;

use std::{
    env, fs, io,
    path::{Path, PathBuf},
    process::{self, ExitCode},
    time::{Duration, Instant},
};

use clients::{Load, Place};
use options::{Options, Program};
use screen::{Outcome, Screen};
use server::Way;
use service::{End, Service};

/// Load before the first restart: what a server can do that is left alone.
const CALM: Duration = Duration::from_secs(1);
/// How long one step of a restart may take.
const LIMIT: Duration = Duration::from_secs(30);
/// Between two looks at a fact: during a restart, and otherwise.
const QUICK: Duration = Duration::from_micros(300);
const SLOW: Duration = Duration::from_millis(20);

fn main() -> ExitCode {
    let mut args = env::args_os().skip(1);
    if args.next().is_some_and(|first| first == "serve") {
        return match server::run(args) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => fail(&error.to_string()),
        };
    }
    let options = match Options::from_args() {
        Ok(Some(options)) => options,
        Ok(None) => {
            println!("{}", options::USAGE);
            return ExitCode::SUCCESS;
        }
        Err(error) => return fail(&format!("{error}\n\n{}", options::USAGE)),
    };
    match run(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(End::Interrupted) => {
            eprintln!("demo: interrupted");
            ExitCode::from(130)
        }
        Err(End::Failed(what)) => {
            eprintln!("\nFAILED: {what}");
            ExitCode::FAILURE
        }
        Err(End::CannotRun(error)) => fail(&error.to_string()),
    }
}

fn fail(what: &str) -> ExitCode {
    eprintln!("demo: {what}");
    ExitCode::from(2)
}

fn run(options: &Options) -> Result<(), End> {
    let mut screen = Screen::new();
    let programs: Vec<Program> = match &options.example {
        Some(name) => vec![Program::Example(example(name, &mut screen)?)],
        None if options.compare => {
            [Way::StopAndStart, Way::ReusePort, Way::TakenOver].map(Program::Own).to_vec()
        }
        None => vec![Program::Own(Way::TakenOver)],
    };
    screen.line(&options.introduction());
    let folder = Folder::new()?;
    let mut outcomes = Vec::new();
    for program in &programs {
        if programs.len() > 1 {
            screen.line(&format!("\n{}", program.name()));
        }
        let outcome = restarts(options, program, &folder.0, &mut screen)?;
        outcomes.push((program.name(), outcome));
    }
    let (_, outcome) = outcomes.last().expect("one at least");
    screen.line(&outcome.table(options));
    if options.compare {
        screen.line(&screen::comparison(&outcomes));
    }
    if let Some(path) = &options.record {
        let error = |error| io::Error::other(format!("cannot write {}: {error}", path.display()));
        fs::write(path, timeline::svg(&outcomes)).map_err(error)?;
        screen.line(&format!("\nThe timeline is in {}.", path.display()));
    }
    let problems = outcome.problems(options.restarts);
    if problems.is_empty() { Ok(()) } else { Err(End::Failed(problems.join("; "))) }
}

/// One run: the server starts, is put under load, is restarted as often as asked for, and ends.
fn restarts(
    options: &Options,
    program: &Program,
    folder: &Path,
    screen: &mut Screen,
) -> Result<Outcome, End> {
    let place = if options.unix {
        Place::Unix(folder.join("web.sock"))
    } else {
        Place::Tcp(server::free_address()?)
    };
    let command = program.command(options, &place, folder);
    let service = Service::start(options.supervisor, &command, folder)?;
    let load = Load::start(place, options.clients, options.keep_alive);
    let mut run = Run { service, load, screen };
    let restarted = run.restart_often(options, program);
    run.screen.clear();
    if let Err(End::Failed(what)) = restarted {
        let log = run.service.last_lines(20);
        return Err(End::Failed(format!("{what}\nThe server's log ends with:\n{log}")));
    }
    let handoffs = restarted?;
    let Run { service, load, .. } = run;
    let (elapsed, stats) = load.stop();
    service.end()?;
    Ok(Outcome { elapsed, stats, handoffs })
}

struct Run<'a> {
    service: Service,
    load: Load,
    screen: &'a mut Screen,
}

impl Run<'_> {
    fn restart_often(
        &mut self,
        options: &Options,
        program: &Program,
    ) -> Result<Vec<Duration>, End> {
        let mut handoffs = Vec::new();
        self.until("the server answers", SLOW, |load| !load.stats().answers.is_empty())?;
        self.pass(CALM)?;
        self.load.stats().interval();
        for turn in 1..=options.restarts {
            let begin = Instant::now();
            let (handoff, answered, ended) = self.restart(program.stops_first())?;
            handoffs.push(handoff);
            let (interval, seconds) = self.load.stats().interval();
            let times = [handoff, answered, ended];
            self.screen.line(&screen::restart(turn, options.restarts, times, &interval, seconds));
            self.pass(options.supervisor.period().saturating_sub(begin.elapsed()))?;
        }
        Ok(handoffs)
    }

    /// Restarts the service. Returns the time from the TERM until the launcher had ended, until the
    /// successor had answered, and until the predecessor had ended.
    fn restart(&mut self, stops_first: bool) -> Result<(Duration, Duration, Duration), End> {
        let (count, old) = {
            let stats = self.load.stats();
            let newest = stats.answers.last().expect("one has answered");
            (stats.answers.len(), newest.pid)
        };
        let launcher = if stops_first { None } else { service::parent(old) };
        self.load.stats().begin_restart();
        let begin = Instant::now();
        self.service.restart()?;
        self.until("the server's main process ends", QUICK, |_| match launcher {
            Some(launcher) => service::parent(old) != Some(launcher),
            None => service::has_ended(old),
        })?;
        let handoff = begin.elapsed();
        self.until("the successor answers", QUICK, |load| load.stats().answers.len() > count)?;
        let answered = begin.elapsed();
        self.until("the predecessor ends", QUICK, |_| service::has_ended(old))?;
        let ended = begin.elapsed();
        self.load.stats().end_restart();
        Ok((handoff, answered, ended))
    }

    fn pass(&mut self, time: Duration) -> Result<(), End> {
        let end = Instant::now() + time;
        self.until("time passes", SLOW, |_| Instant::now() >= end)
    }

    /// Waits for a fact. The built-in supervisor and the screen do their work between two looks.
    fn until(
        &mut self,
        what: &str,
        pause: Duration,
        mut fact: impl FnMut(&Load) -> bool,
    ) -> Result<(), End> {
        let deadline = Instant::now() + LIMIT;
        loop {
            self.service.tend()?;
            if fact(&self.load) {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(End::Failed(format!("not within {} s: {what}", LIMIT.as_secs())));
            }
            self.screen.live(&self.load);
            std::thread::sleep(pause);
        }
    }
}

/// Builds an example, unless it is there, and returns its path.
fn example(name: &str, screen: &mut Screen) -> Result<PathBuf, End> {
    let own = env::current_exe()?;
    let profile = own.parent().expect("the folder of this program");
    if env::var_os("SEAMLESS_TEST_BUILT").is_some() {
        return Ok(profile.join("examples").join(name));
    }
    let target = profile.parent().expect("the target folder");
    screen.line("Building the examples. They need some 150 packages, which takes minutes.");
    let built = process::Command::new("cargo")
        .args(["build", "--locked", "--release", "--all-features", "--example", name])
        .args(["--package", "seamless-restart"])
        .arg("--target-dir")
        .arg(target)
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
        .status()?;
    if !built.success() {
        return Err(End::CannotRun(io::Error::other(format!("cargo build: {built}"))));
    }
    Ok(target.join("release/examples").join(name))
}

/// A folder of our own for the PID file, the log and the service, removed at the end.
struct Folder(PathBuf);

impl Folder {
    fn new() -> io::Result<Self> {
        let path = env::temp_dir().join(format!("seamless-demo.{}", process::id()));
        fs::create_dir(&path)?;
        Ok(Folder(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
