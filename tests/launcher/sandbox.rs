//! System calls that a sandbox refuses to the service.

use std::{
    path::Path,
    process::{Command, Stdio},
};

use seamless_testing::{
    LIMIT,
    boxed::Boxed,
    calls,
    http::{Connection, answer_of},
    process, scene,
    signal::HUP,
    site::{SERVES_ON, Site},
    wait_for,
};

/// What it was started with would otherwise stay open in it: a listener would take connections for ever.
#[test]
fn a_launcher_closes_what_it_does_not_need_also_without_dup3() {
    Boxed::new().run(|folder| {
        scene::each(folder, ["EPERM", "ENOSYS"], |folder, error| {
            let site = Site::alone(folder);
            let plain = site.command(&[]);
            let inject = format!("--inject=dup3:error={error}");
            let mut command = Command::new("sh");
            command.args(["-c", "exec 9</etc/passwd; exec \"$@\"", "sh", "strace", "-qq"]);
            command.args(["-o", "/dev/null", "--trace=dup3", &inject]);
            command.arg(plain.get_program()).args(plain.get_args()).stdin(Stdio::null());
            let _started = site.spawn(command.stderr(site.log_end()));
            let daemon = site.report.wait("started").pid;
            let launcher = process::stat(daemon).expect("it serves").ppid;
            let holds = || {
                let files = process::descriptors(launcher);
                files.iter().any(|(_, file)| file == Path::new("/etc/passwd"))
            };
            wait_for(format!("it is closed: {}", site.log), LIMIT, || (!holds()).then_some(()));
        });
    });
}

/// What a filter of `seccomp(2)` refuses, with EPERM (as container runtimes did for calls that they did not know)
/// and with ENOSYS. A restart in place and one by a supervisor are as ever, and so is a stop.
const NOT_MISSED: &[&str] = &[
    "dup3",
    "faccessat2",
    "getcwd",
    "getdents64",
    "getpeername",
    "getrandom",
    "getsid",
    "kill",
    "madvise",
    "memfd_create",
    "pidfd_open",
    "pidfd_send_signal",
    "prctl",
    "prlimit64",
    "rseq",
    "sched_getaffinity",
    "setsid",
    "sigaltstack",
    "statx",
    "tgkill",
    "waitid",
];

/// What the service cannot do without, and the error that says so.
const MISSED: &[(&str, &str)] = &[
    ("bind", "socket: cannot bind tcp "),
    ("fchmod", "started: cannot bind "),
    ("fcntl", "init: cannot know whether launcher "),
    ("flock", "started: cannot lock "),
    ("ftruncate", "init: cannot cut "),
    ("getpid", "init: cannot learn the PID of this process or of its parent (getpid, getppid)"),
    ("getppid", "init: cannot learn the PID of this process or of its parent (getpid, getppid)"),
    ("getsockname", "socket: cannot bind tcp "),
    ("getsockopt", "init: cannot know whether launcher "),
    ("listen", "socket: cannot bind tcp "),
    ("pwrite64", "init: cannot write "),
    ("recvmsg", "init: cannot read the message of launcher "),
    ("sendmsg", "init: cannot use the channel (launch)"),
    ("setsockopt", "socket: cannot bind tcp "),
    ("socketpair", "init: cannot install handlers (launch)"),
];

const EPERM: i32 = 1;
const ENOSYS: i32 = 38;

fn refuse(call: &str, error: i32) -> String {
    format!("--at=before-init=refuse:{}:{error}", calls::number(call))
}

#[test]
fn p1_p2_p3_p6_calls_that_a_filter_may_refuse() {
    Boxed::new().private_net().run(|folder| {
        // glibc goes on without it if it does not exist.
        let both = NOT_MISSED.iter().flat_map(|call| [(*call, EPERM), (*call, ENOSYS)]);
        let cases: Vec<_> = both.chain([("clone3", ENOSYS)]).collect();
        // A few at once: each is five processes.
        for (at, some) in cases.chunks(9).enumerate() {
            scene::each(&folder.join(at.to_string()), some.to_vec(), |folder, (call, error)| {
                let site = Site::at(folder).shared_socket().alone();
                let filter = refuse(call, error);
                let start = || site.start_ready(&[SERVES_ON, "--reload-signal=1", &filter]);
                let (mut first, old) = start();
                let requests = [(); 2].map(|()| Connection::unfinished(&site.target));
                let assert_replaced = |old: &process::Watched, request: Option<Connection>| {
                    site.wait_drain(old.pid());
                    if let Some(request) = request {
                        assert!(request.finish().ends_with(&answer_of(old.pid())), "{call}");
                    }
                    old.wait_end(LIMIT);
                    let reason = site.report.wait_of(old.pid(), "wait").text;
                    assert_eq!(reason, "TakenOver", "{call}: {}", site.log);
                };
                let [one, other] = requests;
                assert!(other.finish().ends_with(&answer_of(old.pid())), "{call}");
                first.launcher.signal(HUP);
                let second = process::Watched::new(site.report.wait_nth("started", 2).pid);
                assert_replaced(&old, Some(one));
                first.detach();
                let (mut third, newest) = start();
                assert_replaced(&second, None);
                newest.signal(2);
                assert!(third.wait_end().success(), "{call}: {}", site.log);
                wait_for("nothing is left", LIMIT, || site.pids().is_empty().then_some(()));
            });
        }
    });
}

#[test]
fn p10_calls_that_a_filter_may_not_refuse_are_named() {
    Boxed::new().private_net().run(|folder| {
        let both = MISSED
            .iter()
            .flat_map(|(call, text)| [(*call, EPERM, *text), (*call, ENOSYS, *text)].into_iter());
        let more = [("clone3", EPERM, "init: cannot start ")];
        let cases: Vec<_> = both.chain(more).collect();
        scene::each(folder, cases, |folder, (call, error, text)| {
            let site = Site::at(folder).shared_socket().alone();
            let said = site.start(&[&refuse(call, error)]).wait_error().text;
            assert!(said.starts_with(text), "{call}: {said}");
            let names = said.contains("a filter of system calls") || said.contains("seccomp");
            let must = error == ENOSYS && call != "getsockname";
            assert!(names || !(must || ["socketpair", "clone3"].contains(&call)), "{call}: {said}");
        });
    });
}
