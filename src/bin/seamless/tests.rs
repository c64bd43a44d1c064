use super::words::{count, line as one_line, parse_time, time};
use super::{End, Line, USAGE, Verb, parse};
use lexopt::Parser;
use std::path::Path;
use std::time::Duration;

fn line(arguments: &[&str]) -> Result<Line, String> {
    parse(Parser::from_args(arguments)).map_err(|error| error.to_string())
}

#[test]
fn each_command_line() {
    let Ok(Line::Ask(ask)) = line(&["restart", "web.pid", "--timeout", "2m"]) else {
        panic!("no command");
    };
    assert_eq!((ask.verb, ask.timeout), (Verb::Restart, Some(Duration::from_secs(120))));
    assert!(ask.service.pid_file().is_absolute());
    let Ok(Line::Ask(ask)) = line(&["check", "/web.pid", "--json", "--user=web", "--unit=web"])
    else {
        panic!("no command");
    };
    assert_eq!((ask.verb, ask.json, ask.user.as_deref()), (Verb::Check, true, Some("web")));
    assert_eq!((ask.unit.as_deref(), ask.service.pid_file()), (Some("web"), Path::new("/web.pid")));
    assert_eq!(line(&["status", "-h"]), Ok(Line::Help));
    assert_eq!(line(&["-V"]), Ok(Line::Version));
    for (wrong, words) in [
        (&[][..], "which command"),
        (&["web.pid"], "unknown command"),
        (&["status"], "which PID file"),
        (&["status", "/"], "which PID file"),
        (&["status", "a", "b"], "unexpected argument"),
        (&["restart", "a", "--json"], "--json"),
        (&["status", "a", "--force"], "--force"),
        (&["check", "a", "--timeout=1s"], "--timeout"),
        (&["stop", "a", "--user=web"], "--user"),
        (&["stop", "a", "--timeout=-1s"], "-1s"),
    ] {
        let error = line(wrong).expect_err(words);
        assert!(error.contains(words), "{wrong:?}: {error}");
    }
}

#[test]
fn each_exit_code_is_documented() {
    for end in [End::Error, End::NobodyServes, End::Stays, End::NotYet, End::Done] {
        assert!(USAGE.contains(&format!("\n         {}  ", end as u8)), "{end:?}");
    }
    assert!(USAGE.contains(&format!("Each: {} ", End::Usage as u8)));
    assert!(USAGE.lines().all(|line| line.chars().count() <= 100), "too wide");
}

#[test]
fn times_as_people_write_and_read_them() {
    for (text, expected) in [
        ("60s", Some(60_000)),
        ("60", Some(60_000)),
        ("500ms", Some(500)),
        ("2m", Some(120_000)),
        ("2min", Some(120_000)),
        ("1h", Some(3_600_000)),
        ("", None),
        ("s", None),
        ("1.5s", None),
        ("1 s", None),
        ("1d", None),
        ("99999999999999999999s", None),
        ("18446744073709551615h", None),
    ] {
        assert_eq!(parse_time(text).ok(), expected.map(Duration::from_millis), "{text}");
    }
    for (ms, expected) in [
        (400, "0.4 s"),
        (9_999, "10.0 s"),
        (10_000, "10 s"),
        (59_999, "59 s"),
        (300_000, "5 min 0 s"),
        (7_380_000, "2 h 3 min"),
        (180_000_000, "2 d 2 h"),
    ] {
        assert_eq!(time(Duration::from_millis(ms)), expected);
    }
    assert_eq!((count(1, "start"), count(2, "start")), ("1 start".into(), "2 starts".into()));
}

#[test]
fn words_of_others_are_harmless_on_a_terminal() {
    assert_eq!(one_line("a\u{1b}[2J\nb"), "a [2J b");
}
