//! The hooks around the stages and for signals. Those for signals have threads of their own, beside
//! the one that acts on signals: it never runs code of the program.

use crate::driver::log::{self, daemon::Event};
use crate::driver::threads::{run_hooks, spawn};
use crate::error::{Error, ErrorKind, Result};
use crate::shutdown::{HookList, Stage, lock};
use crate::sys::signals::Arrivals;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

/// All of them.
pub(in crate::driver) struct Hooks {
    before: [HookList; 4],
    after: [HookList; 4],
    on_signal: Mutex<Repeating>,
    before_signal: Mutex<Repeating>,
    after_signal: Mutex<Repeating>,
    on_resume: Mutex<Vec<Repeated>>,
    on_standby: Mutex<Vec<Repeated>>,
    threads: Mutex<Threads>,
}

type Repeated = Box<dyn FnMut() + Send>;

/// Hooks that run again and again, each with its signal.
struct Repeating {
    /// Taken out while they run: a hook may add one.
    hooks: Vec<(i32, Repeated)>,
    added: Vec<(i32, Repeated)>,
    signals: Vec<i32>,
}

struct Threads {
    /// This is the daemon.
    live: bool,
    /// To the thread that runs the hooks beside what the crate does.
    arrivals: Option<Arrivals>,
    /// To the thread that runs those before and after it.
    around: Option<mpsc::Sender<Job>>,
}

enum Job {
    /// The hooks before a signal, and what is called when they have returned.
    Before(i32, Box<dyn FnOnce() + Send>),
    After(i32),
}

impl Hooks {
    pub(in crate::driver) const fn new() -> Hooks {
        Hooks {
            before: [const { HookList::new() }; 4],
            after: [const { HookList::new() }; 4],
            on_signal: Mutex::new(Repeating::new()),
            before_signal: Mutex::new(Repeating::new()),
            after_signal: Mutex::new(Repeating::new()),
            on_resume: Mutex::new(Vec::new()),
            on_standby: Mutex::new(Vec::new()),
            threads: Mutex::new(Threads { live: false, arrivals: None, around: None }),
        }
    }

    // ---- around stages ----

    pub(in crate::driver) fn before(&self, stage: Stage) -> &HookList {
        &self.before[stage as usize]
    }

    pub(in crate::driver) fn after(&self, stage: Stage) -> &HookList {
        &self.after[stage as usize]
    }

    pub(in crate::driver) fn run_before(&self, stage: Stage) {
        run_hooks(self.before(stage), "before");
    }

    pub(in crate::driver) fn run_after(&self, stage: Stage) {
        run_hooks(self.after(stage), "after");
    }

    /// Ends those around a stage if there are none.
    pub(in crate::driver) fn end_if_empty(&self, stage: Stage) -> bool {
        self.before(stage).end_if_empty() && self.after(stage).end_if_empty()
    }

    // ---- a restart that does not come off ----

    pub(in crate::driver) fn on_resume(&self, hook: Repeated) {
        lock(&self.on_resume).push(hook);
    }

    /// The handoff may come again, with the hooks that these add.
    pub(in crate::driver) fn run_resume(&self, on_shutdown_request: &HookList) {
        let lists = [self.before(Stage::Handoff), on_shutdown_request, self.after(Stage::Handoff)];
        lists.into_iter().for_each(HookList::reopen);
        run_repeated(&self.on_resume, "on_resume");
    }

    // ---- a successor on probation ----

    pub(in crate::driver) fn on_standby(&self, hook: Repeated) {
        lock(&self.on_standby).push(hook);
    }

    pub(in crate::driver) fn run_standby(&self) {
        run_repeated(&self.on_standby, "on_standby");
    }

    /// Runs all hooks of a forced exit, in their order. Takes at most three times the limit.
    pub(in crate::driver) fn run_hammer(&'static self, on_hammer: &'static HookList) {
        run_limited(self.before(Stage::Hammer), "before", true);
        run_limited(on_hammer, "on_hammer", false);
        run_limited(self.after(Stage::Hammer), "after", false);
    }

    // ---- for signals ----

    pub(in crate::driver) fn on_signal(&'static self, signal: i32, hook: Repeated) -> Result<()> {
        let mut threads = lock(&self.threads);
        if threads.live {
            self.listen(&mut threads, &[signal])?;
        }
        lock(&self.on_signal).add(signal, hook);
        Ok(())
    }

    pub(in crate::driver) fn before_signal(
        &'static self,
        signal: i32,
        hook: Repeated,
    ) -> Result<()> {
        self.add_around(&self.before_signal, signal, hook)
    }

    pub(in crate::driver) fn after_signal(
        &'static self,
        signal: i32,
        hook: Repeated,
    ) -> Result<()> {
        self.add_around(&self.after_signal, signal, hook)
    }

    fn add_around(
        &'static self,
        hooks: &Mutex<Repeating>,
        signal: i32,
        hook: Repeated,
    ) -> Result<()> {
        let mut threads = lock(&self.threads);
        if threads.live {
            self.go_around(&mut threads)?;
        }
        lock(hooks).add(signal, hook);
        Ok(())
    }

    /// In the daemon, once the crate's own handlers are in place.
    pub(in crate::driver) fn begin(&'static self) -> Result<()> {
        let mut threads = lock(&self.threads);
        threads.live = true;
        let signals = lock(&self.on_signal).signals.clone();
        if !signals.is_empty() {
            self.listen(&mut threads, &signals)?;
        }
        let around = [&self.before_signal, &self.after_signal];
        if around.iter().any(|hooks| !lock(hooks).signals.is_empty()) {
            self.go_around(&mut threads)?;
        }
        Ok(())
    }

    fn listen(&'static self, threads: &mut Threads, signals: &[i32]) -> Result<()> {
        let refused =
            |error| Error::io(ErrorKind::System, "cannot install handlers (hooks)", error);
        if let Some(arrivals) = &threads.arrivals {
            return signals.iter().try_for_each(|signal| arrivals.add(*signal)).map_err(refused);
        }
        let (arrivals, waiting) = Arrivals::install(signals).map_err(refused)?;
        spawn("seamless-hooks", move || {
            waiting.hand_over(|signal| run(&self.on_signal, "on_signal", signal));
        })?;
        threads.arrivals = Some(arrivals);
        Ok(())
    }

    fn go_around(&'static self, threads: &mut Threads) -> Result<()> {
        if threads.around.is_some() {
            return Ok(());
        }
        let (around, jobs) = mpsc::channel();
        spawn("seamless-around", move || {
            for job in jobs {
                match job {
                    Job::Before(signal, returned) => {
                        run(&self.before_signal, "before_signal", signal);
                        returned();
                    }
                    Job::After(signal) => run(&self.after_signal, "after_signal", signal),
                }
            }
        })?;
        threads.around = Some(around);
        Ok(())
    }

    pub(in crate::driver) fn has_before_signal(&self, signal: i32) -> bool {
        lock(&self.before_signal).signals.contains(&signal) && lock(&self.threads).around.is_some()
    }

    /// Lets those before this signal run; `returned` is called then, on their thread.
    pub(in crate::driver) fn run_before_signal(
        &self,
        signal: i32,
        returned: impl FnOnce() + Send + 'static,
    ) {
        let job = Job::Before(signal, Box::new(returned));
        if let Some(around) = &lock(&self.threads).around {
            _ = around.send(job);
        }
    }

    /// Lets those after this signal run, if there are any.
    pub(in crate::driver) fn run_after_signal(&self, signal: i32) {
        if lock(&self.after_signal).signals.contains(&signal) {
            if let Some(around) = &lock(&self.threads).around {
                _ = around.send(Job::After(signal));
            }
        }
    }
}

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
            log::write(Event::SignalHookPanicked { hook: name, signal });
        }
    }
    lock(hooks).hooks = taken;
}

// ---- the hammer ----

/// How long each of the three groups of hooks may take.
const HAMMER_LIMIT: Duration = Duration::from_secs(1);
/// How long a hook of the first group may hold up the next.
const PATIENCE: Duration = Duration::from_millis(100);

/// Runs hooks on a thread of their own until all have returned or the limit has passed. If they are
/// urgent, one that hangs does not hold up the next: a further thread runs those. They also run if
/// there is no memory for a thread, then without a limit.
fn run_limited(hooks: &'static HookList, name: &'static str, urgent: bool) {
    let end = Instant::now() + HAMMER_LIMIT;
    let patience = if urgent { PATIENCE } else { HAMMER_LIMIT };
    let (through, wait) = mpsc::channel();
    let mut running = 0;
    let mut left = HAMMER_LIMIT;
    // When the limit has passed, nothing more begins: the process is about to end.
    while !left.is_zero() {
        if (urgent || running == 0) && !hooks.end_if_empty() {
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
        if running == 0 {
            return;
        }
        if wait.recv_timeout(left.min(patience)).is_ok() {
            running -= 1;
        }
        left = end.saturating_duration_since(Instant::now());
    }
}

/// Hooks that may run again.
fn run_repeated(list: &Mutex<Vec<Repeated>>, name: &str) {
    let mut hooks = std::mem::take(&mut *lock(list));
    for hook in &mut hooks {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(hook)) {
            let panic = crate::shutdown::panic_text(&*panic);
            log::write(Event::HookPanicked { hook: name, panic });
        }
    }
    let mut kept = lock(list);
    hooks.append(&mut kept); // a hook may have added one
    *kept = hooks;
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
        // Not even when the limit has passed, on a thread that would begin then.
        let later = seen.recv_timeout(HAMMER_LIMIT / 4);
        assert_eq!(later, Err(mpsc::RecvTimeoutError::Timeout));
        // Nor is anything waited for if there are none.
        let begin = Instant::now();
        run_limited(self::hooks().0, "test", false);
        assert!(begin.elapsed() < HAMMER_LIMIT);
    }
}
