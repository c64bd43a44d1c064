//! The hooks around the stages and for signals. Those for signals have threads of their own, beside
//! the one that acts on signals: it never runs code of the program.

use crate::driver::daemon::{run_hooks, spawn};
use crate::driver::log::note;
use crate::driver::{DAEMON, HAMMER_HOOKS};
use crate::error::{Error, ErrorKind, Result};
use crate::hooks::Stage;
use crate::shutdown::{Hook, HookList, lock};
use crate::sys::process;
use crate::sys::signals::Arrivals;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

static BEFORE: [HookList; 4] = [const { HookList::new() }; 4];
static AFTER: [HookList; 4] = [const { HookList::new() }; 4];

fn of(hooks: &'static [HookList; 4], stage: Stage) -> &'static HookList {
    match stage {
        Stage::Handoff => &hooks[0],
        Stage::Takeover => &hooks[1],
        Stage::Drain => &hooks[2],
        Stage::Hammer => &hooks[3],
    }
}

pub(crate) fn add_before(stage: Stage, hook: Hook) {
    crate::driver::add(of(&BEFORE, stage), "before", hook);
}

pub(crate) fn add_after(stage: Stage, hook: Hook) {
    crate::driver::add(of(&AFTER, stage), "after", hook);
}

pub(in crate::driver) fn run_before(stage: Stage) {
    run_hooks(of(&BEFORE, stage), "before");
}

pub(in crate::driver) fn run_after(stage: Stage) {
    run_hooks(of(&AFTER, stage), "after");
}

/// Ends those around a stage if there are none.
pub(in crate::driver) fn end_if_empty(stage: Stage) -> bool {
    of(&BEFORE, stage).end_if_empty() && of(&AFTER, stage).end_if_empty()
}

// ---- the hammer ----

/// How long each of the three groups of hooks may take.
const HAMMER_LIMIT: Duration = Duration::from_secs(1);
/// How long a hook of the first group may hold up the next.
const PATIENCE: Duration = Duration::from_millis(100);

/// Runs all hooks of a forced exit, in their order. Takes at most three times the limit.
pub(in crate::driver) fn run_hammer() {
    run_limited(of(&BEFORE, Stage::Hammer), "before", true);
    run_limited(&HAMMER_HOOKS, "on_hammer", false);
    run_limited(of(&AFTER, Stage::Hammer), "after", false);
}

/// Runs hooks on a thread of their own until all have returned or the limit has passed. If they are
/// urgent, one that hangs does not hold up the next: a further thread runs those. They also run if
/// there is no memory for a thread, then without a limit.
fn run_limited(hooks: &'static HookList, name: &'static str, urgent: bool) {
    let end = Instant::now() + HAMMER_LIMIT;
    let patience = if urgent { PATIENCE } else { HAMMER_LIMIT };
    let (through, wait) = mpsc::channel();
    let mut running = 0;
    loop {
        if !hooks.end_if_empty() {
            let through = through.clone();
            let run = move || {
                run_hooks(hooks, name);
                _ = through.send(());
            };
            match thread::Builder::new().name("seamless-hammer".to_owned()).spawn(run) {
                Ok(_) => running += 1,
                Err(_) if urgent => run_hooks(hooks, name),
                Err(_) => {}
            }
        }
        let left = end.saturating_duration_since(Instant::now());
        if running == 0 || left.is_zero() {
            return;
        }
        if wait.recv_timeout(left.min(patience)).is_ok() {
            running -= 1;
        }
    }
}

// ---- signals ----

type Repeated = Box<dyn FnMut() + Send>;

/// Hooks that run again and again, each with its signal.
struct Repeating {
    /// Taken out while they run: a hook may add one.
    hooks: Vec<(i32, Repeated)>,
    added: Vec<(i32, Repeated)>,
    signals: Vec<i32>,
}

static ON_SIGNAL: Mutex<Repeating> = Mutex::new(Repeating::new());
static BEFORE_SIGNAL: Mutex<Repeating> = Mutex::new(Repeating::new());
static AFTER_SIGNAL: Mutex<Repeating> = Mutex::new(Repeating::new());

impl Repeating {
    const fn new() -> Repeating {
        Repeating { hooks: Vec::new(), added: Vec::new(), signals: Vec::new() }
    }

    fn add(&mut self, signal: i32, hook: Repeated) {
        self.signals.push(signal);
        self.added.push((signal, hook));
    }
}

fn run(hooks: &Mutex<Repeating>, name: &str, signal: i32) {
    let mut taken = {
        let mut state = lock(hooks);
        let added = std::mem::take(&mut state.added);
        state.hooks.extend(added);
        std::mem::take(&mut state.hooks)
    };
    for (_, hook) in taken.iter_mut().filter(|(of, _)| *of == signal) {
        if catch_unwind(AssertUnwindSafe(hook)).is_err() {
            note!(
                Error,
                "stage=hooks daemon={} hook={name} signal={signal} panic=true",
                process::own_pid()
            );
        }
    }
    lock(hooks).hooks = taken;
}

struct Threads {
    /// This is the daemon.
    live: bool,
    /// To the one that runs the hooks beside what the crate does.
    arrivals: Option<Arrivals>,
    /// To the one that runs those before and after it.
    around: Option<mpsc::Sender<Job>>,
}

static THREADS: Mutex<Threads> = Mutex::new(Threads { live: false, arrivals: None, around: None });

enum Job {
    Before(i32, Arc<AtomicBool>),
    After(i32),
}

pub(crate) fn on_signal(signal: i32, hook: Repeated) -> Result<()> {
    let mut threads = lock(&THREADS);
    if threads.live {
        threads.listen(&[signal])?;
    }
    lock(&ON_SIGNAL).add(signal, hook);
    Ok(())
}

pub(crate) fn before_signal(signal: i32, hook: Repeated) -> Result<()> {
    add_around(&BEFORE_SIGNAL, signal, hook)
}

pub(crate) fn after_signal(signal: i32, hook: Repeated) -> Result<()> {
    add_around(&AFTER_SIGNAL, signal, hook)
}

fn add_around(hooks: &Mutex<Repeating>, signal: i32, hook: Repeated) -> Result<()> {
    let mut threads = lock(&THREADS);
    if threads.live {
        threads.go_around()?;
    }
    lock(hooks).add(signal, hook);
    Ok(())
}

/// In the daemon, once the crate's own handlers are in place.
pub(in crate::driver) fn begin() -> Result<()> {
    let mut threads = lock(&THREADS);
    threads.live = true;
    let signals = lock(&ON_SIGNAL).signals.clone();
    if !signals.is_empty() {
        threads.listen(&signals)?;
    }
    if [&BEFORE_SIGNAL, &AFTER_SIGNAL].iter().any(|hooks| !lock(hooks).signals.is_empty()) {
        threads.go_around()?;
    }
    Ok(())
}

impl Threads {
    fn listen(&mut self, signals: &[i32]) -> Result<()> {
        let refused =
            |error| Error::io(ErrorKind::System, "cannot install handlers (hooks)", error);
        if let Some(arrivals) = &self.arrivals {
            return signals.iter().try_for_each(|signal| arrivals.add(*signal)).map_err(refused);
        }
        let (arrivals, waiting) = Arrivals::install(signals).map_err(refused)?;
        spawn("seamless-hooks", move || {
            waiting.hand_over(|signal| run(&ON_SIGNAL, "on_signal", signal));
        })?;
        self.arrivals = Some(arrivals);
        Ok(())
    }

    fn go_around(&mut self) -> Result<()> {
        if self.around.is_some() {
            return Ok(());
        }
        let (around, jobs) = mpsc::channel();
        spawn("seamless-around", move || {
            for job in jobs {
                match job {
                    Job::Before(signal, through) => {
                        run(&BEFORE_SIGNAL, "before_signal", signal);
                        through.store(true, Ordering::SeqCst);
                        if let Some(daemon) = DAEMON.get() {
                            daemon.waker.wake();
                        }
                    }
                    Job::After(signal) => run(&AFTER_SIGNAL, "after_signal", signal),
                }
            }
        })?;
        self.around = Some(around);
        Ok(())
    }
}

/// Lets those before this signal run, where there are any: true in the answer once they have. The
/// thread that takes signals is woken then.
pub(in crate::driver) fn run_before_signal(signal: i32) -> Option<Arc<AtomicBool>> {
    if !lock(&BEFORE_SIGNAL).signals.contains(&signal) {
        return None;
    }
    let through = Arc::new(AtomicBool::new(false));
    let around = lock(&THREADS).around.clone()?;
    around.send(Job::Before(signal, through.clone())).ok()?;
    Some(through)
}

/// Lets those after this signal run, where there are any.
pub(in crate::driver) fn run_after_signal(signal: i32) {
    if lock(&AFTER_SIGNAL).signals.contains(&signal) {
        if let Some(around) = &lock(&THREADS).around {
            _ = around.send(Job::After(signal));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hooks() -> (&'static HookList, mpsc::Sender<u32>, mpsc::Receiver<u32>) {
        let (ran, seen) = mpsc::channel();
        (Box::leak(Box::new(HookList::new())), ran, seen)
    }

    fn add(hooks: &HookList, hook: impl FnOnce() + Send + 'static) {
        assert!(hooks.add(Box::new(hook)));
    }

    fn hang() {
        loop {
            thread::park();
        }
    }

    #[test]
    fn an_urgent_hook_that_hangs_holds_up_no_other() {
        let (hooks, ran, seen) = hooks();
        for number in 0..4 {
            let ran = ran.clone();
            add(hooks, move || ran.send(number).expect("the test listens"));
            add(hooks, hang);
        }
        let begin = Instant::now();
        run_limited(hooks, "test", true);
        assert!(begin.elapsed() >= HAMMER_LIMIT);
        assert_eq!(seen.try_iter().collect::<Vec<_>>(), [0, 1, 2, 3]);
    }

    #[test]
    fn the_others_run_one_after_the_other_as_long_as_the_limit_lets_them() {
        let (hooks, ran, seen) = hooks();
        for number in 0..4 {
            let ran = ran.clone();
            add(hooks, move || ran.send(number).expect("the test listens"));
        }
        run_limited(hooks, "test", false);
        assert_eq!(seen.try_iter().collect::<Vec<_>>(), [0, 1, 2, 3]);
        let (hooks, ran, seen) = self::hooks();
        add(hooks, hang);
        add(hooks, move || ran.send(1).expect("the test listens"));
        run_limited(hooks, "test", false);
        assert!(seen.try_recv().is_err());
        // Nor is anything waited for if there are none.
        let begin = Instant::now();
        run_limited(self::hooks().0, "test", false);
        assert!(begin.elapsed() < HAMMER_LIMIT);
    }
}
