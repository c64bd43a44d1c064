//! A real systemd: PID 1 of its own namespaces, within the test's box. Needs root.
//!
//! The test itself runs in systemd's PID namespace, so PIDs mean the same to both.
//!
//! ```no_run
//! # use seamless_testing::{boxed::Boxed, systemd};
//! #[test]
//! fn p1_some_generation_serves() {
//!     systemd::run(Boxed::new().private_net(), |systemd, folder| {
//!         systemd.unit("web.service", "[Service]\nExecStart=sleep 1000");
//!         systemd.control(&["start", "web.service"]);
//!     });
//! }
//! # fn main() {}
//! ```
//!
//! Within, `/` is read-only but for the box's folder, units are in memory, there is no D-Bus (root
//! needs none), and nothing is started by itself. Namespaces and mounts end with the box; the
//! control group, which no namespace ends, is removed when the box is gone, also where the test
//! has failed.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{self, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    thread,
};

use crate::{
    LIMIT,
    boxed::{self, Boxed, Isolation},
    process::children,
    wait_for,
};

/// Names the control group of the box.
const CGROUP: &str = "SEAMLESS_TEST_CGROUP";
/// How the names of all of them begin.
const PREFIX: &str = "seamless-test-";

/// Makes the control group, the namespaces and what systemd expects to find there.
const BOOT: &str = r#"set -e
T=$0 CG=$1
mount --make-rprivate /
mount --bind "$T" "$T"
mkdir "$T/cg"
mount -t cgroup2 none "$T/cg"
mkdir "$T/cg/$CG"
echo 0 >"$T/cg/$CG/cgroup.procs"
exec unshare --pid --fork --kill-child --ipc --uts --cgroup sh -ec '
T=$0
mount -t proc proc /proc
mount --bind /proc/sys /proc/sys
mount -o remount,bind,ro /proc/sys
mkdir "$T/dev"
mount -t tmpfs -o mode=755 dev "$T/dev"
cd "$T/dev"
mkdir pts shm
mount --bind /dev/pts pts
mount -t tmpfs shm shm
for n in null zero full random urandom tty; do : >$n; mount --bind /dev/$n $n; done
ln -s /proc/self/fd fd
ln -s pts/ptmx ptmx
cd /
umount "$T/cg"
mount --move "$T/dev" /dev
mount --bind /sys /sys
mount -o remount,bind,ro /sys
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t tmpfs -o mode=755 run /run
mkdir -p /run/systemd/system
mount --bind "$T/units" /run/systemd/system
# Where scripts/table collects what is seen.
[ -z "$SEAMLESS_TEST_TABLE" ] || mount --bind "$SEAMLESS_TEST_TABLE" "$SEAMLESS_TEST_TABLE"
# systemd makes the folders of PrivateTmp= and PrivateDevices= there.
mount --rbind /tmp /tmp
mount -o remount,bind,ro /
exec env -i container=test PATH=/usr/sbin:/usr/bin:/sbin:/bin /lib/systemd/systemd --system \
    --unit=test.target --show-status=0 --default-standard-output=null' "$T"
"#;

/// The same for the manager of a user without rights. It has a part of the box's control group for
/// itself, and is no PID 1.
const BOOT_USER: &str = r#"set -e
T=$0 CG=$1
mount --make-rprivate /
mkdir "$T/cg"
mount -t cgroup2 none "$T/cg"
mkdir "$T/cg/$CG"
chown -R 65534 "$T/cg/$CG"
echo 0 >"$T/cg/$CG/cgroup.procs"
umount "$T/cg"
exec unshare --pid --fork --kill-child --cgroup sh -ec '
T=$0
mount -t proc proc /proc
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t tmpfs -o mode=755 run /run
mkdir -p /run/systemd/system
install -d -o 65534 -m 700 /run/user/65534
exec tini -- setpriv --reuid=65534 --regid=65534 --clear-groups env -i \
    PATH=/usr/bin:/bin HOME="$T" XDG_RUNTIME_DIR=/run/user/65534 SYSTEMD_UNIT_PATH="$T/units:" \
    /lib/systemd/systemd --user --unit=test.target' "$T"
"#;

/// Removes control groups by their names, and those of boxes whose test was killed; what is still
/// populated stays.
const REMOVE: &str = r#"set -e
T=$(mktemp -d)
trap 'umount "$T" 2>/dev/null; rmdir "$T"' EXIT
mount --make-rprivate /
mount -t cgroup2 none "$T"
for one in "$T"/seamless-test-*; do
    [ -d "$one" ] || continue
    name=${one##*/}
    pid=${name#seamless-test-}
    if [ "$name" != "$0" ] && kill -0 "${pid%%-*}" 2>/dev/null; then continue; fi
    find "$one" -depth -type d -exec rmdir {} + 2>/dev/null || [ "$name" != "$0" ]
done"#;

/// Runs `test` beside a systemd that is up, in the box and in systemd's namespaces.
#[track_caller]
pub fn run(boxed: Boxed, test: impl FnOnce(&Systemd, &Path)) {
    run_manager(boxed, false, test);
}

/// The same beside `systemd --user`, whose services run as [`NOBODY`](crate::process::NOBODY). The test is root.
#[track_caller]
pub fn run_user(boxed: Boxed, test: impl FnOnce(&Systemd, &Path)) {
    run_manager(boxed, true, test);
}

#[track_caller]
fn run_manager(boxed: Boxed, user: bool, test: impl FnOnce(&Systemd, &Path)) {
    let boxed = boxed.needs(Isolation::Namespaces);
    if boxed::folder().is_none() {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let cgroup = Cgroup(format!("{PREFIX}{}-{count}", process::id()));
        return boxed.env(CGROUP, &cgroup.0).run(|_| unreachable!("this is outside"));
    }
    boxed.run(|folder| {
        let systemd = Systemd { units: folder.join("units"), user };
        if boxed::has_entered() {
            return test(&systemd, folder);
        }
        fs::create_dir(&systemd.units).expect("a folder");
        systemd.write("test.target", "[Unit]\nDefaultDependencies=no");
        let cgroup = env::var(CGROUP).expect("the name of the control group");
        let mut top = Command::new("unshare")
            .args(["--mount", "sh", "-c", if user { BOOT_USER } else { BOOT }])
            .arg(folder)
            .arg(&cgroup)
            .stdin(Stdio::null())
            .spawn()
            .expect("unshare");
        // Its parent, `unshare`, waits for it alone.
        let init = wait_for("systemd is up", LIMIT, || {
            assert!(top.try_wait().expect("unshare").is_none(), "systemd has ended");
            let init = *children(top.id()).first()?;
            let mut question = enter(init);
            question.args(systemd.words()).args(["is-active", "--quiet", "test.target"]);
            question
                .stderr(Stdio::null())
                .status()
                .is_ok_and(|status| status.success())
                .then_some(init)
        });
        boxed::go_on_in(enter(init));
        top.kill().expect("KILL");
        top.wait().expect("its end");
    });
}

fn enter(init: u32) -> Command {
    let mut command = Command::new("nsenter");
    command.args(["--target", &init.to_string(), "--mount", "--pid", "--"]);
    command
}

struct Cgroup(String);

impl Drop for Cgroup {
    fn drop(&mut self) {
        let mut remove = Command::new("unshare");
        remove.args(["--mount", "sh", "-c", REMOVE, &self.0]);
        let status = remove.stdin(Stdio::null()).status();
        let removed = status.is_ok_and(|status| status.success());
        assert!(removed || thread::panicking(), "the control group {} stays", self.0);
    }
}

/// The manager, as a test sees it.
#[derive(Debug)]
pub struct Systemd {
    units: PathBuf,
    user: bool,
}

/// The bus of the system, without what an installed system starts before it.
const BUS: [(&str, &str); 2] = [
    ("dbus.socket", "[Socket]\nListenStream=/run/dbus/system_bus_socket"),
    (
        "dbus.service",
        "[Service]\nType=notify\nExecStart=dbus-daemon --system --address=systemd: --nofork \
         --nopidfile --systemd-activation --syslog-only",
    ),
];

impl Systemd {
    /// Starts the bus of the system, by which whoever is not root may ask.
    #[track_caller]
    pub fn start_bus(&self) {
        for (name, text) in BUS {
            self.write(name, &format!("[Unit]\nDefaultDependencies=no\n{text}"));
        }
        self.control(&["daemon-reload"]);
        self.control(&["start", "dbus.socket", "dbus.service"]);
        wait_for("systemd is on the bus", LIMIT, || {
            let mut question = Command::new("setpriv");
            question.args(["--reuid=65534", "--regid=65534", "--clear-groups"]);
            question.args(["systemctl", "show", "--property=Version"]);
            let output = question.stdin(Stdio::null()).output().expect("systemctl");
            output.status.success().then_some(())
        });
    }

    /// Writes a unit and lets systemd read it.
    #[track_caller]
    pub fn unit(&self, name: &str, text: &str) {
        self.write(name, text);
        self.control(&["daemon-reload"]);
    }

    /// The same for a unit and what an administrator adds to it.
    #[track_caller]
    pub fn unit_with(&self, name: &str, text: &str, more: &str) {
        let folder = self.units.join(format!("{name}.d"));
        fs::create_dir_all(&folder).expect("a folder");
        fs::write(folder.join("more.conf"), format!("{more}\n")).expect("what is added");
        self.unit(name, text);
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.units.join(name), format!("{text}\n")).expect("a unit");
    }

    /// `systemctl`, not started yet.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let words = self.words();
        let mut command = Command::new(words[0]);
        command.args(&words[1..]).args(arguments).stdin(Stdio::null());
        command
    }

    fn words(&self) -> &'static [&'static str] {
        match self.user {
            false => &["systemctl"],
            true => &[
                "setpriv",
                "--reuid=65534",
                "--regid=65534",
                "--clear-groups",
                "env",
                "XDG_RUNTIME_DIR=/run/user/65534",
                "systemctl",
                "--user",
            ],
        }
    }

    /// `systemctl`, which must succeed.
    #[track_caller]
    pub fn control(&self, arguments: &[&str]) {
        let output = self.command(arguments).output().expect("systemctl");
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "systemctl {arguments:?}: {text}");
    }

    /// What `systemctl show` says of a property.
    #[track_caller]
    pub fn show(&self, unit: &str, property: &str) -> String {
        let output = self.command(&["show", "--value", "--property", property, unit]).output();
        let output = output.expect("systemctl");
        assert!(output.status.success(), "systemctl show {property} {unit}");
        String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
    }

    /// Waits until a property is so.
    #[track_caller]
    pub fn wait_show(&self, unit: &str, property: &str, value: &str) {
        wait_for(format!("{property}={value} of {unit}"), LIMIT, || {
            (self.show(unit, property) == value).then_some(())
        });
    }

    /// Waits until it has stopped. One that did not stop within `TimeoutStopSec=` has failed.
    #[track_caller]
    pub fn wait_stopped(&self, unit: &str) {
        wait_for(format!("{unit} stopped"), LIMIT, || {
            ["inactive", "failed"].contains(&&*self.show(unit, "ActiveState")).then_some(())
        });
    }

    /// The PID of the main process, our launcher.
    #[track_caller]
    pub fn main_pid(&self, unit: &str) -> u32 {
        wait_for(format!("a main process of {unit}"), LIMIT, || {
            self.show(unit, "MainPID").parse().ok().filter(|pid| *pid > 0)
        })
    }
}
