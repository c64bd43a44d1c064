//! The hooks around the stages and for signals. Those for signals have threads of their own: the thread that
//! acts on signals never runs code of the program.

use crate::driver::log::{self, daemon::Event};
use crate::driver::threads::{run_hooks, spawn};
use crate::error::{Error, ErrorKind, Result};
use crate::shutdown::{HookList, Stage, lock, panic_text};
use crate::sys::signals::Arrivals;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

/// All hooks but those of `on_shutdown_request`, `on_shutdown` and `on_hammer`.
pub(in crate::driver) struct Hooks {
    before: [HookList; 4],
    after: [HookList; 4],
    on_signal: Repeating,
    before_signal: Repeating,
    after_signal: Repeating,
    on_resume: Repeating,
    on_standby: Repeating,
    threads: Mutex<Threads>,
}

type Repeated = Box<dyn FnMut() + Send>;

/// Hooks that run again and again, each with its signal, if it is for one. A hook is taken out while it runs, since
/// it may add another one.
struct Repeating(Mutex<Vec<(Option<i32>, Option<Repeated>)>>);

struct Threads {
    /// This is the daemon.
    live: bool,
    /// To the thread that runs the hooks of `on_signal`, while the crate acts on the signal.
    arrivals: Option<Arrivals>,
    /// To the thread that runs the hooks before a signal and after it.
    around: Option<mpsc::Sender<Job>>,
}

type Job = Box<dyn FnOnce() + Send>;

impl Hooks {
    pub(in crate::driver) const fn new() -> Hooks {
        Hooks {
            before: [const { HookList::new() }; 4],
            after: [const { HookList::new() }; 4],
            on_signal: Repeating::new(),
            before_signal: Repeating::new(),
            after_signal: Repeating::new(),
            on_resume: Repeating::new(),
            on_standby: Repeating::new(),
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

    // ---- a restart that has failed ----

    pub(in crate::driver) fn on_resume(&self, hook: Repeated) {
        self.on_resume.add(None, hook);
    }

    /// The handoff may come again, with the hooks that these add.
    pub(in crate::driver) fn run_resume(&self, on_shutdown_request: &HookList) {
        let lists = [self.before(Stage::Handoff), on_shutdown_request, self.after(Stage::Handoff)];
        lists.into_iter().for_each(HookList::reopen);
        self.on_resume.run("on_resume", None);
    }

    // ---- a successor on probation ----

    pub(in crate::driver) fn on_standby(&self, hook: Repeated) {
        self.on_standby.add(None, hook);
    }

    pub(in crate::driver) fn run_standby(&self) {
        self.on_standby.run("on_standby", None);
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
        self.on_signal.add(Some(signal), hook);
        Ok(())
    }

    pub(in crate::driver) fn before_signal(&self, signal: i32, hook: Repeated) -> Result<()> {
        self.add_around(&self.before_signal, signal, hook)
    }

    pub(in crate::driver) fn after_signal(&self, signal: i32, hook: Repeated) -> Result<()> {
        self.add_around(&self.after_signal, signal, hook)
    }

    fn add_around(&self, hooks: &Repeating, signal: i32, hook: Repeated) -> Result<()> {
        let mut threads = lock(&self.threads);
        if threads.live {
            self.go_around(&mut threads)?;
        }
        hooks.add(Some(signal), hook);
        Ok(())
    }

    /// In the daemon, once the crate's own handlers are in place.
    pub(in crate::driver) fn begin(&'static self) -> Result<()> {
        let mut threads = lock(&self.threads);
        threads.live = true;
        let signals = self.on_signal.signals();
        if !signals.is_empty() {
            self.listen(&mut threads, &signals)?;
        }
        let around = [&self.before_signal, &self.after_signal];
        if around.iter().any(|hooks| !hooks.signals().is_empty()) {
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
            waiting.hand_over(|signal| self.on_signal.run("on_signal", Some(signal)));
        })?;
        threads.arrivals = Some(arrivals);
        Ok(())
    }

    fn go_around(&self, threads: &mut Threads) -> Result<()> {
        if threads.around.is_none() {
            let (around, jobs) = mpsc::channel::<Job>();
            spawn("seamless-around", move || jobs.into_iter().for_each(|job| job()))?;
            threads.around = Some(around);
        }
        Ok(())
    }

    pub(in crate::driver) fn has_before_signal(&self, signal: i32) -> bool {
        self.before_signal.signals().contains(&signal) && lock(&self.threads).around.is_some()
    }

    /// Lets those before this signal run; `returned` is called then, on their thread.
    pub(in crate::driver) fn run_before_signal(
        &'static self,
        signal: i32,
        returned: impl FnOnce() + Send + 'static,
    ) {
        self.run_around(move || {
            self.before_signal.run("before_signal", Some(signal));
            returned();
        });
    }

    /// Lets those after this signal run, if there are any.
    pub(in crate::driver) fn run_after_signal(&'static self, signal: i32) {
        if self.after_signal.signals().contains(&signal) {
            self.run_around(move || self.after_signal.run("after_signal", Some(signal)));
        }
    }

    fn run_around(&self, job: impl FnOnce() + Send + 'static) {
        if let Some(around) = &lock(&self.threads).around {
            _ = around.send(Box::new(job));
        }
    }
}

impl Repeating {
    const fn new() -> Repeating {
        Repeating(Mutex::new(Vec::new()))
    }

    fn add(&self, signal: Option<i32>, hook: Repeated) {
        lock(&self.0).push((signal, Some(hook)));
    }

    /// The signals that there are hooks for.
    fn signals(&self) -> Vec<i32> {
        lock(&self.0).iter().filter_map(|(signal, _)| *signal).collect()
    }

    /// Runs the hooks for this signal. A hook that is added meanwhile runs the next time.
    fn run(&self, name: &str, signal: Option<i32>) {
        let count = lock(&self.0).len();
        for place in 0..count {
            let taken = {
                let (of, hook) = &mut lock(&self.0)[place];
                hook.take_if(|_| *of == signal)
            };
            let Some(mut hook) = taken else { continue };
            if let Err(panic) = catch_unwind(AssertUnwindSafe(&mut hook)) {
                let panic = panic_text(&*panic);
                log::write(match signal {
                    Some(signal) => Event::SignalHookPanicked { hook: name, signal },
                    None => Event::HookPanicked { hook: name, panic },
                });
            }
            lock(&self.0)[place].1 = Some(hook);
        }
    }
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
        let begin = Instant::now();
        run_limited(hooks, "test", false);
        assert_eq!(seen.try_iter().collect::<Vec<_>>(), [0, 1, 2, 3]);
        // When they have returned, nothing is waited for.
        assert!(begin.elapsed() < HAMMER_LIMIT);
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
