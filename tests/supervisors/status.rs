//! The status files of daemontools and runit are as the parser expects them; that of s6 is in `s6`.

use std::{fs, io::Read, path::Path};

use seamless_testing::{
    LIMIT,
    supervisor::{Service, Supervisor},
    under_each_supervisor, wait_for,
};

under_each_supervisor![the_status_is_as_the_parser_expects_it];

/// What the supervisors write is what `proto::wire` reads.
fn the_status_is_as_the_parser_expects_it(kind: Supervisor, folder: &Path) {
    let service = Service::new(kind, folder.join("service"), "exec sleep 1000");
    let status = |want: u8, pid: u32| {
        wait_for("the status", LIMIT, || {
            let mut status = Vec::new();
            let mut file = fs::File::open(service.folder().join("supervise/status")).ok()?;
            file.read_to_end(&mut status).ok()?;
            (status.get(17) == Some(&want) && status[12..16] == pid.to_le_bytes()).then_some(status)
        })
    };
    // Its length, and its word for a service that is up but not to be started again.
    let (length, once) = match kind {
        Supervisor::Daemontools => (18, 0),
        Supervisor::Runit => (20, b'd'),
        Supervisor::S6 => unreachable!("its status has a format of its own: see s6.rs"),
    };
    let up = status(b'u', service.main_pid());
    assert_eq!((up.len(), up[16]), (length, 0));
    service.control(if kind == Supervisor::Runit { "once" } else { "-o" });
    assert_eq!(status(once, service.main_pid()).len(), length);
    service.down();
    service.wait_down();
    assert_eq!(status(b'd', 0).len(), length);
}
