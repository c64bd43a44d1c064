//! The crate's log lines: target `seamless`, one line an event, fields in a fixed order. Each field is
//! also a key-value pair of the record, so that a logger that writes JSON needs to parse no text.
//!
//! All events are listed in [`launcher`], [`daemon`], [`phase`], [`probation`], [`keeper`], [`passing`],
//! [`counters`] and [`sockets`]. The test in `table.rs` makes the page of the guide from these lists.

pub(in crate::driver) mod counters;
pub(in crate::driver) mod daemon;
mod event;
pub(in crate::driver) mod keeper;
pub(in crate::driver) mod launcher;
pub(in crate::driver) mod passing;
pub(in crate::driver) mod phase;
pub(in crate::driver) mod probation;
pub(in crate::driver) mod sockets;
#[cfg(test)]
mod table;

use event::{Field, Line, events};
use log::kv::{self, Key, VisitSource};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

/// Logs an event, and survives a logger that panics: `println!` does, when the supervisor has closed
/// the pipe behind standard output.
pub(in crate::driver) fn write(event: impl Line) {
    write_line(&event);
}

fn write_line(event: &dyn Line) {
    let (level, line) = (event.level(), Shown(event));
    if level > log::STATIC_MAX_LEVEL || level > log::max_level() {
        return;
    }
    _ = catch_unwind(AssertUnwindSafe(|| {
        log::logger().log(
            &log::Record::builder()
                .level(level)
                .target("seamless")
                .module_path_static(Some(module_path!()))
                .file_static(Some(file!()))
                .line(Some(line!()))
                .key_values(&line)
                .args(format_args!("{line}"))
                .build(),
        );
    }));
}

/// When something was logged that may happen often: once a minute at most.
#[derive(Default)]
pub(crate) struct Seldom(Option<Instant>);

impl Seldom {
    /// Is it to be logged? Then it counts as logged.
    pub(crate) fn is_due(&mut self) -> bool {
        let is_due = self.0.is_none_or(|last| last.elapsed() >= Duration::from_secs(60));
        if is_due {
            self.0 = Some(Instant::now());
        }
        is_due
    }
}

/// How long ago that was, if it was.
pub(in crate::driver) fn elapsed(since: Option<Instant>) -> Option<Duration> {
    since.map(|since| since.elapsed())
}

/// An event as its text and as its key-value pairs.
struct Shown<'a>(&'a dyn Line);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "stage={}", self.0.stage())?;
        let mut written = Ok(());
        self.0.fields(&mut |name, field| {
            if written.is_ok() && !matches!(field, Field::Absent) {
                written = write!(f, " {name}={field}");
            }
        });
        written
    }
}

impl kv::Source for Shown<'_> {
    fn visit<'kvs>(&'kvs self, visitor: &mut dyn VisitSource<'kvs>) -> Result<(), kv::Error> {
        visitor.visit_pair(Key::from_str("stage"), self.0.stage().into())?;
        let mut visited = Ok(());
        self.0.fields(&mut |name, field| {
            if visited.is_ok() && !matches!(field, Field::Absent) {
                visited = visitor.visit_pair(Key::from_str(name), field.value());
            }
        });
        visited
    }
}
