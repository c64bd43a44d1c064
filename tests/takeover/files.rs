//! Files that somebody else has changed: an error that names step and path, and nothing lost.

use std::{
    fs,
    os::unix::{
        fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink},
        net::UnixListener,
    },
    path::Path,
    process::Command,
};

use seamless_testing::{
    boxed,
    process::Watched,
    signal::{TERM, USR1},
    site::Site,
};

/// A detached daemon that serves until it is taken over.
#[track_caller]
fn predecessor(direct: &Site) -> Watched {
    let (mut started, daemon) = direct.start_ready(&["--successor-timeout=none"]);
    started.detach();
    daemon
}

/// A new generation takes over from this one, as if nothing had been.
#[track_caller]
fn assert_taken_over(direct: &Site, old: &Watched) {
    let (_started, new) = direct.start_ready(&[]);
    assert_eq!(direct.report.wait_of(old.pid(), "wait").text, "TakenOver");
    assert_eq!(direct.named(), Some(new.pid()));
    assert!(!new.has_ended());
}

fn make_fifo(path: &Path) {
    assert!(Command::new("mkfifo").arg(path).status().expect("mkfifo").success());
}

// ---- the lock file ----

/// Each thing at the path of the lock file, while a predecessor serves that knows better.
#[test]
fn p10_a_lock_file_that_is_none_is_an_error() {
    boxed::run(|folder| {
        let direct = Site::alone(folder);
        let lock = direct.lock_file();
        let old = predecessor(&direct);
        direct.wait_checks(old.pid(), 1);
        let good = folder.join("good");
        fs::rename(&lock, &good).expect("the lock file");
        let precious = folder.join("precious");
        fs::write(&precious, "precious").expect("a file");

        let assert_refused = |what: &str, text: String| {
            println!("{what}");
            let mut started = direct.start(&[]);
            assert_eq!(started.wait_error().text, format!("init: {text}"), "{what}");
            direct.wait_checks(old.pid(), if what == "a folder" { 2 } else { 1 });
            assert!(!old.has_ended(), "{what}");
            assert_eq!(direct.named(), Some(old.pid()), "{what}");
        };
        let open = |why: &str| format!("cannot open {lock:?} (claim): {why}");
        let not_regular = format!("cannot use {lock:?} (claim): it is not a regular file");
        const LINK: &str = "Too many levels of symbolic links (os error 40); it is a link, which is \
                            not followed";

        symlink(&precious, &lock).expect("a link");
        assert_refused("a link", open(LINK));
        assert_eq!(fs::read_to_string(&precious).expect("its target"), "precious");
        fs::remove_file(&lock).expect("the link");

        symlink(folder.join("nowhere"), &lock).expect("a link");
        assert_refused("a link to nowhere", open(LINK));
        assert!(!folder.join("nowhere").exists());
        fs::remove_file(&lock).expect("the link");

        fs::create_dir(&lock).expect("a folder");
        assert_refused("a folder", open("Is a directory (os error 21)"));
        fs::remove_dir(&lock).expect("the folder");

        make_fifo(&lock);
        assert_refused("a fifo", not_regular);
        fs::remove_file(&lock).expect("the fifo");

        let listener = UnixListener::bind(&lock).expect("a socket");
        assert_refused("a socket", open("No such device or address (os error 6)"));
        drop(listener);
        fs::remove_file(&lock).expect("the socket");

        // Said once, not each second, until it changes.
        let log = direct.log.text();
        let told = log
            .lines()
            .filter(|line| line.contains(&format!("stage=check daemon={} error=", old.pid())));
        assert!((1..=5).contains(&told.count()), "{log}");

        fs::rename(&good, &lock).expect("the lock file");
        assert_taken_over(&direct, &old);
    });
}

#[test]
fn p10_a_record_that_is_not_ours_is_an_error() {
    boxed::run(|folder| {
        let direct = Site::alone(folder);
        let old = predecessor(&direct);
        direct.wait_checks(old.pid(), 1);
        let good = fs::read(direct.lock_file()).expect("the record");
        let foreign = "it is not a lock file of this crate";
        let later = "it is of version 2, written by a later version of this crate";
        for (content, why) in [
            (&b"4711\n"[..], foreign),
            (b"\0\n", foreign),
            (b"\x7fELF\x02\x01\x01\0\0\0", foreign),
            (b"seamless-record 2 last=7\nend\n", later),
        ] {
            fs::write(direct.lock_file(), content).expect("a record");
            let mut started = direct.start(&[]);
            let text = format!("init: cannot use {:?} (record): {why}", direct.lock_file());
            assert_eq!(started.wait_error().text, text);
            direct.wait_checks(old.pid(), 1);
            assert_eq!(fs::read(direct.lock_file()).expect("the record"), content, "unchanged");
            assert!(!old.has_ended());
        }
        fs::write(direct.lock_file(), good).expect("the record");
        assert_taken_over(&direct, &old);
    });
}

#[test]
fn p10_lines_of_the_record_that_do_not_parse_are_dropped_and_logged() {
    boxed::run(|folder| {
        let direct = Site::alone(folder);
        let old = predecessor(&direct);
        direct.wait_checks(old.pid(), 1);
        let record = fs::read_to_string(direct.lock_file()).expect("the record");
        fs::write(direct.lock_file(), record.replace("end\n", "rubbish\nend\n"))
            .expect("the record");
        assert_taken_over(&direct, &old);
        direct.log.wait_words(&["stage=record", "dropped=\"rubbish\""], 1);
        let record = fs::read_to_string(direct.lock_file()).expect("the record");
        assert!(!record.contains("rubbish"), "{record}");
    });
}

#[test]
fn the_files_are_as_the_documentation_says() {
    boxed::run(|folder| {
        let direct = Site::alone(folder);
        let (_started, daemon) = direct.start_ready(&[]);
        let content = fs::read_to_string(direct.pid_file()).expect("the PID file");
        assert_eq!(content, format!("{}\n", daemon.pid()));
        let mode = |path: &Path| fs::metadata(path).expect("a file").mode() & 0o777;
        assert_eq!(mode(&direct.lock_file()), 0o600);
        assert_eq!(mode(&direct.pid_file()) & 0o444, 0o444, "for monitoring");
        let mut names: Vec<_> = fs::read_dir(folder)
            .expect("the folder")
            .map(|entry| entry.expect("an entry").file_name().into_string().expect("a name"))
            .collect();
        names.sort();
        assert_eq!(names, ["log", "report", "web.pid", "web.pid.lock", "web.pid.sock"]);
        assert_eq!(mode(&direct.socket()), 0o600);
    });
}

// ---- the PID file; what else may stand in its place is in `pid_file` ----

/// The PID file of a life before, whose PID has come to be ours or our launcher's.
#[test]
fn p10_a_pid_file_that_names_ourselves_is_replaced() {
    boxed::run(|folder| {
        let direct = Site::alone(folder);
        for of_launcher in [false, true] {
            let mut started = direct.start(&["--at=after-init=hang", "--on=10=call:started"]);
            let daemon = started.wait_init();
            let pid = if of_launcher { started.launcher.pid() } else { daemon.pid() };
            fs::write(direct.pid_file(), format!("{pid}\n")).expect("a PID file");
            let before = fs::metadata(direct.pid_file()).expect("the PID file").ino();
            daemon.signal(USR1);
            assert_eq!(direct.report.wait_of(daemon.pid(), "called").text, "started ok");
            assert_eq!(direct.named(), Some(daemon.pid()));
            assert_ne!(fs::metadata(direct.pid_file()).expect("the PID file").ino(), before);
            assert!(!daemon.has_ended() && !started.launcher.has_ended());
            daemon.kill();
            started.wait_end();
        }
    });
}

#[test]
fn p10_a_folder_in_the_place_of_the_pid_file_is_an_error() {
    boxed::run(|folder| {
        let direct = Site::alone(folder);
        let path = direct.pid_file();
        let old = predecessor(&direct);
        direct.wait_checks(old.pid(), 1);
        // `init` refuses a folder that is there, so it comes later. `started` may be called again, and the
        // claim is kept until it succeeds.
        let go = folder.join("go");
        let started = direct.start(&[
            &format!("--at=after-init=file:{}", go.display()),
            "--at=after-init=call:started",
            "--at=after-init=hang",
            "--on=10=call:started",
        ]);
        let daemon = started.wait_init();
        fs::remove_file(&path).expect("the PID file");
        fs::create_dir_all(path.join("inner")).expect("a folder");
        fs::write(&go, "").expect("a file");
        let text = format!(
            "started error: cannot rename to {path:?} (PID file): Is a directory (os error 21)"
        );
        assert_eq!(direct.report.wait_of(daemon.pid(), "called").text, text);
        assert!(!folder.join("web.pid.new").exists(), "no temporary file is left");
        direct.log.wait_words(&[&format!("daemon={} finding=ClaimHeld", old.pid())], 2);
        assert!(!old.has_ended());
        assert!(direct.report.names_of(old.pid()).iter().all(|name| name != "wait"));

        fs::remove_dir_all(&path).expect("the folder");
        daemon.signal(USR1);
        assert_eq!(direct.report.wait_of(old.pid(), "wait").text, "TakenOver");
        assert_eq!(direct.named(), Some(daemon.pid()));
    });
}

#[test]
fn p10_what_is_in_the_place_of_the_temporary_file() {
    boxed::run(|folder| {
        let direct = Site::alone(folder);
        let temporary = folder.join("web.pid.new");
        let precious = folder.join("precious");
        fs::write(&precious, "precious").expect("a file");
        let run = |what: &str| {
            println!("{what}");
            let (mut started, daemon) = direct.start_ready(&[]);
            assert_eq!(direct.named(), Some(daemon.pid()), "{what}");
            assert!(fs::symlink_metadata(&temporary).is_err(), "{what}");
            daemon.signal(TERM);
            started.wait_end();
        };
        fs::write(&temporary, "12").expect("a file");
        run("what a killed start left");
        symlink(&precious, &temporary).expect("a link");
        run("a link");
        assert_eq!(fs::read_to_string(&precious).expect("its target"), "precious");
        make_fifo(&temporary);
        run("a fifo");
        fs::create_dir(&temporary).expect("a folder");
        let mut started = direct.start(&[]);
        let text = format!(
            "started: cannot remove {temporary:?} (PID file): Is a directory (os error 21)"
        );
        assert_eq!(started.wait_error().text, text);
        assert!(!fs::metadata(&temporary).expect("the folder").file_type().is_fifo());
    });
}

/// The file system has kept the length of a file, and not what was written to it.
#[test]
fn what_a_loss_of_power_leaves_of_the_files_is_replaced() {
    boxed::run(|folder| {
        let direct = Site::alone(folder);
        for (path, length) in [(direct.pid_file(), 5), (direct.lock_file(), 214)] {
            fs::write(path, vec![0; length]).expect("a file");
        }
        fs::set_permissions(direct.lock_file(), fs::Permissions::from_mode(0o600)).expect("a mode");
        let (mut started, old) = direct.start_ready(&["--successor-timeout=none"]);
        direct.log.wait_words(&["WARN", "dropped=\"214 zero bytes\""], 1);
        assert_eq!(direct.report.wait_of(old.pid(), "started").number(), 1);
        assert_eq!(direct.named(), Some(old.pid()));
        started.detach();
        assert_taken_over(&direct, &old);
    });
}
