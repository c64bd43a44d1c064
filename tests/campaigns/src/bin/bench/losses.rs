//! What each way to keep the sockets loses: the same load on each in turn, in one run.

use std::{error::Error, time::Duration};

use seamless_campaigns::load::Report;

use crate::{
    Bench,
    servers::{Site, Way},
    set_migration,
    table::{self, millis, thousands},
};

const PERIOD: Duration = Duration::from_millis(500);

pub(crate) fn run(
    bench: &Bench,
    clients: &[usize],
    restarts: usize,
) -> Result<bool, Box<dyn Error>> {
    table::title(&format!(
        "Requests lost, {restarts} restarts a run, a connection a request, at full load"
    ));
    table::print(&format!(
        "{:<46}{:>8}{:>8}{:>10}{:>8}{:>12}  how",
        "", "migrate", "clients", "requests", "failed", "p99 during"
    ));
    let mut clean = true;
    for (way, migrate) in [
        (Way::Closing, false),
        (Way::Closing, true),
        (Way::Emptying, false),
        (Way::Emptying, true),
        (Way::Rebinding, false),
        (Way::Shellflip, false),
        (Way::Ecdysis, false),
        (Way::TakeoverTcp, false),
        (Way::TakeoverUnix, false),
        (Way::TakeoverGroup, false),
    ] {
        for clients in clients {
            clean &= measure(bench, way, migrate, *clients, restarts)? || !way.is_takeover();
        }
    }
    set_migration(false);
    table::print("migrate: net.ipv4.tcp_migrate_req; off by default");
    Ok(clean)
}

/// True where nothing failed.
fn measure(
    bench: &Bench,
    way: Way,
    migrate: bool,
    clients: usize,
    restarts: usize,
) -> Result<bool, Box<dyn Error>> {
    let name = format!("{:<46}{:>8}{clients:>8}", way.text(), if migrate { "on" } else { "off" });
    if !set_migration(migrate) {
        table::print(&format!("{name}  not measured: tcp_migrate_req cannot be set here"));
        return Ok(true);
    }
    let Some(mut site) = way.start(bench)? else {
        table::print(&format!("{name}  not measured: not built"));
        return Ok(true);
    };
    let (report, problem) = lose(bench, &mut site, clients, restarts)?;
    site.end()?;
    let kinds: Vec<String> = report
        .failures
        .iter()
        .map(|(failure, split)| format!("{} {failure}", split.total()))
        .chain(problem.clone())
        .collect();
    let failed = report.failures_but(&[]);
    table::print(&format!(
        "{name}{:>10}{:>8}{:>12}  {}",
        thousands(report.requests.total()),
        thousands(failed),
        millis(report.during.quantile(0.99)),
        kinds.join(", "),
    ));
    Ok(failed == 0 && problem.is_none() && report.answers.len() == restarts + 1)
}

/// Restarts at full load: what became of the requests, and why there were fewer restarts, if so.
pub(crate) fn lose(
    bench: &Bench,
    site: &mut Site,
    clients: usize,
    restarts: usize,
) -> Result<(Report, Option<String>), Box<dyn Error>> {
    let load = site.load().clients(clients);
    let load = site.start(load)?;
    let mut problem = None;
    for restart in 1..=restarts {
        site.deployment.pass(PERIOD, &load)?;
        if let Err(end) = site.deployment.restart(&load) {
            bench.check_interrupted()?;
            problem = Some(format!("restart {restart}: {}", Box::<dyn Error>::from(end)));
            break;
        }
    }
    Ok((load.stop(), problem))
}
