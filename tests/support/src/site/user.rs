//! As whom a service runs, and whether it can read its supervisor's status.

use std::{os::unix::fs::chown, path::Path};

use crate::{boxed::Isolation, process::NOBODY, supervisor::Supervisor};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum User {
    /// Root, as the supervisor.
    Root,
    /// The run script changes the user: launcher and daemon are nobody.
    ByScript { reads: bool },
    /// The program gives up root after `init`: the daemon is nobody, the launcher is root.
    ByItself { reads: bool },
}

impl User {
    /// In a user namespace there is nobody but root.
    pub fn needs(self) -> Isolation {
        match self {
            User::Root => Isolation::UserNamespaces,
            User::ByScript { .. } | User::ByItself { .. } => Isolation::Namespaces,
        }
    }

    pub(super) fn launcher_reads(self) -> bool {
        self != User::ByScript { reads: false }
    }

    pub fn daemon_reads(self) -> bool {
        match self {
            User::Root => true,
            User::ByScript { reads } | User::ByItself { reads } => reads,
        }
    }

    /// Before the program in the command line of a run script.
    pub(super) fn change(self, kind: Supervisor) -> &'static str {
        match (self, kind) {
            (User::Root | User::ByItself { .. }, _) => "",
            (User::ByScript { .. }, Supervisor::Daemontools) => "setuidgid nobody",
            (User::ByScript { .. }, Supervisor::Runit) => "chpst -u nobody",
            (User::ByScript { .. }, Supervisor::S6) => "s6-setuidgid nobody",
        }
    }

    /// A line of the run script, before the program's.
    pub(super) fn open(self) -> &'static str {
        if self != User::Root && self.daemon_reads() { "chmod 755 supervise" } else { "" }
    }

    /// The options of the program with what this user needs.
    pub(super) fn options(self, options: &str) -> String {
        match self {
            // First, before anything that it is made to do there.
            User::ByItself { .. } => format!("--at=after-init=user:{NOBODY} {options}"),
            User::Root | User::ByScript { .. } => options.to_owned(),
        }
    }

    pub(super) fn give(self, folder: &Path) {
        if self != User::Root {
            chown(folder, Some(NOBODY), Some(NOBODY)).expect("chown");
        }
    }
}

/// Tests of scenarios `fn NAME(Supervisor, &Path, User)`, for each user and under each supervisor
/// (once in a module).
#[macro_export]
macro_rules! as_each_user {
    ($($scenario:ident),+ $(,)?) => {
        $crate::as_each_user![@ root, User::Root; $($scenario),+];
        $crate::as_each_user![
            @ by_script_status_readable, User::ByScript { reads: true }; $($scenario),+
        ];
        $crate::as_each_user![
            @ by_script_status_hidden, User::ByScript { reads: false }; $($scenario),+
        ];
        $crate::as_each_user![
            @ by_itself_status_readable, User::ByItself { reads: true }; $($scenario),+
        ];
        $crate::as_each_user![
            @ by_itself_status_hidden, User::ByItself { reads: false }; $($scenario),+
        ];
    };
    (@ $module:ident, $user:expr; $($scenario:ident),+) => {
        mod $module {
            use std::path::Path;
            use $crate::{boxed::Boxed, site::User, supervisor::Supervisor, under_each_supervisor};
            $(
                fn $scenario(kind: Supervisor, folder: &Path) {
                    super::$scenario(kind, folder, $user);
                }
            )+
            under_each_supervisor![
                Boxed::new().private_net().needs($user.needs()) => $($scenario),+
            ];
        }
    };
}
