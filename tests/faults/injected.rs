//! System calls that fail, by strace's injection: each call that launcher and daemon make in a restart,
//! with each error that it can give, once or for ever. The service goes on all the same.
//!
//! A test run takes a sample, other ones each time. `SEAMLESS_TEST_SEED` repeats one, and
//! `scripts/faults` tries all.

use std::{
    collections::BTreeMap,
    env,
    fmt::{self, Display},
    fs,
    hash::{BuildHasher, RandomState},
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use seamless_testing::{
    LIMIT,
    boxed::Boxed,
    http::{Connection, Prober, answer_of},
    process::{self, Watched},
    scene,
    signal::{CONT, TERM},
    site::Site,
    supervisor::Supervisor,
    wait_for,
};

/// Whose calls fail. An old one is traced when it is told to restart, a new one from just before its
/// `init`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    OldLauncher,
    OldDaemon,
    NewLauncher,
    NewDaemon,
}
use Role::{NewDaemon, NewLauncher, OldDaemon, OldLauncher};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum When {
    /// The first one is 1.
    Nth(u32),
    /// So many, and then no more.
    First(u32),
    Always,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) role: Role,
    pub(super) call: &'static str,
    pub(super) error: &'static str,
    pub(super) when: When,
}

impl Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Fault { role, call, error, when } = self;
        match when {
            When::Nth(nth) => write!(f, "{role:?} {call} {error} nth={nth}"),
            When::First(count) => write!(f, "{role:?} {call} {error} first={count}"),
            When::Always => write!(f, "{role:?} {call} {error} always"),
        }
    }
}

const DESCRIPTORS: &[&str] = &["EMFILE", "ENFILE", "ENOMEM"];
const FILES: &[&str] = &["EMFILE", "ENFILE", "ENOMEM", "EACCES", "EINTR"];
const FULL: &[&str] = &["ENOSPC", "EDQUOT", "EIO", "EROFS", "EINTR"];

/// What can fail, and how: the man pages' errors that have nothing to do with what is asked for.
///
/// strace counts the calls of each thread by itself. So in a daemon a fault is met by all threads that
/// make so many calls, and by each one that answers a successor: as long as it is traced.
const CALLS: &[(Role, &str, &[&str])] = &[
    (OldLauncher, "poll", &["EINTR", "ENOMEM"]),
    (OldLauncher, "recvfrom", &["EINTR", "ENOMEM"]),
    (OldLauncher, "recvmsg", &["EINTR", "ENOMEM"]),
    (OldLauncher, "sendmsg", &["EINTR", "ENOBUFS", "ENOMEM"]),
    (OldLauncher, "pidfd_send_signal", &["EPERM", "ENOSYS"]),
    (OldLauncher, "wait4", &["EINTR"]),
    (OldLauncher, "openat", FILES),
    (OldLauncher, "read", &["EINTR", "EIO"]),
    (OldLauncher, "write", &["ENOSPC", "EIO", "EINTR"]),
    (OldDaemon, "poll", &["EINTR", "ENOMEM"]),
    (OldDaemon, "recvfrom", &["EINTR"]),
    (OldDaemon, "recvmsg", &["EINTR", "ENOMEM"]),
    (OldDaemon, "sendmsg", &["EINTR", "ENOBUFS", "ENOMEM"]),
    (OldDaemon, "sendto", &["EINTR"]),
    (OldDaemon, "pidfd_send_signal", &["EPERM", "ENOSYS"]),
    (OldDaemon, "openat", FILES),
    (OldDaemon, "read", &["EINTR", "EIO"]),
    (OldDaemon, "pread64", &["EINTR", "EIO"]),
    (OldDaemon, "statx", &["ENOMEM", "EACCES", "ENOSYS"]),
    (OldDaemon, "fcntl", &["ENOLCK", "EMFILE"]),
    (OldDaemon, "getsockopt", &["ENOMEM", "EPERM", "ENOSYS"]),
    (OldDaemon, "flock", &["ENOLCK", "EINTR"]),
    (OldDaemon, "accept4", &["EMFILE", "ENFILE", "ENOMEM", "ECONNABORTED", "EINTR"]),
    (OldDaemon, "clone3", &["EAGAIN", "ENOMEM"]),
    (OldDaemon, "memfd_create", &["EMFILE", "ENFILE", "ENOMEM", "ENOSYS"]),
    (OldDaemon, "write", &["ENOSPC", "EIO", "EINTR"]),
    (NewLauncher, "pidfd_open", &["EMFILE", "ENFILE", "ENOMEM", "ENOSYS", "EPERM"]),
    (NewLauncher, "openat", FILES),
    (NewLauncher, "read", &["EINTR", "EIO"]),
    (NewLauncher, "readlink", &["EACCES", "ENOMEM"]),
    (NewLauncher, "statx", &["EACCES", "ENOSYS"]),
    (NewLauncher, "getdents64", &["ENOMEM"]),
    (NewLauncher, "socketpair", DESCRIPTORS),
    (NewLauncher, "sendmsg", &["EINTR", "ENOBUFS", "ENOMEM"]),
    (NewLauncher, "clone3", &["EAGAIN", "ENOMEM", "ENOSYS"]),
    (NewLauncher, "poll", &["EINTR"]),
    (NewLauncher, "recvfrom", &["EINTR"]),
    (NewLauncher, "recvmsg", &["EINTR", "ENOMEM"]),
    (NewLauncher, "wait4", &["EINTR"]),
    (NewLauncher, "write", &["ENOSPC", "EIO", "EINTR"]),
    (NewDaemon, "setsid", &["EPERM"]),
    (NewDaemon, "pidfd_open", &["EMFILE", "ENFILE", "ENOMEM", "ENOSYS", "EPERM"]),
    (NewDaemon, "pidfd_send_signal", &["EPERM", "ENOSYS"]),
    (NewDaemon, "openat", FILES),
    (NewDaemon, "openat", &["ENOSPC", "EDQUOT", "EROFS"]),
    (NewDaemon, "read", &["EINTR", "EIO"]),
    (NewDaemon, "readlink", &["EACCES", "ENOMEM"]),
    (NewDaemon, "statx", &["ENOMEM", "EACCES", "ENOSYS"]),
    (NewDaemon, "getdents64", &["ENOMEM"]),
    (NewDaemon, "pread64", &["EINTR", "EIO"]),
    (NewDaemon, "pwrite64", FULL),
    (NewDaemon, "ftruncate", &["EIO", "EINTR"]),
    (NewDaemon, "write", FULL),
    (NewDaemon, "unlink", &["EACCES", "EPERM", "EROFS", "ENOMEM"]),
    (NewDaemon, "rename", &["ENOSPC", "EDQUOT", "EROFS", "EACCES", "EPERM", "ENOMEM"]),
    (NewDaemon, "chmod", &["EPERM", "EROFS", "ENOMEM"]),
    (NewDaemon, "fchmod", &["EPERM"]),
    (NewDaemon, "socketpair", DESCRIPTORS),
    (NewDaemon, "socket", &["EMFILE", "ENFILE", "ENOMEM", "EACCES"]),
    (NewDaemon, "bind", &["EACCES", "EROFS", "ENOSPC", "ENOMEM"]),
    (NewDaemon, "listen", &["ENOMEM"]),
    (NewDaemon, "connect", &["EINTR", "EAGAIN", "EACCES", "ECONNREFUSED"]),
    (NewDaemon, "sendmsg", &["EINTR", "ENOBUFS", "ENOMEM"]),
    (NewDaemon, "recvmsg", &["EINTR", "ENOMEM"]),
    (NewDaemon, "sendto", &["EINTR"]),
    (NewDaemon, "recvfrom", &["EINTR"]),
    (NewDaemon, "poll", &["EINTR", "ENOMEM"]),
    (NewDaemon, "accept4", &["EMFILE", "ENFILE", "ENOMEM", "ECONNABORTED", "EINTR"]),
    (NewDaemon, "fcntl", &["ENOLCK", "EMFILE", "EAGAIN"]),
    (NewDaemon, "getsockopt", &["ENOMEM", "EPERM", "ENOSYS"]),
    (NewDaemon, "flock", &["ENOLCK", "EINTR"]),
    (NewDaemon, "clone3", &["EAGAIN", "ENOMEM"]),
];

/// Limits that a machine with little time keeps too: only faults are to run into them.
const OPTIONS: &str = "--accept=started --state=text:state --handoff-timeout=8s --takeover-timeout=15s \
                       --claim-timeout=20s --successor-timeout=none";

/// No restart makes that many calls of a kind; the daemon's answers to requests are not counted on.
const MOST: u32 = 60;

/// Not what the program needs to answer requests by itself, nor what would interrupt it for ever.
fn may_last(role: Role, call: &str, error: &str) -> bool {
    let is_answering = matches!(call, "recvfrom" | "sendto" | "accept4" | "poll" | "clone3");
    let serves = matches!(role, OldDaemon | NewDaemon);
    let never_starts = role == NewDaemon && call == "clone3";
    error != "EINTR" && (!(serves && is_answering) || never_starts)
}

/// strace, attached to a process whose calls it lets fail.
pub(super) struct Tracer {
    strace: Child,
    output: PathBuf,
}

impl Tracer {
    /// Returns when all threads of the process are traced.
    #[track_caller]
    pub(super) fn attach(folder: &Path, pid: u32, fault: Fault) -> Tracer {
        let Fault { role, call, error, when } = fault;
        let output = folder.join("strace");
        let when = match when {
            When::Nth(nth) => nth.to_string(),
            When::First(count) => format!("1..{count}"),
            When::Always => "1+".to_owned(),
        };
        let mut strace = Command::new("strace");
        if matches!(role, OldDaemon | NewDaemon) {
            strace.arg("-f"); // its threads; a launcher's child is another role
        }
        strace.args(["-qq", "-e", &format!("trace={call}")]);
        strace.args(["-e", &format!("inject={call}:error={error}:when={when}")]);
        strace.arg("-o").arg(&output).args(["-p", &pid.to_string()]);
        let strace = strace.stdin(Stdio::null()).spawn().expect("strace; run scripts/setup");
        wait_for(format!("{pid} is traced"), LIMIT, || {
            let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("it lives");
            let untraced = tasks.filter_map(|task| {
                let status = fs::read_to_string(task.ok()?.path().join("status")).ok()?;
                status.contains("\nTracerPid:\t0\n").then_some(())
            });
            (untraced.count() == 0).then_some(())
        });
        Tracer { strace, output }
    }

    /// Lets go, if it has not yet.
    #[track_caller]
    pub(super) fn detach(&mut self) {
        if self.strace.try_wait().expect("its end").is_none() {
            let strace = Watched::new(self.strace.id());
            strace.signal(TERM);
            strace.wait_end(LIMIT);
            self.strace.wait().expect("its end");
        }
    }

    /// Was any call made to fail?
    pub(super) fn has_met(&self) -> bool {
        fs::read_to_string(&self.output).expect("its output").contains("(INJECTED)")
    }
}

/// What the next start does before anything else: it stops itself there once, to be traced.
pub(super) fn stops(folder: &Path) -> String {
    let stops = ["before-init", "before-daemon-init"].map(|point| {
        let flag = folder.join(point);
        format!("if rm '{}' 2>/dev/null; then set -- --at={point}=raise:19; fi\n", flag.display())
    });
    stops.concat()
}

/// What is traced.
struct Met {
    tracer: Tracer,
    /// The launcher of a new one.
    launcher: Option<Watched>,
}

#[track_caller]
fn restart_with(site: &Site, fault: Fault, launcher: &Watched, old: &Watched) -> Met {
    let flag = |name| fs::write(site.flag(name), "").expect("a flag");
    let attach = |pid| Tracer::attach(site.folder(), pid, fault);
    match fault.role {
        OldLauncher => {
            let tracer = attach(launcher.pid());
            site.service().restart();
            Met { tracer, launcher: None }
        }
        OldDaemon => {
            let tracer = attach(old.pid());
            site.service().restart();
            Met { tracer, launcher: None }
        }
        NewLauncher => {
            flag("before-init");
            site.service().restart();
            let next = site.service().main_pid_after(launcher.pid());
            let next = Watched::new(scene::wait_stopped(|| vec![next]));
            let tracer = attach(next.pid());
            next.signal(CONT);
            // Its daemon stops there too, if there is one.
            wait_for("a daemon, or no launcher", LIMIT, || {
                let child = process::children(next.pid()).first().copied();
                let stopped = child
                    .filter(|child| process::stat(*child).is_some_and(|stat| stat.state == 'T'));
                if let Some(child) = stopped {
                    process::signal(child, CONT);
                }
                (next.has_ended() || stopped.is_some()).then_some(())
            });
            Met { tracer, launcher: Some(next) }
        }
        NewDaemon => {
            flag("before-daemon-init");
            site.service().restart();
            let next = site.service().main_pid_after(launcher.pid());
            let daemon = scene::stopped_child(next);
            let next = Watched::new(next);
            let tracer = attach(daemon);
            process::signal(daemon, CONT);
            Met { tracer, launcher: Some(next) }
        }
    }
}

/// Tells whether the fault was met.
#[track_caller]
fn restart(folder: &Path, fault: Fault) -> bool {
    let site = Site::at(folder)
        .shared_socket()
        .first(&stops(folder))
        .options(OPTIONS)
        .under(Supervisor::Runit);
    let old = Watched::new(site.report.wait("started").pid);
    let launcher = Watched::new(site.service().main_pid());
    let prober = Prober::start_every(Duration::from_millis(50), &site.target);
    let request = Connection::unfinished(&site.target);
    request.wait_accepted(old.pid());

    let Met { mut tracer, launcher: traced } = restart_with(&site, fault, &launcher, &old);
    // Where the old one cannot hand over, it serves until it can.
    wait_for(
        format_args!("a successor of {}, or two that failed\n{site}", old.pid()),
        LIMIT,
        || {
            let errors = site.report.named("error").len();
            (errors >= 2 || site.successor(old.pid()).is_some()).then_some(())
        },
    );
    if site.successor(old.pid()).is_none() {
        tracer.detach();
    }
    let new = site.wait_successor(old.pid());
    if fault.call != "write" {
        let old = old.pid().to_string();
        site.log.wait(&[("stage", "drain"), ("daemon", &old)]);
    }
    assert!(request.finish().ends_with(&answer_of(old.pid())), "{site}");
    old.wait_end(LIMIT);
    launcher.wait_end(LIMIT);
    tracer.detach();
    let met = tracer.has_met();
    site.wait_alone(new);
    let failed = traced.is_some_and(|traced| traced.has_ended());
    let log = site.to_string();

    // The next one is as any other.
    site.service().restart();
    let last = site.wait_successor(new);
    site.wait_alone(last);
    prober.wait_pid(last);
    let probes = prober.stop();
    assert!(probes.failures.is_empty(), "{:?}\n{site}", probes.failures);
    // One that serves for a moment only may be asked first when its successor has answered already.
    let pids = probes.pids();
    assert!(pids.first() == Some(&old.pid()) && pids.contains(&last), "{pids:?}, {last}\n{site}");
    site.service().down();
    scene::wait_all_ended(folder);

    if fault.error == "EINTR" {
        assert!(!failed, "interrupted, it was not started:\n{log}");
        let trouble = |line: &&str| line.contains(" WARN ") || line.contains(" ERROR ");
        let trouble: Vec<&str> = log.lines().filter(trouble).collect();
        assert!(trouble.is_empty(), "interrupted: {trouble:#?}\n{log}");
    }
    if ["EMFILE", "ENFILE", "ENOMEM"].contains(&fault.error) {
        let launches = site.log.stage("launch");
        let known = launches.iter().all(|line| line.field("supervisor_kind") == Some("runit"));
        assert!(known, "took its supervisor for another:\n{log}");
    }
    // What could not be sent is sent later.
    if fault.call == "sendmsg" && fault.when != When::Always {
        assert!(!log.contains("handoff_timeout"), "{log}");
        if fault.role != NewLauncher {
            assert!(site.report.named("error").is_empty(), "{log}");
        }
    }
    if failed && fault.call != "write" {
        let error = reason(fault);
        // The program's own calls fail as well; it says so by a panic.
        let is_named = log.contains(&error) || log.contains(" panicked at ");
        assert!(is_named, "no {error} in:\n{log}");
    }
    met
}

/// What is said where a start fails by it.
fn reason(fault: Fault) -> String {
    use nix::libc;
    let number = match (fault.role, fault.call, fault.error) {
        (_, "connect", "ECONNREFUSED") => return "nobody listens there".to_owned(),
        (_, "connect", "EAGAIN") => return "(takeover_timeout)".to_owned(), // it is tried again
        (_, "recvmsg", "ENOMEM") => return "out of memory".to_owned(),
        (NewDaemon, "clone3", _) => libc::EAGAIN, // whatever it is, pthread_create says this
        (_, _, error) => number(error),
    };
    format!("(os error {number})")
}

fn number(error: &str) -> i32 {
    use nix::libc;
    match error {
        "EACCES" => libc::EACCES,
        "EAGAIN" => libc::EAGAIN,
        "ECONNABORTED" => libc::ECONNABORTED,
        "ECONNREFUSED" => libc::ECONNREFUSED,
        "EDQUOT" => libc::EDQUOT,
        "EINTR" => libc::EINTR,
        "EIO" => libc::EIO,
        "EMFILE" => libc::EMFILE,
        "ENFILE" => libc::ENFILE,
        "ENOBUFS" => libc::ENOBUFS,
        "ENOLCK" => libc::ENOLCK,
        "ENOMEM" => libc::ENOMEM,
        "ENOSPC" => libc::ENOSPC,
        "ENOSYS" => libc::ENOSYS,
        "EPERM" => libc::EPERM,
        "EROFS" => libc::EROFS,
        _ => panic!("no number of {error}"),
    }
}

/// Each of these has been a fault of the crate: what was not sent was lost, what was interrupted had
/// failed, a launcher that was short of descriptors took its supervisor for another, and a daemon that
/// could not read its own start time was never told to end. The worst one: a daemon that could not examine
/// its channel took itself for a launcher and started a daemon, which did the same.
const FOUND: &[(Role, &str, &str, u32)] = &[
    (OldLauncher, "sendmsg", "EINTR", 1),
    (OldDaemon, "sendmsg", "ENOBUFS", 1),
    (OldDaemon, "sendmsg", "ENOMEM", 2),
    (OldDaemon, "sendto", "EINTR", 1),
    (NewLauncher, "sendmsg", "EINTR", 1),
    (NewLauncher, "openat", "EMFILE", 1),
    (NewDaemon, "recvmsg", "EINTR", 1),
    (NewDaemon, "recvmsg", "ENOMEM", 1),
    (NewDaemon, "openat", "EACCES", 3),
    (NewDaemon, "openat", "EINTR", 11),
    (NewDaemon, "pwrite64", "EINTR", 1),
    (NewDaemon, "connect", "EINTR", 1),
    (NewDaemon, "flock", "EINTR", 3),
    (NewDaemon, "fcntl", "EAGAIN", 1),
    (NewDaemon, "getsockopt", "EPERM", 1),
];

#[test]
fn p1_p3_p4_what_was_found_fails_no_more() {
    Boxed::new().private_net().run(|folder| {
        scene::each(folder, FOUND.iter().copied(), |folder, (role, call, error, nth)| {
            assert!(restart(folder, Fault { role, call, error, when: When::Nth(nth) }));
        });
    });
}

/// That it has handlers and that it serves: both have to wait for memory, and its launcher would KILL
/// a daemon that never told.
#[test]
fn p1_a_report_that_cannot_be_sent_is_not_lost() {
    Boxed::new().private_net().run(|folder| {
        let direct = Site::alone(folder);
        let mut first = direct.start(&[
            "--at=before-daemon-init=raise:19",
            "--handoff-timeout=8s",
            "--successor-timeout=none",
        ]);
        let daemon = Watched::new(scene::stopped_child(first.launcher.pid()));
        let (call, error, when) = ("sendmsg", "ENOBUFS", When::First(3));
        let fault = Fault { role: NewDaemon, call, error, when };
        let mut tracer = Tracer::attach(folder, daemon.pid(), fault);
        daemon.signal(CONT);
        direct.report.wait_of(daemon.pid(), "started");
        direct.log.wait_words(&["stage=report", "report=started"], 1);
        tracer.detach();
        assert!(tracer.has_met());
        first.detach();
        direct.wait_checks(daemon.pid(), 1);
        assert!(!direct.log.text().contains("handoff_timeout"), "{}", direct.log);
    });
}

fn sample(seed: u64, count: usize) -> Vec<Fault> {
    let mut dice = fastrand::Rng::with_seed(seed);
    let mut fault = || {
        let (role, call, errors) = CALLS[dice.usize(..CALLS.len())];
        let error = errors[dice.usize(..errors.len())];
        let nth = When::Nth(1 + dice.u32(..4));
        let always = dice.u32(..3) == 0 && may_last(role, call, error);
        Fault { role, call, error, when: if always { When::Always } else { nth } }
    };
    (0..count).map(|_| fault()).collect()
}

#[test]
fn p1_p3_p4_a_sample_of_calls_fails() {
    Boxed::new().private_net().run(|folder| {
        let seed = env::var("SEAMLESS_TEST_SEED").map_or_else(
            |_| RandomState::new().hash_one(0),
            |seed| seed.parse().expect("SEAMLESS_TEST_SEED is a number"),
        );
        println!("SEAMLESS_TEST_SEED={seed}");
        let met = AtomicUsize::new(0);
        scene::each(folder, sample(seed, 12), |folder, fault| {
            let was_met = catch_unwind(AssertUnwindSafe(|| restart(folder, fault)));
            let was_met = was_met.unwrap_or_else(|_| panic!("{fault}; SEAMLESS_TEST_SEED={seed}"));
            met.fetch_add(was_met.into(), Ordering::Relaxed);
        });
        let met = met.into_inner();
        assert!(met > 0, "SEAMLESS_TEST_SEED={seed}: no fault was met");
    });
}

// ---- all of them ----

/// One call of one role with one error: each time that it is made, and then for ever.
#[derive(Clone, Copy)]
struct Chain {
    role: Role,
    call: &'static str,
    error: &'static str,
}

impl Chain {
    fn all() -> Vec<Chain> {
        let wanted = env::var("SEAMLESS_TEST_FAULTS").unwrap_or_default();
        let wanted = wanted.strip_prefix("all").unwrap_or(&wanted).trim().to_owned();
        let chains = CALLS.iter().flat_map(|(role, call, errors)| {
            errors.iter().map(|error| Chain { role: *role, call, error })
        });
        chains.filter(|one| one.name().contains(&wanted)).collect()
    }

    fn name(self) -> String {
        format!("{:?} {} {}", self.role, self.call, self.error)
    }

    /// Returns how many times the fault was met, and what failed.
    fn run(self, folder: &Path) -> (u32, Vec<String>) {
        let Chain { role, call, error } = self;
        let (mut met, mut failures) = (0, Vec::new());
        let mut attempt = |when| {
            let fault = Fault { role, call, error, when };
            let folder = folder.join(format!("{when:?}"));
            fs::create_dir_all(&folder).expect("a folder");
            let was_met = catch_unwind(AssertUnwindSafe(|| restart(&folder, fault)));
            let was_met = was_met.unwrap_or_else(|panic| {
                let text = panic.downcast_ref::<String>().cloned().unwrap_or_default();
                failures.push(format!("{fault}: {text}"));
                true
            });
            met += u32::from(was_met);
            fs::remove_dir_all(&folder).expect("a folder");
            was_met
        };
        (1..=MOST).take_while(|nth| attempt(When::Nth(*nth))).for_each(drop);
        if may_last(role, call, error) {
            attempt(When::Always);
        }
        (met, failures)
    }
}

/// With `SEAMLESS_TEST_FAULTS=all`, as `scripts/faults` does: every call, every error, every time. A
/// table of it goes to the file `SEAMLESS_TEST_TABLE`. Else only the USR2 that may not be sent.
#[test]
fn p1_p3_p4_each_call_fails() {
    let wanted = env::var("SEAMLESS_TEST_FAULTS").is_ok();
    let limit = Duration::from_secs(if wanted { 3 * 60 * 60 } else { 180 });
    Boxed::new().private_net().limit(limit).run(|folder| {
        let chains = match wanted {
            true => Chain::all(),
            false => vec![Chain { role: OldLauncher, call: "pidfd_send_signal", error: "EPERM" }],
        };
        let at_once =
            env::var("SEAMLESS_TEST_AT_ONCE").map_or(12, |at| at.parse().expect("a number"));
        let next = AtomicUsize::new(0);
        let results = Mutex::new(BTreeMap::new());
        thread::scope(|scope| {
            for _ in 0..at_once {
                scope.spawn(|| {
                    while let Some(chain) = chains.get(next.fetch_add(1, Ordering::Relaxed)) {
                        let result = chain.run(&folder.join(chain.name().replace(' ', "-")));
                        results.lock().expect("no panic").insert(chain.name(), result);
                        report(&results.lock().expect("no panic"));
                    }
                });
            }
        });
        let results = results.into_inner().expect("no panic");
        report(&results);
        let failures: Vec<_> = results.values().flat_map(|(_, failures)| failures).collect();
        assert!(failures.is_empty(), "{} failed: {failures:#?}", failures.len());
        assert!(results.values().map(|(met, _)| met).sum::<u32>() > 0, "no fault was met");
    });
}

fn report(results: &BTreeMap<String, (u32, Vec<String>)>) {
    let Some(path) = env::var_os("SEAMLESS_TEST_TABLE") else { return };
    let mut table = format!("{:<40} {:>5} {:>6}\n", "role call error", "cases", "failed");
    for (name, (met, failures)) in results {
        table += &format!("{name:<40} {met:>5} {:>6}\n", failures.len());
    }
    for failure in results.values().flat_map(|(_, failures)| failures) {
        table += &format!("\n{failure}\n");
    }
    fs::write(path, table).expect("the table");
}
