//! P1: a deploy that goes wrong costs no request, in whatever way it goes wrong. The old daemon
//! answers a probe every 20 ms until the next good deploy is ready, and then gives way.

use std::{
    fs,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use seamless_testing::{
    LIMIT, as_each_user, bin,
    boxed::Boxed,
    http::{EVERY, Prober, Probes, time_now},
    process::{self, Watched},
    report::Event,
    scene,
    site::{ENDS_SOON, SERVES_ON, Site, User},
    supervisor::Supervisor,
    under_each_supervisor, wait_for,
};

/// From the moment at which the good successor is ready.
const TAKES_OVER: Duration = Duration::from_secs(3);
/// Every generation tells when it is ready, and when it drains.
const TIMES: &str = "--at=ready=call:time --at=shutdown=call:time";

/// A service that serves and is probed.
struct Probed {
    site: Site,
    options: String,
    /// Serves now.
    old: Watched,
    prober: Prober,
    /// Every generation that was ready, in order.
    ready: Vec<u32>,
    /// A line for each start of a bad run script.
    starts: PathBuf,
}

impl Probed {
    #[track_caller]
    fn new(kind: Supervisor, folder: &Path, user: User) -> Self {
        let options = format!("{TIMES} {}", patience(kind, user));
        let site = Site::at(folder).user(user).options(&options).under(kind);
        let old = site.daemon(1);
        let prober = Prober::start(&site.target);
        prober.wait_pid(old.pid());
        site.service().settle();
        let ready = vec![old.pid()];
        Probed { site, options, ready, old, prober, starts: folder.join("starts") }
    }

    fn good(&self) -> String {
        self.site.script("", &self.options)
    }

    /// The good run script with further actions of the probe.
    fn with(&self, more: &str) -> String {
        self.site.script("", &format!("{} {more}", self.options))
    }

    /// What goes wrong at once, and its run script.
    fn bad(&self, how: Bad) -> String {
        match how {
            Bad::RunScript => "exit 1".to_owned(),
            Bad::NoBinary => {
                let probe = bin::probe().display().to_string();
                let missing = self.site.flag("no-such-program").display().to_string();
                self.good().replace(&probe, &missing)
            }
            Bad::Launcher => self.with("--at=before-init=exit:3"),
            Bad::BeforeInit => self.with("--at=before-daemon-init=exit:3"),
            Bad::BeforeStarted => self.with("--at=after-init=exit:3"),
        }
    }

    /// Puts a bad run script in place, which the supervisor starts so many times.
    #[track_caller]
    fn deploy_bad(&self, how: Bad, times: usize) {
        let starts = || fs::read_to_string(&self.starts).unwrap_or_default().lines().count();
        let mark = format!("echo start >>'{}'", self.starts.display());
        let before = starts();
        self.site.deploy(&format!("{mark}\n{}", self.bad(how)));
        if before == 0 {
            self.site.service().restart();
        }
        wait_for(format!("{times} starts of {how:?}"), LIMIT, || {
            (starts() >= before + times).then_some(())
        });
        self.prober.wait_more(3);
        self.assert_old_serves();
    }

    #[track_caller]
    fn assert_old_serves(&self) {
        let seen = self.prober.seen();
        seen.assert_all_answered();
        assert_eq!(seen.pids(), self.ready, "the old daemon serves on");
        assert_eq!(self.site.report.named("started").len(), self.ready.len());
        assert!(!self.old.has_ended());
    }

    /// A good run script is in place, and is started with no more help than it has got.
    #[track_caller]
    fn wait_taken_over(&mut self) {
        let report = &self.site.report;
        let new = report.wait_nth("started", self.ready.len() + 1).pid;
        self.prober.wait_pid(new);
        assert_eq!(report.wait_of(self.old.pid(), "wait").text, "TakenOver");
        self.old.wait_end(LIMIT);
        let ready = self.times(new).pop().expect("it was ready");
        let seen = self.prober.seen();
        let answered = seen.first_answer_of(new).saturating_sub(ready);
        let drained = self.times(self.old.pid()).pop().expect("it drained").saturating_sub(ready);
        // A request and a takeover go through about as many hands; for each the machine may be slow.
        let gap = seen.longest_gap(ready);
        println!("{new} is ready; it answers after {answered:?}, the old drains after {drained:?}");
        let limit = TAKES_OVER + 2 * gap;
        assert!(answered <= limit, "ready, and answers only after {answered:?}; {gap:?}");
        assert!(drained <= limit, "ready, and the old drains only after {drained:?}; {gap:?}");
        self.ready.push(new);
        self.old = Watched::new(new);
    }

    /// The moments that this process has told.
    fn times(&self, pid: u32) -> Vec<Duration> {
        let told = |event: &Event| {
            let own = event.pid == pid && event.name == "called";
            Some(Duration::from_nanos(
                own.then(|| event.text.strip_prefix("time "))??.parse().ok()?,
            ))
        };
        self.site.report.events().iter().filter_map(told).collect()
    }

    #[track_caller]
    fn end(self) {
        let probes = self.prober.stop();
        probes.assert_all_answered();
        assert_eq!(probes.pids(), self.ready);
        assert_eq!(self.site.report.named("started").len(), self.ready.len());
        self.site.assert_one_generation(self.old.pid());
    }
}

/// What goes wrong at once.
#[derive(Clone, Copy, Debug)]
enum Bad {
    /// It exits 1.
    RunScript,
    NoBinary,
    /// The launcher dies before `init`.
    Launcher,
    /// The daemon does.
    BeforeInit,
    /// Between `init` and `started`.
    BeforeStarted,
}

// ---- a daemon between `init` and `started` ----

/// Tells when it is there.
const STARTING: &str = "--at=after-init=call:time";

/// A daemon that is there, and stays for a while.
struct Starting {
    pid: u32,
    ticks: u64,
    /// When it came there, as it tells.
    since: Duration,
}

impl Starting {
    /// A daemon of [`STARTING`].
    #[track_caller]
    fn wait(probed: &Probed) -> Self {
        let pid = wait_for(format!("it starts:\n{}", probed.site.report), LIMIT, || {
            let called = probed.site.report.named("called");
            let last = called.last()?.pid;
            (last != probed.old.pid() && !Watched::new(last).has_ended()).then_some(last)
        });
        let ticks = process::stat(pid).expect("it lives").start_ticks;
        Starting { pid, ticks, since: probed.times(pid)[0] }
    }

    /// `init` has returned, `started` has not been called, and it is still the same process.
    fn is_starting(&self, probed: &Probed) -> bool {
        let alive = process::stat(self.pid)
            .is_some_and(|stat| stat.start_ticks == self.ticks && stat.state != 'Z');
        alive && probed.site.report.names_of(self.pid) == ["init", "called"]
    }

    /// Probes for so long; it exists and is starting at the begin, at the end, and in between.
    #[track_caller]
    fn probe_for(&self, span: Duration, probed: &Probed) {
        let assert_is = || {
            let names = probed.site.report.names_of(self.pid);
            let stat = process::stat(self.pid);
            assert!(self.is_starting(probed), "it does not hang: {names:?}, {stat:?}");
        };
        assert_is();
        let from = time_now();
        while time_now() < from + span {
            thread::sleep(EVERY);
            assert_is();
        }
        let to = time_now();
        assert_is();
        assert_answered_by(probed.old.pid(), &probed.prober.seen(), from, to);
        probed.assert_old_serves();
    }
}

/// Enough probes, each of them answered, and all by this server.
#[track_caller]
fn assert_answered_by(server: u32, probes: &Probes, from: Duration, to: Duration) {
    probes.assert_all_answered();
    let answers = probes.answers_between(from, to);
    let asked = ((to - from).as_millis() / EVERY.as_millis()) as usize;
    println!("{} of {asked} probes that fit in", answers.len());
    assert!(answers.iter().all(|answer| answer.pid == server), "{answers:?}");
    // On a machine that is busy with other tests most come late.
    assert!(answers.len() >= asked / 20, "only {} probes, not {asked}", answers.len());
}

/// A deploy whose daemon hangs for so long and then dies. The next one is good, and was put in place
/// meanwhile.
fn hangs_and_dies(probed: &mut Probed, span: Duration) {
    let go = probed.site.flag("go");
    let hang = format!("{STARTING} --at=after-init=file:{} --at=after-init=exit:3", go.display());
    probed.site.deploy(&probed.with(&hang));
    probed.site.service().restart();
    let hung = Starting::wait(probed);
    probed.site.deploy(&probed.good());
    hung.probe_for(span.saturating_sub(time_now().saturating_sub(hung.since)), probed);
    assert!(time_now() - hung.since >= span);
    fs::write(go, "").expect("a file");
    Watched::new(hung.pid).wait_end(LIMIT);
    probed.wait_taken_over();
    assert_eq!(probed.site.report.names_of(hung.pid), ["init", "called"]);
}

/// A deploy whose daemon hangs for ever: after so long the next one is put in place, and `svc -t`.
fn hangs_and_is_replaced(probed: &mut Probed, span: Duration) {
    probed.site.deploy(&probed.with(&format!("{STARTING} --at=after-init=hang")));
    probed.site.service().restart();
    let hung = Starting::wait(probed);
    hung.probe_for(span, probed);
    probed.site.deploy(&probed.good());
    let process = Watched::new(hung.pid);
    probed.site.service().restart();
    process.wait_end(LIMIT);
    probed.wait_taken_over();
    assert_eq!(probed.site.report.names_of(hung.pid), ["init", "called"]);
}

/// A deploy that needs so long until it is ready, and takes over by itself.
fn needs(probed: &mut Probed, span: Duration) {
    let slow = format!("{STARTING} --at=after-init=sleep:{}ms", span.as_millis());
    probed.site.deploy(&probed.with(&slow));
    probed.site.service().restart();
    let starting = Starting::wait(probed);
    let (old, until) = (probed.old.pid(), starting.since + span);
    let mut looks = 0;
    while starting.is_starting(probed) {
        looks += 1;
        thread::sleep(EVERY);
    }
    // It does not wait for a test that comes late.
    assert!(looks > 0 && time_now() >= until, "seen {looks} times: {}", probed.site.report);
    probed.wait_taken_over();
    let times = probed.times(starting.pid);
    let [since, ready] = times[..] else { panic!("{times:?}") };
    assert_eq!((since, probed.old.pid()), (starting.since, starting.pid));
    assert!(ready - since >= span, "{:?}", ready - since);
    // It listens just before it is ready, and from then on may answer as well.
    assert_answered_by(old, &probed.prober.seen(), since, since + span);
}

// ---- as root, with real figures ----

fn fails_at_once(kind: Supervisor, folder: &Path, how: Bad) {
    let mut probed = Probed::new(kind, folder, User::Root);
    probed.deploy_bad(how, 3);
    probed.site.deploy(&probed.good());
    probed.wait_taken_over();
    probed.end();
}

fn p1_a_run_script_that_fails_costs_no_request(kind: Supervisor, folder: &Path) {
    fails_at_once(kind, folder, Bad::RunScript);
}

fn p1_a_missing_binary_costs_no_request(kind: Supervisor, folder: &Path) {
    fails_at_once(kind, folder, Bad::NoBinary);
}

fn p1_a_launcher_that_dies_before_init_costs_no_request(kind: Supervisor, folder: &Path) {
    fails_at_once(kind, folder, Bad::Launcher);
}

fn p1_a_daemon_that_dies_before_init_costs_no_request(kind: Supervisor, folder: &Path) {
    fails_at_once(kind, folder, Bad::BeforeInit);
}

fn p1_a_daemon_that_dies_before_started_costs_no_request(kind: Supervisor, folder: &Path) {
    fails_at_once(kind, folder, Bad::BeforeStarted);
}

mod at_once {
    use super::*;

    under_each_supervisor![
        Boxed::new().private_net() =>
        p1_a_run_script_that_fails_costs_no_request,
        p1_a_missing_binary_costs_no_request,
        p1_a_launcher_that_dies_before_init_costs_no_request,
        p1_a_daemon_that_dies_before_init_costs_no_request,
        p1_a_daemon_that_dies_before_started_costs_no_request
    ];
}

#[derive(Clone, Copy, Debug)]
enum Slow {
    HangsAndDies,
    HangsAndIsReplaced,
    Needs15S,
}

/// Each with a service of its own, all at a time. Its tests are in `at_full_length`.
pub(crate) fn slow_with_real_figures(kind: Supervisor, folder: &Path) {
    let cases = [Slow::HangsAndDies, Slow::HangsAndIsReplaced, Slow::Needs15S];
    scene::each(folder, cases, |folder, slow| {
        let mut probed = Probed::new(kind, folder, User::Root);
        match slow {
            Slow::HangsAndDies => hangs_and_dies(&mut probed, Duration::from_secs(30)),
            Slow::HangsAndIsReplaced => hangs_and_is_replaced(&mut probed, Duration::from_secs(30)),
            Slow::Needs15S => needs(&mut probed, Duration::from_secs(15)),
        }
        probed.end();
    });
}

// ---- as each user, with shorter times ----

/// One after the other, as an operator would try.
fn fails_in_every_way(probed: &mut Probed) {
    for how in [Bad::RunScript, Bad::NoBinary, Bad::Launcher, Bad::BeforeInit, Bad::BeforeStarted] {
        probed.deploy_bad(how, 2);
    }
    probed.site.deploy(&probed.good());
    probed.wait_taken_over();
}

fn hangs_and_is_slow(probed: &mut Probed) {
    hangs_and_dies(probed, Duration::from_secs(3));
    needs(probed, Duration::from_secs(3));
    hangs_and_is_replaced(probed, Duration::from_secs(3));
}

/// A service that fails at once and one that is slow, at the same time.
pub(crate) fn p1_bad_and_slow_deploys_cost_no_request(kind: Supervisor, folder: &Path, user: User) {
    let each: [fn(&mut Probed); 2] = [fails_in_every_way, hangs_and_is_slow];
    scene::each(folder, each, |folder, deploys| {
        let mut probed = Probed::new(kind, folder, user);
        deploys(&mut probed);
        probed.end();
    });
}

as_each_user![p1_bad_and_slow_deploys_cost_no_request];

/// Where neither launcher nor daemon can read the status, runit's TERM says nothing of what comes
/// next, and only the service's own wait decides.
fn patience(kind: Supervisor, user: User) -> &'static str {
    match (kind, user) {
        (Supervisor::Runit, User::ByScript { reads: false }) => SERVES_ON,
        _ => ENDS_SOON,
    }
}
