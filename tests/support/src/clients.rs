//! What a client sees while something is done to a service: one request is in flight when it is done,
//! and a new connection comes every 20 ms. The guide's table of supervisors tells it ([`page`]).
//!
//! [`page`]: crate::page

use std::{
    fmt, fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use crate::{
    LIMIT,
    http::{self, Connection, FailedProbe, FailureKind, Prober, Target},
    page::Table,
    process::Watched,
    supervisor::write_script,
    wait_for,
};

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Case {
    /// The supervisor's own command for it.
    Restart,
    /// The same.
    Stop,
    /// KILL to the main process, our launcher.
    Kill,
    /// KILL to the daemon.
    Crash,
    /// A restart into a program that exits at once; when that has been seen, into a good one.
    BadDeploy,
}

impl Case {
    pub const ALL: [Case; 5] =
        [Case::Restart, Case::Stop, Case::Kill, Case::Crash, Case::BadDeploy];

    /// As the table calls it.
    pub fn name(self) -> &'static str {
        match self {
            Case::Restart => "restart",
            Case::Stop => "stop",
            Case::Kill => "kill",
            Case::Crash => "crash",
            Case::BadDeploy => "bad deploy",
        }
    }
}

/// The guide's table. The rows of systemd are tested by root.
pub fn table() -> Table {
    const ROWS: [&str; 9] = [
        "daemontools",
        "runit",
        "s6",
        "supervisord",
        "OpenRC",
        "systemd",
        "systemd, in place",
        "systemd, `KillMode=mixed`",
        "systemd, `KillMode=control-group`",
    ];
    Table {
        name: "clients".to_owned(),
        rows: ROWS.map(str::to_owned).to_vec(),
        columns: Case::ALL.map(|case| case.name().to_owned()).to_vec(),
    }
}

/// A service under a real supervisor. Each start of it takes 200 ms or more, so that a moment in which
/// nobody serves is seen for sure.
pub trait Host {
    fn target(&self) -> &Target;
    /// What it runs, which a deploy replaces.
    fn program(&self) -> &Program;
    fn restart(&mut self);
    fn stop(&mut self);
    /// Waits until the supervisor says that it is down.
    fn wait_down(&mut self);
    fn kill(&mut self);
    /// The good program is in place: what an operator does then. Most supervisors try by themselves.
    fn start_good(&mut self) {}
}

/// A program file of the service's own.
#[derive(Debug)]
pub struct Program {
    path: PathBuf,
    good: PathBuf,
}

impl Program {
    /// A copy of this program at this path.
    pub fn new(path: PathBuf, good: &Path) -> Self {
        let program = Program { path, good: good.to_owned() };
        program.deploy_good();
        program
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn deploy_good(&self) {
        let new = self.path.with_extension("good");
        fs::copy(&self.good, &new).expect("a copy");
        fs::set_permissions(&new, fs::Permissions::from_mode(0o755)).expect("its mode");
        fs::rename(new, &self.path).expect("it is put in place");
    }

    pub fn deploy_bad(&self) {
        let starts = self.starts();
        write_script(&self.path, &format!("echo started >>'{}'\nexit 1", starts.display()));
    }

    fn starts(&self) -> PathBuf {
        self.path.with_extension("starts")
    }

    #[track_caller]
    fn wait_bad_start(&self) {
        wait_for("the bad program is started", LIMIT, || {
            fs::read(self.starts()).is_ok_and(|starts| !starts.is_empty()).then_some(())
        });
    }
}

/// What became of the requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The one that was in flight.
    pub answered: bool,
    pub refused: Refused,
}

/// When new connections were not served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    Never,
    UntilTheNextStart,
    FromThenOn,
}

/// The words of the guide's legend.
impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match (self.answered, self.refused) {
            (true, Refused::Never) => "no failure",
            (false, Refused::Never) => "cut",
            (true, Refused::UntilTheNextStart) => "answered, gap",
            (false, Refused::UntilTheNextStart) => "cut, gap",
            (true, Refused::FromThenOn) => "answered, down",
            (false, Refused::FromThenOn) => "cut, down",
        })
    }
}

/// Does it to a service that serves, and looks on.
#[track_caller]
pub fn watch(host: &mut dyn Host, case: Case) -> Seen {
    let old = http::wait_pid(host.target());
    let daemon = Watched::new(old);
    let prober = Prober::start(host.target());
    prober.wait_pid(old);
    let mut request = Some(Connection::unfinished(host.target()));
    // What the prober sends next comes behind it in the same queue.
    prober.wait_more(2);
    let is_answered =
        |request: Connection| request.try_finish().is_ok_and(|one| one.pid == Some(old));
    let mut answered = false;
    match case {
        Case::Restart => host.restart(),
        Case::Stop => host.stop(),
        Case::Kill => host.kill(),
        Case::Crash => {
            daemon.kill();
            daemon.wait_end(LIMIT);
        }
        Case::BadDeploy => {
            host.program().deploy_bad();
            host.restart();
            host.program().wait_bad_start();
            prober.wait_more(20);
            // Now: no server waits for ever for the rest of a request.
            answered = request.take().is_some_and(is_answered);
            host.program().deploy_good();
            host.start_good();
        }
    }
    if case == Case::Stop {
        answered = request.is_some_and(is_answered);
        host.wait_down();
        let answers = prober.seen().answers.len();
        prober.wait_more(3);
        let probes = prober.stop();
        // One may have been noted late.
        assert!(probes.answers.len() <= answers + 1, "somebody answers: {probes:?}");
        assert!(!probes.failures.is_empty(), "nobody was refused: {probes:?}");
        return Seen { answered, refused: Refused::FromThenOn };
    }
    wait_for("another generation answers", LIMIT, || {
        prober.seen().answers.iter().any(|answer| answer.pid != old).then_some(())
    });
    answered |= request.is_some_and(is_answered);
    // Until it hears that it has a successor, both serve: it may be asking its supervisor just then.
    daemon.wait_end(LIMIT);
    prober.wait_more(10);
    let probes = prober.stop();
    assert_ne!(probes.answers.last().map(|answer| answer.pid), Some(old));
    assert!(probes.answers.len() > 10, "{probes:?}");
    // A probe that was in flight is cut like any other request.
    let is_refused = |probe: &&FailedProbe| probe.failure.kind == FailureKind::Refused;
    let refused = probes.failures.iter().filter(is_refused).count();
    let answered = answered && refused == probes.failures.len();
    let refused = if refused == 0 { Refused::Never } else { Refused::UntilTheNextStart };
    Seen { answered, refused }
}
