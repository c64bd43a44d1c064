//! Another user of the machine, who may do to the files of a service what the system lets him: nobody
//! outside is signalled, nothing outside is touched, and the service serves or says what is wrong.
//!
//! Each test is named in `SECURITY.md`. What one file of somebody else's does to a start is in
//! `tests/root` and in `tests/takeover/{pid_file,files}.rs` as well.

use std::{
    fs,
    os::unix::{
        fs::{MetadataExt, PermissionsExt, chown, symlink},
        net::UnixListener,
    },
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
    time::Duration,
};

use nix::{
    errno::Errno,
    libc,
    sys::signal::{Signal, kill},
    unistd::{Pid, mkfifo},
};
use seamless_testing::{
    LIMIT, bin,
    boxed::{Boxed, Isolation},
    handover::{Predecessor, status},
    hold::Hold,
    innocent::Innocent,
    process::{self, NOBODY, Watched, as_user, holds_claim, stop_without_claim, take_claim},
    report,
    signal::{CONT, TERM, USR1},
    site::{Site, identity},
    wait_for,
};
use socket2::{Domain, SockAddr, Socket, Type};

const SERVES_ON: &str = "--successor-timeout=none";

/// The real root, who may be any user.
fn by_root(test: impl FnOnce(&Path)) {
    Boxed::new().needs(Isolation::Namespaces).run(test);
}

/// What must be left alone, outside of the folder that the other user may write to.
struct Outside {
    innocent: Innocent,
    precious: PathBuf,
    nowhere: PathBuf,
    about: (u32, u32, u64),
}

impl Outside {
    fn new(folder: &Path) -> Self {
        let innocent = Innocent::start();
        let precious = folder.join("precious");
        fs::write(&precious, format!("{}\n", innocent.pid())).expect("a file");
        fs::set_permissions(&precious, fs::Permissions::from_mode(0o640)).expect("its mode");
        let about = Outside::about(&precious);
        Outside { innocent, precious, nowhere: folder.join("nowhere"), about }
    }

    fn about(path: &Path) -> (u32, u32, u64) {
        let about = fs::symlink_metadata(path).expect("the file");
        (about.uid(), about.mode(), about.len())
    }

    #[track_caller]
    fn assert_untouched(&self, what: &str) {
        self.innocent.assert_unharmed();
        let precious = fs::read_to_string(&self.precious).expect("the file");
        assert_eq!(precious, format!("{}\n", self.innocent.pid()), "{what}");
        assert_eq!(Outside::about(&self.precious), self.about, "{what}");
        assert!(!self.nowhere.exists(), "{what}");
        assert!(!self.nowhere.is_symlink(), "{what}");
    }
}

/// A service folder of this user's, with files of the probe's that anybody may write to.
fn place_of(folder: &Path, name: &str, user: u32) -> (PathBuf, Site) {
    let place = folder.join(name);
    fs::create_dir(&place).expect("a folder");
    report::for_all_users(&place);
    chown(&place, Some(user), Some(user)).expect("chown");
    (place.clone(), Site::alone(&place))
}

fn predecessor(direct: &Site, options: &[&str]) -> Watched {
    let (mut started, old) = direct.start_ready(&[&[SERVES_ON], options].concat());
    started.detach();
    direct.wait_checks(old.pid(), 1);
    old
}

#[track_caller]
fn assert_taken_over(direct: &Site, old: &Watched, options: &[&str]) -> Watched {
    let (_started, new) = direct.start_ready(options);
    assert_eq!(direct.report.wait_of(old.pid(), "wait").text, "TakenOver");
    assert_eq!(direct.named(), Some(new.pid()));
    new
}

fn seamless(verb: &str, pid_file: &Path) -> Output {
    let mut command = Command::new(bin::support("seamless"));
    command.args([verb, "--timeout=300ms"]).arg(pid_file).output().expect("seamless")
}

#[track_caller]
fn assert_said(output: &Output, words: &[&str]) {
    let said = [&output.stdout[..], &output.stderr[..]].concat();
    let said = String::from_utf8_lossy(&said);
    assert!(words.iter().all(|word| said.contains(word)), "{words:?} in {said}");
}

// ---- what he puts in the place of a file ----

type Put = fn(&Outside, &Path);

const THINGS: [(&str, Put); 7] = [
    ("a link to a file", |it, path| symlink(&it.precious, path).expect("a link")),
    ("a link to nowhere", |it, path| symlink(&it.nowhere, path).expect("a link")),
    ("a link to a device", |_, path| symlink("/dev/zero", path).expect("a link")),
    ("a second name of a file", |it, path| fs::hard_link(&it.precious, path).expect("a link")),
    ("a fifo", |_, path| make_fifo(path)),
    ("a folder", |_, path| fs::create_dir(path).expect("a folder")),
    ("a file of his", |it, path| {
        fs::copy(&it.precious, path).expect("a file");
        fs::set_permissions(path, fs::Permissions::from_mode(0o666)).expect("its mode");
        chown(path, Some(NOBODY), None).expect("chown");
    }),
];

fn make_fifo(path: &Path) {
    mkfifo(path, nix::sys::stat::Mode::from_bits_truncate(0o666)).expect("a fifo");
}

/// In the places of the files of a moment and of the control socket: replaced, or an error that names
/// it while the predecessor serves on.
#[test]
fn p1_p5_p10_what_is_planted_beside_the_pid_file() {
    by_root(|folder| {
        let case = |name: &str, (what, put): (&str, Put)| {
            let case = format!("{what} at web.pid{name}");
            println!("{case}");
            let folder = folder.join(format!("{name}-{what}"));
            fs::create_dir(&folder).expect("a folder");
            let outside = Outside::new(&folder);
            let (place, direct) = place_of(&folder, "place", NOBODY);
            let old = predecessor(&direct, &[]);
            stop_without_claim(&old); // it would put its own back
            let path = place.join(format!("web.pid{name}"));
            _ = fs::remove_file(&path);
            put(&outside, &path);
            let mut second = direct.start(&[SERVES_ON]);
            if what == "a folder" || name == ".sock.new" {
                let text = second.wait_error().text;
                assert!(text.contains(place.to_str().expect("a path")), "{case}: {text}");
                old.signal(CONT);
                direct.wait_checks(old.pid(), 1);
                assert!(!old.has_ended(), "{case}");
                outside.assert_untouched(&case);
                fs::remove_file(&path).or_else(|_| fs::remove_dir(&path)).expect("it");
                assert_taken_over(&direct, &old, &[]);
            } else {
                let new = second.wait_started();
                old.signal(CONT);
                assert_eq!(direct.report.wait_of(old.pid(), "wait").text, "TakenOver", "{case}");
                assert!(!new.has_ended());
            }
            outside.assert_untouched(&case);
        };
        thread::scope(|scope| {
            let cases =
                [".new", ".sock", ".sock.new"].map(|name| THINGS.map(|thing| (name, thing)));
            for (name, thing) in cases.into_iter().flatten() {
                scope.spawn(move || case(name, thing));
            }
        });
    });
}

/// A detached daemon puts its control socket back, whatever stands there: without it nobody can take
/// over.
#[test]
fn p1_p10_what_is_in_the_place_of_the_takeover_socket() {
    Boxed::new().private_net().needs(Isolation::Namespaces).run(|folder| {
        let outside = Outside::new(folder);
        let (_, direct) = place_of(folder, "place", NOBODY);
        let old = predecessor(&direct, &["--tcp=127.0.0.1:0"]);
        for (count, (what, put)) in THINGS.iter().filter(|one| one.0 != "a folder").enumerate() {
            println!("{what}");
            fs::remove_file(direct.socket()).expect("the socket");
            put(&outside, &direct.socket());
            direct.log.wait_words(&["nobody listened at the control socket"], count + 1);
            let status = status(&direct.socket());
            assert!(status.contains(&format!("daemon={}", old.pid())), "{what}: {status}");
            outside.assert_untouched(what);
        }
        let new = assert_taken_over(&direct, &old, &["--tcp=127.0.0.1:0"]);
        let sockets = direct.report.named("socket");
        assert_eq!(sockets[0].text, sockets[1].text);
        assert_eq!(sockets[1].pid, new.pid());
    });
}

/// A socket that is bound gets its mode; what has come into its place meanwhile does not.
#[test]
fn p10_the_mode_of_a_socket_is_given_to_nothing_else() {
    by_root(|folder| {
        let outside = Outside::new(folder);
        for (what, put) in [THINGS[0], THINGS[1], THINGS[3], THINGS[6]] {
            let (place, direct) = place_of(folder, what, NOBODY);
            let path = place.join("web");
            let go = place.join("go");
            let options = [
                format!("--at=after-init=file:{}", go.display()),
                format!("--unix={},mode=666", path.display()),
            ];
            let options: Vec<&str> = options.iter().map(String::as_str).collect();
            // What the umask takes away has to be given back.
            let probe = direct.command(&options);
            let mut shell = Command::new("sh");
            shell.args(["-c", "umask 077; exec \"$0\" \"$@\""]);
            shell.arg(probe.get_program()).args(probe.get_args()).stderr(direct.log_end());
            let mut started = direct.spawn(&mut shell);
            let daemon = started.wait_init();
            let calls = ["chmod", "fchmodat", "fchmodat2"];
            let hold = Hold::at(daemon.pid(), &calls, 1, None, &place);
            fs::write(&go, "").expect("a file");
            hold.wait();
            let temporary = place.join("web.new");
            fs::remove_file(&temporary).expect("the socket, before it has its name");
            put(&outside, &temporary);
            hold.release();
            direct.report.wait_of(daemon.pid(), "started");
            outside.assert_untouched(what);
            started.launcher.kill();
            daemon.kill();
            started.wait_end();
        }
    });
}

// ---- a race ----

/// Set when it is dropped, also by a panic.
struct OnDrop<'a>(&'a AtomicBool);

impl Drop for OnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Replaces each file of the service by each thing, over and over.
fn replace_all(outside: &Outside, place: &Path, over: &AtomicBool, done: &AtomicUsize) {
    let own = place.join("own");
    let put = |path: &Path, what: usize| match what {
        0 => symlink(&outside.precious, path),
        1 => symlink(&outside.nowhere, path),
        2 => fs::hard_link(&outside.precious, path),
        3 => fs::write(&own, format!("{}\n", outside.innocent.pid()))
            .and_then(|()| fs::rename(&own, path)),
        4 => mkfifo(path, nix::sys::stat::Mode::S_IRWXU).map_err(Into::into),
        _ => fs::create_dir(path).and_then(|()| fs::remove_dir(path)),
    };
    for what in (0..6).cycle().take_while(|_| !over.load(Ordering::Relaxed)) {
        for name in ["web.pid", "web.pid.new", "web.pid.lock", "web.pid.sock", "web.pid.sock.new"] {
            let path = place.join(name);
            _ = fs::remove_file(&path);
            _ = put(&path, what); // the service may be quicker
            done.fetch_add(1, Ordering::Relaxed);
        }
        thread::sleep(Duration::from_micros(200 << what));
    }
}

/// The owner of the folder, against a service of root's that starts 50 times. He can have it fail, and
/// that is all; when he is done, it starts.
#[test]
fn p5_p10_a_user_who_replaces_every_file_all_the_time() {
    by_root(|folder| {
        let outside = Outside::new(folder);
        let (place, direct) = place_of(folder, "place", NOBODY);
        let (over, done) = (AtomicBool::new(false), AtomicUsize::new(0));
        let mut refused = 0;
        let mut old: Option<Watched> = None;
        thread::scope(|scope| {
            let until = OnDrop(&over);
            scope.spawn(|| as_user(NOBODY, || replace_all(&outside, &place, &over, &done)));
            for _ in 0..50 {
                let mut started = direct.start(&["--claim-timeout=300ms", SERVES_ON]);
                let launcher = started.launcher.pid().to_string();
                let daemon = wait_for("a start, or its end", LIMIT, || {
                    if started.launcher.has_ended() {
                        return Some(None);
                    }
                    let init = direct.report.named("init");
                    let daemon = init.into_iter().find(|init| init.text == launcher)?.pid;
                    let serves = direct.report.names_of(daemon).contains(&"started".to_owned());
                    serves.then(|| Some(Watched::new(daemon)))
                });
                match daemon {
                    Some(daemon) => {
                        started.detach();
                        if let Some(old) = old.replace(daemon) {
                            old.kill();
                        }
                    }
                    None => {
                        refused += 1;
                        let text = started.wait_error().text;
                        assert!(text.contains(place.to_str().expect("a path")), "{text}");
                    }
                }
                outside.assert_untouched("replaced over and over");
            }
            drop(until);
        });
        let done = done.into_inner();
        assert!(done > 50, "{done} replaced, {refused} starts refused");
        println!("{done} replaced, {refused} starts refused");
        // The last that serves, if there is one, is found or finds out.
        for entry in fs::read_dir(&place).expect("the folder") {
            let path = entry.expect("an entry").path();
            if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("web.pid")) {
                fs::remove_file(&path).or_else(|_| fs::remove_dir(&path)).expect("it");
            }
        }
        let (_started, new) = direct.start_ready(&[]);
        if let Some(old) = old {
            old.wait_end(LIMIT);
        }
        assert_eq!(direct.named(), Some(new.pid()));
        outside.assert_untouched("at the end");
    });
}

/// The lock file alone, as fast as can be: nobody is kept there, neither one that starts nor one that
/// looks round.
#[test]
fn p1_p10_a_lock_file_that_is_replaced_all_the_time() {
    by_root(|folder| {
        let (place, direct) = place_of(folder, "place", NOBODY);
        let old = predecessor(&direct, &[]);
        let (over, done) = (AtomicBool::new(false), AtomicUsize::new(0));
        thread::scope(|scope| {
            let until = OnDrop(&over);
            scope.spawn(|| {
                as_user(NOBODY, || {
                    let own = place.join("own");
                    let lock = direct.lock_file();
                    while !over.load(Ordering::Relaxed) {
                        fs::File::create(&own).expect("a file");
                        let mode = fs::Permissions::from_mode(0o600);
                        fs::set_permissions(&own, mode).expect("its mode");
                        fs::rename(&own, &lock).expect("a rename");
                        done.fetch_add(1, Ordering::Relaxed);
                    }
                })
            });
            wait_for("it is replaced", LIMIT, || {
                (done.load(Ordering::Relaxed) > 100).then_some(())
            });
            for _ in 0..2 {
                // As slow as on a slow machine: it never sees the file that it has just locked.
                let probe = direct.command(&["--claim-timeout=300ms"]);
                let mut strace = Command::new("strace");
                strace.args(["-D", "-f", "-qq", "-o", "/dev/null", "-e", "trace=fcntl"]);
                strace.args(["-e", "inject=fcntl:delay_exit=5ms"]).arg(probe.get_program());
                strace.args(probe.get_args()).stderr(direct.log_end());
                let mut started = direct.spawn(&mut strace);
                let launcher = started.launcher.pid().to_string();
                wait_for("a start, or its end", LIMIT, || {
                    let named = |name| direct.report.named(name).into_iter();
                    let init = named("init").find(|init| init.text == launcher);
                    let serves = init.is_some_and(|init| {
                        named("started").any(|started| started.pid == init.pid)
                    });
                    (serves || started.launcher.has_ended()).then_some(())
                });
                started.launcher.kill();
                started.wait_end();
            }
            // One that serves after all has taken its place.
            if direct.report.named("started").len() == 1 {
                direct.wait_checks(old.pid(), 1);
            }
            old.signal(TERM);
            old.wait_end(LIMIT);
            drop(until);
        });
    });
}

/// The lock file is replaced while a generation starts: it serves, and so does the next one, which
/// takes over from it.
#[test]
fn p1_p4_a_lock_file_that_is_replaced_while_it_is_held() {
    by_root(|folder| {
        let (place, direct) = place_of(folder, "place", NOBODY);
        let [go, go_too] = ["go", "go-too"].map(|name| place.join(name));
        let wait = |go: &Path| format!("--at=after-init=file:{}", go.display());
        let mut first = direct.start(&[&wait(&go), SERVES_ON]);
        let old = first.wait_init();
        assert!(holds_claim(old.pid()));
        fs::remove_file(direct.lock_file()).expect("the lock file");
        as_user(NOBODY, || fs::write(direct.lock_file(), "").expect("another"));
        fs::set_permissions(direct.lock_file(), fs::Permissions::from_mode(0o600)).expect("mode");
        // Meanwhile another one starts with a claim of its own.
        let mut second = direct.start(&[&wait(&go_too), SERVES_ON]);
        let new = second.wait_init();
        assert!(holds_claim(new.pid()));
        for (go, daemon) in [(go, &old), (go_too, &new)] {
            fs::write(go, "").expect("a file");
            direct.report.wait_of(daemon.pid(), "started");
        }
        // Detached, the first finds the second.
        first.detach();
        assert_eq!(direct.report.wait_of(old.pid(), "wait").text, "TakenOver");
        assert!(!new.has_ended());
        second.detach();
        assert_taken_over(&direct, &new, &[]);
    });
}

// ---- a lock that is held for ever ----

/// The owner of the folder may hold it: the start ends in time and names him, and the predecessor
/// serves on.
#[test]
fn p1_p10_a_lock_that_another_user_holds_for_ever() {
    by_root(|folder| {
        let (_, direct) = place_of(folder, "place", NOBODY);
        let old = predecessor(&direct, &[]);
        let lock = direct.lock_file();
        assert_eq!(fs::metadata(&lock).expect("it").uid(), NOBODY, "given to him");
        let open = || fs::File::options().read(true).write(true).open(&lock).expect("his file");
        let file = as_user(NOBODY, open);
        take_claim(&file);
        let text = direct.start(&["--claim-timeout=300ms"]).wait_error().text;
        let own = std::process::id();
        let named =
            format!("cannot lock {lock:?} (claim): process {own} is starting, and holds it");
        assert!(text.contains(&named), "{text}");
        direct.log.wait_words(&["stage=check", &format!("daemon={} ", old.pid()), "ClaimHeld"], 2);
        assert!(!old.has_ended());
        drop(file);
        assert_taken_over(&direct, &old, &[]);
    });
}

// ---- the control socket ----

/// Connections of another user, by the hundred, that say nothing or a little at a time: refused one by
/// one, they hold up nobody. The socket's mode would keep him out; somebody has opened it to all.
#[test]
fn p1_p2_a_flood_of_connections_from_another_user() {
    Boxed::new().private_net().needs(Isolation::Namespaces).run(|folder| {
        let (_, direct) = place_of(folder, "place", 0);
        let old = predecessor(&direct, &["--tcp=127.0.0.1:0"]);
        let socket = direct.socket();
        assert_eq!(fs::metadata(&socket).expect("it").mode() & 0o777, 0o600);
        let denied = as_user(NOBODY, || {
            let end = Socket::new(Domain::UNIX, Type::SEQPACKET, None).expect("a socket");
            end.connect(&SockAddr::unix(&socket).expect("an address")).expect_err("no connection")
        });
        assert_eq!(denied.raw_os_error(), Some(libc::EACCES));
        fs::set_permissions(&socket, fs::Permissions::from_mode(0o666)).expect("a mode");
        let threads = process::stat(old.pid()).expect("it").threads;
        let (over, done) = (AtomicBool::new(false), AtomicUsize::new(0));
        let new = thread::scope(|scope| {
            let until = OnDrop(&over);
            for _ in 0..8 {
                scope.spawn(|| as_user(NOBODY, || flood(&socket, &over, &done)));
            }
            wait_for("a flood", LIMIT, || (done.load(Ordering::Relaxed) > 200).then_some(()));
            // It talks to eight at a time. On a busy machine some whom it has refused may still have
            // their thread on its way out; each for itself they would be hundreds, for good.
            let answering =
                || process::stat(old.pid()).expect("it").threads.saturating_sub(threads);
            assert!(answering() < 64);
            wait_for("eight at a time", LIMIT, || (answering() <= 8).then_some(()));
            let (_started, new) = direct.start_ready(&["--tcp=127.0.0.1:0"]);
            drop(until);
            new
        });
        assert_eq!(direct.report.wait_of(old.pid(), "wait").text, "TakenOver");
        let sockets = direct.report.named("socket");
        assert_eq!(sockets.len(), 2);
        assert_eq!(sockets[0].text, sockets[1].text);
        assert!(!new.has_ended());
        let refused =
            format!("peer={} error=\"uid {NOBODY} may not take over\"", std::process::id());
        direct.log.wait_words(&["stage=transfer", &refused], 200);
    });
}

/// Holds 32 connections at a time, and never reads what it is told there.
fn flood(path: &Path, over: &AtomicBool, done: &AtomicUsize) {
    let address = SockAddr::unix(path).expect("an address");
    let mut held = std::collections::VecDeque::new();
    while !over.load(Ordering::Relaxed) {
        let end = Socket::new(Domain::UNIX, Type::SEQPACKET, None).expect("a socket");
        end.set_write_timeout(Some(Duration::from_millis(100))).expect("a time limit");
        if end.connect(&address).is_ok() {
            _ = end.send_with_flags(b"seamless-takeover 1 ta", libc::MSG_NOSIGNAL);
            done.fetch_add(1, Ordering::Relaxed);
            held.push_back(end);
        }
        if held.len() > 32 {
            held.pop_front();
        }
    }
}

/// Another user's socket in the place of the predecessor's, in a folder that all may write to: it gets
/// no message, and nothing is taken from it.
#[test]
fn p1_p5_p10_a_takeover_socket_of_another_user() {
    Boxed::new().private_net().needs(Isolation::Namespaces).run(|folder| {
        let (place, direct) = place_of(folder, "place", 0);
        fs::set_permissions(&place, fs::Permissions::from_mode(0o777)).expect("its mode");
        let old = predecessor(&direct, &["--tcp=127.0.0.1:0"]);
        stop_without_claim(&old);
        let good = folder.join("good");
        fs::rename(direct.socket(), &good).expect("the control socket");
        let fake = as_user(NOBODY, || Predecessor::unproven(&direct));
        fs::set_permissions(direct.socket(), fs::Permissions::from_mode(0o666)).expect("a mode");
        let text = thread::scope(|scope| {
            let failed = scope.spawn(|| direct.start(&["--tcp=127.0.0.1:0"]).wait_error().text);
            let end = fake.accept();
            // It would send the descriptors of his own sockets, or take ours.
            _ = end.try_send(b"seamless-takeover 1 offer generation=1 sockets=0 state=-", &[]);
            assert!(end.receive().is_none(), "it said something");
            failed.join().expect("no panic")
        });
        let why = format!("process {} listens there, which is not proven", std::process::id());
        assert!(text.contains(&why), "{text}");
        for verb in ["status", "restart", "stop"] {
            let said = thread::scope(|scope| {
                let said = scope.spawn(|| seamless(verb, &direct.pid_file()));
                let end = fake.accept();
                assert!(end.receive().is_none(), "it said something");
                said.join().expect("no panic")
            });
            assert_said(&said, &["not proven to be generation 1"]);
        }
        fs::remove_file(direct.socket()).expect("his socket");
        fs::rename(&good, direct.socket()).expect("the control socket");
        old.signal(CONT);
        assert_taken_over(&direct, &old, &["--tcp=127.0.0.1:0"]);
    });
}

/// Nothing of the crate's has an abstract name, which no file mode guards.
#[test]
fn no_socket_has_an_abstract_name() {
    Boxed::new().private_net().needs(Isolation::Namespaces).run(|folder| {
        let (_, direct) = place_of(folder, "place", 0);
        let old = predecessor(&direct, &["--tcp=127.0.0.1:0"]);
        let sockets = fs::read_to_string("/proc/net/unix").expect("the sockets");
        let named: Vec<&str> = sockets
            .lines()
            .skip(1)
            .filter_map(|line| line.split_ascii_whitespace().nth(7))
            .collect();
        // By the name that it was bound to.
        let socket = format!("{}.new", direct.socket().display());
        assert!(named.contains(&socket.as_str()), "{named:?}");
        assert!(named.iter().all(|name| !name.starts_with('@')), "{named:?}");
        assert!(!old.has_ended());
    });
}

// ---- the command ----

/// The command, as root, on files that another user has put there. Those that say nothing, or that
/// might be another service's, are believed no more than by the service.
#[test]
fn p5_p10_the_command_on_planted_files() {
    by_root(|folder| {
        let innocent = Innocent::start();
        let (_, victim) = place_of(folder, "victim", 0);
        let (mut started, daemon) = victim.start_ready(&[SERVES_ON]);
        let record = fs::read_to_string(victim.lock_file()).expect("a record");
        // As one of root's that has lost its control socket, and is only signalled.
        let planted = record
            .replace(&identity(daemon.pid()), &identity(innocent.pid()))
            .replace("state=serving", "state=draining");
        let mut number = 0;
        let mut case = |words: &str, put: &dyn Fn(&Path, &Site)| {
            number += 1;
            let (place, direct) = place_of(folder, &number.to_string(), NOBODY);
            put(&place, &direct);
            for verb in ["status", "restart", "stop"] {
                assert_said(&seamless(verb, &direct.pid_file()), &[words]);
            }
            innocent.assert_unharmed();
            assert!(!daemon.has_ended());
            assert!(!victim.log.text().contains("stage=command"), "{}", victim.log);
        };
        case("it has a second name (a hard link), and may be another's", &|_, direct| {
            fs::hard_link(victim.lock_file(), direct.lock_file()).expect("a link");
            symlink(victim.socket(), direct.socket()).expect("a link");
        });
        case("others may write to it (mode 0666)", &|_, direct| {
            fs::write(direct.lock_file(), &planted).expect("a record");
            let mode = fs::Permissions::from_mode(0o666);
            fs::set_permissions(direct.lock_file(), mode).expect("its mode");
        });
        case("not a regular file", &|_, direct| make_fifo(&direct.lock_file()));
        case("Too many levels of symbolic links", &|_, direct| {
            symlink(victim.lock_file(), direct.lock_file()).expect("a link");
        });
        case("not a regular file", &|_, direct| make_fifo(&direct.pid_file()));
        case("Too many levels of symbolic links", &|_, direct| {
            symlink("/dev/zero", direct.pid_file()).expect("a link");
        });
        case("belongs to uid 65534, but process", &|_, direct| {
            fs::write(direct.lock_file(), &planted).expect("a record");
            let mode = fs::Permissions::from_mode(0o600);
            fs::set_permissions(direct.lock_file(), mode).expect("its mode");
            chown(direct.lock_file(), Some(NOBODY), None).expect("chown");
        });
        started.launcher.kill();
        daemon.kill();
        started.wait_end();
    });
}

/// `seamless check` finds a folder that others than the service's user may write to, a group's as well.
#[test]
fn a_folder_that_a_group_may_write_to_is_a_problem() {
    by_root(|folder| {
        const GROUP: u32 = 4711;
        let (place, direct) = place_of(folder, "place", NOBODY);
        let check = || {
            let mut command = Command::new(bin::support("seamless"));
            command.args(["check", "--user=nobody"]).arg(direct.pid_file());
            let output = command.output().expect("seamless");
            String::from_utf8_lossy(&output.stdout).into_owned()
        };
        let says = format!(
            "group {GROUP} may write to {place:?} and replace the files of the service, and nobody is \
             not in that group"
        );
        for (mode, group, is_problem) in
            [(0o775, GROUP, true), (0o755, GROUP, false), (0o775, NOBODY, false), (0o775, 0, false)]
        {
            fs::set_permissions(&place, fs::Permissions::from_mode(mode)).expect("its mode");
            chown(&place, None, Some(group)).expect("chown");
            let said = check();
            assert_eq!(said.contains(&says), is_problem, "{mode:o} of {group}: {said}");
        }
    });
}

// ---- signals and the environment ----

/// The kernel lets no other user signal the service, nor look into it.
#[test]
fn p5_p8_another_user_may_not_signal_the_service() {
    by_root(|folder| {
        let (_, direct) = place_of(folder, "place", 0);
        let (mut started, daemon) = direct.start_ready(&["--catch-all", SERVES_ON]);
        for pid in [started.launcher.pid(), daemon.pid()] {
            as_user(NOBODY, || {
                for signal in [Signal::SIGTERM, Signal::SIGUSR2, Signal::SIGCHLD, Signal::SIGKILL] {
                    let pid = Pid::from_raw(pid as i32);
                    assert_eq!(kill(pid, signal), Err(Errno::EPERM), "{signal}");
                }
                for name in ["exe", "fd/0", "environ"] {
                    let denied = fs::read(format!("/proc/{pid}/{name}")).expect_err("root's");
                    assert_eq!(denied.kind(), std::io::ErrorKind::PermissionDenied, "{name}");
                }
            });
        }
        for file in [direct.lock_file(), direct.socket()] {
            assert_eq!(fs::metadata(&file).expect("it").mode() & 0o777, 0o600, "{file:?}");
        }
        // What came before this signal has been taken before it.
        started.launcher.signal(USR1);
        assert_eq!(direct.report.wait_of(daemon.pid(), "signal").number(), USR1 as u64);
        assert_eq!(direct.report.names_of(daemon.pid()), ["init", "started", "signal"]);
        started.launcher.kill();
        daemon.kill();
        started.wait_end();
    });
}

/// Whoever starts the service is trusted; but what is left of another service's variables, or what
/// cannot be true, is not followed.
#[test]
fn p10_variables_that_cannot_be_true() {
    by_root(|folder| {
        let launcher = std::process::id().to_string();
        let notify = folder.join("notify");
        UnixListener::bind(&notify).expect("a socket of another type");
        for (number, variables) in [
            // No channel, no socket, somebody else's end of one.
            vec![("SEAMLESS", launcher.as_str())],
            vec![("SEAMLESS", &launcher), ("SEAMLESS_CHANNEL", "0")],
            vec![("SEAMLESS", &launcher), ("SEAMLESS_CHANNEL", "2")],
            vec![("SEAMLESS", "1"), ("SEAMLESS_CHANNEL", "99")],
            vec![("SEAMLESS", "-1"), ("SEAMLESS_CHANNEL", "3")],
            vec![("SEAMLESS", "x"), ("SEAMLESS_CHANNEL", "99999999999")],
            vec![("LISTEN_PID", "1"), ("LISTEN_FDS", "4")],
            vec![("LISTEN_PID", &launcher), ("LISTEN_FDS", "-4"), ("LISTEN_FDNAMES", ":::")],
            vec![("NOTIFY_SOCKET", notify.to_str().expect("a path"))],
            vec![("NOTIFY_SOCKET", "@nobody"), ("WATCHDOG_USEC", "x"), ("WATCHDOG_PID", "0")],
            vec![("NOTIFY_SOCKET", "/dev/full")],
        ]
        .into_iter()
        .enumerate()
        {
            let (_, direct) = place_of(folder, &number.to_string(), 0);
            let mut started = direct.spawn(direct.command(&[]).envs(variables));
            let daemon = started.wait_started();
            assert_ne!(daemon.pid(), started.launcher.pid());
            assert_eq!(direct.named(), Some(daemon.pid()));
            daemon.signal(TERM);
            assert!(started.wait_end().success());
        }
    });
}
