//! The crate's log lines: target `seamless`, one line a stage, fields in a fixed order.

/// Logs at a level, and survives a logger that panics: `println!` does, when the supervisor has
/// closed the pipe behind standard output.
pub(super) fn write(level: log::Level, text: std::fmt::Arguments<'_>) {
    _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        log::log!(target: "seamless", level, "{text}");
    }));
}

macro_rules! note {
    ($level:ident, $($text:tt)+) => {
        $crate::driver::log::write(::log::Level::$level, ::std::format_args!($($text)+))
    };
}
pub(super) use note;

/// An optional number in a log line: `-` where there is none.
pub(super) struct Maybe<T>(pub(super) Option<T>);

impl<T: std::fmt::Display> std::fmt::Display for Maybe<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.0 {
            Some(value) => value.fmt(f),
            None => f.write_str("-"),
        }
    }
}
