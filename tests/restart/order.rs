//! P4: restarts however fast end with the newest generation serving and every older one gone.

use std::{collections::BTreeMap, path::Path, thread, time::Duration};

use seamless_testing::{
    LIMIT,
    boxed::Boxed,
    http::{self, Prober},
    log::Line,
    process::{self, Watched},
    report::Event,
    scene,
    site::Site,
    supervisor::Supervisor,
    under_each_supervisor, wait_for,
};

/// Two TERMs and five, this far apart.
fn terms(kind: Supervisor, folder: &Path, distance: Duration) {
    thread::scope(|scope| {
        for count in [2, 5] {
            let folder = folder.join(count.to_string());
            scope.spawn(move || some_terms(kind, &folder, distance, count));
        }
    });
}

fn some_terms(kind: Supervisor, folder: &Path, distance: Duration, count: u32) {
    std::fs::create_dir(folder).expect("a folder");
    // The five meet generations that take their time to start.
    let slow = if count > 2 { "--at=after-init=sleep:30ms" } else { "" };
    let site = Site::at(folder).options(slow).under(kind);
    let first = site.report.wait("started").pid;
    let prober = Prober::start(&site.target);
    prober.wait_pid(first);
    site.service().settle();

    for turn in 0..count {
        if turn > 0 {
            thread::sleep(distance);
        }
        site.service().restart();
    }
    // A TERM may still be on its way, so what is true once need not be for long.
    site.report.wait_nth("started", 2);
    wait_for(format!("the newest generation is left alone:\n{site}"), LIMIT, || {
        let newest = site.report.newest()?.pid;
        let launcher = process::stat(newest)?.ppid;
        let mut left: Vec<u32> = scene::running(folder).iter().map(Watched::pid).collect();
        left.sort_unstable();
        let mut expected = vec![launcher, newest];
        expected.sort_unstable();
        let serves = http::pid(&site.target) == newest;
        (serves && site.service().status().pid == Some(launcher) && left == expected).then_some(())
    });
    prober.stop().assert_all_answered();
    site.service().down();
    site.service().wait_down();
    site.wait_all_ended();

    // Each says so after it has given up the claim, so not always in this order.
    let mut started: Vec<u64> = site.report.named("started").iter().map(Event::number).collect();
    started.sort_unstable();
    assert!(started.is_sorted_by(|one, next| one < next), "{started:?}");
    let mut claims = site.log.stage("claim");
    claims.retain(|line| line.field("generation").is_some());
    let claims: Vec<(u32, u32)> =
        claims.iter().map(|line| (line.number("daemon"), line.number("generation"))).collect();
    assert!(claims.is_sorted_by(|(_, one), (_, next)| one < next), "{claims:?}");
    let generations = BTreeMap::from_iter(claims);
    let taken_over = site.log.stage("takeover");
    assert!(!taken_over.is_empty(), "{site}");
    for line in taken_over {
        let (own, older) = (line.number("daemon"), line.number("predecessor"));
        assert!(generations[&older] < generations[&own], "{line:?}");
    }
    // Who sent the TERMs that arrived: a newer generation, or the launcher.
    let launched = site.log.stage("launch");
    let launcher_of = |line: &Line| (line.number("daemon"), line.number("launcher"));
    let launchers = BTreeMap::from_iter(launched.iter().map(launcher_of));
    let mut terms = site.log.stage("signal");
    terms.retain(|line| line.is(&[("signal", "15")]));
    for line in terms {
        let (own, from) = (line.number("daemon"), line.number("from"));
        let newer = generations.get(&from) > generations.get(&own);
        assert!(newer || launchers[&own] == from, "{line:?}");
    }
}

/// One test for each distance.
macro_rules! distances {
    ($($name:ident: $distance:expr),+ $(,)?) => {
        $(
            fn $name(kind: Supervisor, folder: &Path) {
                terms(kind, folder, $distance);
            }
        )+
        under_each_supervisor![Boxed::new().private_net() => $($name),+];
    };
}

distances![
    p4_terms_at_once: Duration::ZERO,
    p4_terms_1_ms_apart: Duration::from_millis(1),
    p4_terms_5_ms_apart: Duration::from_millis(5),
    p4_terms_20_ms_apart: Duration::from_millis(20),
    p4_terms_100_ms_apart: Duration::from_millis(100),
    p4_terms_1_s_apart: Duration::from_secs(1),
];
