//! The hooks around the stages and for signals. Those for signals have threads of their own, beside
//! the one that acts on signals: it never runs code of the program.

use crate::driver::DAEMON;
use crate::driver::daemon::{run_hooks, spawn};
use crate::driver::log::note;
use crate::error::{Error, ErrorKind, Result};
use crate::hooks::Stage;
use crate::shutdown::{Hook, HookList, lock};
use crate::sys::process;
use crate::sys::signals::Arrivals;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};

static BEFORE: [HookList; 3] = [const { HookList::new() }; 3];
static AFTER: [HookList; 3] = [const { HookList::new() }; 3];

fn of(hooks: &'static [HookList; 3], stage: Stage) -> &'static HookList {
    match stage {
        Stage::Handoff => &hooks[0],
        Stage::Takeover => &hooks[1],
        Stage::Drain => &hooks[2],
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
