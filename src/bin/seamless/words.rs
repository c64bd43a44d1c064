//! Words as people write and read them.

use seamless::client::Generation;
use std::time::Duration;

/// No line is longer.
const LINE_MAX: usize = 4096;

/// What came from somebody else, in one line: nothing in it moves a terminal's cursor.
pub(super) fn line(text: &str) -> String {
    let mut line = String::new();
    for char in text.chars().map(|char| if char.is_control() { ' ' } else { char }) {
        if line.len() + char.len_utf8() > LINE_MAX {
            break;
        }
        line.push(char);
    }
    line
}

/// `60s`, `500ms`, `2m`, `1h`, or plain seconds.
pub(super) fn parse_time(text: &str) -> Result<Duration, String> {
    let wrong = || format!("no time: {text:?} (like 60s, 500ms or 2m)");
    let end = text.find(|char: char| !char.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let ms = match unit {
        "ms" => Some(number),
        "s" | "" => number.checked_mul(1000),
        "m" | "min" => number.checked_mul(60 * 1000),
        "h" => number.checked_mul(60 * 60 * 1000),
        _ => None,
    };
    ms.map(Duration::from_millis).ok_or_else(wrong)
}

/// For programs: no more digits than mean something.
pub(super) fn seconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 1000.0).round() / 1000.0
}

/// The two largest units.
pub(super) fn time(time: Duration) -> String {
    let seconds = time.as_secs();
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match (days, hours, minutes) {
        (0, 0, 0) if seconds < 10 => format!("{:.1} s", time.as_secs_f64()),
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) => format!("{minutes} min {} s", seconds % 60),
        (0, _, _) => format!("{hours} h {} min", minutes % 60),
        (_, _, _) => format!("{days} d {} h", hours % 24),
    }
}

pub(super) fn generation(one: &Generation) -> String {
    format!("generation {} (daemon {})", one.number(), one.daemon())
}

/// `1 connection`, `2 connections`.
pub(super) fn count(number: u64, what: &str) -> String {
    if number == 1 { format!("1 {what}") } else { format!("{number} {what}s") }
}
