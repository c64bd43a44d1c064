//! `scripts/demo` as a stranger runs it, but shorter.

use std::{fs, process::Command};

use seamless_testing::{bin, boxed::Boxed};

/// What the demo printed, and its exit code.
fn demo(args: &[&str]) -> (String, Option<i32>) {
    let output = Command::new(bin::support("seamless-demo")).args(args).output().expect("the demo");
    let text = String::from_utf8(output.stdout).expect("text");
    println!("{text}{}", String::from_utf8_lossy(&output.stderr));
    (text, output.status.code())
}

/// The number behind a label, with its thousands separated.
fn number(text: &str, label: &str) -> u64 {
    let line = text.lines().rfind(|line| line.starts_with(label));
    let line = line.unwrap_or_else(|| panic!("no line {label:?}"));
    let word = line[label.len()..].split_whitespace().next().expect("a number");
    word.replace(',', "").parse().expect("a number")
}

/// Requests and failures of a way, from the comparison.
fn way(text: &str, name: &str) -> (u64, u64) {
    let (_, comparison) = text.split_once("the same load and restarts").expect("the comparison");
    let requests = number(comparison, name);
    let line = comparison.lines().find(|line| line.starts_with(name)).expect("its line");
    let failed = line[name.len()..].split_whitespace().nth(1).expect("the failures");
    (requests, failed.replace(',', "").parse().expect("a number"))
}

#[test]
fn p2_the_demo_compares_the_ways_and_draws_what_it_saw() {
    Boxed::new().private_net().run(|folder| {
        let file = folder.join("timeline.svg");
        let path = file.to_str().expect("a path");
        let (text, code) =
            demo(&["--restarts", "2", "--clients", "32", "--compare", "--record", path]);
        assert_eq!(code, Some(0));
        assert_eq!(text.lines().filter(|line| line.starts_with("restart ")).count(), 3 * 2);

        let (requests, failed) = way(&text, "stop, then start");
        assert!(failed > 0 && failed < requests, "a stop is seen: {failed} of {requests}");
        let (requests, _) = way(&text, "SO_REUSEPORT, a socket for each generation");
        assert!(requests > 1_000, "{requests}");
        let (requests, failed) = way(&text, "takeover, one socket for all generations");
        assert!(requests > 1_000, "{requests}");
        assert_eq!(failed, 0);
        assert_eq!((number(&text, "requests"), number(&text, "failed")), (requests, 0));
        assert_eq!(number(&text, "generations"), 3);

        let svg = fs::read_to_string(file).expect("the timeline");
        assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"), "{svg}");
        assert_eq!(svg.matches("<title>restart</title>").count(), 3 * 2);
        assert_eq!(svg.matches("<path class=\"a\"").count(), 3, "requests a second of each way");
        assert_eq!(svg.matches("<path class=\"p\"").count(), 3, "p99 of each way");
        assert!(svg.contains("class=\"f\""), "failures are drawn");
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
    });
}

#[test]
fn p2_the_demo_restarts_kept_connections_and_unix_sockets_and_an_example() {
    Boxed::new().private_net().run(|_| {
        for options in [&["--keep-alive"][..], &["--unix"], &["--example", "takeover"]] {
            let (text, code) = demo(&[&["--restarts", "1", "--clients", "16"], options].concat());
            assert_eq!(code, Some(0), "{options:?}");
            assert_eq!((number(&text, "generations"), number(&text, "failed")), (2, 0));
        }
    });
}

#[test]
fn the_demo_refuses_what_it_cannot_do() {
    for options in [
        &["--clients", "0"][..],
        &["--compare", "--unix"],
        &["--compare", "--example", "threads"],
        &["--example", "threads", "--unix"],
        &["--supervisor", "init"],
    ] {
        assert_eq!(demo(options).1, Some(2), "{options:?}");
    }
}
