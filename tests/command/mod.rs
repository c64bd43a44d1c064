//! The program `seamless`: what it says of a service, compared with what the kernel and the
//! supervisor say, and what it brings about.

mod check;
mod counters;
mod many;
mod output;
mod restart;
mod shells;
mod status;
mod stop;

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
};

use seamless_testing::{LIMIT, bin, wait_for};
use serde_json::Value;

/// How a command has ended.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Said {
    /// What it printed as JSON.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    #[track_caller]
    pub(crate) fn assert(&self, code: i32, words: &[&str]) {
        let text = format!("{}{}", self.out, self.err);
        assert_eq!(self.code, code, "{text}");
        let missing: Vec<&&str> = words.iter().filter(|word| !text.contains(**word)).collect();
        assert!(missing.is_empty(), "{missing:?} in: {text}");
    }
}

pub(crate) fn seamless(verb: &str, pid_file: &Path, options: &[&str]) -> Said {
    run(Command::new(bin::support("seamless")).arg(verb).arg(pid_file).args(options))
}

pub(crate) fn run(command: &mut Command) -> Said {
    let output = command.stdin(Stdio::null()).output().expect("seamless");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    Said {
        code: output.status.code().expect("an exit code"),
        out: text(output.stdout),
        err: text(output.stderr),
    }
}

/// The counters of a service, as `status` shows them.
pub(crate) fn counters_of(pid_file: &Path) -> Value {
    status(pid_file)["counters"].clone()
}

fn status(pid_file: &Path) -> Value {
    seamless("status", pid_file, &["--json"]).json()
}

/// Waits until `status` says that.
#[track_caller]
fn wait_state(pid_file: &Path, state: &str) -> Value {
    let mut last = Value::Null;
    wait_for(format!("state {state}"), LIMIT, || {
        last = status(pid_file);
        (last["state"] == state).then(|| last.clone())
    })
}

/// Seconds since the boot.
pub(crate) fn uptime() -> f64 {
    let uptime = fs::read_to_string("/proc/uptime").expect("uptime");
    uptime.split(' ').next().expect("a number").parse().expect("a number")
}

/// The faults that its JSON lists, by what they are about.
#[track_caller]
pub(crate) fn problems(said: &Said) -> Vec<(String, String)> {
    let json = said.json();
    let findings = json["findings"].as_array().expect("a list");
    let problems = findings.iter().filter(|one| one["severity"] == "problem");
    let text = |one: &Value, name: &str| one[name].as_str().expect("a text").to_owned();
    let problems: Vec<_> = problems.map(|one| (text(one, "about"), text(one, "says"))).collect();
    assert_eq!(json["ok"], problems.is_empty(), "{json}");
    assert_eq!(said.code, i32::from(!problems.is_empty()), "{json}");
    problems
}
