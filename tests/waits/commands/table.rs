//! The README's tables of what each command does.

use std::{env, fs, ops::Range, path::PathBuf};

use seamless_testing::supervisor::Supervisor;

use super::{COMMANDS, Command, Stage};

/// A folder for the results, from which the README is then written: see `scripts/table`.
const RESULTS: &str = "SEAMLESS_TEST_TABLE";
const END: &str = "<!-- /commands -->";

/// Compares a result with the README, or notes it.
#[track_caller]
pub(super) fn check(command: &Command, stage: Stage, seen: &str) {
    if let Some(results) = results() {
        return fs::write(results.join(file_name(command, stage)), seen).expect("a result");
    }
    let (label, column) = (label(command), stage.name());
    let readme = readme();
    let rows = parse(&readme[place(&readme, command.kind)]);
    let header = rows.first().expect("a header");
    let column = header.iter().position(|name| name == column);
    let row = rows.iter().find(|row| row[0] == label);
    let told = column.zip(row).and_then(|(column, row)| row.get(column));
    let told = told.unwrap_or_else(|| panic!("the README has no cell for {label} {stage:?}"));
    assert_eq!(seen, told, "{label}, {}: seen, and told by the README", stage.name());
}

/// Writes the tables where there are results; then each cell has its test and is explained.
#[test]
fn the_tables_of_the_readme_are_complete() {
    if let Some(results) = results() {
        let mut text = readme();
        for kind in Supervisor::ALL {
            let seen = |command: &Command, stage| {
                let name = file_name(command, stage);
                fs::read_to_string(results.join(&name)).unwrap_or_else(|_| panic!("no {name:?}"))
            };
            text.replace_range(place(&text, kind), &table(kind, seen));
        }
        fs::write(path(), text).expect("README.md");
    }
    let readme = readme();
    for kind in Supervisor::ALL {
        let block = &readme[place(&readme, kind)];
        let rows = parse(block);
        let told = |command: &Command, stage: Stage| {
            let row = rows.iter().find(|row| row[0] == label(command));
            let row = row.unwrap_or_else(|| panic!("no row for {}", label(command)));
            let column = Stage::ALL.iter().position(|one| *one == stage).expect("it is one of all");
            let words = row[column + 1].clone();
            let explained = format!("| **{words}** | ");
            assert!(readme.contains(&explained), "{words:?} is not explained");
            words
        };
        // No other row, no other column, in this order, aligned.
        assert_eq!(block, table(kind, told), "{kind:?}");
    }
}

fn results() -> Option<PathBuf> {
    env::var_os(RESULTS).map(PathBuf::from)
}

fn path() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("README.md")
}

fn readme() -> String {
    fs::read_to_string(path()).expect("README.md")
}

fn file_name(command: &Command, stage: Stage) -> String {
    format!("{:?} {} {stage:?}", command.kind, command.word)
}

fn label(command: &Command) -> String {
    let program = match command.kind {
        Supervisor::Daemontools => "svc",
        Supervisor::Runit => "sv",
    };
    format!("`{program} {}`", command.word)
}

/// Between the markers.
fn place(readme: &str, kind: Supervisor) -> Range<usize> {
    let marker = format!("<!-- commands:{} -->\n", format!("{kind:?}").to_lowercase());
    let (before, rest) = readme.split_once(&marker).unwrap_or_else(|| panic!("no {marker:?}"));
    let length = rest.find(END).unwrap_or_else(|| panic!("no {END:?} behind {marker:?}"));
    let start = before.len() + marker.len();
    start..start + length
}

/// The rows of a table, its header first.
fn parse(table: &str) -> Vec<Vec<String>> {
    let rows = table.lines().filter(|line| line.starts_with('|') && !line.starts_with("| --"));
    rows.map(|row| {
        let row = row.trim_matches('|');
        row.split('|').map(|cell| cell.trim().to_owned()).collect()
    })
    .collect()
}

fn table(kind: Supervisor, cell: impl Fn(&Command, Stage) -> String) -> String {
    let mut rows = vec![vec![String::new()]];
    rows[0].extend(Stage::ALL.map(|stage| stage.name().to_owned()));
    for command in COMMANDS.iter().filter(|command| command.kind == kind) {
        let mut row = vec![label(command)];
        row.extend(command.stages.iter().map(|stage| cell(command, *stage)));
        rows.push(row);
    }
    let widths: Vec<usize> = (0..rows[0].len())
        .map(|column| rows.iter().map(|row| row[column].len()).max().unwrap_or_default())
        .collect();
    rows.insert(1, widths.iter().map(|width| "-".repeat(*width)).collect());
    let line = |row: Vec<String>| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!(" {cell:width$} |"));
        format!("|{}\n", cells.collect::<String>())
    };
    rows.into_iter().map(line).collect()
}
