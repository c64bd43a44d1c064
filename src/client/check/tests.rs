use super::facts::{Daemon, Facts, Held, Kernel, Parent, ServiceFolder, may};
use super::judge::{Severity, judge};
use crate::proto::Kind;
use crate::proto::control::frame::{Address, SocketKind};
use crate::proto::sockets::fresh::Refusal;
use crate::proto::supervisor::systemd::Properties;
use crate::sys::surroundings::{About, Memory, What, Who};
use std::time::Duration;

const WEB: u32 = 1000;

fn about(what: What, mode: u32, uid: u32) -> Option<About> {
    Some(About { what, mode, uid, gid: uid, links: 1 })
}

/// A service under runit that runs as a user of its own, and lacks nothing.
fn clean() -> Facts {
    Facts {
        path: "/run/web/web.pid".into(),
        who: Who { uid: WEB, name: Some("web".to_owned()), groups: vec![WEB] },
        folder: "/run/web".into(),
        about_folder: about(What::Folder, 0o755, WEB),
        read_only: false,
        locks: Some(Ok(())),
        pid_file: about(What::Regular, 0o644, WEB),
        lock_file: about(What::Regular, 0o600, WEB),
        bad_record: None,
        socket: about(What::Socket, 0o600, WEB),
        kernel: Kernel {
            pidfds: Ok(()),
            proc: Ok(()),
            migrate: Some(0),
            backlog: Some(4096),
            protected_regular: Some(2),
            first_unprivileged_port: 1024,
        },
        daemon: Some(Daemon {
            pid: 812,
            held: Some(3),
            not_transferred: Vec::new(),
            file_limit: Some(1024),
            no_boot: false,
            oom_group: false,
            in_place: false,
            unknown_folder: false,
            notifies: Some(true),
            drain_timeout: None,
            leave_time: None,
            probation: None,
            memory: None,
            silent: None,
            sockets: Vec::new(),
        }),
        supervisor: Some(Parent {
            pid: 7,
            name: "runsv".to_owned(),
            kind: Kind::RUNIT,
            is_script: false,
            readable: true,
        }),
        service: Some(ServiceFolder {
            path: "/service/web".into(),
            run: about(What::Regular, 0o755, 0),
            script: Some("#!/bin/sh\nexec 2>&1\nexec chpst -u web /usr/bin/web\n".to_owned()),
            supervise: about(What::Folder, 0o700, 0),
        }),
        unit: None,
    }
}

fn root() -> Who {
    Who { uid: 0, name: Some("root".to_owned()), groups: vec![0] }
}

/// The one problem that comes of this change, by what it is about; its text holds these words.
#[track_caller]
fn one(about: &str, words: &[&str], change: impl FnOnce(&mut Facts)) {
    let mut facts = clean();
    change(&mut facts);
    let found = judge(&facts);
    assert_eq!(found.len(), 1, "{found:#?}");
    let text = format!("{} / {}", found[0].says, found[0].advice);
    assert_eq!((found[0].severity, found[0].about), (Severity::Problem, about), "{text}");
    words.iter().for_each(|word| assert!(text.contains(word), "{word:?} in: {text}"));
}

fn with_unit(facts: &mut Facts, change: &str) {
    // What is named twice counts as it stands first.
    let settings = "LoadState=loaded\nKillMode=process\nType=exec\nRestart=always\n\
                    TimeoutStopUSec=1min 30s\nStartLimitBurst=5\nStartLimitIntervalUSec=0\n";
    facts.unit = Some(Properties::parse(&format!("{change}\n{settings}")));
    facts.supervisor.as_mut().expect("one").kind = Kind::SYSTEMD;
    facts.service = None;
}

#[test]
fn nothing_is_wrong_with_a_clean_service() {
    assert_eq!(judge(&clean()), []);
    let by_root = Facts { who: root(), about_folder: about(What::Folder, 0o755, 0), ..clean() };
    let by_root = Facts { lock_file: about(What::Regular, 0o600, 0), ..by_root };
    assert_eq!(judge(&by_root), []);
    let mut under_systemd = clean();
    with_unit(&mut under_systemd, "");
    assert_eq!(judge(&under_systemd), []);
    // Before it was ever started.
    let none = None;
    let new = Facts {
        pid_file: none,
        lock_file: none,
        socket: none,
        daemon: None,
        supervisor: None,
        service: None,
        kernel: Kernel { migrate: Some(1), ..clean().kernel },
        ..clean()
    };
    assert_eq!(judge(&new), []);
}

#[test]
fn rights_are_those_of_owner_group_or_others() {
    let folder = About { what: What::Folder, mode: 0o731, uid: 1, gid: 2, links: 2 };
    let who = |uid, groups: &[u32]| Who { uid, name: None, groups: groups.to_vec() };
    for (who, what, expected) in [
        (who(0, &[]), 7, true),
        (who(1, &[2]), 7, true),
        (who(3, &[2]), 3, true),
        (who(3, &[2]), 4, false),
        (who(3, &[4]), 1, true),
        (who(3, &[4]), 2, false),
    ] {
        assert_eq!(may(folder, &who, what), expected, "{who:?} {what}");
    }
}

#[test]
fn each_fault_of_the_folder() {
    one("folder", &["does not exist", "mkdir /run/web && chown web"], |facts| {
        facts.about_folder = None;
    });
    one("folder", &["is not a folder"], |facts| {
        facts.about_folder = about(What::Regular, 0o644, WEB)
    });
    one("folder", &["read-only file system"], |facts| facts.read_only = true);
    one("folder", &["web may not write", "chown web /run/web"], |facts| {
        facts.about_folder = about(What::Folder, 0o755, 0);
    });
    one("folder", &["everybody may write", "is sticky", "fs.protected_regular is 2"], |facts| {
        facts.about_folder = about(What::Folder, 0o1777, 0);
    });
    one("folder", &["everybody may write", "replace the files"], |facts| {
        facts.about_folder = about(What::Folder, 0o777, WEB);
    });
    one("folder", &["without locks (flock: no)"], |facts| {
        facts.locks = Some(Err("flock: no".to_owned()));
    });
}

#[test]
fn each_fault_of_the_files() {
    one("pid-file", &["is a folder"], |facts| facts.pid_file = about(What::Folder, 0o755, WEB));
    one("control-socket", &["is a folder"], |facts| {
        facts.socket = about(What::Folder, 0o755, WEB);
    });
    let sticky = |facts: &mut Facts| {
        facts.about_folder = Some(About { gid: WEB, ..about(What::Folder, 0o1770, 0).unwrap() });
    };
    one(
        "pid-file",
        &["belongs to uid 5", "web may not replace it", "rm /run/web/web.pid"],
        |facts| {
            sticky(facts);
            facts.pid_file = about(What::Regular, 0o644, 5);
        },
    );
    one("lock-file", &["not a regular file"], |facts| {
        facts.lock_file = about(What::Link, 0o777, WEB);
    });
    one("lock-file", &["a second name"], |facts| {
        facts.lock_file.as_mut().expect("one").links = 2;
    });
    one("lock-file", &["can be written by other users (mode 0666)", "chmod 600"], |facts| {
        facts.lock_file = about(What::Regular, 0o666, WEB);
    });
    one("lock-file", &["belongs to uid 0, and web may not open it", "chown web"], |facts| {
        facts.lock_file = about(What::Regular, 0o600, 0);
    });
    one("lock-file", &["belongs to uid 5, and its folder does not"], |facts| {
        facts.who = root();
        facts.lock_file = about(What::Regular, 0o600, 5);
        facts.daemon = None;
        facts.kernel.migrate = Some(1);
    });
    one("lock-file", &["it is not a lock file of this crate"], |facts| {
        facts.bad_record = Some("it is not a lock file of this crate".to_owned());
    });
}

#[test]
fn each_fault_of_the_kernel_and_its_limits() {
    one("pidfd", &["the kernel has none", "Linux 5.3"], |facts| {
        facts.kernel.pidfds = Err("the kernel has none".to_owned());
    });
    one("proc", &["/proc cannot be used (no)"], |facts| facts.kernel.proc = Err("no".to_owned()));
    one("somaxconn", &["net.core.somaxconn is 128"], |facts| facts.kernel.backlog = Some(128));
    fn daemon(facts: &mut Facts) -> &mut Daemon {
        facts.daemon.as_mut().expect("one")
    }
    one("nofile", &["holds 500 sockets", "no more than 1024", "ulimit -Hn 1064"], |facts| {
        daemon(facts).held = Some(500);
    });
    // Whatever number a daemon sends.
    one("nofile", &["needs about 18446744073709551615"], |facts| {
        daemon(facts).held = Some(u64::MAX);
    });
    one("tcp-migrate-req", &["listens at 127.0.0.1:80", "seamless::sockets"], |facts| {
        daemon(facts).not_transferred = vec![([127, 0, 0, 1], 80).into()];
    });
    one("proc", &["/proc/sys is hidden from daemon 812", "ProcSubset=pid"], |facts| {
        daemon(facts).no_boot = true;
    });
    one("memory", &["memory.oom.group is 1", "OOMPolicy=continue"], |facts| {
        daemon(facts).oom_group = true;
    });
    one("daemon", &["it is stopped", "look at process 812"], |facts| {
        daemon(facts).silent = Some("it is stopped".to_owned());
    });
    // Where the queue moves, it costs nothing.
    let mut moves = clean();
    moves.kernel.migrate = Some(1);
    daemon(&mut moves).not_transferred = vec![([127, 0, 0, 1], 80).into()];
    assert_eq!(judge(&moves), []);
    // If a service does not run, it is unknown whether it takes its sockets over.
    let found = judge(&Facts { daemon: None, ..clean() });
    assert_eq!(found.len(), 1, "{found:#?}");
    assert_eq!((found[0].severity, found[0].about), (Severity::Note, "tcp-migrate-req"));
}

#[test]
fn each_fault_of_the_supervisor() {
    fn parent(facts: &mut Facts) -> &mut Parent {
        facts.supervisor.as_mut().expect("one")
    }
    one("supervisor", &["web cannot read what runsv", "chmod 755 supervise"], |facts| {
        parent(facts).readable = false;
    });
    one("supervisor", &["does not restart services", "parent_restarts"], |facts| {
        parent(facts).kind = Kind::NOBODY
    });
    one("supervisor", &["unknown supervisor"], |facts| parent(facts).kind = Kind::OTHER);
    for kind in [Kind::OTHER, Kind::NOBODY] {
        for in_place in [false, true] {
            one("supervisor", &["a shell", "by exec"], |facts| {
                facts.daemon.as_mut().expect("one").in_place = in_place;
                parent(facts).kind = kind;
                parent(facts).is_script = true;
            });
        }
    }
    for kind in [Kind::NOBODY, Kind::OTHER] {
        let mut in_place = clean();
        parent(&mut in_place).kind = kind;
        in_place.daemon.as_mut().expect("one").in_place = true;
        assert_eq!(judge(&in_place), [], "{kind:?}");
    }
    // A supervisor enters the folder anew.
    let mut unknown_folder = clean();
    unknown_folder.daemon.as_mut().expect("one").unknown_folder = true;
    assert_eq!(judge(&unknown_folder), []);
    unknown_folder.daemon.as_mut().expect("one").in_place = true;
    let found = judge(&unknown_folder);
    assert_eq!(found.len(), 1, "{found:#?}");
    assert_eq!((found[0].severity, found[0].about), (Severity::Note, "working-folder"));
    for (kind, advice) in [
        (Kind::SUPERVISORD, "autorestart=true"),
        // It has nothing but a row in the table of kinds.
        (Kind::named("invented"), "an invented advice"),
    ] {
        let mut exit_0_is_final = clean();
        parent(&mut exit_0_is_final).kind = kind;
        let found = judge(&exit_0_is_final);
        assert_eq!(found.len(), 1, "{found:#?}");
        assert_eq!(found[0].severity, Severity::Note);
        assert!(found[0].advice.contains(advice), "{found:#?}");
    }

    fn service(facts: &mut Facts) -> &mut ServiceFolder {
        facts.service.as_mut().expect("one")
    }
    one("run-script", &["does not exist"], |facts| service(facts).run = None);
    one("run-script", &["is not executable", "chmod 755 /service/web/run"], |facts| {
        service(facts).run = about(What::Regular, 0o644, 0);
    });
    for script in ["#!/bin/sh\nexec 2>&1\n/usr/bin/web\n", "#!/usr/bin/env bash\n# exec web\nweb\n"]
    {
        one("run-script", &["starts nothing by exec"], |facts| {
            service(facts).script = Some(script.to_owned());
        });
    }
    one("supervisor", &["may not look into \"/service/web/supervise\""], |facts| {
        facts.supervisor = None;
    });
    // The run script lifts it.
    let mut lifted = Facts { supervisor: None, ..clean() };
    let script = "#!/bin/sh\nchmod 755 supervise\nexec chpst -u web /usr/bin/web\n";
    service(&mut lifted).script = Some(script.to_owned());
    assert_eq!(judge(&lifted), []);
    // A program of another kind needs no exec.
    let mut binary = clean();
    service(&mut binary).script = Some("\u{7f}ELF".to_owned());
    assert_eq!(judge(&binary), []);
}

/// Which settings these are is `proto::systemd`'s.
#[test]
fn each_finding_of_a_unit() {
    for (setting, words) in [
        ("LoadState=not-found", "the unit is not-found"),
        ("KillMode=control-group", "a restart ends the daemon with its launcher"),
        ("KillMode=mixed\nSendSIGKILL=yes", "set KillMode=process"),
        ("Restart=no", "set Restart=always"),
        ("Type=forking", "the launcher must stay the main process"),
    ] {
        one("unit", &[words], |facts| with_unit(facts, setting));
    }
    // What the daemon says of itself.
    one("unit", &["TimeoutStopSec=5s", "longer than drain_timeout"], |facts| {
        with_unit(facts, "TimeoutStopUSec=5s");
        let daemon = facts.daemon.as_mut().expect("one");
        daemon.notifies = Some(false);
        daemon.drain_timeout = Some(Duration::from_secs(60));
    });
    let mut no_store = clean();
    with_unit(&mut no_store, "FileDescriptorStoreMax=0");
    let found = judge(&no_store);
    assert_eq!(found.len(), 1, "{found:#?}");
    assert_eq!((found[0].severity, found[0].about), (Severity::Note, "unit"));
    // A reload is known from a daemon whose launcher restarts in place.
    one("unit", &["ExecReload", "systemctl reload"], |facts| {
        with_unit(facts, "");
        facts.daemon.as_mut().expect("one").in_place = true;
    });
}

/// What else makes no sense with a probation is `proto::systemd`'s.
#[test]
fn p11_a_probation_needs_memory_for_two() {
    let probation = Some(Duration::from_secs(60));
    let memory = |used: u64, limit: u64| Some(Memory { used: used << 20, limit: limit << 20 });
    for (probation, memory, is_found) in [
        (probation, memory(100, 199), true),
        (probation, memory(100, 200), false),
        (probation, None, false),
        (None, memory(100, 150), false),
    ] {
        let mut facts = clean();
        let daemon = facts.daemon.as_mut().expect("one");
        (daemon.probation, daemon.memory) = (probation, memory);
        let found = judge(&facts);
        assert_eq!(found.len(), usize::from(is_found), "{found:#?}");
        for finding in found {
            assert_eq!((finding.severity, finding.about), (Severity::Note, "memory"));
            assert!(finding.says.contains("uses 100 MiB") && finding.advice.contains("200 MiB"));
        }
    }
    one("unit", &["KillMode=control-group", "KillMode=process"], |facts| {
        with_unit(facts, "KillMode=control-group");
    });
    one("unit", &["RestartPreventExitStatus=75", "probation"], |facts| {
        with_unit(facts, "RestartPreventExitStatus=75");
        facts.daemon.as_mut().expect("one").probation = Some(Duration::from_secs(60));
    });
    one("unit", &["TimeoutStopSec=1min 30s", "leave_time"], |facts| {
        with_unit(facts, "");
        let daemon = facts.daemon.as_mut().expect("one");
        (daemon.leave_time, daemon.drain_timeout) = (Some(Duration::from_secs(60)), probation);
        daemon.notifies = Some(false);
    });
}

#[test]
fn sockets_that_a_fresh_start_could_not_bind() {
    let mut facts = clean();
    let held = |refused, others| Held {
        kind: SocketKind::Tcp,
        address: Address::Inet(([127, 0, 0, 1], 80).into()),
        refused,
        others,
    };
    let mut findings = |held: Held| {
        facts.daemon.as_mut().expect("one runs").sockets = vec![held];
        judge(&facts)
    };
    assert!(findings(held(None, None)).is_empty());
    let found = findings(held(Some(Refusal::Denied), None));
    assert_eq!((found.len(), found[0].severity), (1, Severity::Problem));
    assert!(found[0].advice.contains("CAP_NET_BIND_SERVICE"), "{found:?}");
    let found = findings(held(None, Some((0, WEB))));
    assert_eq!((found.len(), found[0].severity), (1, Severity::Note));
    assert!(found[0].says.contains("uid 0 has made the socket of tcp 127.0.0.1:80"), "{found:?}");
}
