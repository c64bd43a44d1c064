//! P4, P6, P9, P11: what may come in the window between a start and its commit, at each of its moments.

use std::{fs, io::ErrorKind, path::Path};

use seamless_testing::{
    LIMIT,
    boxed::{Boxed, Isolation},
    http::Prober,
    probation::{
        WINDOW, assert_nobody_refused, begin, end, plan, restart, site, wait_serves_again,
        wait_standby,
    },
    process::{self, Watched},
    signal::{CONT, TERM},
    site::{SERVES_ON, Site},
    supervisor::Supervisor,
    under_each_supervisor, wait_for,
};

use super::candidates::wait_candidate;
use super::in_place::Scene;
use crate::command::seamless;

under_each_supervisor![
    Boxed::new().private_net() =>
    p4_p11_a_restart_at_each_moment_of_the_window,
    p6_p11_a_stop_at_each_moment_of_the_window,
    p6_p11_a_launcher_ends_the_standby_if_its_daemon_dies_after_a_stop,
    p4_p11_ten_generations_in_one_window,
    p9_p11_both_killed_in_the_window,
    p9_p11_the_supervisor_killed_in_the_window,
    p11_a_predecessor_that_ignores_standby,
    p11_a_bad_version_under_load_and_then_a_good_one,
];

/// Where the new generation is when something comes.
#[derive(Clone, Copy, Debug)]
enum Moment {
    /// It serves, and has to prove itself.
    Begun,
    /// It has failed, and its hooks run, so that the old one is not told yet.
    Failing,
    /// It hangs, and the old one serves beside it.
    Hung,
    /// It has died, the old one serves, and the same file waits for its next try.
    Waiting,
}

const MOMENTS: [Moment; 4] = [Moment::Begun, Moment::Failing, Moment::Hung, Moment::Waiting];

/// A service that has come there, and what brings it on.
struct Scenery {
    site: Site,
    first: Watched,
    second: Watched,
    prober: Prober,
    moment: Moment,
}

impl Scenery {
    fn new(kind: Supervisor, folder: &Path, moment: Moment) -> Scenery {
        println!("{moment:?}");
        let folder = folder.join(format!("{moment:?}"));
        fs::create_dir_all(&folder).expect("a folder");
        let (site, first, prober) = site(kind, &folder);
        let (go_on, unhealthy) = (site.flag("go-on"), site.flag("unhealthy"));
        let hangs = format!("--at=request=file:'{}'", go_on.display());
        let options = format!("{WINDOW} {hangs} --unhealthy='{}'", unhealthy.display());
        let second = restart(&site, &first, &options);
        prober.wait_pid(second.pid());
        match moment {
            Moment::Begun => {}
            Moment::Failing => {
                fs::write(unhealthy, "").expect("a file");
                site.log.wait(&[("stage", "probation"), ("reason", "probation_check says no")]);
            }
            Moment::Hung => {
                process::stop_without_claim(&second);
                wait_serves_again(&site, &prober, &first, 1);
            }
            Moment::Waiting => {
                second.kill();
                wait_serves_again(&site, &prober, &first, 1);
                wait_candidate(&site, 1);
                site.service().settle();
            }
        }
        Scenery { site, first, second, prober, moment }
    }

    /// What has held up the new one is over.
    fn go_on(&self) {
        fs::write(self.site.flag("go-on"), "").expect("a file");
        if let Moment::Hung = self.moment {
            self.second.signal(CONT);
        }
    }
}

/// The next generation takes over from all that are there.
fn p4_p11_a_restart_at_each_moment_of_the_window(kind: Supervisor, folder: &Path) {
    for moment in MOMENTS {
        let scenery = Scenery::new(kind, folder, moment);
        let site = &scenery.site;
        site.deploy_options(&format!("{SERVES_ON} --standby --probation=1s --takeover-timeout=4s"));
        site.service().settle();
        site.service().restart();
        scenery.go_on();
        let Scenery { site, first, second, prober, .. } = scenery;
        first.wait_end(LIMIT);
        second.wait_end(LIMIT);
        let last = site.report.named("started").last().expect("it has started").pid;
        prober.wait_pid(last);
        site.assert_one_generation(last);
        // What the one held that was killed.
        assert_nobody_refused(&site, &prober.stop(), 1);
        site.stop();
    }
}

/// Nothing is left, and nothing is reported down before that.
fn p6_p11_a_stop_at_each_moment_of_the_window(kind: Supervisor, folder: &Path) {
    for moment in MOMENTS {
        let scenery = Scenery::new(kind, folder, moment);
        let Scenery { site, first, second, .. } = &scenery;
        site.service().down();
        site.service().wait_handled();
        // The new one that has failed may end before its launcher has understood the stop.
        scenery.go_on();
        site.service().wait_down();
        assert!(first.has_ended() && second.has_ended(), "{moment:?}\n{site}");
        site.wait_all_ended();
        drop(scenery);
    }
}

/// Both are stopped, so neither tells anybody, nor finds out by itself what the supervisor wants.
fn p6_p11_a_launcher_ends_the_standby_if_its_daemon_dies_after_a_stop(
    kind: Supervisor,
    folder: &Path,
) {
    let (site, first, prober) = site(kind, folder);
    let second = restart(&site, &first, WINDOW);
    prober.wait_pid(second.pid());
    drop(prober);
    process::stop_without_claim(&first);
    process::stop_without_claim(&second);
    let launcher = site.launcher();
    site.service().down();
    let told = launcher.pid().to_string();
    site.log.wait(&[("stage", "stop"), ("launcher", &told)]);
    second.kill();
    wait_for(format_args!("{} is told to end\n{site}", first.pid()), LIMIT, || {
        process::signals(first.pid())?.pending.contains(TERM).then_some(())
    });
    let older = first.pid().to_string();
    site.log.wait(&[("stage", "stop-older"), ("launcher", &told), ("predecessor", &older)]);
    assert!(!launcher.has_ended(), "before the older one\n{site}");
    site.assert_not_down();
    first.signal(CONT);
    site.service().wait_down();
    assert!(first.has_ended() && launcher.has_ended(), "{site}");
    site.wait_all_ended();
}

/// The proven one stands by for each of them, and each ends when the next one has come.
fn p4_p11_ten_generations_in_one_window(kind: Supervisor, folder: &Path) {
    let (site, first, prober) = site(kind, folder);
    let mut newest = restart(&site, &first, WINDOW);
    for _ in 2..=10 {
        site.service().settle();
        let next = restart(&site, &first, WINDOW);
        newest.wait_end(LIMIT);
        newest = next;
    }
    prober.wait_pid(newest.pid());
    assert!(!first.has_ended());
    let seen = seamless("status", &site.pid_file(), &["--json"]).json();
    assert_eq!((&seen["generation"], &seen["draining"]), (&11.into(), &serde_json::json!([])));
    assert_eq!(seen["probation"]["standby"]["daemon"], first.pid(), "{seen}");
    seamless("commit", &site.pid_file(), &[]).assert(0, &["generation 11 has taken over"]);
    first.wait_end(LIMIT);
    prober.stop().assert_all_answered();
    site.assert_one_generation(newest.pid());
    site.stop();
}

/// Nobody is left, so a rejection is nobody's: the next start goes on at once.
fn p9_p11_both_killed_in_the_window(kind: Supervisor, folder: &Path) {
    let (site, first, prober) = site(kind, folder);
    let second = restart(&site, &first, WINDOW);
    prober.wait_pid(second.pid());
    drop(prober);
    first.signal(seamless_testing::signal::STOP);
    second.kill();
    first.kill();
    let third = site.daemon(3);
    let prober = Prober::start(&site.target);
    prober.wait_pid(third.pid());
    site.assert_one_generation(third.pid());
    site.service().settle();
    let fourth = site.restart(third.pid(), SERVES_ON);
    prober.wait_pid(fourth);
    prober.stop().assert_all_answered();
    site.stop();
}

/// A new supervisor starts a third generation.
fn p9_p11_the_supervisor_killed_in_the_window(kind: Supervisor, folder: &Path) {
    let (mut site, first, prober) = site(kind, folder);
    let second = restart(&site, &first, WINDOW);
    prober.wait_pid(second.pid());
    site.deploy_options(&format!("{SERVES_ON} --standby --probation=1s"));
    site.service_mut().kill_supervisor();
    prober.wait_more(5);
    assert!(!first.has_ended() && !second.has_ended(), "{site}");
    site.service_mut().start_supervisor();
    let third = site.daemon(3);
    first.wait_end(LIMIT);
    second.wait_end(LIMIT);
    prober.wait_pid(third.pid());
    prober.stop().assert_all_answered();
    site.wait_alone(third.pid());
    site.stop();
}

/// It goes on accepting from the same queue, and so does the new one.
fn p11_a_predecessor_that_ignores_standby(kind: Supervisor, folder: &Path) {
    let plan = Site::at(folder).shared_socket().options(SERVES_ON);
    let (site, first, prober) = begin(kind, plan);
    let second = restart(&site, &first, WINDOW);
    prober.wait_pid(second.pid());
    second.kill();
    wait_serves_again(&site, &prober, &first, 1);
    wait_candidate(&site, 1);
    seamless("restart", &site.pid_file(), &["--wait=started"]).assert(0, &["on probation"]);
    let third = site.daemon(3);
    prober.wait_pid(third.pid());
    seamless("commit", &site.pid_file(), &[]).assert(0, &["has taken over"]);
    first.wait_end(LIMIT);
    assert_nobody_refused(&site, &prober.stop(), 1);
    site.assert_one_generation(third.pid());
    site.stop();
}

/// `SEAMLESS_TEST_BAD_VERSION` says for how many seconds (`scripts/faults`: 30). It aborts at its 100th request each
/// time, and has as many tries as the pauses allow: 2, 4, 8 … s.
fn p11_a_bad_version_under_load_and_then_a_good_one(kind: Supervisor, folder: &Path) {
    let seconds = std::env::var("SEAMLESS_TEST_BAD_VERSION").ok();
    let seconds: u64 = seconds.map_or(5, |text| text.parse().expect("a number"));
    let (site, first, prober) = site(kind, folder);
    let more: Vec<Prober> = (0..4).map(|_| Prober::start(&site.target)).collect();
    let began = std::time::Instant::now();
    restart(&site, &first, &format!("{WINDOW} --crash-after=100"));
    let mut times = 0;
    while times == 0 || began.elapsed().as_secs() < seconds {
        times += 1;
        wait_serves_again(&site, &prober, &first, times);
        wait_candidate(&site, times);
        let left = seconds.saturating_sub(began.elapsed().as_secs());
        if left <= 1 << times {
            break; // the next try comes later
        }
    }
    // After 2 + 4 + 8 s and so on.
    let most = (0..).take_while(|times| (2 << times) - 2 <= began.elapsed().as_secs()).count();
    let tries = site.report.named("started").len() - 1;
    assert!(tries >= times && tries <= most + 1, "{tries} tries, {most} allowed\n{site}");
    assert!(!first.has_ended());
    site.deploy_options(&format!("{SERVES_ON} --standby --probation=1s"));
    site.service().settle();
    site.service().restart();
    first.wait_end(LIMIT);
    let last = site.report.named("started").last().expect("it has started").pid;
    prober.wait_pid(last);
    // At most what each of those held that have died.
    let clients = more.len() + 1;
    for prober in more.into_iter().chain([prober]) {
        assert_nobody_refused(&site, &prober.stop(), tries * clients);
    }
    site.assert_one_generation(last);
    site.stop();
}

/// HUP, where nobody waits for the next try.
#[test]
fn p4_p11_a_reload_at_each_moment_of_the_window() {
    Boxed::new().private_net().run(|folder| {
        for moment in [Moment::Begun, Moment::Failing, Moment::Hung] {
            println!("{moment:?}");
            let folder = folder.join(format!("{moment:?}"));
            fs::create_dir_all(&folder).expect("a folder");
            let scene = Scene::new(&folder, &[SERVES_ON, "--standby"]);
            let first = Watched::new(scene.current());
            let (direct, prober) = (&scene.direct, &scene.prober);
            let (go_on, unhealthy) = (direct.flag("go-on"), direct.flag("unhealthy"));
            let unwell = format!("--unhealthy={}", unhealthy.display());
            let hangs = format!("--at=request=file:{}", go_on.display());
            scene.deploy(&[WINDOW, &unwell, &hangs].join(" "));
            scene.reload();
            let second = direct.daemon(2);
            wait_standby(direct, &first, 2);
            prober.wait_pid(second.pid());
            match moment {
                Moment::Failing => {
                    fs::write(unhealthy, "").expect("a file");
                    direct
                        .log
                        .wait(&[("stage", "probation"), ("reason", "probation_check says no")]);
                }
                Moment::Hung => {
                    process::stop_without_claim(&second);
                    wait_serves_again(direct, prober, &first, 1);
                }
                Moment::Begun | Moment::Waiting => {}
            }
            scene.deploy("--probation=1s --takeover-timeout=4s");
            scene.reload();
            fs::write(go_on, "").expect("a file");
            second.signal(CONT);
            first.wait_end(LIMIT);
            second.wait_end(LIMIT);
            let last = direct.report.named("started").last().expect("it has started").pid;
            prober.wait_pid(last);
            assert_eq!(direct.named(), Some(last), "{direct}");
            let Scene { direct, prober, .. } = scene;
            assert_nobody_refused(&direct, &prober.stop(), 1);
        }
    });
}

/// No file can be made: the old one serves all the same, and takes its files back when there is room again.
fn the_disk_is_full_in_the_window(kind: Supervisor, folder: &Path) {
    let run = folder.join("run");
    fs::create_dir_all(&run).expect("a folder");
    let mut mount = std::process::Command::new("mount");
    mount.args(["-t", "tmpfs", "-o", "mode=755,nr_inodes=32", "tmpfs"]).arg(&run);
    assert!(mount.status().expect("mount").success(), "a file system of its own");
    let (site, first, prober) = begin(kind, plan(folder).run_folder(&run));
    let second = restart(&site, &first, WINDOW);
    prober.wait_pid(second.pid());
    let mut fill = (0..).map(|number: u32| run.join(format!("fill-{number}")));
    let full = fill.find_map(|file| fs::write(file, "").err()).expect("it is full");
    assert_eq!(full.kind(), ErrorKind::StorageFull);
    second.kill();
    wait_serves_again(&site, &prober, &first, 1);
    site.log.wait_words(&["stage=rollback", "No space left on device"], 1);
    prober.wait_more(5);
    for file in fs::read_dir(&run).expect("the folder").flatten() {
        if file.file_name().as_encoded_bytes().starts_with(b"fill") {
            fs::remove_file(file.path()).expect("it is there");
        }
    }
    wait_for(format_args!("its file\n{site}"), LIMIT, || {
        (site.named() == Some(first.pid())).then_some(())
    });
    assert_nobody_refused(&site, &prober.stop(), 1);
    end(&site);
}

#[test]
fn p11_the_disk_is_full_in_the_window() {
    Boxed::new().private_net().needs(Isolation::UserNamespaces).run(|folder| {
        the_disk_is_full_in_the_window(Supervisor::Runit, folder);
    });
}
