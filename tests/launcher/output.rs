//! What becomes of standard output and error when nobody reads them any more.

use std::{
    fs::{self, File},
    io::Read,
    os::{fd::OwnedFd, unix::net::UnixStream},
    path::Path,
};

use nix::{fcntl::OFlag, unistd::pipe2};
use seamless_testing::{LIMIT, boxed, process::wait_rests, scene, site::Site, wait_for};

/// What standard output is at first, and what it becomes when its reader has gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Output {
    Pipe,
    Socket,
    /// A pipe; after `init` the program has put a socket of its own there, which nobody reads.
    Own,
}

fn is_null(pid: u32) -> bool {
    fs::read_link(format!("/proc/{pid}/fd/1")).expect("it is open") == Path::new("/dev/null")
}

/// Neither is its output looked at all the time, nor anything else.
#[test]
fn a_detached_daemon_that_has_nothing_to_do_rests() {
    boxed::run(|folder| {
        let direct = Site::alone(folder);
        let (_reader, writer) = pipe2(OFlag::O_CLOEXEC).expect("a pipe");
        let mut command = direct.command(&["--successor-timeout=none"]);
        let mut started = direct.spawn(command.stdout(writer));
        let daemon = started.wait_started();
        wait_rests(daemon.pid(), None);
        wait_rests(started.launcher.pid(), None);
        started.detach();
        direct.wait_checks(daemon.pid(), 1);
        wait_rests(daemon.pid(), None);
    });
}

/// A detached daemon gets `/dev/null`, unless the program has put something else there. As long as
/// there is a launcher nothing is done.
#[test]
fn an_output_without_a_reader_is_replaced_once_detached() {
    boxed::run(|folder| {
        scene::each(folder, [Output::Pipe, Output::Socket, Output::Own], |folder, output| {
            let direct = Site::alone(folder);
            let mut command = direct.command(&["--successor-timeout=none"]);
            if output == Output::Own {
                command.arg("--at=after-init=own-output");
            }
            let (mut reader, theirs): (Box<dyn Read>, OwnedFd) = match output {
                Output::Socket => {
                    let (ours, theirs) = UnixStream::pair().expect("a socket pair");
                    (Box::new(ours), theirs.into())
                }
                Output::Pipe | Output::Own => {
                    let (ours, theirs) = pipe2(OFlag::O_CLOEXEC).expect("a pipe");
                    (Box::new(File::from(ours)), theirs)
                }
            };
            command.stdout(theirs);
            let mut started = direct.spawn(&mut command);
            drop(command); // and with it our end to write to
            let daemon = started.wait_started();
            let pid = daemon.pid();
            if output == Output::Own {
                // Only the launcher has it now.
                started.detach();
                assert_eq!(reader.read(&mut [0]).expect("its end"), 0);
                direct.wait_checks(pid, 2);
                assert!(!is_null(pid));
                assert!(!direct.log.text().contains("stage=output"), "{}", direct.log);
                return;
            }
            drop(reader);
            assert!(!is_null(pid), "it serves beside its launcher");
            started.detach();
            wait_for("standard output is replaced", LIMIT, || is_null(pid).then_some(()));
            direct.log.wait_words(&["stage=output", &format!("daemon={pid} fd=1")], 1);
            assert!(!daemon.has_ended());
        });
    });
}
