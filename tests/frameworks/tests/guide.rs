//! The guide's page about frameworks shows the programs that are tested.

use std::{fs, path::Path};

const START: &str = "<!-- src/bin/";
const CODE: &str = "```rust,ignore\n";

/// A program without its first comment.
fn program(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/bin").join(name);
    let source = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path:?}: {error}"));
    let code = source.split_once("\n\n").expect("a comment, and then the code").1;
    code.to_owned()
}

#[test]
fn the_page_shows_the_programs_that_are_tested() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../src/guide/frameworks.md");
    let stored = fs::read_to_string(&path).expect("the page");
    let mut page = String::new();
    let mut rest = stored.as_str();
    let mut shown = Vec::new();
    while let Some(at) = rest.find(START) {
        let (before, from) = rest.split_at(at);
        let (comment, after) = from.split_once('\n').expect("a line");
        let name = comment.trim_start_matches(START).trim_end_matches(" -->");
        let after = after.strip_prefix(CODE).expect("a block of code behind the name");
        let (_, after) = after.split_once("```\n").expect("the end of the block");
        let code = program(name);
        page += &format!("{before}{comment}\n{CODE}{code}```\n");
        shown.push(name.to_owned());
        rest = after;
    }
    page += rest;
    if std::env::var_os("SEAMLESS_BLESS").is_some() {
        fs::write(&path, &page).expect("the page can be written");
    }
    let stored = fs::read_to_string(&path).expect("the page");
    assert!(
        stored == page,
        "src/guide/frameworks.md is stale: run this test with SEAMLESS_BLESS=1"
    );
    let bins = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/bin");
    let mut all: Vec<_> = fs::read_dir(bins)
        .expect("the programs")
        .map(|entry| entry.expect("a program").file_name().into_string().expect("a name"))
        .collect();
    all.sort();
    shown.sort();
    assert_eq!(shown, all, "each program is shown once");
}
