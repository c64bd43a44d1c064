//! Real OpenRC, whose `supervise-daemon` supervises one service. It is not installed: `scripts/setup`
//! unpacks its packages, and a box sees them where they belong.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use crate::{LIMIT, bin, process, wait_for};

/// A service called `web`.
#[derive(Debug)]
pub struct OpenRc {
    etc: PathBuf,
}

impl OpenRc {
    /// In a box of its own: its programs are laid over those of the machine. `script` becomes
    /// `/etc/init.d/web`, and `settings` `/etc/conf.d/web`. Nothing is started yet.
    #[track_caller]
    pub fn install(folder: &Path, script: &Path, settings: &str) -> Self {
        let unpacked = bin::cache("openrc");
        assert!(unpacked.join("sbin/openrc-run").is_file(), "no OpenRC; run scripts/setup");
        let etc = folder.join("etc");
        for name in ["init.d", "conf.d", "runlevels/default"] {
            fs::create_dir_all(etc.join(name)).expect("a folder");
        }
        // Debian's own addition looks for it.
        fs::write(etc.join("insserv.conf"), "").expect("a file");
        fs::copy(script, etc.join("init.d/web")).expect("the init script");
        fs::write(etc.join("conf.d/web"), settings).expect("its settings");
        lay_over(&unpacked.join("sbin"), "/usr/sbin");
        lay_over(&unpacked.join("lib"), "/usr/lib");
        lay_over(&etc, "/etc");
        // Here alone: it reads every script that is there.
        run(Command::new("mount").arg("--bind").arg(etc.join("init.d")).arg("/etc/init.d"));
        run(Command::new("mount").args(["-t", "tmpfs", "-o", "mode=755", "run", "/run"]));
        // As `openrc` does when the machine starts.
        let states = ["starting", "started", "stopping", "inactive", "wasinactive", "failed"];
        let others = ["hotplugged", "daemons", "options", "exclusive", "scheduled", "tmp"];
        for name in states.into_iter().chain(others) {
            fs::create_dir_all(Path::new("/run/openrc").join(name)).expect("a folder");
        }
        fs::write("/run/openrc/softlevel", "default\n").expect("a file");
        OpenRc { etc }
    }

    /// `rc-service web COMMAND`; waits for its end. Tells whether it was content.
    #[track_caller]
    pub fn service(&self, command: &str) -> bool {
        service(command).status().expect("rc-service").success()
    }

    /// The same, not waited for.
    #[track_caller]
    pub fn spawn_service(&self, command: &str) -> Child {
        service(command).spawn().expect("rc-service")
    }

    /// Waits until OpenRC says that the service is stopped.
    #[track_caller]
    pub fn wait_stopped(&self) {
        wait_for("OpenRC says stopped", LIMIT, || {
            let status = service("status").stdout(Stdio::null()).status().expect("rc-service");
            (status.code() == Some(3)).then_some(())
        });
    }

    /// The settings of the next start.
    pub fn configure(&self, settings: &str) {
        fs::write(self.etc.join("conf.d/web"), settings).expect("its settings");
    }

    /// The PID of supervise-daemon, where it runs.
    pub fn supervisor_pid(&self) -> Option<u32> {
        // The kernel keeps 15 bytes of its name.
        let all = process::all().into_iter();
        all.filter(|stat| stat.comm == "supervise-daemo" && stat.state != 'Z')
            .find(|stat| stat.ppid == 1)
            .map(|stat| stat.pid)
    }

    /// The PID of the main process, our launcher; waits until there is one.
    #[track_caller]
    pub fn main_pid(&self) -> u32 {
        wait_for("a main process", LIMIT, || self.child())
    }

    /// The PID of the main process that comes after this one.
    #[track_caller]
    pub fn main_pid_after(&self, old: u32) -> u32 {
        wait_for("another main process", LIMIT, || self.child().filter(|pid| *pid != old))
    }

    /// The PID of the main process, if there is one.
    pub fn child(&self) -> Option<u32> {
        let children = process::children(self.supervisor_pid()?);
        let children = children.into_iter().filter_map(process::stat);
        // Between fork and exec it is still supervise-daemon.
        children
            .filter(|stat| stat.state != 'Z' && stat.comm != "supervise-daemo")
            .map(|stat| stat.pid)
            .next()
    }
}

fn service(command: &str) -> Command {
    let mut service = Command::new("rc-service");
    service.args(["web", command]).stdin(Stdio::null());
    service
}

/// What this folder holds is seen there, beside what there was.
#[track_caller]
fn lay_over(folder: &Path, place: &str) {
    let layers = format!("lowerdir={}:{place}", folder.display());
    run(Command::new("mount").args(["-t", "overlay", "-o", &layers, "overlay", place]));
}

#[track_caller]
fn run(command: &mut Command) {
    let status = command.stdin(Stdio::null()).status();
    let status = status.unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(status.success(), "{command:?}: {status}");
}

/// In a box everything dies anyway: what is left running ends with the box.
impl Drop for OpenRc {
    fn drop(&mut self) {
        if let Some(pid) = self.supervisor_pid() {
            process::Watched::new(pid).kill();
        }
    }
}
