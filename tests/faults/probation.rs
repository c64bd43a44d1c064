//! The disk is full when the record of a probation is to be written. The generation that is proven serves, and what
//! could not be written is written when there is room.

use std::{fs, path::Path, process::Command, thread};

use seamless_testing::{
    LIMIT, bin,
    boxed::Boxed,
    http::Prober,
    probation::{self, WINDOW},
    process::Watched,
    scene,
    signal::CONT,
    site::{SERVES_ON, Site},
    supervisor::Supervisor,
    under_each_supervisor, wait_for,
};

use super::injected::{Fault, Role, Tracer, When, stops};

under_each_supervisor![
    Boxed::new().private_net() =>
    p11_the_disk_is_full_when_a_probation_begins,
    p4_p11_the_disk_is_full_when_nobody_stands_by,
    p11_the_disk_is_full_at_the_commit,
    p11_the_disk_is_full_at_the_rollback,
];

const FULL: &str = "No space left on device (os error 28)";

/// What writes the record.
fn full(role: Role, when: When) -> Fault {
    Fault { role, call: "pwrite64", error: "ENOSPC", when }
}

fn site(kind: Supervisor, folder: &Path) -> (Site, Watched, Prober) {
    probation::begin(kind, probation::plan(folder).first(&stops(folder)))
}

/// The second generation, which the first one stands by for.
#[track_caller]
fn restart(site: &Site, first: &Watched, prober: &Prober) -> Watched {
    let second = probation::restart(site, first, WINDOW);
    prober.wait_pid(second.pid());
    second
}

/// Does the record say of a generation that it is on probation, and of a file that it was rejected?
fn recorded(site: &Site) -> (bool, bool) {
    let record = fs::read_to_string(site.lock_file()).expect("the record");
    (record.contains(" state=probation"), record.contains("rejected="))
}

/// This one serves.
#[track_caller]
fn finish(site: &Site, prober: Prober, serves: &Watched) {
    prober.wait_pid(serves.pid());
    probation::assert_nobody_refused(site, &prober.stop(), 0);
    probation::end(site);
}

/// The number of its claim is written, and that it is on probation is not: nobody stands by for it.
fn p11_the_disk_is_full_when_a_probation_begins(kind: Supervisor, folder: &Path) {
    let (site, first, prober) = site(kind, folder);
    // What is traced is slow.
    site.deploy_more(&stops(folder), &format!("{WINDOW} --takeover-timeout=60s"));
    fs::write(site.flag("before-daemon-init"), "").expect("a flag");
    let launcher = site.launcher();
    site.service().restart();
    let next = site.service().main_pid_after(launcher.pid());
    let second = Watched::new(scene::stopped_child(next));
    let mut tracer = Tracer::attach(folder, second.pid(), full(Role::NewDaemon, When::Nth(2)));
    second.signal(CONT);
    let error = site.report.wait_of(second.pid(), "error").text;
    assert!(error.starts_with("started: cannot write ") && error.contains(FULL), "{error}");
    second.wait_end(LIMIT);
    tracer.detach();
    assert!(tracer.has_met());
    assert!(site.log.stage("standby").is_empty(), "{site}");
    // The next one has room, and has failed at nothing before: it does not wait.
    let third = site.daemon(2);
    probation::wait_standby(&site, &first, 3);
    assert_eq!(recorded(&site), (true, false), "{site}");
    finish(&site, prober, &third);
}

/// The first one is stopped when it is asked to stand by. The second one serves by then, and takes over.
fn p4_p11_the_disk_is_full_when_nobody_stands_by(kind: Supervisor, folder: &Path) {
    let (site, first, prober) = site(kind, folder);
    let go = site.flag("go");
    let ready = format!("--at=ready=file:{}", go.display());
    site.deploy_more(&stops(folder), &format!("{WINDOW} --takeover-timeout=60s {ready}"));
    fs::write(site.flag("before-daemon-init"), "").expect("a flag");
    let launcher = site.launcher();
    site.service().restart();
    let next = site.service().main_pid_after(launcher.pid());
    let second = Watched::new(scene::stopped_child(next));
    // Its number, that it is on probation, and that it is not.
    let mut tracer = Tracer::attach(folder, second.pid(), full(Role::NewDaemon, When::Nth(3)));
    second.signal(CONT);
    site.report.wait_nth("socket", 2);
    first.stop();
    fs::write(go, "").expect("a file");
    assert_eq!(site.report.wait_of(second.pid(), "started").text, "2");
    site.log.wait_words(&["stage=commit", FULL], 1);
    tracer.detach();
    assert!(tracer.has_met());
    first.signal(CONT);
    assert_eq!(site.report.wait_of(first.pid(), "wait").text, "TakenOver");
    first.wait_end(LIMIT);
    // The claim is free.
    let third = site.restart(second.pid(), SERVES_ON);
    finish(&site, prober, &Watched::new(third));
}

/// Until it is written, the other one stands by.
fn p11_the_disk_is_full_at_the_commit(kind: Supervisor, folder: &Path) {
    let (site, first, prober) = site(kind, folder);
    let second = restart(&site, &first, &prober);
    let mut tracer = Tracer::attach(folder, second.pid(), full(Role::NewDaemon, When::Always));
    thread::scope(|scope| {
        let said = scope.spawn(|| {
            let mut commit = Command::new(bin::support("seamless"));
            commit
                .args(["commit", "--timeout=60s"])
                .arg(site.pid_file())
                .output()
                .expect("seamless")
        });
        site.log.wait_words(&["stage=commit", FULL], 2);
        assert_eq!(recorded(&site), (true, false), "{site}");
        assert!(site.log.stage("drain").is_empty(), "{site}");
        if said.is_finished() {
            panic!("it does not wait until it is written: {:?}\n{site}", said.join());
        }
        tracer.detach();
        let said = said.join().expect("no panic");
        assert!(said.status.success(), "{said:?}\n{site}");
    });
    assert!(tracer.has_met());
    assert_eq!(site.report.wait_of(first.pid(), "wait").text, "TakenOver");
    first.wait_end(LIMIT);
    assert_eq!(recorded(&site), (false, false), "{site}");
    finish(&site, prober, &second);
}

/// It serves at once. The record, and with it the rejection of the file, follows.
fn p11_the_disk_is_full_at_the_rollback(kind: Supervisor, folder: &Path) {
    let (site, first, prober) = site(kind, folder);
    let second = restart(&site, &first, &prober);
    // Whoever takes the claim next books it as well: no next one comes before the tracer has gone.
    let go = site.flag("go");
    site.deploy_more(&format!("until [ -e '{}' ]; do sleep 0.05; done", go.display()), "");
    let mut tracer = Tracer::attach(folder, first.pid(), full(Role::OldDaemon, When::Always));
    second.kill();
    prober.wait_pid(first.pid());
    site.log.wait_words(&["stage=rollback", FULL], 2);
    let (_, is_rejected) = recorded(&site);
    assert!(!is_rejected, "{site}");
    prober.wait_more(5);
    tracer.detach();
    assert!(tracer.has_met());
    wait_for(format_args!("its files\n{site}"), LIMIT, || {
        let (_, is_rejected) = recorded(&site);
        (is_rejected && site.named() == Some(first.pid())).then_some(())
    });
    fs::write(go, "").expect("a file");
    probation::assert_nobody_refused(&site, &prober.stop(), 1);
    probation::end(&site);
}
