//! A service whose new generations have to prove themselves, while the one before stands by.

use std::path::Path;

use crate::{
    LIMIT,
    http::{FailureKind, Prober, Probes},
    process::Watched,
    site::{Plan, SERVES_ON, Site},
    supervisor::Supervisor,
    wait_for,
};

/// Longer than any test.
pub const WINDOW: &str = "--probation=10m";

/// Its generations stand by, and share one socket.
#[track_caller]
pub fn site(kind: Supervisor, folder: &Path) -> (Site, Watched, Prober) {
    begin(kind, plan(folder))
}

pub fn plan(folder: &Path) -> Plan {
    Site::at(folder).shared_socket().options(&format!("{SERVES_ON} --standby"))
}

/// Its first generation serves, and is asked from now on.
#[track_caller]
pub fn begin(kind: Supervisor, plan: Plan) -> (Site, Watched, Prober) {
    let site = plan.under(kind);
    let first = site.daemon(1);
    let prober = Prober::start(&site.target);
    prober.wait_pid(first.pid());
    site.service().settle();
    (site, first, prober)
}

/// The next generation, in its window; this one stands by.
#[track_caller]
pub fn restart(site: &Site, standby: &Watched, options: &str) -> Watched {
    let nth = site.report.named("started").len() + 1;
    site.deploy_options(&format!("{SERVES_ON} --standby {options}"));
    site.service().restart();
    let new = site.daemon(nth);
    wait_standby(site, standby, nth);
    new
}

/// It stands by for this generation.
#[track_caller]
pub fn wait_standby(site: &Site, standby: &Watched, generation: usize) {
    site.log.wait(&[
        ("stage", "standby"),
        ("daemon", &standby.pid().to_string()),
        ("successor_generation", &generation.to_string()),
    ]);
}

/// It has begun to serve again so often, and is reached.
#[track_caller]
pub fn wait_serves_again(site: &Site, prober: &Prober, old: &Watched, times: usize) {
    wait_for(format_args!("{} serves again\n{site}", old.pid()), LIMIT, || {
        let mut again = site.log.stage("rollback");
        again.retain(|line| line.number("daemon") == old.pid() && line.field("cause").is_some());
        (again.len() >= times).then_some(())
    });
    prober.wait_pid(old.pid());
}

/// The supervisor may have no launcher at the moment. Then the old one finds out within a second.
#[track_caller]
pub fn end(site: &Site) {
    site.service().down();
    site.service().wait_down();
    site.wait_all_ended();
}

/// `most`: so many connections were held by those that have died.
#[track_caller]
pub fn assert_nobody_refused(site: &Site, probes: &Probes, most: usize) {
    let failed = probes.failures_by_kind();
    assert_eq!(failed.get(&FailureKind::Refused), None, "{failed:?}\n{site}");
    assert!(failed.values().sum::<usize>() <= most, "{failed:?}\n{site}");
}
