//! The files of a service, by the path of its PID file, and the temporary names under which a file is
//! made before it is renamed. These endings are known here only.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// The room for a path in the address of a Unix socket (`unix(7)`), with its NUL.
pub(crate) const SOCKET_PATH_ROOM: usize = 108;

const TEMPORARY: &str = ".new";
const LOCK: &str = ".lock";

/// The claim and the record: `web.pid.lock` for `web.pid`.
pub(crate) fn lock_file(pid_file: &Path) -> PathBuf {
    with(pid_file, LOCK)
}

/// `web.pid` for `web.pid.lock`; `None` for any other name.
pub(crate) fn of_lock_file(path: &Path) -> Option<PathBuf> {
    let name = path.file_name()?.as_encoded_bytes().strip_suffix(LOCK.as_bytes())?;
    (!name.is_empty()).then(|| path.with_file_name(OsStr::from_bytes(name)))
}

/// `web.pid.sock` for `web.pid`.
pub(crate) fn control_socket(pid_file: &Path) -> PathBuf {
    with(pid_file, ".sock")
}

/// `web.pid.sock.standby`: a second name of the control socket of a process that has to be found if the
/// generation that takes over from it fails.
pub(crate) fn standby_socket(pid_file: &Path) -> PathBuf {
    with(&control_socket(pid_file), ".standby")
}

/// `web.pid.sock.3` for `web.pid`: the control socket of generation 3, for as long as that generation lives.
pub(crate) fn control_socket_of(pid_file: &Path, generation: u64) -> PathBuf {
    with(&control_socket(pid_file), &format!(".{generation}"))
}

/// The generation whose control socket has this file name.
pub(crate) fn generation_of(pid_file: &Path, name: &OsStr) -> Option<u64> {
    let control = control_socket(pid_file);
    let prefix = control.file_name()?.as_encoded_bytes();
    let rest = name.as_encoded_bytes().strip_prefix(prefix)?.strip_prefix(b".")?;
    let number: u64 = std::str::from_utf8(rest).ok()?.parse().ok()?;
    (number.to_string().as_bytes() == rest).then_some(number)
}

/// `web.pid.new` for `web.pid`.
pub(crate) fn temporary(path: &Path) -> PathBuf {
    with(path, TEMPORARY)
}

/// Has the address of a Unix socket room for the path and for its temporary name?
pub(crate) fn fits_address(path: &Path) -> bool {
    path.as_os_str().len() + TEMPORARY.len() < SOCKET_PATH_ROOM
}

/// The temporary name of a Unix socket. If even the file name is too long for an address, it is a
/// short one with a hash of the file name: two sockets in one folder must not get the same.
pub(crate) fn temporary_socket(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default();
    if fits_address(path) || name.len() + TEMPORARY.len() <= SOCKET_PATH_ROOM / 2 {
        return temporary(path);
    }
    path.with_file_name(format!(".seamless-{:016x}{TEMPORARY}", fnv(name.as_encoded_bytes())))
}

/// FNV-1a: a hash that never changes. Generations know files, sockets in a store and counters by it.
pub(crate) fn fnv(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

fn with(path: &Path, ending: &str) -> PathBuf {
    let mut path = path.as_os_str().to_owned();
    path.push(ending);
    path.into()
}

#[cfg(test)]
mod tests {
    use super::{
        control_socket, control_socket_of, fits_address, generation_of, lock_file, of_lock_file,
        standby_socket, temporary, temporary_socket,
    };
    use std::path::Path;

    #[test]
    fn endings_are_appended_to_the_whole_name() {
        let path = Path::new("/run/web/web.pid");
        assert_eq!(lock_file(path), Path::new("/run/web/web.pid.lock"));
        assert_eq!(of_lock_file(&lock_file(path)).as_deref(), Some(path));
        assert_eq!(of_lock_file(path), None);
        assert_eq!(of_lock_file(Path::new("/run/.lock")), None);
        assert_eq!(control_socket(path), Path::new("/run/web/web.pid.sock"));
        assert_eq!(standby_socket(path), Path::new("/run/web/web.pid.sock.standby"));
        assert_eq!(temporary(path), Path::new("/run/web/web.pid.new"));
        assert_eq!(temporary_socket(path), Path::new("/run/web/web.pid.new"));
    }

    /// What has such a name and belongs to no generation that lives is removed: so a foreign file must not
    /// look like one.
    #[test]
    fn the_control_socket_of_a_generation_is_known_by_its_name() {
        let path = Path::new("/run/web/web.pid");
        assert_eq!(control_socket_of(path, 12), Path::new("/run/web/web.pid.sock.12"));
        for (name, generation) in [
            ("web.pid.sock.12", Some(12)),
            ("web.pid.sock.18446744073709551615", Some(u64::MAX)),
            ("web.pid.sock", None),
            ("web.pid.sock.", None),
            ("web.pid.sock12", None),
            ("web.pid.sock.012", None),
            ("web.pid.sock.+12", None),
            ("web.pid.sock.12.new", None),
            ("web.pid.sock.standby", None),
            ("web.pid.12", None),
            ("other.pid.sock.12", None),
        ] {
            assert_eq!(generation_of(path, name.as_ref()), generation, "{name}");
        }
    }

    #[test]
    fn only_a_long_name_of_a_socket_is_replaced() {
        let folder = "/".to_owned() + &"f".repeat(60);
        let (short, long) = ("s".repeat(50), "l".repeat(51));
        for (path, expected) in [
            (format!("/{}", "n".repeat(102)), format!("/{}.new", "n".repeat(102))),
            (format!("{folder}/{short}"), format!("{folder}/{short}.new")),
            (format!("{folder}/{long}"), format!("{folder}/.seamless-07441e4364a5f56b.new")),
        ] {
            assert_eq!(temporary_socket(Path::new(&path)), Path::new(&expected));
        }
        assert!(fits_address(Path::new(&"n".repeat(103))));
        assert!(!fits_address(Path::new(&"n".repeat(104))));
    }

    #[test]
    fn names_that_differ_have_different_temporary_names() {
        let folder = Path::new("/run");
        let [one, other] = ["a", "b"].map(|end| folder.join("n".repeat(120) + end));
        assert_ne!(temporary_socket(&one), temporary_socket(&other));
    }
}
