//! For programs that must leave nothing behind: what they started, at any remove, becomes their
//! child when its parent ends, and ends with them.

use std::{
    collections::HashSet,
    io, process,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, WaitOptions, getpid, set_child_subreaper, wait, waitpid};
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};

use seamless_testing::process::{Watched, descendants};

/// How long processes have to end by themselves.
const GRACE: Duration = Duration::from_secs(3);
const PAUSE: Duration = Duration::from_millis(2);

/// All the processes below this one. When it is dropped, also by a panic, they are sent TERM, and
/// KILL after a grace; it returns when they are gone.
///
/// From the start, INT, TERM, HUP and QUIT end nothing by themselves: [`Family::interrupted`]
/// tells of them. A KILL of this process is the one end that leaves its family alive.
#[derive(Debug)]
pub struct Family {
    interrupted: Arc<AtomicBool>,
}

impl Family {
    /// Makes this process the one that orphans below it go to (`PR_SET_CHILD_SUBREAPER`): a
    /// detached daemon would otherwise go to PID 1 and be out of sight.
    pub fn adopt() -> io::Result<Self> {
        set_child_subreaper(Some(getpid()))?;
        let interrupted = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM, SIGHUP, SIGQUIT] {
            signal_hook::flag::register(signal, Arc::clone(&interrupted))?;
        }
        Ok(Family { interrupted })
    }

    /// Somebody wants this program to end.
    pub fn interrupted(&self) -> bool {
        self.interrupted.load(Ordering::Relaxed)
    }

    /// Takes the exit status of an ended process that came to us as an orphan.
    pub fn reap(&self, pid: u32) {
        let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
        // Somebody else's child, or not ended: then it is not for us to reap.
        let _ = waitpid(pid, WaitOptions::NOHANG);
    }

    /// Ends everything that is there now, as at the end.
    pub fn end_all(&self) -> io::Result<()> {
        if self.end() {
            return Ok(());
        }
        Err(io::Error::other(format!("still there: processes {:?}", descendants(process::id()))))
    }

    /// Ends everything; false where something outlives even a KILL for a while.
    fn end(&self) -> bool {
        let begin = Instant::now();
        let mut told = HashSet::new();
        loop {
            while let Ok(Some(_)) = wait(WaitOptions::NOHANG) {}
            let left = descendants(process::id());
            if left.is_empty() {
                return true;
            }
            let elapsed = begin.elapsed();
            if elapsed > GRACE * 2 {
                return false;
            }
            // Each round anew: a process may have started another one before it was told.
            for pid in left {
                if elapsed > GRACE {
                    Watched::new(pid).kill();
                } else if told.insert(pid) {
                    Watched::new(pid).signal(SIGTERM);
                }
            }
            thread::sleep(PAUSE);
        }
    }
}

impl Drop for Family {
    fn drop(&mut self) {
        if !self.end() {
            eprintln!("still there: processes {:?}", descendants(process::id()));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{env, fs, path::Path, process::Command};

    use super::*;
    use seamless_testing::wait_for;

    const LIMIT: Duration = Duration::from_secs(20);
    const PIDS: &str = "SEAMLESS_TEST_FAMILY_PIDS";

    /// A child, an orphan in a session of its own, and one more of those that ignores TERM.
    const PROCESSES: &str = r#"
        (setsid sh -c 'echo $$ >>"$0"; exec sleep 1000' "$0" &)
        (setsid sh -c 'trap "" TERM; echo $$ >>"$0"; exec sleep 1000' "$0" &)
        echo $$ >>"$0"
        exec sleep 1000
    "#;

    #[test]
    fn everything_ends_with_a_program_that_returns() {
        all_ends("return");
    }

    #[test]
    fn everything_ends_with_a_program_that_panics() {
        all_ends("panic");
    }

    #[test]
    fn everything_ends_with_a_program_that_is_interrupted() {
        all_ends("interrupt");
    }

    /// In a process of its own, for which the test's binary runs the test again: a family is all
    /// that is below a process, other tests included.
    fn all_ends(end: &str) {
        if let Some(file) = env::var_os(PIDS) {
            return program(Path::new(&file), end);
        }
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("pids");
        let program = env::current_exe().expect("the path of this program");
        let thread = thread::current();
        let test = thread.name().expect("libtest names it after the test");
        let mut command = Command::new(program);
        command.args(["--exact", test]).env(PIDS, &file);
        let output = command.output().expect("the test's binary starts");
        assert_eq!(output.status.success(), end != "panic", "{output:?}");
        let pids = pids(&file);
        assert_eq!(pids.len(), 3, "{output:?}");
        let mut left: Vec<Watched> = pids.into_iter().map(Watched::new).collect();
        left.retain(Watched::kill);
        assert!(left.is_empty(), "still there: {left:?}");
    }

    fn pids(file: &Path) -> Vec<u32> {
        let text = fs::read_to_string(file).unwrap_or_default();
        let complete = text.rfind('\n').map_or("", |end| &text[..end]);
        complete.lines().map(|line| line.parse().expect("a PID")).collect()
    }

    fn program(file: &Path, end: &str) {
        let family = Family::adopt().expect("a subreaper");
        // Not waited for: that is for the family to do.
        let spawned = Command::new("sh").args(["-c", PROCESSES]).arg(file).spawn();
        spawned.map(|child| child.id()).expect("sh");
        wait_for("three processes", LIMIT, || (pids(file).len() == 3).then_some(()));
        match end {
            "return" => {}
            "panic" => panic!("as the test wants it"),
            "interrupt" => {
                Watched::new(process::id()).signal(SIGINT);
                wait_for("an interrupt", LIMIT, || family.interrupted().then_some(()));
            }
            other => panic!("{other}"),
        }
    }
}
