//! A service that changes its user from one deploy to the next, in a folder of the user that it is
//! to end up as.

use std::{
    fs,
    os::unix::{
        fs::{MetadataExt, PermissionsExt, chown},
        process::CommandExt,
    },
    path::{Path, PathBuf},
};

use seamless_testing::{
    bin,
    boxed::{Boxed, Isolation},
    http::{self, Prober, Target},
    process::{NOBODY, Watched},
    signal::TERM,
    site::{Site, Started},
    supervisor::{Service, Supervisor, write_script},
    under_each_supervisor,
};

use crate::{LIMIT, assert_serves_on, by_root, place_of};

/// As whom a generation runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum As {
    /// All of it as root.
    Root,
    /// The launcher as root; the daemon gives up root after `init`.
    GivingUp,
    /// All of it as the user, from its run script on.
    User,
}

use As::{GivingUp, Root, User};

/// A service that answers on a Unix socket: a port cannot be shared with another user's socket.
struct Place {
    direct: Site,
    target: Target,
    /// A copy that the user may execute, wherever the original is.
    program: PathBuf,
}

impl Place {
    fn new(folder: &Path) -> Self {
        let program = folder.join("program");
        fs::copy(bin::probe(), &program).expect("a copy");
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("its mode");
        let direct = place_of(folder, NOBODY);
        let target = Target::from(folder.join("place/web.sock").as_path());
        Place { direct, target, program }
    }

    fn start(&self, who: As, options: &[&str]) -> Started {
        let listen = format!("--listen={}", self.target);
        let mut all = vec!["--successor-timeout=none", &listen];
        all.extend((who == GivingUp).then_some("--at=after-init=user:65534"));
        all.extend(options);
        let mut command = self.direct.command_of(&self.program, &all);
        if who == User {
            command.uid(NOBODY).gid(NOBODY);
        }
        self.direct.spawn(&mut command)
    }

    #[track_caller]
    fn start_ready(&self, who: As) -> (Started, Watched) {
        let started = self.start(who, &[]);
        let daemon = started.wait_started();
        let user = if who == Root { 0 } else { NOBODY };
        let runs_as = fs::metadata(format!("/proc/{}", daemon.pid())).expect("the daemon").uid();
        assert_eq!(runs_as, user, "{who:?}");
        let lock = fs::metadata(self.direct.lock_file()).expect("the lock file");
        assert_eq!((lock.uid(), lock.mode() & 0o777), (NOBODY, 0o600), "{who:?}");
        (started, daemon)
    }

    /// One after the other, each taking over from the one before, while requests are answered.
    #[track_caller]
    fn chain(&self, chain: &[As]) {
        let (mut started, mut old) = self.start_ready(chain[0]);
        let prober = Prober::start(&self.target);
        let mut pids = vec![old.pid()];
        prober.wait_pid(old.pid());
        for who in &chain[1..] {
            started.detach();
            let (next, new) = self.start_ready(*who);
            let reason = self.direct.report.wait_of(old.pid(), "wait").text;
            assert_eq!(reason, "TakenOver", "by {who:?} in {chain:?}");
            old.wait_end(LIMIT);
            assert_eq!(self.direct.named(), Some(new.pid()), "{who:?} in {chain:?}");
            prober.wait_pid(new.pid());
            pids.push(new.pid());
            (started, old) = (next, new);
        }
        let probes = prober.stop();
        probes.assert_all_answered();
        assert_eq!(probes.pids(), pids);
        old.signal(TERM);
        assert!(started.wait_end().success());
    }
}

#[test]
fn p1_p4_root_that_stays_root_and_user_by_turns() {
    by_root(|folder| Place::new(folder).chain(&[Root, User, Root, User, User, Root, Root]));
}

#[test]
fn p1_p4_root_that_gives_up_root_and_user_by_turns() {
    by_root(|folder| {
        Place::new(folder).chain(&[GivingUp, User, GivingUp, User, GivingUp, GivingUp]);
    });
}

#[test]
fn p1_p4_every_way_to_run_takes_over_from_every_other() {
    by_root(|folder| {
        let place = Place::new(folder);
        place.chain(&[User, Root, GivingUp, Root, User, GivingUp, User]);
    });
}

/// No generation lives that could vouch for the lock file.
#[test]
fn a_full_stop_between_one_user_and_another() {
    by_root(|folder| {
        let place = Place::new(folder);
        let turns = [Root, User, GivingUp, User, Root, GivingUp, Root, User, User];
        for (nth, who) in turns.into_iter().enumerate() {
            let (mut started, daemon) = place.start_ready(who);
            let number = place.direct.report.wait_of(daemon.pid(), "started").number();
            assert_eq!(number, nth as u64 + 1, "{who:?}: the record is the same");
            assert_eq!(http::pid(&place.target), daemon.pid());
            daemon.signal(TERM);
            assert!(started.wait_end().success(), "{who:?}");
        }
    });
}

#[test]
fn p1_a_bad_deploy_to_another_user_and_back() {
    by_root(|folder| {
        let place = Place::new(folder);
        for (good, bad) in [(Root, User), (User, Root), (GivingUp, User), (User, GivingUp)] {
            println!("{good:?}, {bad:?}");
            let (mut first, old) = place.start_ready(good);
            let prober = Prober::start(&place.target);
            prober.wait_pid(old.pid());
            first.detach();
            // It gets as far as the claim, and once more no further than its listener.
            let mut second = place.start(bad, &["--at=after-init=exit:3"]);
            assert_eq!(second.wait_end().code(), Some(3));
            let third = place.start(bad, &["--at=after-init=hang"]);
            let hanging = third.wait_init();
            assert!(hanging.kill());
            third.launcher.wait_end(LIMIT);
            assert_serves_on(&place.direct, &old);

            let (mut rollback, new) = place.start_ready(good);
            assert_eq!(place.direct.report.wait_of(old.pid(), "wait").text, "TakenOver");
            prober.wait_pid(new.pid());
            let probes = prober.stop();
            probes.assert_all_answered();
            assert_eq!(probes.pids(), [old.pid(), new.pid()]);
            assert_eq!(place.direct.named(), Some(new.pid()));
            new.signal(TERM);
            assert!(rollback.wait_end().success());
        }
    });
}

/// The folder belongs to root, and so does the lock file. The error says what to do, and that helps.
#[test]
fn p10_a_user_in_a_folder_of_roots_is_told_what_to_do() {
    by_root(|folder| {
        let place = Place::new(folder);
        let (direct, path) = (&place.direct, folder.join("place"));
        chown(&path, Some(0), Some(0)).expect("chown");
        let (mut first, old) = direct.start_ready(&["--successor-timeout=none"]);
        assert_eq!(fs::metadata(direct.lock_file()).expect("the lock file").uid(), 0);
        first.detach();
        let mut second = place.start(User, &[]);
        let text = format!(
            "init: cannot open {:?} (claim): Permission denied (os error 13); it belongs to uid 0: \
             chown it and its folder to uid {NOBODY}",
            direct.lock_file()
        );
        assert_eq!(second.wait_error().text, text);
        assert_serves_on(direct, &old);

        chown(&path, Some(NOBODY), None).expect("chown");
        chown(direct.lock_file(), Some(NOBODY), None).expect("chown");
        let (_third, new) = place.start_ready(User);
        assert_eq!(direct.report.wait_of(old.pid(), "wait").text, "TakenOver");
        assert_eq!(direct.named(), Some(new.pid()));
    });
}

/// As an earlier version of the crate left it, or a start that was killed just then: the next start
/// as root gives it away.
#[test]
fn a_lock_file_of_roots_in_the_users_folder_is_given_to_him() {
    by_root(|folder| {
        let place = Place::new(folder);
        let (mut first, old) = place.start_ready(Root);
        chown(place.direct.lock_file(), Some(0), Some(0)).expect("chown");
        first.detach();
        let (mut second, new) = place.start_ready(Root);
        assert_eq!(place.direct.report.wait_of(old.pid(), "wait").text, "TakenOver");
        second.detach();
        place.start_ready(User);
        assert_eq!(place.direct.report.wait_of(new.pid(), "wait").text, "TakenOver");
    });
}

/// The run script changes the user, as run scripts do.
fn p1_p4_a_run_script_that_changes_the_user(kind: Supervisor, folder: &Path) {
    let place = Place::new(folder);
    let options = format!("--listen={}", place.target);
    let original = format!("exec '{}'", bin::probe().display());
    let run = bin::probe_script(&folder.join("place"), &options)
        .replace("exec 2>&1", "chmod 755 supervise\nexec 2>>../place/log");
    let run = |change: &str| {
        let script =
            run.replace(&original, &format!("exec {change} '{}'", place.program.display()));
        assert_ne!(script, run);
        script
    };
    let (as_root, as_user) = (run(""), run("setpriv --reuid=65534 --regid=65534 --clear-groups"));
    let service = Service::new(kind, folder.join("service"), &as_root);
    let mut old = Watched::new(http::wait_pid(&place.target));
    let prober = Prober::start(&place.target);
    let mut pids = vec![old.pid()];
    for (nth, script) in [&as_user, &as_root, &as_user].into_iter().enumerate() {
        service.settle();
        let launcher = Watched::new(service.main_pid());
        write_script(&service.folder().join("run"), script);
        service.restart();
        let new = place.direct.report.wait_nth("started", nth + 2).pid;
        let user = if script == &as_root { 0 } else { NOBODY };
        assert_eq!(fs::metadata(format!("/proc/{new}")).expect("the daemon").uid(), user);
        launcher.wait_end(LIMIT);
        assert_eq!(place.direct.report.wait_of(old.pid(), "wait").text, "TakenOver");
        old.wait_end(LIMIT);
        prober.wait_pid(new);
        assert_eq!(place.direct.named(), Some(new));
        pids.push(new);
        old = Watched::new(new);
    }
    let probes = prober.stop();
    probes.assert_all_answered();
    assert_eq!(probes.pids(), pids);
    service.down();
    service.wait_down();
    assert!(old.has_ended());
}

under_each_supervisor![
    Boxed::new().needs(Isolation::Namespaces) => p1_p4_a_run_script_that_changes_the_user
];
