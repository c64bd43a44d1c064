//! Many services: their metrics, the samples for monitoring them, and rolling deploys.

mod metrics;
mod rollout;
mod samples;

use std::{
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use seamless_testing::bin;

/// What lies in `examples/fleet`.
fn sample(path: &str) -> PathBuf {
    bin::root().join("examples/fleet").join(path)
}

/// Runs a program of others, to its end.
fn output(command: &mut Command) -> Output {
    let output = command.stdin(Stdio::null()).output();
    output.unwrap_or_else(|error| panic!("{command:?}: {error}; run scripts/setup"))
}

/// What it prints; it must succeed.
#[track_caller]
fn said(command: &mut Command) -> String {
    let output = output(command);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{command:?}: {}\n{out}{err}", output.status);
    out
}

/// Prometheus's own tool finds no fault in these metrics.
#[track_caller]
fn check_metrics(file: &Path) {
    let file = std::fs::File::open(file).expect("metrics");
    let mut promtool = Command::new("promtool");
    promtool.args(["check", "metrics"]).stdin(file);
    let output = promtool.output().expect("promtool; run scripts/setup");
    assert!(output.status.success(), "{output:?}");
}
