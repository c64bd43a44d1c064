//! What SECURITY.md says is what tests hold.

use std::{collections::BTreeSet, fs};

fn read(path: &str) -> String {
    let path = format!("{}/{path}", env!("CARGO_MANIFEST_DIR"));
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The tests named in a text: `FILE::TEST`.
fn named(text: &str) -> BTreeSet<(&str, &str)> {
    let quoted = text.split('`').skip(1).step_by(2);
    quoted.filter_map(|word| word.split_once(".rs::")).collect()
}

#[test]
fn every_test_that_is_named_exists() {
    for (file, test) in named(&read("SECURITY.md")) {
        let text = read(&format!("{file}.rs"));
        // A scenario that runs under each supervisor takes arguments.
        assert!(text.contains(&format!("fn {test}(")), "{file}.rs has no {test}");
    }
}

#[test]
fn every_line_has_its_test() {
    let text = read("SECURITY.md");
    let (_, lines) = text.split_once("## Who is trusted").expect("the lines");
    for line in lines.split("\n- ").skip(1) {
        assert!(!named(line).is_empty(), "no test: {line}");
    }
}

#[test]
fn every_test_of_hostile_users_is_named() {
    let (text, tests) = (read("SECURITY.md"), read("tests/faults/hostile.rs"));
    let named = named(&text);
    for test in tests.split("#[test]\nfn ").skip(1) {
        let (test, _) = test.split_once('(').expect("a function");
        assert!(named.contains(&("tests/faults/hostile", test)), "{test} is not named");
    }
}
