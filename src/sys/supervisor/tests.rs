//! A kind of supervisor that is one row and one parser, `proto::supervisor::invented`, is recognised and
//! read without anything else.

use super::Supervisor;
use crate::proto::{Kind, Reading};
use crate::sys::process;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

const INVENTED: Kind = Kind::named("invented");

/// A service folder, and a process with the name of an invented supervisor that stands in it.
struct Service {
    folder: PathBuf,
    supervisor: Child,
}

impl Service {
    fn new(name: &str) -> Service {
        let folder = std::env::temp_dir().join(format!("seamless-{name}-{}", process::own_pid()));
        let supervise = folder.join("supervise");
        fs::create_dir_all(&supervise).expect("a folder");
        fs::write(folder.join("run"), "").expect("a run script");
        mkfifo(&supervise.join("listens"), Mode::S_IRWXU).expect("a pipe");
        let program = folder.join("inventedsv");
        std::os::unix::fs::symlink("/bin/cat", &program).expect("a link");
        let mut supervisor = Command::new(program)
            .current_dir(&folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a supervisor");
        // It has its name for sure once it answers: `spawn` may return a moment earlier.
        supervisor.stdin.as_mut().expect("a pipe").write_all(b"x").expect("written");
        supervisor.stdout.as_mut().expect("a pipe").read_exact(&mut [0]).expect("an answer");
        Service { folder, supervisor }
    }

    fn pid(&self) -> i32 {
        i32::try_from(self.supervisor.id()).expect("a PID")
    }

    fn write(&self, wants: u8, main: i32) {
        let status = [&[wants][..], &main.to_be_bytes()].concat();
        fs::write(self.folder.join("supervise/status"), status).expect("written");
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        _ = self.supervisor.kill();
        _ = self.supervisor.wait();
        _ = fs::remove_dir_all(&self.folder);
    }
}

#[test]
fn an_invented_kind_is_recognised_and_read() {
    let mut service = Service::new("invented");
    let own = process::own_pid();
    let found = Supervisor::look_at(own, service.pid(), None, &mut None);
    assert_eq!(found.kind, INVENTED);
    assert_eq!(found.folder(), Some(service.folder.as_path()));
    // What the daemon learns from the hello.
    let (hello, pidfd) = found.hello(false);
    let pidfd = pidfd.map(|fd| fd.try_clone_to_owned().expect("a duplicate"));
    let heard = Supervisor::from_hello(&hello, pidfd);
    service.write(b'+', own);
    for one in [&found, &heard] {
        assert_eq!(one.read(Some(own)), Reading::Unreadable, "nobody listens at its pipe");
    }
    // Open until the end: a child that another test forks would hold it longer than we do.
    let pipe = service.folder.join("supervise/listens");
    let _pipe = File::options().read(true).write(true).open(pipe).expect("a reader");
    for one in [&found, &heard] {
        let read = |wants, main, asks| {
            service.write(wants, main);
            one.read(asks)
        };
        assert_eq!(read(b'+', own, Some(own)), Reading::Up);
        assert_eq!(read(b'-', own, Some(own)), Reading::Down);
        assert_eq!(read(b'+', own + 1, Some(own)), Reading::Unreadable, "about another process");
        assert_eq!(read(b'-', own + 1, None), Reading::Down, "to a detached daemon");
    }
    service.write(b'+', 0);
    _ = service.supervisor.kill();
    _ = service.supervisor.wait();
    for one in [&found, &heard] {
        assert_eq!(one.read(Some(own)), Reading::Lost);
    }
}
