//! The PID file. It is locked first and then renamed to its path, so it never stands there unlocked.

use super::process;
use super::shortage::uninterrupted;
use crate::error::{Error, ErrorKind, Result};
use crate::proto::generation::check::Content;
use crate::proto::{paths, text};
use fs2::FileExt;
use nix::fcntl::OFlag;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

/// Opens a file that anybody may have put there. No link is followed, and a FIFO does not make us wait.
pub(super) fn open(path: &Path) -> io::Result<File> {
    let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
    OpenOptions::new().read(true).custom_flags(flags.bits()).open(path)
}

/// Reads a PID file. What it says is not believed without a proof.
pub(crate) fn read(path: &Path) -> io::Result<Content> {
    let mut file = open(path)?;
    let mut text = Vec::new();
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    (&mut file).take(64).read_to_end(&mut text)?;
    // If we get the lock, nobody holds the file. Closing it gives the lock back at once. On a network file
    // system a signal may interrupt even an attempt (`flock(2)`).
    let locked = uninterrupted(|| FileExt::try_lock_shared(&file))
        .is_err_and(|error| error.raw_os_error() == fs2::lock_contended_error().raw_os_error());
    Ok(Content { pid: text::parse_pid(&text), locked })
}

/// Our PID file. It is open and locked as long as this value lives, which is the life of the process.
#[derive(Debug)]
pub(crate) struct PidFile {
    _locked: File,
}

impl PidFile {
    /// Puts our PID file at the path. The caller holds the claim, so nobody else uses the temporary
    /// name. A leftover of a predecessor that was killed is removed.
    pub(crate) fn install(path: &Path) -> Result<PidFile> {
        let temporary = paths::temporary(path);
        let fail = |step: &str, path: &Path, error: io::Error| {
            let denied = matches!(
                error.kind(),
                io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem
            );
            let error =
                Error::io(ErrorKind::PidFile, format!("cannot {step} {path:?} (PID file)"), error);
            if denied { error.hint(what_to_do(path)) } else { error }
        };
        match fs::remove_file(&temporary) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(fail("remove", &temporary, error));
            }
            Ok(()) | Err(_) => {}
        }
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o644)
            .custom_flags(OFlag::O_NOFOLLOW.bits())
            .open(&temporary)
            .map_err(|error| fail("create", &temporary, error))?;
        let filled = uninterrupted(|| FileExt::try_lock_exclusive(&file))
            .map_err(|error| fail("lock", &temporary, error))
            .and_then(|()| {
                file.write_all(text::format_pid(process::own_pid()).as_bytes())
                    .map_err(|error| fail("write", &temporary, error))
            })
            .and_then(|()| {
                fs::rename(&temporary, path).map_err(|error| fail("rename to", path, error))
            });
        if let Err(error) = filled {
            _ = fs::remove_file(&temporary);
            return Err(error);
        }
        Ok(PidFile { _locked: file })
    }
}

/// The remedy if the file at the path may not be replaced.
fn what_to_do(path: &Path) -> String {
    const STICKY: u32 = 0o1000;
    let folder = path.parent().and_then(|folder| fs::metadata(folder).ok());
    match (folder, fs::symlink_metadata(path)) {
        (Some(folder), Ok(file)) if folder.mode() & STICKY != 0 => {
            format!("it belongs to uid {}, and the folder is sticky: remove it", file.uid())
        }
        _ => must_be_writable(),
    }
}

/// The remedy if the folder does not let us create or rename a file.
pub(crate) fn must_be_writable() -> String {
    format!("the folder must be writable by uid {}", process::effective_user())
}

/// Does the path still name this open file?
pub(crate) fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    let (ours, named) = (file.metadata()?, fs::symlink_metadata(path)?);
    Ok(ours.dev() == named.dev() && ours.ino() == named.ino())
}
