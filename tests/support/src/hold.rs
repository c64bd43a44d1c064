//! A process that is held at the entry to a system call, by strace, until it is let go.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
};

use crate::{
    LIMIT,
    process::{Watched, command_line},
    signal::TERM,
    wait_for,
};

/// Ends, and the process with it goes on, when the value goes.
#[derive(Debug)]
pub struct Hold {
    tracer: Child,
    log: PathBuf,
    calls: Vec<String>,
    nth: usize,
}

impl Hold {
    /// At the nth of these calls of any thread, from now on; where a path is given, of those that
    /// access it. strace notes the calls in a file in this folder.
    #[track_caller]
    pub fn at(
        process: u32,
        calls: &[&str],
        nth: usize,
        path: Option<&Path>,
        folder: &Path,
    ) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let log = folder.join(format!("held-{count}"));
        // Not every machine has each of them.
        let set = calls.iter().map(|call| format!("?{call}")).collect::<Vec<_>>().join(",");
        let mut strace = Command::new("strace");
        strace
            .args(["-f", "-qq", "-e", "signal=none", "-e", &format!("trace={set}")])
            .args(["-e", &format!("inject={set}:delay_enter=1000s:when={nth}")])
            .arg("-o")
            .arg(&log)
            .args(["-p", &process.to_string()])
            .stdin(Stdio::null());
        if let Some(path) = path {
            strace.arg("-P").arg(path);
        }
        let tracer = strace.spawn().expect("strace; run scripts/setup");
        let calls = calls.iter().map(|call| format!(" {call}(")).collect();
        let hold = Hold { tracer, log, calls, nth };
        wait_for(format!("strace traces {process}"), LIMIT, || {
            let tasks = fs::read_dir(format!("/proc/{process}/task")).ok()?;
            let tracer = format!("TracerPid:\t{}\n", hold.tracer.id());
            let mut traced = tasks.map(|task| {
                let status = fs::read_to_string(task.ok()?.path().join("status")).ok()?;
                Some(status.contains(&tracer))
            });
            traced.all(|traced| traced == Some(true)).then_some(())
        });
        hold
    }

    /// Waits until it is held.
    #[track_caller]
    pub fn wait(&self) {
        wait_for(format!("the {}. of {:?}", self.nth, self.calls), LIMIT, || {
            let log = fs::read_to_string(&self.log).ok()?;
            let count = |thread: &str| {
                let of_thread = log.lines().filter(|line| line.starts_with(thread));
                of_thread.filter(|line| self.calls.iter().any(|call| line.contains(call))).count()
            };
            let mut threads = log.lines().filter_map(|line| line.split_once(' '));
            threads.any(|(thread, _)| count(&format!("{thread} ")) >= self.nth).then_some(())
        });
    }

    /// Lets it go on.
    #[track_caller]
    pub fn release(mut self) {
        let tracer = Watched::new(self.tracer.id());
        assert!(tracer.signal(TERM), "strace has ended: {:?}", command_line(tracer.pid()));
        tracer.wait_end(LIMIT);
        self.tracer.wait().expect("its end");
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let _ = self.tracer.kill();
        let _ = self.tracer.wait();
    }
}
