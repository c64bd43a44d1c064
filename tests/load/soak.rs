//! `scripts/soak` sees what it is there to see: of a service that breaks a promise it says so.

use std::{path::Path, process::Command};

use seamless_testing::{
    bin,
    boxed::{Boxed, Isolation},
};

fn boxed(test: impl FnOnce(&Path)) {
    // It makes namespaces itself, in which it is root.
    Boxed::new().needs(Isolation::Namespaces).run(test);
}

/// Without a fault nothing is excused; the first restart, or the rest after it, shows it.
#[track_caller]
fn assert_seen(how: &str, violation: &str) -> String {
    let mut soak = Command::new(bin::support("soak"));
    soak.args(["--for=1s", "--seed=5", "--faults=none", "--broken", how]);
    // A good service is at rest in 4 s.
    let patience = match how {
        "stays" => "5s",
        "leaks" => "20s",
        _ => "60s",
    };
    let output = soak.args(["--patience", patience]).output().expect("soak");
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let violations: Vec<&str> = text.lines().filter(|line| line.starts_with("VIOLATION")).collect();
    assert!(violations.iter().any(|line| line.contains(violation)), "{text}");
    assert!(text.contains("The log of the service, from 5s before"), "{text}");
    text.into_owned()
}

#[test]
fn a_service_that_drops_requests() {
    boxed(|_| {
        let text = assert_seen("drops", "a request to Tcp failed");
        assert!(text.contains("stage=drain"), "{text}");
    });
}

#[test]
fn a_service_that_does_not_end() {
    boxed(|_| _ = assert_seen("stays", "not within 5s: rest: [Member"));
}

#[test]
fn a_service_that_leaves_files_and_descriptors() {
    boxed(|_| _ = assert_seen("leaks", "not within 20s: rest: files"));
}

#[test]
fn a_service_that_signals_others() {
    boxed(|_| _ = assert_seen("signals", "somebody signalled the bystander"));
}
