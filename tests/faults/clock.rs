//! Steps of the wall clock, by libfaketime: no time limit depends on it.

use std::{fs, path::Path};

use seamless_testing::{
    LIMIT,
    boxed::Boxed,
    http::{Connection, Prober, time_now},
    process::Watched,
    scene,
    signal::USR1,
    site::Site,
    supervisor::Supervisor,
    under_each_supervisor,
};

const HOUR: i64 = 3600;

/// The clock of a service: an offset to the real one.
struct Clock<'a>(&'a Path);

impl Clock<'_> {
    /// For the run script. The clock that cannot be set is left alone, as it is by `date -s`.
    fn script(&self) -> String {
        let library = ["x86_64", "aarch64"]
            .map(|machine| format!("/usr/lib/{machine}-linux-gnu/faketime/libfaketime.so.1"))
            .into_iter()
            .find(|path| Path::new(path).exists());
        let library = library.expect("libfaketime; run scripts/setup");
        format!(
            "export LD_PRELOAD={library} FAKETIME_TIMESTAMP_FILE='{}' FAKETIME_NO_CACHE=1 \
             FAKETIME_DONT_FAKE_MONOTONIC=1 DONT_FAKE_MONOTONIC=1",
            self.0.display()
        )
    }

    fn step(&self, seconds: i64) {
        // A reader never finds it empty.
        let new = self.0.with_extension("new");
        fs::write(&new, format!("{seconds:+}\n")).expect("the offset");
        fs::rename(new, self.0).expect("the offset");
    }
}

/// What the daemon's clock says, in seconds from ours.
#[track_caller]
fn offset(site: &Site, daemon: &Watched) -> i64 {
    let is_time = |site: &Site| -> Vec<i64> {
        let called = site.report.named("called").into_iter();
        let called = called.filter(|one| one.pid == daemon.pid());
        called.filter_map(|one| one.text.strip_prefix("time ")?.parse().ok()).collect()
    };
    let seen = is_time(site).len();
    daemon.signal(USR1);
    let theirs = seamless_testing::wait_for("its clock", LIMIT, || {
        is_time(site).get(seen).map(|nanoseconds| nanoseconds / 1_000_000_000)
    });
    theirs - time_now().as_secs() as i64
}

/// As far as the machine lets it be looked at soon enough.
#[track_caller]
fn assert_stepped(site: &Site, daemon: &Watched, by: i64) {
    let offset = offset(site, daemon);
    assert!((offset - by).abs() < HOUR / 4, "its clock is {offset} s from ours, not {by}");
}

fn p1_p3_p4_the_clock_is_stepped_at_each_stage(kind: Supervisor, folder: &Path) {
    let file = folder.join("offset");
    let clock = Clock(&file);
    clock.step(0);
    let options = "--accept=started --on=10=call:time --handoff-timeout=700ms --claim-timeout=700ms \
                   --drain-timeout=1s";
    let site = Site::at(folder)
        .shared_socket()
        .first(&clock.script())
        .options(&format!("{options} --at=request=hang"))
        .under(kind);
    let first = Watched::new(site.report.wait("started").pid);
    let prober = Prober::start(&site.target);
    prober.wait_pid(first.pid());
    assert_stepped(&site, &first, 0);

    // The handoff hangs; its limit ends it, wherever the clock goes.
    let launcher = Watched::new(site.service().main_pid());
    let go = folder.join("go");
    site.deploy_more(&clock.script(), &format!("--at=after-init=file:{}", go.display()));
    site.service().settle();
    site.service().restart();
    site.report.wait("hook");
    clock.step(HOUR);
    assert_stepped(&site, &first, HOUR);
    launcher.wait_end(LIMIT);
    let release = site.log.wait(&[("stage", "release"), ("daemon", &first.pid().to_string())]);
    assert!(release.field("reason").is_some_and(|why| why.starts_with("handoff_timeout")));

    // The next one starts; another that waits for its claim gives up in time. The detached one looks
    // round all the time.
    let starting = Watched::new(site.report.wait_nth("init", 2).pid);
    let mut waiting = scene::start(folder, "--claim-timeout=700ms");
    let holder = starting.pid().to_string();
    site.log.wait(&[("stage", "claim"), ("holder", &holder)]);
    clock.step(-HOUR);
    assert_stepped(&site, &first, -HOUR);
    let error = site.report.wait("error").text;
    assert!(error.contains("claim_timeout (700ms)"), "{error}");
    waiting.wait().expect("its end");
    let looks = || {
        let looks = site.log.stage("check").into_iter();
        looks.filter(|line| line.field("daemon") == Some(&first.pid().to_string())).count()
    };
    let before = looks();
    seamless_testing::wait_for("it looks round", LIMIT, || (looks() >= before + 2).then_some(()));

    // It takes over; the old one is hammered when its limit is over, and not before.
    let request = Connection::unfinished(&site.target);
    request.wait_accepted(first.pid());
    fs::write(&go, "").expect("a file");
    let second = Watched::new(site.wait_successor(first.pid()));
    site.wait_drain_logged(first.pid());
    clock.step(HOUR);
    assert_stepped(&site, &second, HOUR);
    let hammer = site.log.wait(&[("stage", "hammer"), ("daemon", &first.pid().to_string())]);
    let took: f64 = hammer.field("elapsed_ms").expect("a time").parse().expect("a number");
    assert!(took >= 1000.0 && took < LIMIT.as_millis() as f64, "{took}");
    first.wait_end(LIMIT);
    drop(request); // that was the drain's limit
    clock.step(-HOUR);
    site.service().settle();
    let third = {
        site.service().restart();
        Watched::new(site.wait_successor(second.pid()))
    };
    assert_stepped(&site, &third, -HOUR);
    second.wait_end(LIMIT);
    site.wait_alone(third.pid());
    prober.wait_pid(third.pid());
    let probes = prober.stop();
    probes.assert_all_answered();
    assert_eq!(probes.pids(), [first.pid(), second.pid(), third.pid()]);
    clock.step(HOUR);
    site.stop();
}

under_each_supervisor![
    Boxed::new().private_net() => p1_p3_p4_the_clock_is_stepped_at_each_stage
];
