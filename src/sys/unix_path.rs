//! Unix sockets at paths of any length. A socket is bound under a temporary name and then renamed to its
//! path, so that the path always names a socket that can be used.

use super::process;
use super::shortage::uninterrupted;
use super::socket::{self, Settings};
use super::system::{self, SocketFile};
use crate::proto::control::frame::{Address, FileId, SocketKind};
use crate::proto::paths;
use crate::proto::sockets::changes::FileChanges;
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag};
use nix::sys::socket::{self as nix_socket, AddressFamily, SockType, UnixAddr};
use nix::unistd::{AccessFlags, faccessat};
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

fn unbound(kind: SocketKind, nonblocking: bool) -> io::Result<OwnedFd> {
    let ty = match kind {
        SocketKind::UnixDatagram => SockType::Datagram,
        SocketKind::UnixSeqpacket => SockType::SeqPacket,
        _ => SockType::Stream,
    };
    system::socket(AddressFamily::Unix, ty, nonblocking)
}

/// A socket that is bound under a temporary name in the folder of its path. It is ready to be used, and
/// has had its mode since the file exists. If it is dropped before [`Beside::place`], nothing is left.
#[derive(Debug)]
pub(crate) struct Beside {
    socket: Option<OwnedFd>,
    temporary: PathBuf,
    path: PathBuf,
}

impl Beside {
    pub(crate) fn bind(kind: SocketKind, path: &Path, settings: Settings) -> io::Result<Beside> {
        let mut beside = Beside::make(path, settings, |temporary| {
            let socket = unbound(kind, settings.nonblocking)?;
            if let Some(mode) = settings.file.mode {
                system::set_mode_of_unbound(&socket, mode)?;
            }
            socket::bind_to(&socket, &UnixAddr::new(temporary)?)?;
            Ok(socket)
        })?;
        if let Some(socket) = beside.socket.as_mut().filter(|_| kind.listens()) {
            socket::listen(socket.as_fd(), settings.backlog)?;
        }
        Ok(beside)
    }

    /// With a socket that `make` binds to the path that it is given.
    pub(crate) fn make(
        path: &Path,
        settings: Settings,
        make: impl FnOnce(&Path) -> io::Result<OwnedFd>,
    ) -> io::Result<Beside> {
        let folder = path.parent().filter(|_| !paths::fits_address(path));
        let folder =
            folder.map(|folder| system::open_path(folder, OFlag::O_DIRECTORY)).transpose()?;
        let temporary = paths::temporary_socket(path);
        remove_leftover(&temporary)?;
        // If the path is too long for an address, the address goes through `/proc/self/fd`.
        let short = match (&folder, temporary.file_name()) {
            (Some(folder), Some(name)) => held(folder).join(name),
            _ => temporary.clone(),
        };
        let mut beside = Beside { socket: None, temporary, path: path.to_owned() };
        beside.socket = Some(make(&short)?);
        change_file(&beside.temporary, settings.file, None)?;
        Ok(beside)
    }

    /// Renames the socket to its path, over any file that is there.
    pub(crate) fn place(mut self) -> io::Result<(OwnedFd, FileId)> {
        let file = file_id(&fs::symlink_metadata(&self.temporary)?);
        fs::rename(&self.temporary, &self.path)?;
        let socket = self.socket.take().expect("it is placed once");
        self.temporary = PathBuf::new();
        Ok((socket, file))
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        if !self.temporary.as_os_str().is_empty() {
            _ = fs::remove_file(&self.temporary);
        }
    }
}

/// Gives the file of a bound socket its owner and its mode, also those bits that the umask has removed.
/// `known`: the file that it must be. Somebody who may write to the folder could have put another file, or a
/// link to one, in its place. So the file is opened first, and the one that was examined is the one that is
/// changed. It must be a socket without a second name. `false`: nothing had to be changed.
pub(crate) fn change_file(
    path: &Path,
    changes: FileChanges,
    known: Option<FileId>,
) -> io::Result<bool> {
    if changes == FileChanges::NONE {
        return Ok(false);
    }
    let file = SocketFile::open(path)?;
    let about = file.about()?;
    let is_owner = |owner: Option<u32>, now| owner.is_none_or(|owner| owner == now);
    let has_owner = is_owner(changes.uid, about.uid()) && is_owner(changes.gid, about.gid());
    let has_mode = changes.mode.is_none_or(|mode| about.mode() & 0o7777 == mode);
    if has_owner && has_mode {
        return Ok(false);
    }
    let is_another = known.is_some_and(|known| file_id(&about) != known);
    if is_another || !about.file_type().is_socket() || about.nlink() > 1 {
        let text = format!("{path:?} was replaced by somebody else");
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, text));
    }
    if !has_owner {
        file.set_owner(changes.uid, changes.gid)?;
    }
    // After a change of the owner: that may remove bits.
    if let Some(mode) = changes.mode {
        file.set_mode(mode)?;
    }
    Ok(true)
}

/// Removes the socket that a process which was killed has left at the temporary name. Any other file
/// there belongs to somebody else and is not removed.
fn remove_leftover(temporary: &Path) -> io::Result<()> {
    match fs::symlink_metadata(temporary) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(about) if about.file_type().is_socket() => fs::remove_file(temporary),
        Ok(_) => Err(io::Error::new(
            io::ErrorKind::AlreadyExists,
            format!("{temporary:?} is in the way and is not a socket"),
        )),
    }
}

/// A short path of an open file.
fn held(file: &fs::File) -> PathBuf {
    format!("/proc/self/fd/{}", file.as_raw_fd()).into()
}

pub(crate) fn file_id(about: &fs::Metadata) -> FileId {
    FileId { device: about.dev(), inode: about.ino() }
}

/// The file that a path names, if it is a socket.
pub(crate) fn file_at(path: &Path) -> Option<FileId> {
    let about = fs::symlink_metadata(path).ok()?;
    about.file_type().is_socket().then(|| file_id(&about))
}

/// Could this process put a socket there, if nobody had the path? It makes a file in the folder and renames
/// it, so the folder counts, and in a sticky one (`chmod(1)`) also who owns the file.
pub(crate) fn try_place(path: &Path) -> io::Result<()> {
    const STICKY: u32 = 0o1000;
    let folder = path.parent().unwrap_or(Path::new("/"));
    let needed = AccessFlags::W_OK | AccessFlags::X_OK;
    faccessat(AT_FDCWD, folder, needed, AtFlags::AT_EACCESS)?;
    let about = fs::metadata(folder)?;
    let own = process::effective_user();
    let file = fs::symlink_metadata(path).ok();
    let Some(file) = file else { return Ok(()) };
    let owners = [0, about.uid(), file.uid()];
    if about.mode() & STICKY != 0 && !owners.contains(&own) {
        return Err(Errno::EACCES.into());
    }
    Ok(())
}

/// Who listens at a path, or what else is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Occupant {
    /// There is no file, or a socket whose process is gone.
    Nobody,
    /// A process listens; `None` if it is unknown which.
    Somebody(Option<i32>),
    /// The file there is not a socket.
    NoSocket,
}

/// Connects to the path to learn who listens there. Sends nothing and never waits.
pub(crate) fn occupant_of(path: &Path, kind: SocketKind) -> io::Result<Occupant> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Occupant::Nobody),
        Err(error) => return Err(error),
        Ok(about) if !about.file_type().is_socket() => return Ok(Occupant::NoSocket),
        Ok(_) => {}
    }
    match connect(path, kind) {
        Ok(socket) => Ok(Occupant::Somebody(socket::peer(socket.as_fd())?.map(|peer| peer.pid))),
        Err(error) => match error.raw_os_error().map(Errno::from_raw) {
            Some(Errno::ECONNREFUSED | Errno::ENOENT) => Ok(Occupant::Nobody),
            // Its queue is full, its type is another one, or we may not connect to it.
            Some(Errno::EAGAIN | Errno::EPROTOTYPE | Errno::EACCES) => Ok(Occupant::Somebody(None)),
            _ => Err(error),
        },
    }
}

/// Connects to a path of any length. The socket never blocks, not even here: the error is EAGAIN if the
/// queue is full.
pub(crate) fn connect(path: &Path, kind: SocketKind) -> io::Result<OwnedFd> {
    let socket = unbound(kind, true)?;
    if path.as_os_str().len() < paths::SOCKET_PATH_ROOM {
        connect_to(&socket, &UnixAddr::new(path)?)?;
    } else {
        let file = system::open_path(path, OFlag::empty())?;
        connect_to(&socket, &UnixAddr::new(&held(&file))?)?;
    }
    Ok(socket)
}

/// Tries again if a signal interrupts it. That is right for Unix sockets: an interrupted `connect` leaves
/// nothing that goes on in the background.
fn connect_to(socket: &OwnedFd, address: &UnixAddr) -> io::Result<()> {
    uninterrupted(|| Ok(nix_socket::connect(socket.as_raw_fd(), address)?))
}

/// The path in an address, if it has one.
pub(crate) fn path_of(address: &Address) -> Option<PathBuf> {
    match address {
        Address::Unix(bytes) if bytes.first().is_some_and(|byte| *byte != 0) => {
            Some(std::ffi::OsString::from_vec(bytes.clone()).into())
        }
        Address::Unix(_) | Address::Inet(_) | Address::Vsock { .. } | Address::Name(_) => None,
    }
}
