//! `seamless list`.

use crate::status::Report;
use crate::{ANSWER, End, complain, say, say_json, words};
use seamless::client::{Look, NoAnswer, Service, Status};
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

/// How many services are asked at a time: one that hangs takes the whole time limit.
const AT_A_TIME: usize = 32;

/// What the command line asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ask {
    pub(crate) folders: Vec<PathBuf>,
    pub(crate) json: bool,
    pub(crate) timeout: Option<Duration>,
}

pub(crate) fn run(ask: &Ask) -> End {
    let found = Service::find(&ask.folders);
    let limit = ask.timeout.unwrap_or(ANSWER);
    let mut seen: Vec<(Look, Result<Status, NoAnswer>)> = Vec::new();
    for some in found.services.chunks(AT_A_TIME) {
        thread::scope(|scope| {
            let asked: Vec<_> =
                some.iter().map(|service| scope.spawn(move || service.status(limit))).collect();
            seen.extend(asked.into_iter().filter_map(|one| one.join().ok()));
        });
    }
    let reports: Vec<Report<'_>> =
        seen.iter().map(|(look, status)| Report::of(look, status.clone())).collect();
    if ask.json {
        say_json(&reports);
    } else {
        print(&reports);
    }
    found.notes.iter().for_each(complain);
    // What is worse wins.
    let ends = reports.iter().map(Report::end);
    ends.max_by_key(|end| (*end == End::Error, *end as u8)).unwrap_or(End::Done)
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
