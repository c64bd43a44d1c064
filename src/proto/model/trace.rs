//! What happened on the way, one line for each thing that a process did or was told.

use std::cell::RefCell;

thread_local! {
    static LINES: RefCell<Option<Vec<String>>> = const { RefCell::new(None) };
}

/// Adds a line, if somebody listens: a walk over millions of states formats nothing.
pub(super) fn say(line: impl FnOnce() -> String) {
    LINES.with_borrow_mut(|lines| {
        if let Some(lines) = lines {
            lines.push(line());
        }
    });
}

/// Runs something and returns the lines it said.
pub(super) fn listen(run: impl FnOnce()) -> Vec<String> {
    LINES.set(Some(Vec::new()));
    run();
    LINES.take().unwrap_or_default()
}
