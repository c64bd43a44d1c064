//! What only root can set up: other users, and a PID that is used again.

mod debian;
mod deploys;
mod systemd;
mod upgrade;

use std::{
    fs,
    os::unix::{
        fs::{MetadataExt, PermissionsExt, chown},
        process::CommandExt,
    },
    path::Path,
    process::Command,
    thread,
};

pub(crate) use seamless_testing::LIMIT;
use seamless_testing::{
    bin,
    boxed::{Boxed, Isolation},
    handover::{End, targets, wait_targets},
    innocent::Innocent,
    process::{self, NOBODY, Watched, stop_without_claim},
    report,
    signal::{CONT, TERM},
    site::{Site, identity},
    supervisor::{Service, Supervisor},
    wait_for,
};

/// Neither root nor the user of the service.
const THIRD: u32 = 4711;

fn by_root(test: impl FnOnce(&Path)) {
    let boxed = Boxed::new();
    boxed.needs(Isolation::Namespaces).run(test);
}

/// A service folder of this user, with files of the probe's that anybody may write to.
fn place_of(folder: &Path, user: u32) -> Site {
    let place = folder.join("place");
    fs::create_dir(&place).expect("a folder");
    report::for_all_users(&place);
    chown(&place, Some(user), Some(user)).expect("chown");
    Site::alone(&place)
}

#[track_caller]
fn assert_serves_on(direct: &Site, old: &Watched) {
    direct.wait_checks(old.pid(), 1);
    assert!(!old.has_ended());
    assert_eq!(direct.named(), Some(old.pid()));
    assert!(direct.report.names_of(old.pid()).iter().all(|name| name != "wait"));
}

// ---- other users ----

#[test]
fn p10_an_unwritable_folder_is_an_error() {
    by_root(|folder| {
        let direct = place_of(folder, 0);
        let hint = format!("the folder must be writable by uid {NOBODY}");
        let mut started = direct.start(&["--at=before-daemon-init=user:65534"]);
        let text = format!(
            "init: cannot open {:?} (claim): Permission denied (os error 13); {hint}",
            direct.lock_file()
        );
        assert_eq!(started.wait_error().text, text);

        // The same where a predecessor serves, and the user changes after `init`.
        let (mut first, old) = direct.start_ready(&["--successor-timeout=none"]);
        first.detach();
        let mut second = direct.start(&["--at=after-init=user:65534"]);
        let text = format!(
            "started: cannot bind {:?} (takeover): Permission denied (os error 13); {hint}",
            direct.socket()
        );
        assert_eq!(second.wait_error().text, text);
        assert_serves_on(&direct, &old);
        direct.start_ready(&[]);
        assert_eq!(direct.report.wait_of(old.pid(), "wait").text, "TakenOver");
    });
}

#[test]
fn p5_p10_another_user_gets_no_sockets() {
    by_root(|folder| {
        let direct = place_of(folder, NOBODY);
        let (mut first, old) = direct.start_ready(&[
            "--tcp=127.0.0.1:0",
            "--at=ready=user:65534",
            "--successor-timeout=none",
        ]);
        first.detach();
        direct.wait_checks(old.pid(), 1);
        let held = targets(old.pid());
        // Its mode keeps others out; but somebody may have opened it to them.
        fs::set_permissions(direct.socket(), fs::Permissions::from_mode(0o666)).expect("a mode");
        for message in ["take generation=2", "status"] {
            let end = End::connect_as(12345, &direct.socket());
            // It need not wait for what we say.
            end.try_send(format!("seamless-takeover 1 {message}").as_bytes(), &[]);
            let answer = "seamless-takeover 1 refused uid 12345 may not take over";
            assert_eq!(end.text(), answer);
            assert!(end.receive().is_none());
        }
        let words = [&format!("peer={} ", std::process::id()), "uid 12345 may not take over"];
        direct.log.wait_words(&words, 2);
        wait_targets(old.pid(), &held);
        // Its own user and root may ask.
        for user in [NOBODY, 0] {
            let end = End::connect_as(user, &direct.socket());
            end.send("seamless-takeover 1 status");
            assert!(end.text().contains(&format!("daemon={}", old.pid())));
        }
        // A successor is root when it takes over, and becomes that user then.
        let (_second, new) = direct.start_ready(&["--tcp=127.0.0.1:0", "--at=ready=user:65534"]);
        assert_eq!(direct.report.wait_of(old.pid(), "wait").text, "TakenOver");
        let sockets: Vec<String> =
            direct.report.named("socket").into_iter().map(|event| event.text).collect();
        assert_eq!(sockets.len(), 2);
        assert_eq!(sockets[0], sockets[1]);
        assert!(!new.has_ended());
    });
}

/// In a folder that it may not write to, the service cannot put its control socket in place.
#[test]
fn p10_a_takeover_socket_that_we_may_not_bind_is_an_error() {
    by_root(|folder| {
        let direct = place_of(folder, NOBODY);
        // Everything else is there and ours.
        fs::create_dir(direct.socket()).expect("a folder in its place");
        let mut started = direct.start(&["--at=after-init=user:65534"]);
        let text = format!(
            "started: cannot bind {:?} (takeover): Is a directory (os error 21)",
            direct.socket()
        );
        assert_eq!(started.wait_error().text, text);
    });
}

#[test]
fn p10_a_lock_file_that_we_may_not_open_is_an_error() {
    by_root(|folder| {
        let direct = place_of(folder, NOBODY);
        fs::write(direct.lock_file(), "").expect("a file");
        fs::set_permissions(direct.lock_file(), fs::Permissions::from_mode(0o600)).expect("mode");
        let mut started = direct.start(&["--at=before-daemon-init=user:65534"]);
        let text = format!(
            "init: cannot open {:?} (claim): Permission denied (os error 13); it belongs to uid 0: \
             chown it and its folder to uid {NOBODY}",
            direct.lock_file()
        );
        assert_eq!(started.wait_error().text, text);
    });
}

/// In a folder of a third user's, by somebody who is neither root nor that user: a sticky one that
/// all may write to, and one that is not sticky.
#[test]
fn p10_a_lock_file_that_somebody_planted_is_an_error() {
    by_root(|folder| {
        let direct = place_of(folder, THIRD);
        let (mut first, old) = direct.start_ready(&["--successor-timeout=none"]);
        first.detach();
        direct.wait_checks(old.pid(), 1);
        let good = folder.join("good");
        fs::rename(direct.lock_file(), &good).expect("the lock file");
        let innocent = Innocent::start();
        // It names a process that lives and belongs to somebody else than the file.
        let record = fs::read_to_string(&good).expect("the record");
        let record = naming(&record, &old, innocent.pid());
        for mode in [0o777, 0o1777] {
            let place = direct.pid_file();
            let place = place.parent().expect("its folder");
            fs::set_permissions(place, fs::Permissions::from_mode(mode)).expect("its mode");
            for content in ["", &record] {
                fs::write(direct.lock_file(), content).expect("a file");
                chown(direct.lock_file(), Some(NOBODY), None).expect("chown");
                let mut second = direct.start(&[]);
                let text = format!(
                    "init: cannot use {:?} (claim): it belongs to uid {NOBODY}, of whom no live \
                     generation is known; remove it if it is a leftover",
                    direct.lock_file()
                );
                assert_eq!(second.wait_error().text, text, "{mode:o}");
                assert_serves_on(&direct, &old);
                innocent.assert_unharmed();
            }
        }
        fs::rename(&good, direct.lock_file()).expect("the lock file");
        direct.start_ready(&[]);
        assert_eq!(direct.report.wait_of(old.pid(), "wait").text, "TakenOver");
    });
}

/// The record with another process in the place of this daemon.
fn naming(record: &str, daemon: &Watched, pid: u32) -> String {
    let named = record.replace(&identity(daemon.pid()), &identity(pid));
    assert!(named.contains(&format!("daemon={pid}:")), "{named}");
    named
}

/// The owner of the folder may write the record. It has his own processes signalled, as he could do
/// himself, and nobody else's, however much they look like his.
#[test]
fn p5_a_record_is_believed_as_far_as_its_owner_could_act() {
    by_root(|folder| {
        let direct = place_of(folder, NOBODY);
        let (mut first, old) = direct.start_ready(&["--successor-timeout=none"]);
        first.detach();
        direct.wait_checks(old.pid(), 1);
        let of_root = Innocent::start();
        let of_third = Innocent::run(Command::new("sleep").arg("1000").uid(THIRD));
        // Root's own, which acts for nobody at the moment.
        let mut acting = Command::new(bin::probe());
        acting.args(["--pid-file=", "--at=after-init=euid:65534"]);
        let acting = Innocent::run(&mut acting);
        wait_for("it acts as nobody", LIMIT, || {
            let about = fs::metadata(format!("/proc/{}", acting.pid())).expect("it");
            (about.uid() == NOBODY).then_some(())
        });
        let of_nobody = Innocent::run(Command::new("sleep").arg("1000").uid(NOBODY));

        // A look round of the old one would drop none of these, but must not come in between.
        stop_without_claim(&old);
        let record = fs::read_to_string(direct.lock_file()).expect("the record");
        let line = record.lines().find(|line| line.starts_with("generation=1 ")).expect("its line");
        let mut planted = String::new();
        let innocents = [&of_root, &of_third, &acting, &of_nobody];
        for (number, innocent) in innocents.iter().enumerate() {
            let line = naming(line, &old, innocent.pid());
            planted += &line.replace("generation=1 ", &format!("generation={} ", 2 + number));
            planted += "\n";
        }
        let planted = record.replace("last=1", "last=5").replace("end\n", &(planted + "end\n"));
        let file = direct.lock_file();
        fs::remove_file(&file).expect("the lock file");
        fs::write(&file, planted).expect("the lock file");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).expect("its mode");
        chown(&file, Some(NOBODY), None).expect("chown");
        fs::write(direct.pid_file(), format!("{}\n", of_root.pid())).expect("a PID file");

        let (_second, new) = direct.start_ready(&["--successor-timeout=none"]);
        assert_eq!(direct.report.wait_of(new.pid(), "started").number(), 6);
        Watched::new(of_nobody.pid()).wait_end(LIMIT);
        for innocent in [&of_root, &of_third, &acting] {
            innocent.assert_unharmed();
            let predecessor = format!("predecessor={} ", innocent.pid());
            let refused = "refused=\"belongs to another user than uid 65534, who owns the record\"";
            direct.log.wait_words(&["stage=takeover", &predecessor, refused], 1);
        }
        // Of root as well, so it was not signalled: it finds out by itself.
        let predecessor = format!("predecessor={} ", old.pid());
        direct.log.wait_words(&["stage=takeover", &predecessor, "refused="], 1);
        old.signal(CONT);
        assert_eq!(direct.report.wait_of(old.pid(), "wait").text, "TakenOver");
        assert_eq!(direct.named(), Some(new.pid()));
    });
}

/// Told to stop, a daemon of root's signals nobody else's process either.
#[test]
fn p5_a_stop_believes_a_record_as_far_as_its_owner_could_act() {
    by_root(|folder| {
        let direct = place_of(folder, NOBODY);
        let run = bin::probe_script(&folder.join("place"), "").replace("2>&1", "2>>../place/log");
        let service = Service::new(Supervisor::Runit, folder.join("service"), &run);
        let daemon = Watched::new(direct.report.wait("started").pid);
        let innocent = Innocent::start();
        let record = fs::read_to_string(direct.lock_file()).expect("the record");
        let line = record.lines().find(|line| line.starts_with("generation=1 ")).expect("its line");
        let planted =
            naming(line, &daemon, innocent.pid()).replace("generation=1 ", "generation=0 ");
        let planted = record.replace("end\n", &(planted + "\nend\n"));
        fs::write(direct.lock_file(), planted).expect("the record");
        assert_eq!(fs::metadata(direct.lock_file()).expect("it").uid(), NOBODY);
        service.down();
        direct.report.wait_of(daemon.pid(), "hook");
        let predecessor = format!("predecessor={} ", innocent.pid());
        direct.log.wait_words(&["stage=takeover", &predecessor, "refused="], 1);
        innocent.assert_unharmed();
        // It may be an older generation, whose end is waited for.
        assert!(!daemon.has_ended());
        drop(innocent);
        daemon.wait_end(LIMIT);
        service.wait_down();
    });
}

#[test]
fn p10_a_lock_file_that_others_may_write_to_is_an_error() {
    by_root(|folder| {
        for user in [0, NOBODY] {
            let place = folder.join(user.to_string());
            fs::create_dir(&place).expect("a folder");
            let direct = place_of(&place, user);
            let (mut first, old) = direct.start_ready(&["--successor-timeout=none"]);
            first.detach();
            for mode in [0o666, 0o620, 0o602] {
                let allow = |mode| {
                    let mode = fs::Permissions::from_mode(mode);
                    fs::set_permissions(direct.lock_file(), mode).expect("its mode");
                };
                allow(mode);
                let text = format!(
                    "init: cannot use {:?} (claim): others may write to it (mode {mode:04o}); \
                     remove it if it is a leftover",
                    direct.lock_file()
                );
                assert_eq!(direct.start(&[]).wait_error().text, text);
                assert_serves_on(&direct, &old);
                allow(0o600);
            }
            direct.start_ready(&[]);
            assert_eq!(direct.report.wait_of(old.pid(), "wait").text, "TakenOver");
        }
    });
}

/// A file of root's that got a second name in the service's folder: it is neither written to nor
/// given away.
#[test]
fn p10_a_lock_file_with_a_second_name_is_an_error() {
    by_root(|folder| {
        let direct = place_of(folder, NOBODY);
        let precious = folder.join("precious");
        for content in ["", "seamless-record 1 last=7\nend\n", "precious"] {
            fs::write(&precious, content).expect("a file");
            fs::hard_link(&precious, direct.lock_file()).expect("a link");
            let text = direct.start(&[]).wait_error().text;
            let path = format!("{:?} (claim): it has a second name", direct.lock_file());
            assert!(text.contains(&path), "{text}");
            assert_eq!(fs::read_to_string(&precious).expect("the file"), content);
            assert_eq!(fs::metadata(&precious).expect("the file").uid(), 0);
            // Moved there it has one name; only a record is ours to give away.
            if content == "precious" {
                fs::remove_file(&precious).expect("the other name");
                let text = direct.start(&[]).wait_error().text;
                assert!(text.contains("it is not a lock file of this crate"), "{text}");
                assert_eq!(fs::metadata(direct.lock_file()).expect("it").uid(), 0);
            }
            fs::remove_file(direct.lock_file()).expect("the link");
        }
        direct.start_ready(&[]);
    });
}

/// In the service's folder, whose owner may replace every file in it.
#[test]
fn p10_a_pid_file_of_another_user_is_replaced() {
    by_root(|folder| {
        let innocent = Innocent::start();
        let options = ["--at=before-daemon-init=user:65534", "--successor-timeout=none"];
        let case = |owner, mode| {
            let what = format!("of {owner}, mode {mode:o}");
            let folder = folder.join(format!("{owner}-{mode:o}"));
            fs::create_dir(&folder).expect("a folder");
            let direct = place_of(&folder, NOBODY);
            let put = || {
                let _ = fs::remove_file(direct.pid_file());
                fs::write(direct.pid_file(), format!("{}\n", innocent.pid())).expect("a PID file");
                fs::set_permissions(direct.pid_file(), fs::Permissions::from_mode(mode))
                    .expect("it");
                chown(direct.pid_file(), Some(owner), None).expect("chown");
            };
            // Without a predecessor.
            put();
            let (mut first, old) = direct.start_ready(&options);
            assert_eq!(direct.named(), Some(old.pid()), "{what}");
            first.detach();
            // It mends it, by itself.
            direct.wait_checks(old.pid(), 1);
            put();
            wait_for(format!("it is mended: {what}"), LIMIT, || {
                (direct.named() == Some(old.pid())).then_some(())
            });
            // With one, while nobody looks.
            let go = folder.join("go");
            let wait = format!("--at=after-init=file:{}", go.display());
            let mut second = direct.start(&[options[0], options[1], wait.as_str()]);
            let new = second.wait_init();
            put();
            fs::write(go, "").expect("a file");
            direct.report.wait_of(new.pid(), "started");
            assert_eq!(direct.report.wait_of(old.pid(), "wait").text, "TakenOver", "{what}");
            assert_eq!(direct.named(), Some(new.pid()), "{what}");
            let about = fs::metadata(direct.pid_file()).expect("the PID file");
            assert_eq!((about.uid(), about.mode() & 0o777), (NOBODY, 0o644), "{what}");
            innocent.assert_unharmed();
            new.signal(TERM);
            assert!(second.wait_end().success(), "{what}");
        };
        thread::scope(|scope| {
            for owner in [0, NOBODY, THIRD] {
                for mode in [0o600, 0o644, 0o666] {
                    scope.spawn(move || case(owner, mode));
                }
            }
        });
    });
}

/// In a folder of somebody else's to which all may write: replaced where the system lets it be, and
/// else an error that says what to do.
#[test]
fn p10_a_pid_file_of_another_user_in_a_folder_that_all_may_write_to() {
    by_root(|folder| {
        let direct = place_of(folder, THIRD);
        let place = folder.join("place");
        let allow = |mode| {
            fs::set_permissions(&place, fs::Permissions::from_mode(mode)).expect("its mode");
        };
        let innocent = Innocent::start();
        let put = || {
            let new = place.join("other");
            fs::write(&new, format!("{}\n", innocent.pid())).expect("a PID file");
            fs::rename(&new, direct.pid_file()).expect("a rename");
        };
        let options = ["--at=before-daemon-init=user:65534", "--successor-timeout=none"];
        allow(0o777);
        put();
        let (mut first, old) = direct.start_ready(&options);
        assert_eq!(direct.named(), Some(old.pid()), "not sticky");
        first.detach();
        direct.wait_checks(old.pid(), 1);

        allow(0o1777);
        let go = folder.join("go");
        let wait = format!("--at=after-init=file:{}", go.display());
        let mut second = direct.start(&[options[0], options[1], wait.as_str()]);
        second.wait_init();
        put();
        fs::write(go, "").expect("a file");
        let text = format!(
            "started: cannot rename to {:?} (PID file): Operation not permitted (os error 1); it \
             belongs to uid 0, and the folder is sticky: remove it",
            direct.pid_file()
        );
        assert_eq!(second.wait_error().text, text);
        // The old one cannot mend it either: it says so, and serves.
        let daemon = format!("daemon={} ", old.pid());
        direct.log.wait_words(&["stage=check", &daemon, "error=", "the folder is sticky"], 1);
        direct.wait_checks(old.pid(), 1);
        assert!(!old.has_ended());
        assert!(direct.report.names_of(old.pid()).iter().all(|name| name != "wait"));
        innocent.assert_unharmed();

        fs::remove_file(direct.pid_file()).expect("the PID file");
        let (_third, new) = direct.start_ready(&options);
        assert_eq!(direct.report.wait_of(old.pid(), "wait").text, "TakenOver");
        assert_eq!(direct.named(), Some(new.pid()));
        innocent.assert_unharmed();
    });
}

/// A service that used to run as nobody, and now starts as root.
#[test]
fn the_lock_file_of_a_proven_owner_is_taken_over() {
    by_root(|folder| {
        let direct = place_of(folder, NOBODY);
        let as_nobody = ["--at=before-daemon-init=user:65534", "--successor-timeout=none"];
        let (mut first, old) = direct.start_ready(&as_nobody);
        first.detach();
        direct.start_ready(&[]);
        assert_eq!(direct.report.wait_of(old.pid(), "wait").text, "TakenOver");
    });
}

/// Its signal to the launcher is refused, and the channel tells all the same. It cannot open the
/// lock file again, and keeps the one that it has.
#[test]
fn p4_a_service_that_gives_up_root_restarts() {
    by_root(|folder| {
        let direct = place_of(folder, NOBODY);
        let options = ["--at=after-init=user:65534", "--successor-timeout=none"];
        let (mut first, mut old) = direct.start_ready(&options);
        first.detach();
        let launcher = format!("launcher={} ", first.launcher.pid());
        let line = direct.log.wait_words(&["stage=release", &launcher, "elapsed_ms"], 1);
        assert!(!line.contains("handoff_timeout"), "{line}");
        for number in 2..=4 {
            let (mut next, new) = direct.start_ready(&options);
            assert_eq!(direct.report.wait_of(old.pid(), "wait").text, "TakenOver");
            assert_eq!(direct.report.wait_of(new.pid(), "started").number(), number);
            assert_eq!(direct.named(), Some(new.pid()));
            next.detach();
            assert_serves_on(&direct, &new);
            old = new;
        }
    });
}

/// The path names a file that the service may not open any more: it says so, and touches nothing.
#[test]
fn p10_a_service_that_gave_up_root_loses_its_lock_file() {
    by_root(|folder| {
        let direct = place_of(folder, NOBODY);
        let options = ["--at=after-init=user:65534", "--successor-timeout=none"];
        let (mut first, old) = direct.start_ready(&options);
        first.detach();
        direct.wait_checks(old.pid(), 1);
        let good = folder.join("good");
        fs::rename(direct.lock_file(), &good).expect("the lock file");
        fs::write(direct.lock_file(), "").expect("another");
        fs::set_permissions(direct.lock_file(), fs::Permissions::from_mode(0o600)).expect("mode");
        fs::remove_file(direct.pid_file()).expect("the PID file");
        let daemon = format!("daemon={} ", old.pid());
        direct.log.wait_words(&["stage=check", &daemon, "cannot open", "Permission denied"], 1);
        direct.wait_checks(old.pid(), 1);
        assert!(!old.has_ended());
        assert_eq!(direct.named(), None, "nothing is put back without the claim");
        fs::rename(&good, direct.lock_file()).expect("the lock file");
        direct.log.wait_words(&["ours is back"], 1);
        direct.start_ready(&options);
        assert_eq!(direct.report.wait_of(old.pid(), "wait").text, "TakenOver");
    });
}

/// The successor may not signal it: it finds out by itself.
#[test]
fn p4_a_predecessor_that_may_not_be_signalled_drains() {
    by_root(|folder| {
        let direct = place_of(folder, NOBODY);
        let (mut first, old) = direct.start_ready(&["--successor-timeout=none"]);
        first.detach();
        let (_second, new) = direct.start_ready(&["--at=after-init=user:65534"]);
        let predecessor = format!("predecessor={} ", old.pid());
        direct.log.wait_words(&["stage=takeover", &predecessor, "Operation not permitted"], 1);
        assert_eq!(direct.report.wait_of(old.pid(), "wait").text, "TakenOver");
        assert_eq!(direct.named(), Some(new.pid()));
    });
}

// ---- a PID that is used again ----

/// KILLs a process, whose parent reaps it by `reap`, and gives its PID to an innocent one, which
/// started later as `/proc` tells it.
fn replace(process: &Watched, reap: impl FnOnce()) -> Innocent {
    let (pid, before) = (process.pid(), process::stat(process.pid()).expect("it").start_ticks);
    process.kill();
    process.wait_end(LIMIT);
    reap();
    wait_for("it is reaped", LIMIT, || process::stat(pid).is_none().then_some(()));
    wait_for("a later tick of the clock", LIMIT, || {
        let innocent = Innocent::with_pid(pid);
        (process::stat(pid).expect("sleep").start_ticks > before).then_some(innocent)
    })
}

#[test]
fn p5_the_pid_of_a_dead_predecessor_is_used_again() {
    by_root(|folder| {
        let direct = place_of(folder, 0);
        let (mut first, old) = direct.start_ready(&["--successor-timeout=none"]);
        first.detach();
        direct.wait_checks(old.pid(), 1);
        let innocent = replace(&old, || ());
        assert_eq!(direct.named(), Some(innocent.pid()));
        let record = fs::read_to_string(direct.lock_file()).expect("the record");
        assert!(record.contains(&format!("daemon={}:", innocent.pid())), "{record}");
        let (mut second, new) = direct.start_ready(&[]);
        assert_eq!(direct.named(), Some(new.pid()));
        new.signal(TERM);
        assert!(second.wait_end().success());
        innocent.assert_unharmed();
    });
}

/// The newest generation is dead, and an innocent process has its PID: the detached predecessor
/// puts its own file back, and the next start finds it.
#[test]
fn p5_the_pid_of_a_dead_successor_is_used_again() {
    by_root(|folder| {
        let direct = place_of(folder, 0);
        let (mut first, old) = direct.start_ready(&["--successor-timeout=none"]);
        first.detach();
        direct.wait_checks(old.pid(), 1);
        // The predecessor sees nothing of the takeover: no TERM, which may get lost, and no look.
        stop_without_claim(&old);
        let record = fs::read_to_string(direct.lock_file()).expect("the record");
        let without: String = record
            .lines()
            .filter(|line| !line.starts_with("generation=1 "))
            .fold(String::new(), |text, line| text + line + "\n");
        fs::write(direct.lock_file(), without).expect("the record");
        let (mut second, new) = direct.start_ready(&[]);
        let innocent = replace(&new, || {
            second.wait_end();
        });
        old.signal(CONT);
        direct.log.wait_words(&["ours is back"], 1);
        assert_eq!(direct.named(), Some(old.pid()));
        innocent.assert_unharmed();
        direct.start_ready(&[]);
        assert_eq!(direct.report.wait_of(old.pid(), "wait").text, "TakenOver");
        innocent.assert_unharmed();
    });
}

/// The launcher's PID, below the same supervisor even: it does not make the service somebody else's.
#[test]
fn p4_the_pid_of_a_dead_launcher_is_used_again() {
    by_root(|folder| {
        let direct = place_of(folder, 0);
        let (mut first, old) = direct.start_ready(&["--successor-timeout=none"]);
        let launcher = Watched::new(first.launcher.pid());
        let innocent = replace(&launcher, || {
            first.wait_end();
        });
        assert_eq!(process::stat(innocent.pid()).expect("sleep").ppid, std::process::id());
        direct.start_ready(&[]);
        assert_eq!(direct.report.wait_of(old.pid(), "wait").text, "TakenOver");
        innocent.assert_unharmed();
    });
}
