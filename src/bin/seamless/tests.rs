use super::openmetrics::Format;
use super::table::{COMMANDS, EVERYWHERE, Value};
use super::words::{count, line as one_line, parse_time, time};
use super::{End, Line, Until, Verb, completions, manual, parse};
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
    assert_eq!((ask.until, ask.json), (Until::Started, false));
    let Ok(Line::Ask(ask)) = line(&["restart", "web.pid", "--wait", "committed", "--json"]) else {
        panic!("no command");
    };
    assert_eq!((ask.until, ask.json), (Until::Committed, true));
    let Ok(Line::Ask(ask)) = line(&["restart", "web.pid"]) else { panic!("no command") };
    assert!(ask.service.pid_file().is_absolute());
    let Ok(Line::Ask(ask)) = line(&["check", "/web.pid", "--json", "--user=web", "--unit=web"])
    else {
        panic!("no command");
    };
    assert_eq!((ask.verb, ask.json, ask.user.as_deref()), (Verb::Check, true, Some("web")));
    assert_eq!((ask.unit.as_deref(), ask.service.pid_file()), (Some("web"), Path::new("/web.pid")));
    let Ok(Line::List(ask)) = line(&["list", "--json", "/run", "/srv", "--timeout=1s"]) else {
        panic!("no list");
    };
    assert_eq!((ask.folders.len(), ask.json, ask.timeout), (2, true, Some(Duration::from_secs(1))));
    assert!(matches!(line(&["list"]), Ok(Line::List(ask)) if ask.folders.is_empty() && !ask.json));
    let Ok(Line::Status(ask)) = line(&["status", "a.pid", "/run/*/*.pid", "--prometheus"]) else {
        panic!("no status");
    };
    assert_eq!((ask.services.len(), ask.json, ask.metrics), (2, false, Some(Format::Prometheus)));
    assert_eq!(line(&["status", "-h"]), Ok(Line::Print(manual::help())));
    assert_eq!(line(&["-V"]), Ok(Line::Print(format!("seamless {}", env!("CARGO_PKG_VERSION")))));
    for (wrong, words) in [
        (&[][..], "which command"),
        (&["web.pid"], "unknown command"),
        (&["status"], "which PID file"),
        (&["status", ""], "which PID file"),
        (&["status", "a", ""], "which PID file"),
        (&["restart", "/"], "which PID file"),
        (&["restart", "a", "b"], "unexpected argument"),
        (&["stop", "a", "--json"], "--json"),
        (&["restart", "a", "--wait=soon"], "started or committed"),
        (&["stop", "a", "--wait=committed"], "--wait"),
        (&["check", "a", "--openmetrics"], "--openmetrics"),
        (&["status", "a", "--openmetrics", "--json"], "not two"),
        (&["status", "a", "--prometheus", "--json"], "not two"),
        (&["status", "a", "--prometheus", "--openmetrics"], "--openmetrics"),
        (&["status", "a", "--force"], "--force"),
        (&["check", "a", "--timeout=1s"], "--timeout"),
        (&["--timeout=1s", "check", "a"], "--timeout"),
        (&["stop", "a", "--user=web"], "--user"),
        (&["watch", "a", "b"], "unexpected argument"),
        (&["watch", "a", "--json"], "--json"),
        (&["list", "--force"], "--force"),
        (&["stop", "a", "--timeout=-1s"], "-1s"),
    ] {
        let error = line(wrong).expect_err(words);
        assert!(error.contains(words), "{wrong:?}: {error}");
    }
}

#[test]
fn each_exit_code_is_documented() {
    let documented = || COMMANDS.iter().flat_map(|command| command.ends).map(|(code, _)| *code);
    for end in [End::Error, End::NobodyServes, End::Stays, End::NotYet, End::Done] {
        assert!(documented().any(|code| code == end as u8), "{end:?}");
    }
    assert_eq!(EVERYWHERE.map(|(code, _)| code), [End::Error as u8, End::Usage as u8]);
}

/// The help is stored as well, so that a change of it is seen. With `SEAMLESS_BLESS=1` it is written.
#[test]
fn the_help_is_as_stored_and_fits_a_terminal() {
    let help = manual::help();
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/src/bin/seamless/usage.txt");
    if std::env::var_os("SEAMLESS_BLESS").is_some() {
        std::fs::write(path, &help).expect("usage.txt");
    }
    let stored = std::fs::read_to_string(path).expect("usage.txt");
    assert_eq!(help, stored, "run this test with SEAMLESS_BLESS=1");
    assert!(help.lines().all(|line| line.chars().count() <= 100), "too wide");
}

/// Help, manual page and completions are made from one table: here it is compared with the parser.
#[test]
fn each_command_takes_the_options_that_its_help_names_and_no_others() {
    let flags: Vec<_> = COMMANDS.iter().flat_map(|command| command.options).collect();
    for command in &COMMANDS {
        for flag in &flags {
            let option = format!("--{}", flag.name);
            let mut arguments = vec![command.name, "web.pid", &option];
            if let Some(value) = flag.value {
                arguments.push(match value {
                    Value::Time => "2s",
                    Value::Until => "committed",
                    Value::User | Value::Folder | Value::Unit => "web",
                });
            }
            let taken = line(&arguments).is_ok();
            let told = manual::takes(command, flag.name);
            assert_eq!(taken, told, "{arguments:?}");
        }
    }
}

#[test]
fn manual_and_completions_name_each_command_and_option() {
    let page = manual::page();
    for command in &COMMANDS {
        assert!(page.contains(&format!("\n.SS {}\n", command.name)), "{}", command.name);
        for flag in command.options {
            assert!(page.contains(&format!(".TP\n\\fB\\-\\-{}\\fR", flag.name)), "{}", flag.name);
        }
    }
    for shell in ["bash", "zsh", "fish"] {
        let Ok(Line::Print(script)) = line(&["--completions", shell]) else {
            panic!("no completions for {shell}");
        };
        for command in &COMMANDS {
            assert!(script.contains(command.name), "{shell}: {}", command.name);
            for flag in command.options {
                assert!(script.contains(flag.name), "{shell}: {}", flag.name);
            }
        }
    }
    assert_eq!(completions::of("tcsh"), None);
    assert_eq!(line(&["--man"]), Ok(Line::Print(manual::page())));
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
