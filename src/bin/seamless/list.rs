//! `seamless list`.

use crate::services;
use crate::status::Report;
use crate::{ANSWER, End, complain, say, say_json, words};
use seamless::client::Service;
use std::path::PathBuf;
use std::time::Duration;

/// What the command line asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ask {
    pub(crate) folders: Vec<PathBuf>,
    pub(crate) json: bool,
    pub(crate) timeout: Option<Duration>,
}

pub(crate) fn run(ask: &Ask) -> End {
    let found = Service::find(&ask.folders);
    let seen = services::see(&found.services, ask.timeout.unwrap_or(ANSWER), false);
    let reports: Vec<Report<'_>> = seen.iter().map(Report::of).collect();
    if ask.json {
        say_json(&reports);
    } else {
        print(&reports);
    }
    found.notes.iter().for_each(complain);
    services::worst(reports.iter().map(Report::end))
}

fn print(reports: &[Report<'_>]) {
    let head = ["PID FILE", "STATE", "GENERATION", "DAEMON", "AGE", "SUPERVISOR", "DRAINING"];
    let mut rows = vec![head.map(str::to_owned)];
    rows.extend(reports.iter().map(Report::row));
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max();
    let widths: Vec<usize> = (0..head.len()).map(|column| width(column).unwrap_or(0)).collect();
    for row in &rows {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        say(words::line(cells.collect::<Vec<_>>().join("  ").trim_end()));
    }
}
