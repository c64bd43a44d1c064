//! Which services there are.

use super::Service;
use crate::driver;
use crate::proto::paths;
use crate::sys::{lock_file, pattern, proc};
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

/// Where PID files lie, if nobody says where.
const USUAL: &str = "/run";
/// How deep below a folder a PID file is looked for.
const DEPTH: usize = 8;

/// What [`Service::find`] has found.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Found {
    /// Sorted by the paths of their PID files.
    pub services: Vec<Service>,
    /// What could not be read.
    pub notes: Vec<String>,
}

impl Service {
    /// The services of these folders, or of the whole machine if `folders` is empty: those that run, whatever
    /// folder their PID file lies in, and those that have left their files below `/run`.
    ///
    /// A service is known by its lock file (`web.pid.lock` beside `web.pid`), and one that runs also by the lock
    /// that its daemon holds on the PID file (`proc_locks(5)`). Folders are searched up to 8 levels deep. No link
    /// is followed below them, and no other file system is entered. What may not be read is left out, and noted:
    /// root sees all. Services of other PID namespaces are found by their folders only.
    ///
    /// A process that is a generation may call this: the lock file of its own service is not opened.
    #[must_use]
    pub fn find(folders: &[PathBuf]) -> Found {
        let mut found = Found::default();
        if folders.is_empty() {
            match proc::locked_files() {
                Ok((paths, hidden)) => {
                    paths.iter().for_each(|path| found.consider(&paths::lock_file(path)));
                    if hidden > 0 {
                        let text = "processes of other users hold locks: root sees whether they are services";
                        found.notes.push(format!("{hidden} {text}"));
                    }
                }
                Err(error) => found.notes.push(format!("cannot read /proc/locks: {error}")),
            }
            // Without /run, nothing has been left there.
            _ = found.search(Path::new(USUAL));
        }
        for folder in folders {
            if let Err(error) = found.search(folder) {
                found.notes.push(format!("cannot read {folder:?}: {error}"));
            }
        }
        found.sorted()
    }

    /// The services whose PID files match a pattern of a shell, like `/run/*/*.pid`: `*`, `?` and `[a-z]`, which
    /// match within one name of the path, and no dot at its beginning; a backslash takes the special meaning from
    /// the next character. A service is known by its lock file, so one that is down matches, too, as long as that
    /// file lies there. A relative pattern counts from the current folder. Links to folders are followed.
    ///
    /// As for [`find`](Service::find), what may not be read is left out, and noted.
    #[must_use]
    pub fn find_matching(pattern: &Path) -> Found {
        let mut found = Found::default();
        let mut at = vec![PathBuf::new()];
        let mut parts = pattern.components().peekable();
        while let Some(part) = parts.next() {
            let is_last = parts.peek().is_none();
            let Component::Normal(name) = part else {
                at.iter_mut().for_each(|path| path.push(part));
                continue;
            };
            let mut next = Vec::new();
            for folder in at {
                let names = match pattern::is_pattern(name) || is_last {
                    true => found.names_in(&folder),
                    false => vec![name.to_owned()],
                };
                for entry in names {
                    let path = folder.join(&entry);
                    match paths::of_lock_file(&path) {
                        _ if !is_last => {
                            next.extend(pattern::matches(name, &entry).then_some(path));
                        }
                        Some(pid_file) => {
                            let of = pid_file.file_name();
                            if of.is_some_and(|of| pattern::matches(name, of)) {
                                found.consider(&path);
                            }
                        }
                        None => {}
                    }
                }
            }
            at = next;
        }
        found.sorted()
    }
}

impl Found {
    /// What is no folder has no names.
    fn names_in(&mut self, folder: &Path) -> Vec<OsString> {
        let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
        match fs::read_dir(folder) {
            Ok(entries) => entries.filter_map(|entry| Some(entry.ok()?.file_name())).collect(),
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => Vec::new(),
            Err(error) => {
                self.note(folder, &error);
                Vec::new()
            }
        }
    }

    /// Adds the PID files whose lock files lie in the folder or below it. Its own path may be a link.
    fn search(&mut self, folder: &Path) -> io::Result<()> {
        let folder = fs::canonicalize(folder)?;
        let device = fs::metadata(&folder)?.dev();
        let mut left = vec![(folder.clone(), 0)];
        while let Some((at, depth)) = left.pop() {
            let entries = match fs::read_dir(&at) {
                Ok(entries) => entries,
                Err(error) if at == folder => return Err(error),
                Err(error) => {
                    self.note(&at, &error);
                    continue;
                }
            };
            for entry in entries.filter_map(Result::ok) {
                let (path, Ok(kind)) = (entry.path(), entry.file_type()) else { continue };
                if kind.is_file() {
                    self.consider(&path);
                } else if kind.is_dir() && depth < DEPTH {
                    let is_here = entry.metadata().is_ok_and(|about| about.dev() == device);
                    left.extend(is_here.then_some((path, depth + 1)));
                }
            }
        }
        Ok(())
    }

    /// Adds the PID file of this lock file, if it is one.
    fn consider(&mut self, path: &Path) {
        let service = paths::of_lock_file(path).and_then(|pid_file| Service::at(pid_file).ok());
        let Some(service) = service else { return };
        // To close our own would give up our claim (`fcntl_locking(2)`).
        let is_own = driver::is_own(service.pid_file());
        match if is_own { Ok(true) } else { lock_file::is_lock_file(path) } {
            Ok(true) => self.services.push(service),
            Ok(false) => {}
            Err(error) => self.note(path, &error),
        }
    }

    /// Each service once.
    fn sorted(mut self) -> Found {
        self.services.sort_by(|one, other| one.pid_file().cmp(other.pid_file()));
        self.services.dedup();
        self
    }

    /// What has gone away meanwhile is not noted.
    fn note(&mut self, path: &Path, error: &io::Error) {
        if error.kind() != io::ErrorKind::NotFound {
            self.notes.push(format!("cannot read {path:?}: {error}"));
        }
    }
}
