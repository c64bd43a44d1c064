//! What each kind of supervisor does with the service: upon its start, the launcher's end, a restart, a
//! stop, and the limits that it sets. Measured with real ones; the table is [`Manner`].
//!
//! | | starts again after | restart | what is left when the launcher has ended | status |
//! | --- | --- | --- | --- | --- |
//! | daemontools, runit, s6 | any end | TERM | lives on | a file |
//! | systemd | any end, or by `Restart=` | TERM, and a start | `KillMode=`: lives on, or is ended | the unit's job |
//! | supervisord | an exit code that it does not expect | TERM, and a start | lives on | none |
//! | OpenRC | any end | TERM, and a start by a new supervisor | lives on | none |
//! | none, in a container | never | - | is killed | none |

use crate::machines;
use crate::proto::supervisor::{StatusFile, Tells};

use super::trace::say;
use super::world::{Id, Promise, Setting, Stop, Supervisor, World, launcher_pid};
use crate::proto::{End, Kind, Reading};

/// After which end of the launcher, that nobody asked for, it is started again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Again {
    Always,
    /// Not after exit 0: `Restart=on-failure`, `autorestart=unexpected`.
    OnFailure,
    Never,
}

/// What becomes of the service's other processes when the launcher has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rest {
    /// `KillMode=process`, and wherever nobody keeps a control group.
    Spared,
    /// KILL: `KillMode=mixed`.
    Killed,
    /// TERM together with the launcher, then KILL: `KillMode=control-group`.
    Told,
    /// KILL to the launcher's process group: a `finish` script of s6.
    Group,
}

/// What a supervisor does with the service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Manner {
    pub(crate) name: &'static str,
    pub(crate) again: Again,
    /// A restart is a job: the service is started again, however the launcher has ended.
    pub(crate) jobs: bool,
    pub(crate) rest: Rest,
    /// A restart replaces the supervisor as well.
    pub(crate) replaced: bool,
    /// It KILLs a launcher that takes too long to end, and one that is not ready in time.
    pub(crate) limits: bool,
    /// The exit code of a launcher that leaves (`Config::release_code`).
    pub(crate) release_code: i32,
}

impl Manner {
    /// As daemontools.
    pub(crate) const PLAIN: Manner = Manner {
        name: "",
        again: Again::Always,
        jobs: false,
        rest: Rest::Spared,
        replaced: false,
        limits: false,
        release_code: 0,
    };
    pub(crate) const S6_FINISH: Manner =
        Manner { name: ", finish kills the group", rest: Rest::Group, ..Manner::PLAIN };
    pub(crate) const SYSTEMD: Manner =
        Manner { name: ", Restart=always", jobs: true, limits: true, ..Manner::PLAIN };
    pub(crate) const ON_FAILURE: Manner =
        Manner { name: ", Restart=on-failure", again: Again::OnFailure, ..Manner::SYSTEMD };
    pub(crate) const MIXED: Manner =
        Manner { name: ", KillMode=mixed", rest: Rest::Killed, ..Manner::SYSTEMD };
    pub(crate) const CONTROL_GROUP: Manner =
        Manner { name: ", KillMode=control-group", rest: Rest::Told, ..Manner::SYSTEMD };
    pub(crate) const SUPERVISORD: Manner = Manner {
        name: ", autorestart=unexpected, release code 99",
        again: Again::OnFailure,
        jobs: true,
        limits: true,
        release_code: 99,
        ..Manner::PLAIN
    };
    pub(crate) const OPENRC: Manner =
        Manner { name: "", jobs: true, replaced: true, limits: true, ..Manner::PLAIN };
    pub(crate) const NONE: Manner = Manner { again: Again::Never, ..Manner::PLAIN };

    /// Of this kind, as it should be set up.
    pub(crate) const fn of(kind: Kind) -> Manner {
        match kind {
            Kind::SYSTEMD => Manner::SYSTEMD,
            Kind::SUPERVISORD => Manner::SUPERVISORD,
            Kind::OPENRC => Manner::OPENRC,
            Kind::NOBODY => Manner::NONE,
            _ => Manner::PLAIN,
        }
    }

    fn starts_after(self, end: End) -> bool {
        match self.again {
            Again::Always => true,
            Again::OnFailure => end != End::Code(0),
            Again::Never => false,
        }
    }
}

/// What a supervisor is about to do with the service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Job {
    Restart,
    Stop,
}

impl Setting {
    /// The other processes of the service outlive the launcher.
    pub(crate) fn kills_nobody(&self) -> bool {
        matches!(self.manner.rest, Rest::Spared | Rest::Group) && self.kind != Kind::NOBODY
    }
}

/// The status file as its supervisor writes it; the length tells the format. `main`: the PID of the main
/// process, or 0.
fn status_file(file: &StatusFile, main: i32, up: bool) -> Option<Vec<u8>> {
    let length = *file.lengths.first()?;
    let mut status = vec![0; usize::try_from(length).ok()?];
    match length {
        18 | 20 => {
            status[12..16].copy_from_slice(&main.to_le_bytes());
            status[17] = if up { b'u' } else { b'd' };
            if length == 20 {
                // It has sent its TERM before it writes `d`.
                status[18..].copy_from_slice(&[u8::from(!up), u8::from(main > 0)]);
            }
        }
        35 => {
            status[24..32].copy_from_slice(&(main as u64).to_be_bytes());
            status[34] = if up { 4 } else { 0 };
        }
        _ => return None,
    }
    Some(status)
}

impl World {
    /// The launcher that a supervisor has started has ended: what it does next.
    pub(crate) fn supervisor_hears(&mut self, id: Id, end: End, setting: &Setting) {
        let manner = setting.manner;
        let job = self.supervisor.job;
        self.supervisor.job = job.filter(|job| *job == Job::Restart);
        self.supervisor.idle = match job {
            Some(Job::Restart) => false,
            Some(Job::Stop) => true,
            None => !manner.starts_after(end) && setting.kind != Kind::NOBODY,
        };
        if self.supervisor.idle {
            say(|| "supervisor: the service has ended".to_owned());
        }
        if self.supervisor.idle && !self.supervisor.wants_up {
            self.net_unit_ends();
        }
        if job == Some(Job::Restart) && manner.replaced {
            say(|| "another supervisor takes the place of this one".to_owned());
            self.supervisor.instance += 1;
        }
        let rest: Vec<Id> = match manner.rest {
            Rest::Spared => Vec::new(),
            Rest::Killed | Rest::Told => self.ids().collect(),
            // Each daemon has a session of its own.
            Rest::Group if crate::variants::is(crate::variants::Variant::NoSetsid) => {
                self.children(id).collect()
            }
            Rest::Group => Vec::new(),
        };
        for id in rest {
            if let Some(daemon) = self.daemon(id) {
                if manner.rest == Rest::Group && daemon.serves() {
                    self.fault(Promise::P1, "a generation that serves is killed with the launcher");
                }
                say(|| format!("supervisor: KILL to daemon {id}, which is left"));
                self.daemon_ends(id, End::Signal(9));
            }
        }
    }

    /// `Supervisor::read_status`: the crate's own reader, and what it finds there. `main_pid`: of the
    /// launcher that asks.
    pub(crate) fn status(&self, main_pid: Option<i32>, setting: &Setting) -> Option<Reading> {
        let Supervisor { status_up, child, job, idle, .. } = self.supervisor;
        let main = child.map_or(0, launcher_pid);
        match &setting.kind.tells {
            Tells::Late(file) | Tells::AtOnce(file) => match status_file(file, main, status_up) {
                Some(status) => (file.parse)(&status, main_pid),
                // Taken for granted: its format has a parser, and here is nothing that writes it.
                None if main_pid.is_some_and(|pid| pid != main) => None,
                None => Some(if status_up { Reading::Up } else { Reading::Down }),
            },
            Tells::Job => {
                let active = match (child, idle) {
                    (Some(_), _) => "ActiveState=active\nSubState=running",
                    (None, true) => "ActiveState=inactive\nSubState=dead",
                    (None, false) => "ActiveState=activating\nSubState=auto-restart",
                };
                let restart = match setting.manner.again {
                    Again::Always => "always",
                    Again::OnFailure => "on-failure",
                    Again::Never => "no",
                };
                let text = format!("MainPID={main}\n{active}\nRestart={restart}\n");
                let job = job.map(|job| match job {
                    Job::Restart => "restart",
                    Job::Stop => "stop",
                });
                machines::unit_reading(&text, job, main_pid)
            }
            Tells::Never => None,
        }
    }

    /// A command that is a job: `systemctl`, `supervisorctl`, `rc-service`.
    pub(crate) fn begin_job(&mut self, up: bool, setting: &Setting) {
        if setting.manner.jobs && self.supervisor.child.is_some() {
            self.supervisor.job = Some(if up { Job::Restart } else { Job::Stop });
        }
        if setting.manner.jobs && self.supervisor.child.is_none() {
            (self.supervisor.idle, self.supervisor.job) = (!up, None);
        }
        if setting.manner.rest == Rest::Told {
            for id in self.ids() {
                if self.daemon(id).is_some() {
                    self.at_mut(id).termed = true;
                    self.signal(id, super::world::Signal::TermOfOperator);
                }
            }
        }
    }

    /// The launcher may be KILLed: it takes longer to end, or to be ready, than the supervisor waits.
    pub(crate) fn is_overdue(&self, setting: &Setting) -> bool {
        let Some(id) = self.supervisor.child else { return false };
        let starts = matches!(setting.kind.tells, Tells::Job) && !self.at(id).was_ready;
        setting.manner.limits && (self.supervisor.job.is_some() || starts)
    }

    pub(crate) fn kill_overdue(&mut self, setting: &Setting) {
        say(|| "supervisor: KILL to its child, which takes too long".to_owned());
        self.budget.limits -= 1;
        if self.supervisor.stop == Stop::Owed {
            self.supervisor.stop = Stop::Excused;
        }
        if let Some(id) = self.supervisor.child {
            self.launcher_ends(id, End::Signal(9), setting);
        }
    }
}
