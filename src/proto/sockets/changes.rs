//! What a program may change of a socket that others have bound.

use crate::proto::control::frame::SocketKind;

/// What the program asks for, and what can be changed of a socket that others have bound. `None`: left as it
/// is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Changes {
    pub(crate) backlog: Option<u32>,
    /// Of the path of a Unix socket.
    pub(crate) file: FileChanges,
}

/// The mode and the owner of a Unix socket's path.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct FileChanges {
    pub(crate) mode: Option<u32>,
    pub(crate) uid: Option<u32>,
    pub(crate) gid: Option<u32>,
}

impl FileChanges {
    pub(crate) const NONE: FileChanges = FileChanges { mode: None, uid: None, gid: None };
}

impl Changes {
    pub(crate) const NONE: Changes = Changes { backlog: None, file: FileChanges::NONE };

    /// Those that a socket of this kind has.
    pub(super) fn of(self, kind: SocketKind) -> Changes {
        Changes {
            backlog: self.backlog.filter(|_| kind.listens()),
            file: if kind.is_unix() { self.file } else { FileChanges::NONE },
        }
    }
}
