//! The claim and the record: one lock file beside the PID file.
//!
//! # Who may own it
//!
//! A service may change its user from one generation to the next, and a user who may write the record
//! influences which processes get TERM. So:
//!
//! 1. Root gives its own lock file to the owner of the folder. The folder belongs to the user that the
//!    service runs as in the end, so a successor that runs as that user can open the file.
//! 2. A lock file is used only if it belongs to root, to us, to the owner of its folder, or to the user
//!    of a live generation that it lists, and if nobody else may write to it.
//! 3. If it belongs neither to root nor to us, we signal only those processes in it that its owner could
//!    signal without us: see [`LockFile::bound`].

use super::shortage::{is_shortage, uninterrupted};
use super::{pid_file, process, raw};
use crate::error::{Error, ErrorKind, Result};
use crate::proto::generation::proof::World;
use crate::proto::generation::record::Record;
use crate::proto::paths;
use crate::proto::text::Refused;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::libc;
use nix::unistd::fchown;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Longer than any real record: it lists the generations that live at the same time.
const RECORD_MAX: u64 = 1 << 20;
/// How often we lock again because the file that we locked is no longer the one at the path.
const ATTEMPTS: usize = 100;
const ROOT: u32 = 0;

/// The lock file. An `fcntl(2)` lock belongs to the process: a fork does not inherit it, it ends with
/// the process, and the kernel tells who holds it. But it is lost as soon as the process closes *any*
/// descriptor of the file. So the file is opened once, kept open, and never opened a second time while
/// the path still names it. A service that gives up root needs the kept descriptor as well.
#[derive(Debug)]
pub(crate) struct LockFile {
    path: PathBuf,
    file: File,
    /// An `fcntl` lock does not exclude other threads of its process, so we note that we hold it.
    held: bool,
}

/// The result of an attempt to claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Attempt {
    Claimed,
    /// By this process; 0 if it lives in another PID namespace.
    HeldBy(i32),
}

impl LockFile {
    /// Opens the lock file of this PID file, or creates it.
    pub(crate) fn open(pid_file: &Path, world: &World) -> Result<LockFile> {
        let path = paths::lock_file(pid_file);
        let file = open(&path, world)?;
        Ok(LockFile { path, file, held: false })
    }

    /// Takes the claim if it is free. If the lock file was removed or replaced after we opened it, we
    /// open and lock the one that the path names now, but not for ever if somebody keeps replacing it.
    pub(crate) fn try_claim(&mut self, world: &World) -> Result<Attempt> {
        debug_assert!(!self.held);
        for _ in 0..ATTEMPTS {
            match fcntl(&self.file, FcntlArg::F_SETLK(&raw::whole_file_lock())) {
                Ok(_) => {}
                Err(Errno::EAGAIN | Errno::EACCES) => match self.holder() {
                    Some(pid) => return Ok(Attempt::HeldBy(pid)),
                    None => continue, // it was given up in the meantime
                },
                Err(Errno::EINTR) => continue,
                Err(error) => {
                    return Err(self
                        .error("lock", error.into())
                        .hint("the file system must have locks"));
                }
            }
            self.held = true;
            match pid_file::is_at(&self.file, &self.path) {
                Ok(true) => return Ok(Attempt::Claimed),
                Ok(false) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                // We cannot know now whether the lock counts. Another starter may need it.
                Err(error) if is_shortage(&error) => {
                    self.give_up_if_held();
                    return Err(self.error("look at", error));
                }
                Err(_) => {}
            }
            self.give_up_if_held();
            self.file = open(&self.path, world)?;
        }
        let text = format!("cannot lock {:?} (claim): it is replaced over and over", self.path);
        Err(Error::new(ErrorKind::Claim, text))
    }

    fn holder(&self) -> Option<i32> {
        let mut lock = raw::whole_file_lock();
        match fcntl(&self.file, FcntlArg::F_GETLK(&mut lock)) {
            Ok(_) if lock.l_type == libc::F_UNLCK as libc::c_short => None,
            Ok(_) => Some(lock.l_pid.max(0)),
            Err(_) => Some(0),
        }
    }

    pub(crate) fn is_held(&self) -> bool {
        self.held
    }

    pub(crate) fn give_up_if_held(&mut self) {
        if std::mem::take(&mut self.held) {
            let mut lock = raw::whole_file_lock();
            lock.l_type = libc::F_UNLCK as _;
            _ = fcntl(&self.file, FcntlArg::F_SETLK(&lock));
        }
    }

    /// The record, and the lines that could not be parsed.
    pub(crate) fn read(&self) -> Result<(Record, Vec<String>)> {
        let size = self.file.metadata().map_err(|error| self.error("look at", error))?.len();
        let size = size.min(RECORD_MAX) as usize;
        let bytes = read_start(&self.file, size).map_err(|error| self.error("read", error))?;
        Record::parse(&bytes).map_err(|refused| {
            let why = match refused {
                Refused::Version(version) => {
                    format!("it is of version {version}, written by a later version of this crate")
                }
                Refused::Foreign => "it is not a lock file of this crate".to_owned(),
            };
            Error::new(ErrorKind::Claim, format!("cannot use {:?} (record): {why}", self.path))
        })
    }

    /// Writes the record with one call, then cuts off the rest of a longer, older record. A kill
    /// between the two leaves no half record, since a reader stops at the record's own last line.
    pub(crate) fn write(&self, record: &Record) -> Result<()> {
        let text = record.format();
        let written = match uninterrupted(|| self.file.write_at(text.as_bytes(), 0)) {
            Ok(written) if written < text.len() => Err(io::ErrorKind::StorageFull.into()),
            written => written,
        };
        written.map_err(|error| self.error("write", error))?;
        self.file.set_len(text.len() as u64).map_err(|error| self.error("cut", error))
    }

    /// If this is a user, the record is believed only about that user's processes; if `None`, about
    /// any process. Root may signal every process, so a record that somebody else could have planted
    /// must not choose which.
    pub(crate) fn bound(&self) -> Result<Option<u32>> {
        let about = self.file.metadata().map_err(|error| self.error("look at", error))?;
        let owner = about.uid();
        Ok((owner != ROOT && owner != process::effective_user()).then_some(owner))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    fn error(&self, step: &str, error: io::Error) -> Error {
        Error::io(ErrorKind::Claim, format!("cannot {step} {:?} (claim)", self.path), error)
    }
}

/// What [`look`] finds in a lock file.
#[derive(Debug)]
pub(crate) struct Looked {
    pub(crate) path: PathBuf,
    /// The record, and the lines that could not be parsed; or why there is none.
    pub(crate) record: Result<(Record, Vec<String>)>,
    /// See [`LockFile::bound`].
    pub(crate) bound: Option<u32>,
    /// The process that holds the claim; 0 if it lives in another PID namespace.
    pub(crate) holder: Option<i32>,
}

/// Reads the lock file of a service and changes nothing: the file is not created, locked or written.
/// A process that may hold the claim must not call this: closing the file would give the claim up.
pub(crate) fn look(pid_file: &Path) -> io::Result<Looked> {
    let path = paths::lock_file(pid_file);
    let file = pid_file::open(&path)?;
    if let Some(why) = refusal(&file.metadata()?) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
    }
    let lock_file = LockFile { path, file, held: false };
    Ok(Looked {
        record: lock_file.read(),
        bound: lock_file.bound().map_err(io::Error::other)?,
        holder: lock_file.holder(),
        path: lock_file.path,
    })
}

/// Does this path name the lock file of a service? A process that may hold the claim must not call this.
pub(crate) fn is_lock_file(path: &Path) -> io::Result<bool> {
    let file = pid_file::open(path)?;
    Ok(file.metadata()?.is_file() && Record::begins(&read_start(&file, 64)?))
}

/// Opens the lock file, or creates it. No link is followed, and a file that somebody else could have
/// planted is refused: see the rules at the top.
fn open(path: &Path, world: &World) -> Result<File> {
    let refuse =
        |why: String| Error::new(ErrorKind::Claim, format!("cannot use {path:?} (claim): {why}"));
    let file = open_or_create(path).map_err(|error| {
        let denied = error.kind() == io::ErrorKind::PermissionDenied;
        let link = error.raw_os_error() == Some(libc::ELOOP);
        let error = Error::io(ErrorKind::Claim, format!("cannot open {path:?} (claim)"), error);
        match (denied, link) {
            (true, _) => error.hint(match fs::symlink_metadata(path) {
                Ok(about) => format!(
                    "it belongs to uid {}: chown it and its folder to uid {}",
                    about.uid(),
                    process::effective_user(),
                ),
                Err(_) => pid_file::must_be_writable(),
            }),
            (_, true) => error.hint("it is a link, which is not followed"),
            (false, false) => error,
        }
    })?;
    let about = file.metadata().map_err(|error| {
        Error::io(ErrorKind::Claim, format!("cannot look at {path:?} (claim)"), error)
    })?;
    if let Some(why) = refusal(&about) {
        return Err(refuse(why));
    }
    let ours = process::effective_user();
    let folder = folder_owner(path);
    if ours == ROOT && about.uid() == ROOT && is_record(&file) {
        if let Some(owner) = folder.filter(|owner| *owner != ROOT) {
            // Without the capability for it this fails, and the service stays root: then root's file
            // is fine.
            _ = fchown(&file, Some(owner.into()), None);
        }
    }
    let owner = about.uid();
    let known = owner == ROOT || owner == ours || Some(owner) == folder;
    if !known && !is_of_live_generation(&file, path, owner, world)? {
        return Err(refuse(format!(
            "it belongs to uid {owner}, of whom no live generation is known; remove it if it is a \
             leftover",
        )));
    }
    Ok(file)
}

/// Why this file cannot be used, whoever owns it.
fn refusal(about: &fs::Metadata) -> Option<String> {
    if !about.is_file() {
        return Some("it is not a regular file".to_owned());
    }
    if about.nlink() > 1 {
        return Some("it has a second name (a hard link), and may be another's".to_owned());
    }
    (about.mode() & 0o022 != 0).then(|| {
        let mode = about.mode() & 0o7777;
        format!("others may write to it (mode {mode:04o}); remove it if it is a leftover")
    })
}

/// Uses O_CREAT only if the file is not there: for a file in a sticky folder that everybody may write
/// to, the kernel would refuse it even to root (`fs.protected_regular`).
fn open_or_create(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options
        .read(true)
        .write(true)
        .mode(0o600)
        .custom_flags((OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK).bits());
    loop {
        match options.create_new(false).open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            opened => return opened,
        }
        match options.create_new(true).open(path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {} // created just now
            created => return created,
        }
    }
}

fn folder_owner(path: &Path) -> Option<u32> {
    Some(fs::metadata(path.parent()?).ok()?.uid())
}

/// Is the file empty, as after its creation, or a record? Another file of root's that was moved or
/// linked here must not be given away.
fn is_record(file: &File) -> bool {
    read_start(file, 1 << 16).is_ok_and(|text| Record::parse(&text).is_ok())
}

/// The first bytes of a file, at most `most`.
fn read_start(file: &File, most: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; most];
    let mut filled = 0;
    while filled < most {
        match uninterrupted(|| file.read_at(&mut bytes[filled..], filled as u64))? {
            0 => break,
            read => filled += read,
        }
    }
    bytes.truncate(filled);
    Ok(bytes)
}

/// Does the file's owner run a live generation that the file lists? Then the service is changing its
/// user.
fn is_of_live_generation(file: &File, path: &Path, owner: u32, world: &World) -> Result<bool> {
    let text = read_start(file, 1 << 16).map_err(|error| {
        Error::io(ErrorKind::Claim, format!("cannot read {path:?} (claim)"), error)
    })?;
    let Ok((record, _)) = Record::parse(&text) else {
        return Ok(false);
    };
    for generation in &record.live {
        let pid = generation.daemon.pid;
        let content = pid_file::read(&path.with_extension("")).unwrap_or_default();
        let runs =
            process::prove_daemon(generation, world, 0, content).and_then(|proof| match proof {
                Ok(_held) => process::is_of(pid, owner),
                Err(_) => Ok(false),
            });
        let runs = runs.map_err(|error| {
            let text = format!("cannot tell whether {path:?} is of process {pid} (claim)");
            Error::io(ErrorKind::Claim, text, error)
        })?;
        if runs {
            return Ok(true);
        }
    }
    Ok(false)
}
