//! Named states: bytes that the program hands over, each in sealed memory of its own.

use super::{CHUNK_MAX, Escaped, MESSAGE_MAX, Refused, field, number, size, unescape};

/// A predecessor hands over no more named states.
pub(crate) const STATES_MAX: usize = 4096;
/// The name of a state, or of a descriptor, has no more bytes.
pub(crate) const NAME_MAX: usize = 255;

/// A named state that is transferred. The memory comes beside it.
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
        let name = field(line, "name").and_then(unescape).filter(|name| name.len() <= NAME_MAX);
        let name = name.and_then(|name| String::from_utf8(name).ok());
        let version = number(field(line, "version"), "version of a state")?;
        Ok(NamedState {
            name: name.ok_or(Refused::Malformed("name of a state"))?,
            version: u32::try_from(version)
                .map_err(|_| Refused::Malformed("version of a state"))?,
            bytes: size(field(line, "bytes"))?,
        })
    }
}

/// How many of the first of `states` fit into one message.
pub(crate) fn chunk_of_states<'a>(states: impl IntoIterator<Item = &'a NamedState>) -> usize {
    let mut length = 256;
    let fits = states.into_iter().take(CHUNK_MAX).take_while(|state| {
        length += state.format().len() + 1;
        length <= MESSAGE_MAX
    });
    fits.count()
}
