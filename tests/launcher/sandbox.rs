//! System calls that a sandbox refuses to the launcher.

use std::{
    path::Path,
    process::{Command, Stdio},
};

use seamless_testing::{LIMIT, boxed::Boxed, process, scene, site::Site, wait_for};

/// What it was started with would otherwise stay open in it: a listener would take connections for ever.
#[test]
fn a_launcher_closes_what_it_does_not_need_also_without_close_range() {
    Boxed::new().run(|folder| {
        scene::each(folder, ["EPERM", "ENOSYS"], |folder, error| {
            let site = Site::alone(folder);
            let plain = site.command(&[]);
            let inject = format!("--inject=close_range:error={error}");
            let mut command = Command::new("sh");
            command.args(["-c", "exec 9</etc/passwd; exec \"$@\"", "sh", "strace", "-qq"]);
            command.args(["-o", "/dev/null", "--trace=close_range", &inject]);
            command.arg(plain.get_program()).args(plain.get_args()).stdin(Stdio::null());
            let _started = site.spawn(command.stderr(site.log_end()));
            let daemon = site.report.wait("started").pid;
            let launcher = process::stat(daemon).expect("it serves").ppid;
            let holds = || {
                let files = process::descriptors(launcher);
                files.iter().any(|(_, file)| file == Path::new("/etc/passwd"))
            };
            wait_for(format!("it is closed: {}", site.log), LIMIT, || (!holds()).then_some(()));
        });
    });
}
