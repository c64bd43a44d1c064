//! Deploys that switch a link to another release, and what a generation in place is started with.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use seamless_testing::{
    bin,
    boxed::{self, Boxed},
    process::{self, Watched, signal, variable},
    signal::{HUP, TERM},
    site::{Site, Started, User},
    supervisor::Supervisor,
    under_each_supervisor,
};

/// `releases/N/takeover` is a copy of the probe, and `current` the link to the release that counts.
struct Releases {
    folder: PathBuf,
}

impl Releases {
    fn new(folder: &Path) -> Releases {
        let releases = Releases { folder: fs::canonicalize(folder).expect("the folder") };
        releases.release(1);
        releases
    }

    fn current(&self) -> PathBuf {
        self.folder.join("current")
    }

    fn path(&self, number: u32) -> PathBuf {
        self.folder.join("releases").join(number.to_string())
    }

    /// Made, and switched to.
    fn release(&self, number: u32) {
        fs::create_dir_all(self.path(number)).expect("a folder");
        fs::copy(bin::probe(), self.path(number).join("takeover")).expect("a copy");
        let new = self.folder.join("new");
        symlink(format!("releases/{number}"), &new).expect("a link");
        fs::rename(new, self.current()).expect("in place");
    }

    fn remove(&self, number: u32) {
        fs::remove_dir_all(self.path(number)).expect("the release");
    }

    /// The daemon runs the program of this release, in its folder.
    #[track_caller]
    fn assert_runs(&self, daemon: u32, number: u32) {
        let link = |what| fs::read_link(format!("/proc/{daemon}/{what}")).expect("it lives");
        assert_eq!(link("exe"), self.path(number).join("takeover"));
        assert_eq!(link("cwd"), self.path(number));
    }
}

/// Reloads over three releases, of which the first is removed.
#[track_caller]
fn deploys(releases: &Releases, site: &Site, mut started: Started) {
    let launcher = started.launcher.pid();
    let mut old = started.wait_started();
    releases.assert_runs(old.pid(), 1);
    for number in 2..=4 {
        releases.release(number);
        if number > 2 {
            releases.remove(number - 2);
        }
        signal(launcher, HUP);
        let new = site.daemon(number as usize);
        old.wait_end(seamless_testing::LIMIT);
        releases.assert_runs(new.pid(), number);
        old = new;
    }
    // The same again without a change, and with the release of the launcher itself gone.
    signal(launcher, HUP);
    let last = site.started(5);
    releases.assert_runs(last, 4);
    signal(last, TERM);
    assert_eq!(started.wait_end().code(), Some(0), "{}", site.log);
}

/// By a relative path, by an absolute one, by PATH, and through several links.
#[test]
fn p1_a_release_that_a_link_names_is_the_one_that_starts() {
    boxed::run(|folder| {
        for (nth, exec) in [
            "./takeover",
            "\"$FOLDER/current/takeover\"",
            "../../current/takeover",
            "takeover",
            "\"$FOLDER/bin\"",
        ]
        .into_iter()
        .enumerate()
        {
            let folder = folder.join(nth.to_string());
            fs::create_dir(&folder).expect("a folder");
            let releases = Releases::new(&folder);
            symlink("bin-2", folder.join("bin")).expect("a link");
            symlink("current/takeover", folder.join("bin-2")).expect("a link");
            let site = Site::alone(&folder);
            let mut command = site.command(&["--reload-signal=1"]);
            let script = format!(
                "cd \"$FOLDER/current\" && export PATH=$FOLDER/current:$PATH && exec {exec} \"$@\""
            );
            let arguments: Vec<_> = command.get_args().map(ToOwned::to_owned).collect();
            command = Command::new("sh");
            command.args(["-c", &script, "sh"]).args(arguments).env("FOLDER", &releases.folder);
            command.stdin(Stdio::null()).stderr(site.log_end());
            println!("{exec}");
            deploys(&releases, &site, site.spawn(&mut command));
            assert!(site.log.with(&["is unknown"]).is_empty(), "{}", site.log);
        }
    });
}

/// Without a shell nobody says how the folder was entered: the program has to.
#[test]
fn p1_a_working_dir_is_entered_anew() {
    boxed::run(|folder| {
        let releases = Releases::new(folder);
        let site = Site::alone(folder);
        let current = releases.current();
        let dir = format!("--working-dir={}", current.display());
        let mut command = site.command_of(&current.join("takeover"), &["--reload-signal=1", &dir]);
        command.env_remove("PWD").current_dir(&releases.folder);
        deploys(&releases, &site, site.spawn(&mut command));
        assert!(site.log.with(&["is unknown"]).is_empty(), "{}", site.log);
    });
}

/// A folder that is not there is an error that names it, and the old generation serves on.
#[test]
fn p1_p10_a_release_without_its_folder_fails() {
    boxed::run(|folder| {
        let releases = Releases::new(folder);
        let site = Site::alone(folder);
        let dir = format!("--working-dir={}", releases.current().display());
        let mut command = site.command(&["--reload-signal=1", &dir]);
        let mut started = site.spawn(&mut command);
        let daemon = started.wait_started();
        assert_eq!(variable(daemon.pid(), "PWD"), releases.current().to_str().map(str::to_owned));
        releases.remove(1);
        started.launcher.signal(HUP);
        let line = site.log.wait_words(&["stage=reload-failed", "cannot enter"], 1);
        assert!(line.contains("current"), "{line}");
        releases.release(2);
        started.launcher.signal(HUP);
        let second = site.started(2);
        daemon.wait_end(seamless_testing::LIMIT);
        signal(second, TERM);
        assert!(started.wait_end().success(), "{}", site.log);
    });
}

/// If the path is unknown, the launcher says so, once.
#[test]
fn p10_an_unknown_folder_is_told_at_launch() {
    boxed::run(|folder| {
        let warned = |site: &Site| site.log.with(&["stage=launch", "is unknown"]).len();
        for (nth, (pwd, reload, cwd, expected)) in [
            (None, true, folder, 1),
            (Some("/nonexistent"), true, folder, 1),
            (folder.to_str(), true, folder, 0),
            (None, false, folder, 0),
            (None, true, Path::new("/"), 0),
        ]
        .into_iter()
        .enumerate()
        {
            let own = folder.join(nth.to_string());
            fs::create_dir(&own).expect("a folder");
            let site = Site::alone(&own);
            let mut command = site.command(if reload { &["--reload-signal=1"] } else { &[] });
            command.env_remove("PWD").envs(pwd.map(|pwd| ("PWD", pwd))).current_dir(cwd);
            let mut started = site.spawn(&mut command);
            let daemon = started.wait_started();
            daemon.signal(TERM);
            assert!(started.wait_end().success(), "{}", site.log);
            // The launcher may write it after the daemon has started, but not after its own end.
            assert_eq!(warned(&site), expected, "{pwd:?} {reload} {cwd:?}: {}", site.log);
        }
    });
}

/// A PID file by a relative path is one file for all generations, whatever folder they stand in.
#[test]
fn p4_a_relative_pid_file_does_not_move_with_the_release() {
    boxed::run(|folder| {
        let releases = Releases::new(folder);
        let site = Site::alone(folder);
        let script = format!(
            "cd '{}/current' && exec ./takeover --pid-file=web.pid --report='{}' --reload-signal=1",
            releases.folder.display(),
            site.report.path().display(),
        );
        let mut command = Command::new("sh");
        command.args(["-c", &script]).stdin(Stdio::null()).stderr(site.log_end());
        let mut started = site.spawn(&mut command);
        let first = started.wait_started();
        releases.release(2);
        started.launcher.signal(HUP);
        let second = site.started(2);
        assert_eq!(site.report.wait_of(first.pid(), "wait").text, "TakenOver");
        let named = fs::read_to_string(releases.path(1).join("web.pid")).expect("the PID file");
        assert_eq!(named.trim(), second.to_string());
        signal(second, TERM);
        assert!(started.wait_end().success(), "{}", site.log);
    });
}

under_each_supervisor![Boxed::new() => p1_a_release_under_a_supervisor];

/// In place, and by the supervisor's own restart.
fn p1_a_release_under_a_supervisor(kind: Supervisor, folder: &Path) {
    let releases = Releases::new(folder);
    let site = Site::at(folder)
        .user(User::Root)
        .no_socket()
        .program(Path::new("./takeover"))
        .first(&format!("cd '{}'", releases.current().display()))
        .options(&format!("--reload-signal={HUP}"))
        .under(kind);
    let launcher = site.launcher();
    releases.assert_runs(site.started(1), 1);
    releases.release(2);
    launcher.signal(HUP);
    releases.assert_runs(site.started(2), 2);
    releases.remove(1);
    releases.release(3);
    launcher.signal(HUP);
    releases.assert_runs(site.started(3), 3);
    releases.release(4);
    site.service().settle();
    site.service().restart();
    releases.assert_runs(site.started(4), 4);
    site.stop();
}

// ---- the environment ----

/// What the launcher was started with, not what the program has made of it; and what the hook gives now.
#[test]
fn each_generation_in_place_gets_a_fresh_environment() {
    boxed::run(|folder| {
        let site = Site::alone(folder);
        let (file, dotenv) = (folder.join("variables"), folder.join("program"));
        let deploy = |value: &str| {
            let probe = bin::probe();
            let script = format!("exec '{}' \"$@\" --set=DOTENV={value}", probe.display());
            seamless_testing::supervisor::write_script(&dotenv, &script);
            fs::write(&file, format!("HOOK={value}\n")).expect("a file");
        };
        symlink(bin::probe(), &dotenv).expect("a link");
        fs::write(&file, "HOOK=1\n").expect("a file");
        let from = format!("--environment={}", file.display());
        let mut command =
            site.command_of(&dotenv, &["--reload-signal=1", &from, "--set=BEFORE=launcher"]);
        command.env("GIVEN", "a=b=c").env("HOOK", "0").env_remove("BEFORE").env_remove("DOTENV");
        let mut started = site.spawn(&mut command);
        let mut old = started.wait_started();
        for number in 1..=3 {
            let pid = old.pid();
            assert_eq!(variable(pid, "GIVEN").as_deref(), Some("a=b=c"));
            assert_eq!(variable(pid, "HOOK"), Some(number.to_string()));
            // A file that the program reads before `init` must not leave its old values behind.
            assert_eq!(variable(pid, "BEFORE"), None, "set by the launcher's own start");
            assert_eq!(variable(pid, "SEAMLESS"), Some(started.launcher.pid().to_string()));
            if number == 3 {
                break;
            }
            deploy(&(number + 1).to_string());
            started.launcher.signal(HUP);
            let new = Watched::new(site.started(number + 1));
            old.wait_end(seamless_testing::LIMIT);
            old = new;
        }
        // A hook that panics: the start fails, and the old one serves on.
        fs::remove_file(&file).expect("the file");
        started.launcher.signal(HUP);
        site.log.wait_words(&["stage=reload-failed", "Config::environment"], 1);
        assert!(process::stat(old.pid()).is_some_and(|stat| stat.state != 'Z'));
        old.signal(TERM);
        assert!(started.wait_end().success(), "{}", site.log);
    });
}
