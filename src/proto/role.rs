//! What a process is that calls `init`: a launcher, or the daemon or keeper that a launcher has started.
//!
//! If a daemon took itself for a launcher, it would start a daemon, which would do the same, without end.

/// About a process whose environment names a launcher and a channel. Programs that a daemon starts
/// inherit that environment, and may have another descriptor under the number.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Facts {
    /// The descriptor is a channel, and the launcher holds the other end.
    pub(crate) channel_is_its: bool,
    /// The launcher is our parent.
    pub(crate) is_child: bool,
    /// We are in the launcher's session. A daemon leaves it in `init`.
    pub(crate) shares_session: bool,
    /// The environment says that we were started as a keeper.
    pub(crate) marked_keeper: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Launcher,
    Daemon,
    Keeper,
    /// The launcher has started us, and we have no channel to it.
    Lost,
}

impl Facts {
    pub(crate) fn role(self) -> Role {
        match self {
            Facts { channel_is_its: true, marked_keeper: true, .. } => Role::Keeper,
            Facts { channel_is_its: true, .. } => Role::Daemon,
            // The program closed it before `init`. If `init` had been called in this process, and the
            // program had then executed itself anew, we would have a session of our own.
            Facts { is_child: true, shares_session: true, .. } => Role::Lost,
            Facts { .. } => Role::Launcher,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Facts;
    use super::Role::{Daemon, Keeper, Launcher, Lost};

    #[test]
    fn a_child_of_a_launcher_is_never_a_launcher_unless_it_has_been_its_daemon() {
        let roles = [false, true].map(|is_child| {
            [false, true].map(|shares_session| {
                [false, true].map(|channel_is_its| {
                    let marked_keeper = false;
                    let keeper =
                        Facts { channel_is_its, is_child, shares_session, marked_keeper: true };
                    let expected = channel_is_its.then_some(Keeper);
                    let facts = Facts { marked_keeper, ..keeper };
                    assert_eq!(keeper.role(), expected.unwrap_or(facts.role()));
                    facts.role()
                })
            })
        });
        let stranger = [[Launcher, Daemon], [Launcher, Daemon]];
        let child = [[Launcher, Daemon], [Lost, Daemon]];
        assert_eq!(roles, [stranger, child]);
    }
}
