//! Tables of the guide (`src/guide/supervisors.md`) that tests write and check: what a test has seen must stand in its cell.
//!
//! Where `SEAMLESS_TEST_TABLE` names a folder, the cells are collected there, and [`check_table`]
//! then writes the table anew: see `scripts/table`.

use std::{env, fs, ops::Range, path::PathBuf};

use crate::bin;

const RESULTS: &str = "SEAMLESS_TEST_TABLE";

/// A table between `<!-- NAME -->` and `<!-- /KIND -->`, where NAME is `KIND` or `KIND:…`.
#[derive(Clone, Debug)]
pub struct Table {
    pub name: String,
    /// The labels of its rows.
    pub rows: Vec<String>,
    /// The headers of its columns, but for the first, which is empty.
    pub columns: Vec<String>,
}

/// Compares what was seen with the guide, or notes it.
#[track_caller]
pub fn check_cell(table: &Table, row: &str, column: &str, seen: &str) {
    if let Some(results) = results() {
        return fs::write(results.join(file_name(table, row, column)), seen).expect("a result");
    }
    let told = cell(&page(), table, row, column);
    let told = told.unwrap_or_else(|| panic!("the guide has no cell for {row}, {column}"));
    assert_eq!(seen, told, "{row}, {column}: seen, and told by the guide");
}

/// Writes the table where there are results; then it has these rows and columns and no others, is
/// aligned, and each cell is explained by a line `| **words** | …`.
#[track_caller]
pub fn check_table(table: &Table) {
    if let Some(results) = results() {
        let seen = |row: &str, column: &str| {
            let name = file_name(table, row, column);
            fs::read_to_string(results.join(&name)).unwrap_or_else(|_| panic!("no {name:?}"))
        };
        let mut text = page();
        text.replace_range(place(&text, table), &format(table, seen));
        fs::write(path(), text).expect("the page");
    }
    let page = page();
    let told = |row: &str, column: &str| {
        let words = cell(&page, table, row, column);
        let words = words.unwrap_or_else(|| panic!("no cell for {row}, {column}"));
        let explained = format!("| **{words}** | ");
        assert!(page.contains(&explained), "{words:?} is not explained");
        words
    };
    assert_eq!(&page[place(&page, table)], format(table, told), "{}", table.name);
}

fn results() -> Option<PathBuf> {
    env::var_os(RESULTS).map(PathBuf::from)
}

fn path() -> PathBuf {
    bin::root().join("src/guide/supervisors.md")
}

fn page() -> String {
    fs::read_to_string(path()).expect("the page")
}

fn file_name(table: &Table, row: &str, column: &str) -> String {
    format!("{} {row} {column}", table.name).replace('/', "_")
}

/// Between the markers.
fn place(page: &str, table: &Table) -> Range<usize> {
    let name = &table.name;
    let (start, end) = (format!("<!-- {name} -->\n"), {
        let kind = name.split(':').next().unwrap_or(name);
        format!("<!-- /{kind} -->")
    });
    let (before, rest) = page.split_once(&start).unwrap_or_else(|| panic!("no {start:?}"));
    let length = rest.find(&end).unwrap_or_else(|| panic!("no {end:?} behind {start:?}"));
    let start = before.len() + start.len();
    start..start + length
}

fn cell(page: &str, table: &Table, row: &str, column: &str) -> Option<String> {
    let rows = parse(&page[place(page, table)]);
    let column = rows.first()?.iter().position(|name| name == column)?;
    rows.iter().find(|cells| cells[0] == row)?.get(column).cloned()
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

fn format(table: &Table, cell: impl Fn(&str, &str) -> String) -> String {
    let mut rows = vec![vec![String::new()]];
    rows[0].extend(table.columns.iter().cloned());
    for row in &table.rows {
        let mut cells = vec![row.clone()];
        cells.extend(table.columns.iter().map(|column| cell(row, column)));
        rows.push(cells);
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
