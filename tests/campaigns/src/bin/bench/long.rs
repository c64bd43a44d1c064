//! The long run: millions of requests, hundreds of restarts, not one failed.

use std::{error::Error, time::Duration};

use crate::{
    Bench,
    servers::Way,
    table::{self, millis, thousands},
};

/// From one restart to the next at least.
const PERIOD: Duration = Duration::from_millis(500);
/// Restarts between two lines.
const STEP: usize = 20;

pub(crate) fn run(
    bench: &Bench,
    restarts: usize,
    requests: u64,
    clients: usize,
) -> Result<bool, Box<dyn Error>> {
    table::title(&format!(
        "{} requests at least over {restarts} restarts, {clients} clients, a connection a request",
        thousands(requests)
    ));
    crate::set_migration(false);
    let mut site = Way::TakeoverTcp.start(bench)?.expect("an example");
    let load = site.load().clients(clients);
    let load = site.start(load)?;
    for restart in 1..=restarts {
        site.deployment.pass(PERIOD, &load)?;
        let enough = requests * restart as u64 / (restarts as u64 + 1);
        while load.requests() < enough {
            site.deployment.pass(Duration::from_millis(20), &load)?;
        }
        site.deployment.restart(&load)?;
        if restart % STEP == 0 || restart == restarts {
            let failed = load.report().failures_but(&[]);
            let so_far = thousands(load.requests());
            table::print(&format!("after {restart} restarts: {so_far} requests, {failed} failed"));
        }
    }
    while load.requests() < requests {
        site.deployment.pass(Duration::from_millis(20), &load)?;
    }
    let report = load.stop();
    site.end()?;
    table::header();
    let failed = report.failures_but(&[]);
    let text = format!("{} of {}", thousands(failed), thousands(report.requests.total()));
    table::target("failed requests", &text, "0", failed == 0);
    let generations = report.answers.len();
    let all = generations == restarts + 1;
    table::target(
        "generations that answered",
        &generations.to_string(),
        &(restarts + 1).to_string(),
        all,
    );
    for (text, latency) in [("during restarts", &report.during), ("outside", &report.outside)] {
        table::note(&format!("p99 {text}"), &millis(latency.quantile(0.99)));
        table::note(&format!("p99.9 {text}"), &millis(latency.quantile(0.999)));
    }
    if failed > 0 || !all {
        table::print(&report.to_string());
    }
    Ok(failed == 0 && all)
}
