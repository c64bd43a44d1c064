//! Named states: bytes that the program hands over, each in sealed memory of its own.

use super::{
    Escaped, HEAD_MAX, MESSAGE_MAX, Refused, field, number, size, that_fit, unescape_text,
};

/// A predecessor hands over no more named states.
pub(crate) const STATES_MAX: usize = 4096;
/// The name of a state, or of a descriptor, has no more bytes.
pub(crate) const NAME_MAX: usize = 255;

/// A named state that is transferred. The memory comes with it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct NamedState {
    pub(crate) name: String,
    /// As the program has tagged it.
    pub(crate) version: u32,
    pub(crate) bytes: u64,
}

impl NamedState {
    pub(super) fn format(&self) -> String {
        let NamedState { name, version, bytes } = self;
        format!("name={} version={version} bytes={bytes}", Escaped(name.as_bytes()))
    }

    pub(super) fn parse(line: &str) -> Result<NamedState, Refused> {
        let name = field(line, "name").and_then(unescape_text);
        let name = name.filter(|name| name.len() <= NAME_MAX);
        Ok(NamedState {
            name: name.ok_or(Refused::Malformed("name of a state"))?,
            version: number(field(line, "version"), "version of a state")?,
            bytes: size(field(line, "bytes"))?,
        })
    }
}

/// How many of the first of `states` fit into one message.
pub(crate) fn chunk_of_states<'a>(states: impl IntoIterator<Item = &'a NamedState>) -> usize {
    that_fit(MESSAGE_MAX - HEAD_MAX, states.into_iter().map(NamedState::format))
}
