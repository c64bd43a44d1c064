//! `seamless check`.

use crate::words::{self, line};
use crate::{Ask, End, complain, say, say_json};
use seamless::client::{self, Severity};
use serde::Serialize;
use std::fmt::Write as _;
use std::path::Path;

/// What `seamless check --json` prints.
#[derive(Debug, Serialize)]
struct Report<'a> {
    pid_file: &'a Path,
    /// Nothing would go wrong.
    ok: bool,
    /// A generation runs.
    running: bool,
    /// Whom it was checked for.
    uid: u32,
    user: Option<&'a str>,
    findings: Vec<Finding<'a>>,
    /// What could not be looked at, and why.
    unknown: &'a [String],
}

#[derive(Debug, Serialize)]
struct Finding<'a> {
    /// `problem` or `note`.
    severity: &'static str,
    about: &'static str,
    says: &'a str,
    advice: &'a str,
}

pub(crate) fn run(ask: &Ask) -> End {
    let mut check = client::Check::of(&ask.service);
    if let Some(user) = &ask.user {
        check = check.user(user);
    }
    if let Some(folder) = &ask.folder {
        check = check.service_folder(folder);
    }
    if let Some(unit) = &ask.unit {
        check = check.unit(unit);
    }
    let found = match check.run() {
        Ok(found) => found,
        Err(why) => {
            complain(why);
            return End::Error;
        }
    };
    let report = Report::of(ask.service.pid_file(), &found);
    if ask.json {
        say_json(&report);
    } else {
        say(report.text());
    }
    if report.ok { End::Done } else { End::Error }
}

impl Report<'_> {
    fn of<'a>(pid_file: &'a Path, found: &'a client::Report) -> Report<'a> {
        let finding = |one: &'a client::Finding| Finding {
            severity: if one.severity == Severity::Problem { "problem" } else { "note" },
            about: one.about,
            says: &one.says,
            advice: &one.advice,
        };
        Report {
            pid_file,
            ok: found.is_ok(),
            running: found.running,
            uid: found.uid,
            user: found.user.as_deref(),
            findings: found.findings.iter().map(finding).collect(),
            unknown: &found.unknown,
        }
    }

    fn text(&self) -> String {
        let problems = self.findings.iter().filter(|one| one.severity == "problem").count();
        let user = self.user.map_or_else(|| format!("uid {}", self.uid), str::to_owned);
        let running = if self.running { "running" } else { "not running" };
        let path = self.pid_file.display();
        let what = match problems {
            0 => "nothing would go wrong".to_owned(),
            count => words::count(count as u64, "problem"),
        };
        let mut text = line(&format!("{path}: {what} ({running}, as {user})"));
        for Finding { severity, about, says, advice } in &self.findings {
            _ = write!(text, "\n{severity}: {about}: {}\n  {}", line(says), line(advice));
        }
        for what in self.unknown {
            _ = write!(text, "\nnot looked at: {}", line(what));
        }
        text
    }
}
