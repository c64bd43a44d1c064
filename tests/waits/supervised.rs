//! A service under its supervisor, which runs as one of the users that a service may run as.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, chown},
    path::{Path, PathBuf},
};

use seamless_testing::{
    bin,
    http::{self, Target},
    process::Watched,
    report::Report,
    supervisor::{Service, Supervisor, Want, write_script},
};

use crate::scene::{self, LIMIT, Log};

const NOBODY: u32 = 65534;

/// Who the service runs as, and whether it can read its supervisor's status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum As {
    /// As the supervisor itself.
    Root,
    /// The run script has opened `supervise/` before it changed the user.
    UserWhoReads,
    UserWhoDoesNot,
    /// The daemon gives up root after `init`; the launcher stays root. The run script has opened
    /// `supervise/`.
    GivesUpAndReads,
    /// Its launcher reads the status, it does not.
    GivesUp,
}

impl As {
    /// Makes its folder, with files of the probe's that any user may write to: the first to open
    /// them is root.
    fn place(self, folder: &Path) {
        fs::create_dir_all(folder).expect("a folder");
        if self == As::Root {
            return;
        }
        for name in ["report", "log"] {
            let file = folder.join(name);
            fs::write(&file, "").expect("a file");
            fs::set_permissions(&file, fs::Permissions::from_mode(0o666)).expect("its mode");
        }
        chown(folder, Some(NOBODY), Some(NOBODY)).expect("chown");
    }

    /// A run script for the probe.
    fn script(self, kind: Supervisor, folder: &Path, options: &str) -> String {
        let probe = format!("exec '{}'", bin::probe().display());
        let change = match kind {
            Supervisor::Daemontools => "setuidgid nobody",
            Supervisor::Runit => "chpst -u nobody",
        };
        let gives_up = format!("--at=after-init=user:{NOBODY} {options}");
        let script = match self {
            As::Root => scene::script(folder, options),
            As::UserWhoReads | As::UserWhoDoesNot => scene::script(folder, options)
                .replace(&probe, &probe.replace("exec", &format!("exec {change}"))),
            As::GivesUpAndReads | As::GivesUp => scene::script(folder, &gives_up),
        };
        match self {
            As::UserWhoReads | As::GivesUpAndReads => format!("chmod 755 supervise\n{script}"),
            As::Root | As::UserWhoDoesNot | As::GivesUp => script,
        }
    }
}

/// A service that has started.
pub(crate) struct Scene {
    /// With `web.pid`, `report` and `log`.
    pub(crate) folder: PathBuf,
    pub(crate) who: As,
    pub(crate) target: Target,
    pub(crate) report: Report,
    pub(crate) log: Log,
    pub(crate) service: Service,
}

impl Scene {
    #[track_caller]
    pub(crate) fn new(kind: Supervisor, folder: &Path, who: As, options: &str) -> Self {
        let target = Target::from(http::free_address());
        let state = folder.join("state");
        who.place(&state);
        let run = who.script(kind, &state, &listening(&target, options));
        let scene = Scene {
            report: Report::new(state.join("report")),
            log: Log::of(&state),
            service: Service::new(kind, folder.join("service"), &run),
            folder: state,
            target,
            who,
        };
        scene.report.wait("started");
        scene
    }

    /// A run script of this service.
    pub(crate) fn script(&self, options: &str) -> String {
        let options = listening(&self.target, options);
        self.who.script(self.service.kind(), &self.folder, &options)
    }

    /// What the supervisor is to start next.
    pub(crate) fn deploy(&self, script: &str) {
        write_script(&self.service.folder().join("run"), script);
    }

    pub(crate) fn launcher(&self) -> Watched {
        Watched::new(self.service.main_pid())
    }

    /// The `nth` generation that has started.
    #[track_caller]
    pub(crate) fn daemon(&self, nth: usize) -> Watched {
        Watched::new(self.report.wait_nth("started", nth).pid)
    }

    /// Does the launcher know a stop when it is sent one? If not, it lets go of its daemon.
    pub(crate) fn knows_a_stop(&self) -> bool {
        self.who != As::UserWhoDoesNot || self.service.kind() == Supervisor::Daemontools
    }

    /// A generation still runs; the service must not be reported down.
    #[track_caller]
    pub(crate) fn assert_not_down(&self) {
        if self.knows_a_stop() {
            assert!(self.service.status().pid.is_some(), "down, and there are still processes");
        }
    }

    /// After `svc -d`.
    #[track_caller]
    pub(crate) fn assert_ends(&self) {
        self.service.wait_down();
        let left: Vec<u32> = scene::running(&self.folder).iter().map(Watched::pid).collect();
        if self.knows_a_stop() {
            assert_eq!(left, [], "of the service that is down:\n{}", self.log);
        }
        scene::wait_all_ended(&self.folder);
        assert_eq!(self.service.status().want, Want::Down);
    }

    /// This generation and no other, launcher and daemon.
    #[track_caller]
    pub(crate) fn wait_alone(&self, daemon: &Watched) {
        let mut expected = vec![self.service.main_pid(), daemon.pid()];
        expected.sort_unstable();
        seamless_testing::wait_for("one generation", LIMIT, || {
            let mut left: Vec<u32> =
                scene::running(&self.folder).iter().map(Watched::pid).collect();
            left.sort_unstable();
            (left == expected).then_some(())
        });
    }
}

fn listening(target: &Target, options: &str) -> String {
    format!("--listen={target} {options}")
}

/// Where the status cannot be read, runit's TERM says nothing of what comes next, and only the
/// service's own wait decides.
pub(crate) fn patient(kind: Supervisor, who: As) -> &'static str {
    match (kind, who) {
        (Supervisor::Runit, As::UserWhoDoesNot) => "--successor-timeout=none",
        _ => "--successor-timeout=200ms",
    }
}
