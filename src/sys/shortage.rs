//! Which errors of a system call say "try again".

use nix::errno::Errno;
use std::io;

/// Did the system refuse this only for now, since it is out of memory, descriptors, or room in a queue,
/// or since a signal interrupted the call? Such an error says nothing about what was asked. The caller
/// must ask again: if it concluded "there is no such thing", it would go on to weaker means.
pub(crate) fn is_shortage(error: &io::Error) -> bool {
    use Errno::{EAGAIN, EINTR, EMFILE, ENFILE, ENOBUFS, ENOMEM, ETOOMANYREFS};
    // ETOOMANYREFS: too many of this user's descriptors are in messages that nobody has received (`unix(7)`).
    let errno = error.raw_os_error().map(Errno::from_raw);
    matches!(errno, Some(EMFILE | ENFILE | ENOMEM | ENOBUFS | EAGAIN | EINTR | ETOOMANYREFS))
}

/// An error only if the system is short of something; `None` for every other error.
pub(crate) fn unless_short<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if is_shortage(&error) => Err(error),
        Err(_) => Ok(None),
    }
}

/// `None` on an error. If the system is short of something, the error is also put into `short`.
pub(crate) fn note_shortage<T>(result: io::Result<T>, short: &mut Option<io::Error>) -> Option<T> {
    result.map_err(|error| *short = Some(error).filter(is_shortage).or_else(|| short.take())).ok()
}

/// Repeats a call that a signal has interrupted.
pub(crate) fn uninterrupted<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            done => return done,
        }
    }
}

/// Is this kind of socket refused to the process, as by a filter of system calls?
pub(crate) fn is_family_refused(error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::EAFNOSUPPORT as i32)
}
