//! What supervisors are: [`KINDS`], a table with one row for each kind.
//!
//! Launcher, daemon, the command `seamless` and the model checker never ask which kind a supervisor is.
//! They ask a column of its row. So a further kind is one row, and one parser if its status has a format
//! of its own.

pub(crate) mod above;
#[cfg(test)]
pub(crate) mod invented;
pub(crate) mod notices;
pub(crate) mod supervise;
pub(crate) mod systemd;

use crate::proto::{Intent, Reading, Scope};
use std::fmt;
use std::ops::Deref;

/// A kind of supervisor: a row of [`KINDS`], whose columns are read as fields of the kind.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Kind(u8);

/// How one kind of supervisor is recognised, and how it treats a service.
#[derive(Debug)]
pub(crate) struct Manner {
    /// Its name in messages, in the log and in the output of `seamless`.
    pub(crate) name: &'static str,
    /// The names of its process. The kernel keeps the first 15 bytes of a name.
    pub(crate) processes: &'static [&'static str],
    /// It signals the service also if it has started a script that did not `exec` the service.
    pub(crate) reaches_past_scripts: bool,
    /// When and where it says what it wants.
    pub(crate) tells: Tells,
    pub(crate) starts_again: StartsAgain,
    pub(crate) adopts_orphans: Adopts,
    /// It closes its end of the service's output as soon as the launcher has ended.
    pub(crate) closes_output: bool,
    /// After exit code 0 it starts the service again only if it is configured to.
    pub(crate) exit_0_is_final: Option<ExitZero>,
    /// A file of the service folder that may name another signal than TERM for a restart or a stop.
    pub(crate) signal_file: Option<SignalFile>,
    /// A file in the folder of a service: after so many milliseconds, a stop is followed by KILL. 0: never.
    pub(crate) kill_limit_file: Option<&'static str>,
    /// Why a manual USR2 is refused while the supervisor says [`Reading::Down`].
    pub(crate) down_means: &'static str,
    /// What an operator types to restart the service, or to keep it down.
    pub(crate) commands: Option<Commands>,
}

/// When and where a supervisor says whether it wants the service up or down.
#[derive(Debug)]
pub(crate) enum Tells {
    /// In a status file, which it writes after it has sent its signals. A stop is a TERM and a CONT,
    /// a restart is a TERM alone.
    Late(StatusFile),
    /// In a status file, which is right already when its TERM arrives. Its CONT says nothing.
    AtOnce(StatusFile),
    /// systemd's job of the unit, which exists already when its TERM arrives.
    Job,
    /// Nowhere. A restart and a stop look the same.
    Never,
}

/// `supervise/status` in the service folder. A kind has a service folder if it has such a file.
#[derive(Debug)]
pub(crate) struct StatusFile {
    /// How many bytes the file has. This tells the kind if the supervisor itself has ended.
    pub(crate) lengths: &'static [u64],
    /// The named pipe beside it that the supervisor keeps open for reading while it lives.
    pub(crate) pipe: &'static str,
    /// Reads the file for the main process with this PID, or for a detached daemon (`None`).
    pub(crate) parse: fn(&[u8], Option<i32>) -> Option<Reading>,
}

/// Does it start the service again after the service has ended by itself?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StartsAgain {
    /// Yes, whatever the exit code, as long as it wants the service up.
    Always,
    /// It depends on its configuration: on the exit code, on the number of starts.
    IfConfigured,
    /// There is no supervisor, or one that runs a program only once.
    Never,
    /// Nobody knows.
    Unknown,
}

/// Can it become the parent of a launcher that another supervisor has left behind?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Adopts {
    No,
    /// Only as PID 1.
    AsPid1,
    /// As PID 1, and as a subreaper (`prctl(2)`).
    Always,
}

/// What is said of a supervisor that starts nothing after exit code 0 by default.
#[derive(Debug)]
pub(crate) struct ExitZero {
    /// In the log, before a launcher leaves with that code.
    pub(crate) warning: &'static str,
    /// By `seamless check`.
    pub(crate) note: &'static str,
    pub(crate) advice: &'static str,
}

#[derive(Debug)]
pub(crate) struct SignalFile {
    pub(crate) name: &'static str,
    /// In the log, if the file names another signal than TERM.
    pub(crate) warning: &'static str,
}

/// `{}` stands for the service.
#[derive(Debug)]
pub(crate) struct Commands {
    pub(crate) service: NamedBy,
    pub(crate) restart: &'static str,
    pub(crate) stop: &'static str,
}

/// What the service is called in a command.
#[derive(Debug)]
pub(crate) enum NamedBy {
    /// The path of the service folder.
    Folder,
    /// The systemd unit.
    Unit,
    /// An environment variable that the supervisor gives to the service. If there is a group and it has
    /// another name, `GROUP:NAME`.
    Variable { name: &'static str, group: Option<&'static str> },
}

/// A kind of which nothing is known. Each row of [`KINDS`] says what else there is.
const ORDINARY: Manner = Manner {
    name: "",
    processes: &[],
    reaches_past_scripts: false,
    tells: Tells::Never,
    starts_again: StartsAgain::Unknown,
    adopts_orphans: Adopts::No,
    closes_output: false,
    exit_0_is_final: None,
    signal_file: None,
    kill_limit_file: None,
    down_means: "the supervisor wants the service down",
    commands: None,
};

/// One row for each kind.
pub(crate) const KINDS: &[Manner] = &[
    Manner {
        name: "daemontools",
        processes: &["supervise"],
        tells: Tells::Late(StatusFile {
            lengths: &[18],
            pipe: "ok",
            parse: supervise::parse_status,
        }),
        starts_again: StartsAgain::Always,
        commands: Some(Commands {
            service: NamedBy::Folder,
            restart: "svc -t {}",
            stop: "svc -d {}",
        }),
        ..ORDINARY
    },
    Manner {
        name: "runit",
        processes: &["runsv"],
        tells: Tells::AtOnce(StatusFile {
            lengths: &[20],
            pipe: "ok",
            parse: supervise::parse_status,
        }),
        starts_again: StartsAgain::Always,
        commands: Some(Commands {
            service: NamedBy::Folder,
            restart: "sv term {}",
            stop: "sv down {}",
        }),
        ..ORDINARY
    },
    Manner {
        name: "s6",
        processes: &["s6-supervise"],
        tells: Tells::Late(StatusFile {
            lengths: &[35, 43],
            pipe: "control", // `s6-svok(1)`
            parse: supervise::parse_s6_status,
        }),
        starts_again: StartsAgain::Always,
        signal_file: Some(SignalFile {
            name: "down-signal", // `servicedir(7)`
            warning: "s6-svc -r and -d send it instead of TERM, and it is passed on: without a \
                      handoff, each restart is an interruption; remove the file down-signal",
        }),
        kill_limit_file: Some("timeout-kill"), // `servicedir(7)`
        commands: Some(Commands {
            service: NamedBy::Folder,
            restart: "s6-svc -t {}",
            stop: "s6-svc -d {}",
        }),
        ..ORDINARY
    },
    Manner {
        name: "systemd",
        processes: &["systemd"],
        reaches_past_scripts: true, // told the PID of the launcher by MAINPID=
        tells: Tells::Job,
        starts_again: StartsAgain::IfConfigured, // `Restart=`, which its reading takes into account
        adopts_orphans: Adopts::Always,          // a user's manager is a subreaper
        down_means: "systemd would not start the service again: see Restart= of its unit",
        commands: Some(Commands {
            service: NamedBy::Unit,
            restart: "systemctl restart {}",
            stop: "systemctl stop {}",
        }),
        ..ORDINARY
    },
    Manner {
        name: "supervisord",
        processes: &["supervisord"],
        starts_again: StartsAgain::IfConfigured,
        closes_output: true,
        exit_0_is_final: Some(ExitZero {
            warning: "supervisord starts nothing after code 0 unless autorestart=true: set that, or a \
                      release_code that is not among its exitcodes",
            note: "supervisord restarts a program that exits 0 only with autorestart=true",
            advice: "set autorestart=true, and stopwaitsecs longer than a drain takes",
        }),
        commands: Some(Commands {
            service: NamedBy::Variable {
                name: "SUPERVISOR_PROCESS_NAME",
                group: Some("SUPERVISOR_GROUP_NAME"),
            },
            restart: "supervisorctl signal TERM {}", // its `restart` is a stop and then a start
            stop: "supervisorctl stop {}",
        }),
        ..ORDINARY
    },
    Manner {
        name: "openrc",
        processes: &["supervise-daemo"], // `supervise-daemon`, cut by the kernel
        starts_again: StartsAgain::IfConfigured, // up to `respawn_max` times
        commands: Some(Commands {
            service: NamedBy::Variable { name: "RC_SVCNAME", group: None },
            restart: "rc-service {} restart",
            stop: "rc-service {} stop",
        }),
        ..ORDINARY
    },
    // The launcher is PID 1, or the child of a PID 1 that restarts nothing, as in a container.
    Manner {
        name: "nobody",
        starts_again: StartsAgain::Never,
        adopts_orphans: Adopts::AsPid1,
        ..ORDINARY
    },
    // A parent that is no supervisor we know.
    Manner { name: "other", processes: &["init"], adopts_orphans: Adopts::AsPid1, ..ORDINARY },
    #[cfg(test)]
    invented::MANNER,
];

impl Kind {
    /// There is no supervisor that restarts.
    pub(crate) const NOBODY: Kind = Kind::named("nobody");
    /// There is a parent, and nothing is known of it.
    pub(crate) const OTHER: Kind = Kind::named("other");

    /// The row of this name. Panics if there is none; a constant then fails to compile.
    pub(crate) const fn named(name: &str) -> Kind {
        let mut at = 0;
        while !is_same(KINDS[at].name.as_bytes(), name.as_bytes()) {
            at += 1;
        }
        Kind(at as u8)
    }

    pub(crate) fn all() -> impl Iterator<Item = Kind> {
        (0..KINDS.len()).map(|at| Kind(at as u8))
    }

    pub(crate) fn from_name(name: &str) -> Option<Kind> {
        Kind::all().find(|kind| kind.name == name)
    }

    /// By the name of its process.
    pub(crate) fn of_process(name: &str) -> Option<Kind> {
        Kind::all().find(|kind| kind.processes.contains(&name))
    }

    /// Which kind has written a `supervise/status` of this length. `None`: there is no such file. A file
    /// that tells nothing counts as that of daemontools, which had this folder first.
    pub(crate) fn of_status_file(length: Option<u64>) -> Kind {
        let has_length = |kind: &Kind| {
            let file = kind.status_file();
            file.is_some_and(|file| length.is_some_and(|length| file.lengths.contains(&length)))
        };
        Kind::all().find(has_length).unwrap_or(const { Kind::named("daemontools") })
    }

    /// Of a kind that has a service folder.
    pub(crate) fn status_file(self) -> Option<&'static StatusFile> {
        match &KINDS[usize::from(self.0)].tells {
            Tells::Late(file) | Tells::AtOnce(file) => Some(file),
            Tells::Job | Tells::Never => None,
        }
    }

    /// Does it send its signals before it writes its status? Then its CONT tells a stop.
    pub(crate) fn tells_late(self) -> bool {
        matches!(self.tells, Tells::Late(_))
    }

    /// What a TERM means if the status cannot be read. `cont`: its sender sent a CONT as well.
    pub(crate) fn unread_intent(self, cont: bool) -> Intent {
        match (self.tells_late(), cont) {
            (true, true) => Intent::Stop(Scope::Service),
            (true, false) => Intent::Restart,
            (false, _) => Intent::Unknown,
        }
    }
}

impl StartsAgain {
    /// Then a daemon that leaves of its own accord can count on a successor.
    pub(crate) fn is_certain(self) -> bool {
        self == StartsAgain::Always
    }

    /// Is it a program that starts services? If it is killed, it will be started again, and then starts a
    /// generation.
    pub(crate) fn is_supervisor(self) -> bool {
        match self {
            StartsAgain::Always | StartsAgain::IfConfigured => true,
            StartsAgain::Never | StartsAgain::Unknown => false,
        }
    }

    /// Might the service be started again after it has been stopped behind the supervisor's back?
    /// `wanted_down`: the supervisor says [`Reading::Down`].
    pub(crate) fn is_possible(self, wanted_down: bool) -> bool {
        self.is_supervisor() && !wanted_down
    }
}

impl Deref for Kind {
    type Target = Manner;

    fn deref(&self) -> &Manner {
        &KINDS[usize::from(self.0)]
    }
}

impl fmt::Debug for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

/// `==` is not `const`.
const fn is_same(one: &[u8], other: &[u8]) -> bool {
    if one.len() != other.len() {
        return false;
    }
    let mut at = 0;
    while at < one.len() && one[at] == other[at] {
        at += 1;
    }
    at == one.len()
}

/// Tests name the kinds. The product cannot: it has to ask a column.
#[cfg(test)]
impl Kind {
    pub(crate) const DAEMONTOOLS: Kind = Kind::named("daemontools");
    pub(crate) const RUNIT: Kind = Kind::named("runit");
    pub(crate) const S6: Kind = Kind::named("s6");
    pub(crate) const SYSTEMD: Kind = Kind::named("systemd");
    pub(crate) const SUPERVISORD: Kind = Kind::named("supervisord");
    pub(crate) const OPENRC: Kind = Kind::named("openrc");
}

#[cfg(test)]
mod tests;
