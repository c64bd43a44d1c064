//! A way through the model as a person reads it: one line for each thing that a process did or was
//! told, numbered by step.

use super::Protocol;
use super::steps::Action;
use super::world::World;
use stateright::Model;
use std::cell::RefCell;
use std::fmt::Write as _;

thread_local! {
    static LINES: RefCell<Option<Vec<String>>> = const { RefCell::new(None) };
}

/// Adds a line, if somebody listens: a walk over millions of states formats nothing.
pub(crate) fn say(line: impl FnOnce() -> String) {
    LINES.with_borrow_mut(|lines| {
        if let Some(lines) = lines {
            lines.push(line());
        }
    });
}

/// Runs something that only might happen: nothing of it is said.
pub(crate) fn silently<T>(run: impl FnOnce() -> T) -> T {
    let lines = LINES.take();
    let result = run();
    LINES.set(lines);
    result
}

/// Runs something and returns the lines it said.
fn listen(run: impl FnOnce()) -> Vec<String> {
    LINES.set(Some(Vec::new()));
    run();
    LINES.take().unwrap_or_default()
}

/// A way to a fault, and which.
pub(crate) fn render(protocol: &Protocol, way: &[Action]) -> String {
    let mut world = World::new(&protocol.setting);
    let mut text = String::new();
    for (at, action) in way.iter().enumerate() {
        let said = listen(|| {
            world = protocol.next_state(&world, *action).expect("a step of the way");
        });
        for (line, said) in said.iter().enumerate() {
            let number = if line == 0 { (at + 1).to_string() } else { String::new() };
            _ = writeln!(text, "{number:>3} {said}");
        }
    }
    let fault = world.fault.expect("the way leads to a fault");
    _ = writeln!(text, "==> {:?} is not kept: {}", fault.promise, fault.what);
    text
}
