//! What the README and the guide show is what the repository has.

use std::{fs, path::Path};

fn path(path: &str) -> String {
    format!("{}/{path}", env!("CARGO_MANIFEST_DIR"))
}

fn read(file: &str) -> String {
    let file = path(file);
    fs::read_to_string(&file).unwrap_or_else(|error| panic!("{file}: {error}"))
}

/// The text of the code block that opens with this line.
fn block<'a>(text: &'a str, opening: &str) -> &'a str {
    let (_, rest) = text.split_once(opening).unwrap_or_else(|| panic!("no {opening:?}"));
    let (block, _) = rest.split_once("```").expect("the block's end");
    block
}

/// The prose of a module: its lines `//!`, without these two signs and the space after them.
fn prose(file: &str) -> String {
    read(file)
        .lines()
        .filter_map(|line| line.strip_prefix("//!"))
        .map(|line| format!("{}\n", line.strip_prefix(' ').unwrap_or(line)))
        .collect()
}

/// The pages of the guide, with those of the folder `migration`.
fn pages() -> Vec<String> {
    let mut pages = Vec::new();
    for folder in ["src/guide", "src/guide/migration"] {
        for entry in fs::read_dir(path(folder)).expect("the guide") {
            let name = entry.expect("an entry").file_name().into_string().expect("a name");
            if name.ends_with(".md") {
                pages.push(format!("{folder}/{name}"));
            }
        }
    }
    assert!(pages.len() >= 19, "{pages:?}");
    pages
}

#[test]
fn the_readme_can_be_read_in_minutes() {
    let readme = read("README.md");
    assert!(readme.len() <= 8192, "{} bytes", readme.len());
    let titles: Vec<&str> = readme.lines().filter_map(|line| line.strip_prefix("## ")).collect();
    assert_eq!(
        titles,
        [
            "Quick start",
            "How it works",
            "Supervisors",
            "How sockets survive",
            "The command",
            "Can you use it?",
            "How it is tested"
        ]
    );
    let lines = prose("src/lib.rs").lines().count();
    assert!(lines <= 60, "{lines} lines of prose in lib.rs");
}

#[test]
fn the_quick_start_is_the_example() {
    assert_eq!(block(&read("README.md"), "```rust,no_run\n"), read("examples/axum.rs"));
}

#[test]
fn the_protocol_is_told_as_in_the_crate() {
    let told = prose("src/lib.rs");
    let told = block(&told, "```text\n");
    assert!(told.starts_with("supervisor -> launcher -> daemon"));
    assert_eq!(told.lines().count(), 9);
    for (file, title) in [("README.md", "## How it works"), ("src/guide/protocol.md", "")] {
        let text = read(file);
        let (_, text) = text.split_once(title).expect("the title");
        assert_eq!(block(text, "```text\n"), told, "{file}");
    }
}

#[test]
fn every_link_leads_to_a_file_or_a_page() {
    for file in [vec!["README.md".to_owned()], pages()].concat() {
        let text = read(&file);
        for link in text.split("](").skip(1) {
            let (link, _) = link.split_once(')').expect("the link's end");
            let target = link.split('#').next().unwrap_or_default();
            // rustdoc looks at links by name.
            if target.is_empty() || target.starts_with("https:") || target.starts_with("crate::") {
                continue;
            }
            assert_eq!(file, "README.md", "{link}: rustdoc has no such file");
            assert!(Path::new(&path(target)).exists(), "{file}: {link}");
        }
    }
}

#[test]
fn every_page_is_in_the_guide_and_in_its_list() {
    let guide = read("src/guide/mod.rs");
    let migration = read("src/guide/migration.md");
    for page in pages() {
        let file = page.strip_prefix("src/guide/").expect("a page");
        assert!(guide.contains(&format!("#[doc = include_str!(\"{file}\")]")), "{page}");
        let name = file.strip_suffix(".md").expect("a page");
        match name.strip_prefix("migration/") {
            Some(name) => {
                let link = format!("(crate::guide::migration::{name})");
                assert!(migration.contains(&link), "{page}");
            }
            None => assert!(guide.contains(&format!("//! | [{name}] | ")), "{page}"),
        }
    }
}

#[test]
fn every_promise_is_listed() {
    let page = read("src/guide/protocol.md");
    for number in 1..=15 {
        assert!(page.contains(&format!("| P{number} | ")), "P{number}");
    }
}

/// The figures of the README stand in the guide, where it is told how they were measured.
#[test]
fn the_readmes_figures_are_those_of_the_guide() {
    let readme = read("README.md");
    for (figure, page) in [
        ("5,000,515 requests, 0 failed", "benchmarks"),
        ("11,657 restarts", "testing"),
        ("20 million", "testing"),
        ("165 ", "testing"),
        (", of 1,000", "benchmarks"),
        ("276 KB", "benchmarks"),
    ] {
        assert!(readme.contains(figure), "{figure}: not in the README");
        assert!(read(&format!("src/guide/{page}.md")).contains(figure), "{figure}: {page}");
    }
}

/// A script that builds with a feature that has gone would fail before its first line of output.
#[test]
fn scripts_name_features_that_there_are() {
    let manifests = ["Cargo.toml", "bench/peers/Cargo.toml"].map(read);
    let there: Vec<&str> = manifests
        .iter()
        .flat_map(|manifest| {
            let (_, features) = manifest.split_once("[features]\n").expect("the features");
            let (features, _) = features.split_once("\n[").expect("their end");
            features.lines().filter_map(|line| line.split_once(" =")).map(|(name, _)| name)
        })
        .collect();
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
