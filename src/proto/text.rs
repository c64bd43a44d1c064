//! What all texts of ours have in common: a version, PIDs, and why a text is refused.
//!
//! # Versions
//!
//! Generations of different versions of this crate meet in the record, and a launcher may start a
//! daemon of another version. Both the record and the messages begin with a version. Fields that
//! a reader does not know are kept (record) or ignored (messages), and messages of an unknown name
//! are ignored, so fields and messages can be added within a version. A version above
//! [`VERSION`] is refused.

use std::fmt::{Display, Write as _};
use std::str::FromStr;

/// The version of the record and of the channel.
pub(crate) const VERSION: u32 = 1;

/// Why a text of ours cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// A later version of this crate wrote it.
    Version(u32),
    /// This crate did not write it.
    Foreign,
}

/// The PID in a PID file: decimal, with or without a newline (the Go original writes none).
/// `None` for 0, 1, negative numbers and anything that is no PID.
pub(crate) fn parse_pid(text: &[u8]) -> Option<i32> {
    let text = text.strip_suffix(b"\n").unwrap_or(text);
    if text.len() > 10 || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let pid = std::str::from_utf8(text).ok()?.parse().ok()?;
    (pid > 1).then_some(pid)
}

/// A number of digits only: no sign.
pub(crate) fn digits<T: FromStr>(text: &str) -> Option<T> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

/// Writes a field behind the others, if there is a value.
pub(crate) fn put(text: &mut String, key: &str, value: Option<impl Display>) {
    if let Some(value) = value {
        _ = write!(text, " {key}={value}");
    }
}

pub(crate) fn format_pid(pid: i32) -> String {
    format!("{pid}\n")
}

#[cfg(test)]
mod tests;
