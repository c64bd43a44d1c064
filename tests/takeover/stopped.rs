//! A process that is stopped (SIGSTOP) at a bad moment holds up its successors no longer than their
//! `claim_timeout`, and the generation that serves not at all.

use std::{
    fs,
    io::{self, Read, Write},
    os::{fd::OwnedFd, unix::net::UnixStream},
    path::Path,
    thread,
    time::{Duration, Instant},
};

use seamless_testing::{
    LIMIT,
    boxed::{self, Boxed},
    http::{self, Prober},
    process::{self, Watched},
    scene,
    signal::{CONT, KILL, STOP, TERM},
    site::Site,
    supervisor::Supervisor,
    under_each_supervisor, wait_for,
};

const CLAIM_TIMEOUT: Duration = Duration::from_millis(500);

#[track_caller]
fn wait_stopped(pid: u32) -> Watched {
    let what = format!("{pid} stops");
    wait_for(what, LIMIT, || (process::stat(pid)?.state == 'T').then_some(()));
    Watched::new(pid)
}

/// Stops a daemon that has returned from `init`, once its launcher knows that it has handlers: before
/// that, the launcher would KILL it.
#[track_caller]
fn stop_when_ready(direct: &Site, daemon: &Watched) {
    direct.log.wait_words(&["stage=report", &format!("daemon={} report=ready", daemon.pid())], 1);
    daemon.stop();
}

/// What `init` says to one that waited for this holder of the claim.
fn timed_out(direct: &Site, holder: &Watched) -> String {
    format!(
        "init: cannot lock {:?} (claim): process {} is starting, and holds it for longer than \
         claim_timeout ({CLAIM_TIMEOUT:?})",
        direct.lock_file(),
        holder.pid(),
    )
}

/// A service that serves, and a run script that stops its next start at this point.
struct Scene {
    site: Site,
    old: Watched,
    prober: Prober,
}

impl Scene {
    fn new(kind: Supervisor, folder: &Path) -> Self {
        let options = "--claim-timeout=500ms --handoff-timeout=500ms";
        let site = Site::at(folder).options(options).under(kind);
        let old = Watched::new(http::wait_pid(&site.target));
        let prober = Prober::start(&site.target);
        Scene { site, old, prober }
    }

    /// Starts the next generation with one more option.
    #[track_caller]
    fn start_next(&self, option: &str) -> u32 {
        let old = self.site.service().main_pid();
        self.site.deploy_more("", option);
        self.site.service().settle();
        self.site.service().restart();
        self.site.service().main_pid_after(old)
    }

    /// All later starts are good; the one that is stopped is told to make room for them.
    #[track_caller]
    fn mend(&self) {
        self.site.deploy_more("", "");
        self.site.service().settle();
        self.site.service().restart();
    }

    /// The old one has served all the time, and only the third took over from it.
    #[track_caller]
    fn assert_taken_over(self) {
        let direct = &self.site;
        let new = direct.report.wait_nth("started", 2).pid;
        assert_eq!(direct.report.wait_of(self.old.pid(), "wait").text, "TakenOver");
        self.old.wait_end(LIMIT);
        self.prober.wait_pid(new);
        let probes = self.prober.stop();
        probes.assert_all_answered();
        // The probe accepts before `started`: one that is continued may answer in the moment before it
        // finds that its launcher is gone.
        let pids = probes.pids();
        assert_eq!((pids.first(), pids.last()), (Some(&self.old.pid()), Some(&new)));
        assert_eq!(direct.named(), Some(new));
        assert_eq!(http::pid(&self.site.target), new);
        self.site.service().down();
        self.site.service().wait_down();
    }
}

/// It has the claim, and its launcher leaves it at last.
fn a_starter_with_the_claim(kind: Supervisor, folder: &Path, end: i32) {
    let scene = Scene::new(kind, folder);
    let go = folder.join("go");
    scene.start_next(&format!("--at=after-init=file:{}", go.display()));
    let stopped = Watched::new(scene.site.report.wait_nth("init", 2).pid);
    stop_when_ready(&scene.site, &stopped);
    // When it goes on, it goes on to `started`.
    fs::write(&go, "").expect("a file");
    scene.mend();
    for nth in 1..=3 {
        let error = scene.site.report.wait_nth("error", nth).text;
        assert_eq!(error, timed_out(&scene.site, &stopped));
    }
    scene.prober.wait_more(3);
    assert_eq!(scene.prober.seen().pids(), [scene.old.pid()]);
    assert!(!stopped.has_ended());
    stopped.signal(end);
    stopped.wait_end(LIMIT);
    assert_eq!(scene.site.report.names_of(stopped.pid()), ["init"], "it never served");
    scene.assert_taken_over();
}

fn p1_p4_a_starter_with_the_claim_is_stopped_and_continued(kind: Supervisor, folder: &Path) {
    a_starter_with_the_claim(kind, folder, CONT);
}

fn p1_p4_a_starter_with_the_claim_is_stopped_and_killed(kind: Supervisor, folder: &Path) {
    a_starter_with_the_claim(kind, folder, KILL);
}

/// It has no handlers yet, so its launcher KILLs it: nobody else is needed.
fn p1_p4_a_daemon_is_stopped_before_init(kind: Supervisor, folder: &Path) {
    let scene = Scene::new(kind, folder);
    let launcher = scene.start_next(&format!("--at=before-daemon-init=raise:{STOP}"));
    let stopped = Watched::new(scene::stopped_child(launcher));
    scene.mend();
    stopped.wait_end(LIMIT);
    assert!(scene.site.report.names_of(stopped.pid()).is_empty());
    assert!(scene.site.report.named("error").is_empty(), "nobody had to wait");
    scene.assert_taken_over();
}

/// The TERM that it was sent ends it when it goes on.
fn a_launcher_before_init(kind: Supervisor, folder: &Path, end: i32) {
    let scene = Scene::new(kind, folder);
    let launcher = scene.start_next(&format!("--at=before-init=raise:{STOP}"));
    let stopped = wait_stopped(launcher);
    scene.mend();
    scene.prober.wait_more(30);
    assert_eq!(scene.prober.seen().pids(), [scene.old.pid()]);
    assert!(!stopped.has_ended());
    stopped.signal(end);
    stopped.wait_end(LIMIT);
    assert!(scene.site.report.names_of(stopped.pid()).is_empty());
    scene.assert_taken_over();
}

fn p1_p4_a_launcher_is_stopped_before_init_and_continued(kind: Supervisor, folder: &Path) {
    a_launcher_before_init(kind, folder, CONT);
}

fn p1_p4_a_launcher_is_stopped_before_init_and_killed(kind: Supervisor, folder: &Path) {
    a_launcher_before_init(kind, folder, KILL);
}

under_each_supervisor![
    Boxed::new().private_net() =>
        p1_p4_a_starter_with_the_claim_is_stopped_and_continued,
        p1_p4_a_starter_with_the_claim_is_stopped_and_killed,
        p1_p4_a_daemon_is_stopped_before_init,
        p1_p4_a_launcher_is_stopped_before_init_and_continued,
        p1_p4_a_launcher_is_stopped_before_init_and_killed
];

/// Each start anew waits for as long as it was told to, and no longer than that makes necessary.
#[test]
fn each_start_waits_claim_timeout_for_one_that_is_stopped() {
    boxed::run(|folder| {
        let direct = Site::alone(folder);
        let (mut first, old) = direct.start_ready(&["--successor-timeout=none"]);
        first.detach();
        let go = folder.join("go");
        let wait = format!("--at=after-init=file:{}", go.display());
        let mut second = direct.start(&["--handoff-timeout=200ms", &wait]);
        let stopped = second.wait_init();
        stop_when_ready(&direct, &stopped);
        fs::write(&go, "").expect("a file");
        for _ in 0..3 {
            let began = Instant::now();
            let mut next = direct.start(&["--claim-timeout=500ms"]);
            assert_eq!(next.wait_error().text, timed_out(&direct, &stopped));
            let took = began.elapsed();
            assert!(took >= CLAIM_TIMEOUT && took < LIMIT, "{took:?}");
        }
        // One that has more patience gets its turn when the launcher and the stopped one are gone.
        let patient = direct.start(&["--claim-timeout=60s"]);
        direct.log.wait_words(&["stage=claim", &format!("holder={}", stopped.pid())], 4);
        second.launcher.signal(TERM);
        assert!(second.wait_end().success(), "handoff_timeout");
        stopped.signal(CONT);
        stopped.wait_end(LIMIT);
        let new = patient.wait_started();
        assert_eq!(direct.report.wait_of(old.pid(), "wait").text, "TakenOver");
        assert_eq!(direct.named(), Some(new.pid()));
        assert_eq!(direct.report.names_of(stopped.pid()), ["init"]);
    });
}

/// It waits for the claim of another and is stopped there: it holds up nobody, and finds its launcher
/// gone when it goes on.
#[test]
fn p1_p4_a_starter_that_waits_for_the_claim_is_stopped() {
    boxed::run(|folder| {
        let direct = Site::alone(folder);
        let (mut first, mut old) = direct.start_ready(&["--successor-timeout=none"]);
        first.detach();
        for end in [CONT, KILL] {
            let second = direct.start(&["--at=after-init=hang"]);
            let holder = second.wait_init();
            let mut third = direct.start(&["--handoff-timeout=200ms"]);
            direct.log.wait_words(&["stage=claim", &format!("holder={} ", holder.pid())], 1);
            let waiting = Watched::new(process::children(third.launcher.pid())[0]);
            stop_when_ready(&direct, &waiting);
            assert!(holder.kill());
            second.launcher.wait_end(LIMIT);
            // Its turn has come, but it sleeps.
            let (mut fourth, new) = direct.start_ready(&["--successor-timeout=none"]);
            assert_eq!(direct.report.wait_of(old.pid(), "wait").text, "TakenOver");
            assert!(!waiting.has_ended());
            if end == CONT {
                third.launcher.signal(TERM);
                assert!(third.wait_end().success(), "handoff_timeout");
            }
            waiting.signal(end);
            waiting.wait_end(LIMIT);
            assert!(direct.report.names_of(waiting.pid()).is_empty(), "{}", direct.report);
            fourth.detach();
            direct.wait_checks(new.pid(), 1);
            assert_eq!(direct.named(), Some(new.pid()));
            old = new;
        }
    });
}

/// Its log blocks in the middle of its look round, with the claim in its hands, and there it is
/// stopped.
fn a_detached_daemon_in_its_look(folder: &Path, end: i32) {
    let direct = Site::alone(folder);
    let (mut full, reader) = UnixStream::pair().expect("a socket pair");
    full.set_nonblocking(true).expect("O_NONBLOCK");
    while full.write(&[0]).is_ok() {}
    full.set_nonblocking(false).expect("no O_NONBLOCK");
    let mut command = direct.command(&["--successor-timeout=none"]);
    command.stderr(OwnedFd::from(full)).env("RUST_LOG", "info/dropped=");
    let mut first = direct.spawn(&mut command);
    drop(command); // and its copy of the socket
    let old = first.wait_started();
    let record = fs::read_to_string(direct.lock_file()).expect("the record");
    fs::write(direct.lock_file(), record.replace("end\n", "rubbish\nend\n")).expect("the record");
    first.detach();
    let has_claim = || process::holds_claim(old.pid());
    wait_for("it looks round, and cannot log", LIMIT, || {
        old.stop();
        if has_claim() {
            return Some(());
        }
        old.signal(CONT);
        None
    });
    for _ in 0..2 {
        let began = Instant::now();
        let mut next = direct.start(&["--claim-timeout=500ms"]);
        assert_eq!(next.wait_error().text, timed_out(&direct, &old));
        assert!(began.elapsed() >= CLAIM_TIMEOUT);
    }
    assert!(has_claim());
    assert_eq!(direct.named(), Some(old.pid()));
    old.signal(end);
    let drain = thread::spawn(move || io::copy(&mut (&reader).take(u64::MAX), &mut io::sink()));
    let (_second, new) = direct.start_ready(&["--claim-timeout=30s"]);
    if end == CONT {
        assert_eq!(direct.report.wait_of(old.pid(), "wait").text, "TakenOver");
    }
    old.wait_end(LIMIT);
    drain.join().expect("no panic").expect("all of the log");
    assert_eq!(direct.named(), Some(new.pid()));
    assert!(!new.has_ended());
}

#[test]
fn p4_a_detached_daemon_is_stopped_in_its_look_and_continued() {
    boxed::run(|folder| a_detached_daemon_in_its_look(folder, CONT));
}

#[test]
fn p4_a_detached_daemon_is_stopped_in_its_look_and_killed() {
    boxed::run(|folder| a_detached_daemon_in_its_look(folder, KILL));
}
