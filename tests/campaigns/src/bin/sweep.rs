//! Kills each process of a restart at each of its system calls, and tells in a table what came of it.
//! See `seamless_campaigns::sweep`.

use std::{
    collections::{BTreeMap, BTreeSet},
    env,
    io::{self, Read},
    path::Path,
    process::{self, Command, ExitCode},
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Instant, SystemTime},
};

use lexopt::{Parser, ValueExt};
use seamless_campaigns::{
    strike::{At, Role},
    sweep::{Case, Outcome, Scenario, Verdict},
};
use seamless_testing::bin;
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};

const USAGE: &str = "\
scripts/sweep [options]

Kills each process that takes part in a restart at its 1st, 2nd, 3rd … system call, a restart each,
until the restart goes through untouched, for two calls in a row.

  --scenario NAME   daemontools, runit, s6, in-place, probation (under daemontools), probation-runit, probation-s6,
                    probation-in-place or moving; may be repeated; default: all of them
  --role NAME       old-launcher, old-daemon, new-launcher, new-daemon; may be repeated; default: all
  --call N          this one only; NAME:N is the Nth of this name, as sendmsg:2
  --every N         each Nth call, beginning with one at random
  --sample N        so many calls at random, of all roles
  --seed N          for --sample and --every; default: SEAMLESS_TEST_SEED, or the time
  --parallel N      cases at a time; default: 4 for each processor";

struct Options {
    scenarios: Vec<Scenario>,
    roles: Vec<Role>,
    call: Option<At>,
    every: u64,
    sample: Option<usize>,
    seed: u64,
    parallel: usize,
}

impl Options {
    /// Or what to do in a box.
    fn parse() -> Result<Result<Options, (Case, String)>, lexopt::Error> {
        use lexopt::Arg::Long;
        let seed = match env::var("SEAMLESS_TEST_SEED") {
            Ok(seed) => seed.parse().map_err(|_| "SEAMLESS_TEST_SEED is no number")?,
            Err(_) => {
                let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
                u64::from(now.expect("a clock that is set").subsec_nanos())
            }
        };
        let parallel = 4 * thread::available_parallelism().map_or(1, usize::from);
        let (scenarios, roles) = (Vec::new(), Vec::new());
        let mut options =
            Options { scenarios, roles, call: None, every: 1, sample: None, seed, parallel };
        let mut inside = None;
        let mut parser = Parser::from_env();
        while let Some(argument) = parser.next()? {
            match argument {
                Long("scenario") => options.scenarios.push(parser.value()?.parse()?),
                Long("role") => options.roles.push(parser.value()?.parse()?),
                Long("call") => options.call = Some(parser.value()?.parse()?),
                Long("every") => options.every = parser.value()?.parse::<u64>()?.max(1),
                Long("sample") => options.sample = Some(parser.value()?.parse()?),
                Long("seed") => options.seed = parser.value()?.parse()?,
                Long("parallel") => options.parallel = parser.value()?.parse::<usize>()?.max(1),
                Long("inside") => inside = Some(parser.value()?.string()?),
                Long("help") => {
                    println!("{USAGE}");
                    process::exit(0);
                }
                _ => return Err(argument.unexpected()),
            }
        }
        if let Some(folder) = inside {
            let (Some(scenario), Some(role), Some(at)) =
                (options.scenarios.pop(), options.roles.pop(), options.call)
            else {
                return Err("--inside needs a case".into());
            };
            return Ok(Err((Case { scenario, role, at }, folder)));
        }
        if options.scenarios.is_empty() {
            options.scenarios = Scenario::ALL.to_vec();
        }
        if options.roles.is_empty() {
            options.roles = Role::ALL.to_vec();
        }
        Ok(Ok(options))
    }
}

fn main() -> ExitCode {
    let options = match Options::parse() {
        Ok(Ok(options)) => options,
        Ok(Err((case, folder))) => return inside(case, &folder),
        Err(error) => {
            eprintln!("sweep: {error}\n\n{USAGE}");
            return ExitCode::from(100);
        }
    };
    bin::build();
    let began = Instant::now();
    let plan = Mutex::new(Plan::new(&options));
    let stopped = Arc::new(AtomicBool::new(false));
    for signal in [SIGHUP, SIGINT, SIGQUIT, SIGTERM] {
        signal_hook::flag::register(signal, stopped.clone()).expect("a signal to be noted");
    }
    thread::scope(|scope| {
        for _ in 0..options.parallel {
            scope.spawn(|| {
                while let Some((at, case)) = take(&plan) {
                    let verdict = case.run_boxed();
                    // An INT from a terminal has ended the case as well.
                    if stopped.load(Ordering::Relaxed) {
                        return;
                    }
                    lock(&plan).came(at, case, verdict);
                }
            });
        }
    });
    let plan = lock(&plan);
    plan.print();
    if stopped.load(Ordering::Relaxed) {
        println!("stopped by a signal: these cases only");
        return ExitCode::FAILURE;
    }
    println!("{} s", began.elapsed().as_secs());
    if options.sample.is_some() || options.every > 1 {
        println!("seed {0}: again by SEAMLESS_TEST_SEED={0}, or --seed {0}", options.seed);
    }
    plan.result(options.sample.is_some())
}

/// What has been done, and what is still to do, for each role of each scenario.
struct Plan(Vec<Lane>);

struct Lane {
    scenario: Scenario,
    role: Role,
    todo: Todo,
    verdicts: BTreeMap<At, Verdict>,
    failed: usize,
}

enum Todo {
    /// From this call on, in steps.
    From(u64, u64),
    These(Vec<At>),
}

impl Plan {
    fn new(options: &Options) -> Self {
        let mut random = fastrand::Rng::with_seed(options.seed);
        let mut lanes = Vec::new();
        for &scenario in &options.scenarios {
            let roles = scenario.roles().iter().filter(|role| options.roles.contains(role));
            lanes.extend(roles.map(|&role| {
                let todo = match options.call {
                    Some(at) => Todo::These(vec![at]),
                    None => Todo::From(random.u64(1..=options.every), options.every),
                };
                let (verdicts, failed) = (BTreeMap::new(), 0);
                Lane { scenario, role, todo, verdicts, failed }
            }));
        }
        if let Some(count) = options.sample {
            for lane in &mut lanes {
                lane.todo = Todo::These(Vec::new());
            }
            for at in 0..count {
                let at = at % lanes.len();
                let lane = &mut lanes[at];
                let calls = lane.case(At::nth(1)).usual_calls();
                if let Todo::These(calls_to_do) = &mut lane.todo {
                    calls_to_do.push(At::nth(random.u64(1..=calls)));
                }
            }
        }
        Plan(lanes)
    }

    fn came(&mut self, lane: usize, case: Case, verdict: Result<Verdict, String>) {
        let lane = &mut self.0[lane];
        match verdict {
            Ok(verdict) => {
                lane.verdicts.insert(case.at, verdict);
            }
            Err(text) => {
                println!("FAILED: scripts/sweep {case}\n{text}");
                lane.failed += 1;
            }
        }
    }

    fn print(&self) {
        print!("{:<18} {:<12} {:>5} {:>5} {:>6} |", "scenario", "role", "calls", "cases", "failed");
        for outcome in Outcome::ALL {
            print!(" {outcome:>9}");
        }
        println!(" | {:>7} {:>4} {:>8} | {:>8}", "answers", "held", "unserved", "syscalls");
        for lane in &self.0 {
            let all = || lane.verdicts.values();
            let cases = lane.verdicts.len() + lane.failed;
            let calls = all().map(|one| one.calls).max().unwrap_or_default();
            let (scenario, role) = (lane.scenario, lane.role);
            print!("{scenario:<18} {role:<12} {calls:>5} {cases:>5} {:>6} |", lane.failed);
            for outcome in Outcome::ALL {
                print!(" {:>9}", all().filter(|one| one.outcome == outcome).count());
            }
            let sum = |what: fn(&Verdict) -> usize| all().map(what).sum::<usize>();
            let (answers, held) = (sum(|one| one.answers), sum(|one| one.held));
            let unserved = sum(|one| one.unserved);
            println!(" | {answers:>7} {held:>4} {unserved:>8} | {:>8}", lane.syscalls().len());
        }
        let syscalls: BTreeSet<&str> = self.0.iter().flat_map(Lane::syscalls).collect();
        let syscalls: Vec<&str> = syscalls.into_iter().collect();
        println!("killed at: {}", syscalls.join(" "));
    }

    fn result(&self, sample: bool) -> ExitCode {
        let failed: usize = self.0.iter().map(|lane| lane.failed).sum();
        let verdicts = || self.0.iter().flat_map(|lane| lane.verdicts.values());
        let untouched = verdicts().filter(|one| one.outcome == Outcome::Untouched).count();
        if failed > 0 {
            println!("{failed} FAILED");
            return ExitCode::FAILURE;
        }
        if sample && untouched * 2 > verdicts().count() {
            println!("FAILED: {untouched} were not killed: fewer calls are usual now");
            return ExitCode::FAILURE;
        }
        ExitCode::SUCCESS
    }
}

impl Lane {
    fn case(&self, at: At) -> Case {
        Case { scenario: self.scenario, role: self.role, at }
    }

    fn syscalls(&self) -> BTreeSet<&str> {
        let killed = self.verdicts.values().filter(|one| one.outcome != Outcome::Untouched);
        killed.map(|one| one.call.as_str()).collect()
    }

    /// Two in a row went through untouched.
    fn is_through(&self, step: u64) -> bool {
        let untouched = |nth: u64| {
            let verdict = self.verdicts.get(&At::nth(nth));
            verdict.is_some_and(|one| one.outcome == Outcome::Untouched)
        };
        self.verdicts.keys().any(|at| untouched(at.nth) && untouched(at.nth + step))
    }
}

fn lock(plan: &Mutex<Plan>) -> MutexGuard<'_, Plan> {
    plan.lock().expect("no panic")
}

fn take(plan: &Mutex<Plan>) -> Option<(usize, Case)> {
    let mut plan = lock(plan);
    plan.0.iter_mut().enumerate().find_map(|(at, lane)| {
        let call = match &lane.todo {
            Todo::From(_, step) if lane.is_through(*step) => None,
            Todo::From(next, _) => Some(At::nth(*next)),
            Todo::These(calls) => calls.last().copied(),
        };
        match &mut lane.todo {
            Todo::From(next, step) => *next += *step,
            Todo::These(calls) => _ = calls.pop(),
        }
        Some((at, lane.case(call?)))
    })
}

/// In the box.
fn inside(case: Case, folder: &str) -> ExitCode {
    // Standard input ends when the process outside ends, in whatever way.
    thread::spawn(|| {
        _ = io::stdin().read(&mut [0]);
        process::exit(1);
    });
    let mut mount = Command::new("mount");
    mount.args(["-t", "tmpfs", "-o", "mode=755", "tmpfs"]).arg(folder);
    assert!(mount.status().expect("mount").success(), "no file system of its own");
    println!("{}", case.run(Path::new(folder)));
    ExitCode::SUCCESS
}
