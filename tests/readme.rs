//! What the README shows is what the repository has.

use std::fs;

fn read(path: &str) -> String {
    let path = format!("{}/{path}", env!("CARGO_MANIFEST_DIR"));
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The text of the code block that opens with this line.
fn block<'a>(text: &'a str, opening: &str) -> &'a str {
    let (_, rest) = text.split_once(opening).unwrap_or_else(|| panic!("no {opening:?}"));
    let (block, _) = rest.split_once("```").expect("the block's end");
    block
}

#[test]
fn the_program_is_the_example_hello() {
    assert_eq!(block(&read("README.md"), "```rust,no_run\n"), read("examples/hello.rs"));
}

#[test]
fn the_protocol_is_told_as_in_the_crate() {
    let told: String = block(&read("src/lib.rs"), "//! ```text\n")
        .lines()
        .filter_map(|line| line.strip_prefix("//!"))
        .map(|line| format!("{}\n", line.strip_prefix(' ').unwrap_or(line)))
        .collect();
    assert!(told.starts_with("supervisor -> launcher -> daemon"));
    let readme = read("README.md");
    let (_, protocol) = readme.split_once("## The protocol").expect("the protocol");
    assert_eq!(block(protocol, "```text\n").trim_end(), told.trim_end());
    let guide = read("src/guide/protocol.md");
    assert_eq!(block(&guide, "```text\n").trim_end(), told.trim_end());
}

#[test]
fn every_link_leads_to_a_file() {
    let readme = read("README.md");
    for link in readme.split("](").skip(1) {
        let (path, _) = link.split_once([')', '#']).expect("the link's end");
        let file = format!("{}/{path}", env!("CARGO_MANIFEST_DIR"));
        assert!(path.starts_with("https:") || fs::exists(&file).expect("a path"), "{path}");
    }
}

#[test]
fn every_promise_is_listed() {
    let readme = read("README.md");
    for number in 1..=10 {
        assert!(readme.contains(&format!("| P{number} | ")), "P{number}");
    }
}

/// A script that builds with a feature that has gone would fail before its first line of output.
#[test]
fn scripts_name_features_that_there_are() {
    let manifest = read("Cargo.toml");
    let (_, features) = manifest.split_once("[features]\n").expect("the features");
    let (features, _) = features.split_once("\n[").expect("their end");
    let there: Vec<&str> =
        features.lines().filter_map(|line| line.split_once(" =")).map(|(name, _)| name).collect();
    let scripts = format!("{}/scripts", env!("CARGO_MANIFEST_DIR"));
    let mut named = 0;
    for script in fs::read_dir(scripts).expect("scripts") {
        let path = script.expect("an entry").path();
        let text = fs::read_to_string(&path).expect("a script");
        for list in text.split("--features ").skip(1) {
            let list = list.split([' ', '\n', '}']).next().expect("the list");
            for name in list.split(',').filter(|name| !name.contains('$')) {
                assert!(there.contains(&name), "{path:?}: {name}");
                named += 1;
            }
        }
    }
    assert!(named >= 3, "{named}");
}
