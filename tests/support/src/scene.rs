//! What the tests set up and look at: the probe with its report and its log in one folder.

use std::{
    fmt::Debug,
    fs,
    path::Path,
    process::{Child, Command, Stdio},
    thread,
};

pub use crate::LIMIT;
use crate::{
    bin,
    process::{self, Watched},
    report::Report,
    wait_for,
};

/// A run script for the probe: `web.pid`, `report` and `log` are in this folder.
pub fn script(folder: &Path, options: &str) -> String {
    format!("exec >>'{}/log'\n{}", folder.display(), bin::probe_script(folder, options))
}

/// Starts the probe without a supervisor: its parent is the test itself.
pub fn start(folder: &Path, options: &str) -> Child {
    command(folder, options).spawn().expect("sh")
}

/// The same, not started yet.
pub fn command(folder: &Path, options: &str) -> Command {
    shell(&script(folder, options))
}

/// A program in this folder, whose output goes to the file `log` there.
pub fn logged(folder: &Path, program: &Path, arguments: &str) -> Command {
    let (folder, program) = (folder.display(), program.display());
    shell(&format!("cd '{folder}' && exec >>log 2>&1 && exec '{program}' {arguments}"))
}

pub fn shell(script: &str) -> Command {
    let mut shell = Command::new("sh");
    shell.args(["-c", script]).stdin(Stdio::null());
    shell
}

/// The only child of this process, once it has stopped itself (`raise:19`).
#[track_caller]
pub fn stopped_child(parent: u32) -> u32 {
    wait_stopped(|| process::children(parent))
}

/// The first of these processes, once it has stopped.
#[track_caller]
pub fn wait_stopped(processes: impl Fn() -> Vec<u32>) -> u32 {
    wait_for("a process that has stopped", LIMIT, || {
        let first = *processes().first()?;
        (process::stat(first)?.state == 'T').then_some(first)
    })
}

/// The launchers and daemons that keep their PID file in this folder and have not ended.
pub fn running(folder: &Path) -> Vec<Watched> {
    let option = format!("--pid-file={}/web.pid", folder.display());
    let held = process::all().into_iter().map(|stat| Watched::new(stat.pid));
    // A zombie has no command line.
    held.filter(|one| process::command_line(one.pid()).contains(&option)).collect()
}

/// Their PIDs, in order.
pub fn pids(folder: &Path) -> Vec<u32> {
    let mut pids: Vec<u32> = running(folder).iter().map(Watched::pid).collect();
    pids.sort_unstable();
    pids
}

#[track_caller]
pub fn wait_all_ended(folder: &Path) {
    for process in running(folder) {
        process.wait_end(LIMIT);
    }
    wait_for("nothing of the service runs", LIMIT, || running(folder).is_empty().then_some(()));
}

/// Waits until this daemon's `on_shutdown` hooks run.
#[track_caller]
pub fn wait_drain(report: &Report, daemon: u32) {
    wait_for(format!("{daemon} drains:\n{report}"), LIMIT, || {
        let hooks = report.named("hook");
        hooks.iter().any(|hook| hook.pid == daemon && hook.text == "shutdown").then_some(())
    });
}

/// The texts of the hooks that have run in this process.
pub fn hooks(report: &Report, pid: u32) -> Vec<String> {
    let hooks = report.named("hook").into_iter().filter(|hook| hook.pid == pid);
    hooks.map(|hook| hook.text).collect()
}

/// Waits until this process holds no TCP socket that listens, also where others hold the same one.
#[track_caller]
pub fn wait_let_go(pid: u32) {
    wait_for(format!("{pid} lets its sockets go"), LIMIT, || {
        let listening = process::listeners(None);
        let open = process::descriptors(pid);
        open.iter().all(|(_, what)| !listening.contains(what)).then_some(())
    });
}

/// Each case at once, each on a thread and in a folder of its own.
pub fn each<T: Copy + Debug + Send>(
    folder: &Path,
    cases: impl IntoIterator<Item = T>,
    test: impl Fn(&Path, T) + Sync,
) {
    thread::scope(|scope| {
        for (number, case) in cases.into_iter().enumerate() {
            let (folder, test) = (folder.join(format!("case-{number}")), &test);
            scope.spawn(move || {
                fs::create_dir_all(&folder).expect("a folder");
                println!("{}: {case:?}", folder.display());
                test(&folder, case);
            });
        }
    });
}
