//! The hooks around the stages and for signals. Those for signals have a thread of their own, which
//! takes them beside the one that acts on them.

use super::daemon::{run_hooks, spawn};
use super::journal::note;
use crate::error::{Error, ErrorKind, Result};
use crate::hooks::Stage as Name;
use crate::shutdown::{Hook, Stage, lock};
use crate::sys::process;
use crate::sys::signals::Arrivals;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;

static BEFORE: [Stage; 3] = [const { Stage::new() }; 3];
static AFTER: [Stage; 3] = [const { Stage::new() }; 3];

fn of(hooks: &'static [Stage; 3], stage: Name) -> &'static Stage {
    match stage {
        Name::Handoff => &hooks[0],
        Name::Takeover => &hooks[1],
        Name::Drain => &hooks[2],
    }
}

pub(crate) fn add_before(stage: Name, hook: Hook) {
    super::add(of(&BEFORE, stage), "before", hook);
}

pub(crate) fn add_after(stage: Name, hook: Hook) {
    super::add(of(&AFTER, stage), "after", hook);
}

pub(super) fn run_before(stage: Name) {
    run_hooks(of(&BEFORE, stage), "before");
}

pub(super) fn run_after(stage: Name) {
    run_hooks(of(&AFTER, stage), "after");
}

/// Ends those around a stage if there are none.
pub(super) fn end_if_empty(stage: Name) -> bool {
    of(&BEFORE, stage).end_if_empty() && of(&AFTER, stage).end_if_empty()
}

// ---- signals ----

type Repeated = Box<dyn FnMut() + Send>;

struct OnSignal {
    /// Taken out while they run: a hook may add one.
    hooks: Vec<(i32, Repeated)>,
    added: Vec<(i32, Repeated)>,
    /// This is the daemon.
    live: bool,
    arrivals: Option<Arrivals>,
}

static ON_SIGNAL: Mutex<OnSignal> =
    Mutex::new(OnSignal { hooks: Vec::new(), added: Vec::new(), live: false, arrivals: None });

pub(crate) fn on_signal(signal: i32, hook: Repeated) -> Result<()> {
    let mut state = lock(&ON_SIGNAL);
    if state.live {
        listen(&mut state, &[signal])?;
    }
    state.added.push((signal, hook));
    Ok(())
}

/// In the daemon, once the crate's own handlers are in place.
pub(super) fn begin() -> Result<()> {
    let mut state = lock(&ON_SIGNAL);
    state.live = true;
    let signals: Vec<i32> = state.added.iter().map(|(signal, _)| *signal).collect();
    if signals.is_empty() { Ok(()) } else { listen(&mut state, &signals) }
}

fn listen(state: &mut OnSignal, signals: &[i32]) -> Result<()> {
    let refused = |error| Error::io(ErrorKind::System, "cannot install handlers (hooks)", error);
    if let Some(arrivals) = &state.arrivals {
        return signals.iter().try_for_each(|signal| arrivals.add(*signal)).map_err(refused);
    }
    let (arrivals, waiting) = Arrivals::install(signals).map_err(refused)?;
    spawn("seamless-hooks", move || waiting.hand_over(run))?;
    state.arrivals = Some(arrivals);
    Ok(())
}

fn run(signal: i32) {
    let mut hooks = {
        let mut state = lock(&ON_SIGNAL);
        let added = std::mem::take(&mut state.added);
        state.hooks.extend(added);
        std::mem::take(&mut state.hooks)
    };
    for (_, hook) in hooks.iter_mut().filter(|(of, _)| *of == signal) {
        if catch_unwind(AssertUnwindSafe(hook)).is_err() {
            note!(
                Error,
                "stage=hooks daemon={} hook=on_signal signal={signal} panic=true",
                process::own_pid()
            );
        }
    }
    lock(&ON_SIGNAL).hooks = hooks;
}
