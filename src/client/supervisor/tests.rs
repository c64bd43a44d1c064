use super::{Supervisor, Wish};
use crate::proto::Kind;
use crate::proto::supervisor::systemd::Unit;
use std::io::{Read, Write};
use std::process::{Child, Command, Stdio};

/// A process of a service, with the variables that supervisors give it.
struct Service(Child);

impl Service {
    fn new() -> Service {
        let child = Command::new("cat")
            .envs([("SUPERVISOR_PROCESS_NAME", "web"), ("SUPERVISOR_GROUP_NAME", "site")])
            .env("RC_SVCNAME", "web server")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn();
        let mut child = child.expect("cat");
        // It has its environment for sure once it answers: `spawn` may return a moment earlier.
        child.stdin.as_mut().expect("a pipe").write_all(b"x").expect("written");
        child.stdout.as_mut().expect("a pipe").read_exact(&mut [0]).expect("an answer");
        Service(child)
    }

    fn under(&self, kind: Kind, wants: &str) -> Supervisor {
        Supervisor {
            pid: 7,
            name: None,
            kind: kind.name.to_owned(),
            wants: wants.to_owned(),
            folder: Some("/service/web".into()),
            unit: Some(Unit { name: "web.service".to_owned(), user: false }),
            known: kind,
            child: i32::try_from(self.0.id()).expect("a PID"),
            is_script: false,
        }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        _ = self.0.kill();
        _ = self.0.wait();
    }
}

#[test]
fn what_an_operator_types_under_each_kind() {
    let service = Service::new();
    for (kind, restart, stop) in [
        (Kind::DAEMONTOOLS, "svc -t /service/web", "svc -d /service/web"),
        (Kind::RUNIT, "sv term /service/web", "sv down /service/web"),
        (Kind::S6, "s6-svc -t /service/web", "s6-svc -d /service/web"),
        (Kind::SYSTEMD, "systemctl restart web.service", "systemctl stop web.service"),
        (Kind::SUPERVISORD, "supervisorctl signal TERM site:web", "supervisorctl stop site:web"),
        (Kind::OPENRC, "rc-service 'web server' restart", "rc-service 'web server' stop"),
        (Kind::named("invented"), "invented -again /service/web", "invented -down /service/web"),
    ] {
        let one = service.under(kind, "up");
        assert_eq!(one.command(Wish::Restart).as_deref(), Some(restart), "{kind:?}");
        assert_eq!(one.command(Wish::Stop).as_deref(), Some(stop), "{kind:?}");
    }
    for kind in [Kind::NOBODY, Kind::OTHER] {
        assert_eq!(service.under(kind, "lost").command(Wish::Stop), None, "{kind:?}");
    }
    let mut users = service.under(Kind::SYSTEMD, "up");
    users.unit.as_mut().expect("one").user = true;
    let stop = users.command(Wish::Stop);
    assert_eq!(stop.as_deref(), Some("systemctl stop --user web.service"));
    // What cannot be named is not guessed.
    let nowhere = Supervisor { folder: None, unit: None, child: 0, ..users };
    for kind in Kind::all() {
        let one = Supervisor { known: kind, ..nowhere.clone() };
        assert_eq!(one.command(Wish::Restart), None, "{kind:?}");
    }
}

/// A stop that the supervisor would undo at once is refused.
#[test]
fn whether_a_stop_would_be_undone() {
    let service = Service::new();
    for kind in Kind::all() {
        let may = |wants| service.under(kind, wants).starts_again();
        let restarts = ![Kind::NOBODY, Kind::OTHER].contains(&kind);
        assert_eq!(may("up"), restarts, "{kind:?}");
        assert_eq!(may("unreadable"), restarts, "{kind:?}");
        assert!(!may("down"), "{kind:?}");
    }
}
