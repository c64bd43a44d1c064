//! The older generations of a service that is to be down, for whoever tells them and waits for their end: the
//! newest daemon, or its launcher after that one's end.

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) enum Older {
    /// They were not told to end, or all have ended.
    #[default]
    None,
    /// `awaited`: the end of some of them is awaited. `again`: not all could be told, because the system is out of
    /// descriptors or memory.
    Told { awaited: bool, again: bool },
}

impl Older {
    /// Returns `true` if they are to be told now.
    #[must_use]
    pub(crate) fn tell(&mut self) -> bool {
        let tells = *self == Older::None;
        if tells {
            *self = Older::Told { awaited: true, again: false };
        }
        tells
    }

    pub(crate) fn told(&mut self, awaited: bool, again: bool) {
        *self = Older::Told { awaited, again };
    }

    /// Those have ended whose end was awaited.
    pub(crate) fn gone(&mut self) {
        if let Older::Told { again, .. } = *self {
            *self = Older::Told { awaited: false, again };
        }
    }

    /// Have not all been told?
    pub(crate) fn tells_again(self) -> bool {
        matches!(self, Older::Told { again: true, .. })
    }

    /// Returns `true` once, when all have ended.
    #[must_use]
    pub(crate) fn all_gone(&mut self) -> bool {
        let gone = *self == (Older::Told { awaited: false, again: false });
        if gone {
            *self = Older::None;
        }
        gone
    }
}
