//! Open connections that an old daemon passes to the one that serves: their lines, and what is done with each.

use super::{
    CHUNK_MAX, Escaped, HEAD_MAX, MESSAGE_MAX, NAME_MAX, PROTOCOL, Refused, STATE_MAX, VERSION,
    at_most, field, number, split, unescape_text,
};
use std::fmt::Write as _;

/// The most connections in one message: one descriptor more may come with them, the memory.
pub(crate) const CONNECTIONS_MAX: usize = CHUNK_MAX - 1;
/// More state and unread bytes than this travel in sealed memory. The kernel refuses messages that are much
/// longer.
pub(crate) const INLINE_MAX: u64 = 32 << 10;
/// One connection has no more bytes of state and unread bytes.
pub(crate) const LOAD_MAX: u64 = 16 << 20;
/// For the lines of a message.
const LINES_MAX: usize = MESSAGE_MAX - INLINE_MAX as usize - HEAD_MAX;

/// A connection that is passed. Its descriptor comes with it, and its bytes come behind the lines or in the
/// memory.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Passed {
    /// What the program calls this kind of connection.
    pub(crate) kind: String,
    /// How many bytes of state it has.
    pub(crate) state: u64,
    /// How many bytes have been read and not been used.
    pub(crate) unread: u64,
}

impl Passed {
    pub(crate) fn load(&self) -> u64 {
        self.state.saturating_add(self.unread)
    }

    fn format(&self) -> String {
        let Passed { kind, state, unread } = self;
        format!("kind={} state={state} unread={unread}", Escaped(kind.as_bytes()))
    }

    fn parse(line: &str) -> Result<Passed, Refused> {
        let kind = field(line, "kind").and_then(unescape_text);
        let kind = kind.filter(|kind| (1..=NAME_MAX).contains(&kind.len()));
        let passed = Passed {
            kind: kind.ok_or(Refused::Malformed("kind of a connection"))?,
            state: number(field(line, "state"), "state of a connection")?,
            unread: number(field(line, "unread"), "unread bytes of a connection")?,
        };
        match passed.load() {
            0..=LOAD_MAX => Ok(passed),
            _ => Err(Refused::Malformed("size of a connection")),
        }
    }
}

/// A message of connections.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Batch {
    /// Counted from 1 on each link.
    pub(crate) number: u64,
    pub(crate) connections: Vec<Passed>,
    /// The bytes of all connections are in the memory that comes as the last descriptor.
    pub(crate) in_memory: bool,
}

impl Batch {
    /// For these connections.
    pub(crate) fn new(number: u64, connections: Vec<Passed>) -> Batch {
        let mut batch = Batch { number, connections, in_memory: false };
        batch.in_memory = batch.load() > INLINE_MAX;
        batch
    }

    /// The bytes of all connections.
    pub(crate) fn load(&self) -> u64 {
        self.connections.iter().map(Passed::load).sum()
    }

    /// How many descriptors come with it.
    pub(crate) fn fds(&self) -> usize {
        self.connections.len() + usize::from(self.in_memory)
    }

    /// `bytes`: those of all connections, of each the state and then what is unread. None if they are in memory.
    pub(crate) fn format(&self, bytes: &[u8]) -> Vec<u8> {
        let Batch { number, connections, in_memory } = self;
        let count = connections.len();
        let memory = if *in_memory { "yes" } else { "no" };
        let mut text = format!(
            "{PROTOCOL} {VERSION} connections number={number} count={count} memory={memory}\n"
        );
        for one in connections {
            _ = writeln!(text, "{}", one.format());
        }
        [text.as_bytes(), bytes].concat()
    }

    /// Returns the bytes behind the lines as well.
    pub(crate) fn parse(bytes: &[u8]) -> Result<(Batch, &[u8]), Refused> {
        let (head, mut rest) = line(bytes).ok_or(Refused::Foreign)?;
        let (name, head, _) = split(head.as_bytes())?;
        if name != "connections" {
            return Err(super::unknown(name));
        }
        let count = at_most(CONNECTIONS_MAX, field(head, "count"), "count")?;
        if count == 0 {
            return Err(Refused::Malformed("count"));
        }
        let in_memory = match field(head, "memory") {
            Some("yes") => true,
            Some("no") => false,
            _ => return Err(Refused::Malformed("memory")),
        };
        let number = number(field(head, "number"), "number")?;
        let mut connections = Vec::with_capacity(count);
        for _ in 0..count {
            let (text, behind) = line(rest).ok_or(Refused::Malformed("count"))?;
            connections.push(Passed::parse(text)?);
            rest = behind;
        }
        let batch = Batch { number, connections, in_memory };
        let inline = if in_memory { 0 } else { batch.load() };
        match rest.len() as u64 == inline && batch.load() <= STATE_MAX {
            true => Ok((batch, rest)),
            false => Err(Refused::Malformed("length")),
        }
    }
}

/// The first line, and what is behind it.
fn line(bytes: &[u8]) -> Option<(&str, &[u8])> {
    let end = bytes.iter().position(|byte| *byte == b'\n')?;
    Some((std::str::from_utf8(&bytes[..end]).ok()?, &bytes[end + 1..]))
}

/// How many of the first of `connections` fit into one message: at least one.
pub(crate) fn chunk_of_connections<'a>(connections: impl IntoIterator<Item = &'a Passed>) -> usize {
    let (mut length, mut load) = (0, 0);
    let fits = connections.into_iter().take(CONNECTIONS_MAX).take_while(|one| {
        length += one.format().len() + 1;
        load += one.load();
        length <= LINES_MAX && load <= STATE_MAX
    });
    fits.count()
}

/// What the receiver does with a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Fate {
    /// It is the receiver's from now on.
    Kept,
    /// The receiver's program does not know this kind. The connection stays where it was.
    Unknown,
    /// The receiver's program does not want it. The connection stays where it was.
    Refused,
}

impl Fate {
    const ALL: [(Fate, char); 3] = [(Fate::Kept, 'k'), (Fate::Unknown, 'u'), (Fate::Refused, 'r')];

    pub(super) fn format(fates: &[Fate]) -> String {
        let pair = |fate: &Fate| Fate::ALL.into_iter().find(|(one, _)| one == fate);
        fates.iter().filter_map(pair).map(|(_, letter)| letter).collect()
    }

    pub(super) fn parse(text: Option<&str>) -> Result<Vec<Fate>, Refused> {
        let fate = |letter| Some(Fate::ALL.into_iter().find(|(_, one)| *one == letter)?.0);
        let fates: Option<Vec<Fate>> = text.unwrap_or_default().chars().map(fate).collect();
        let fates = fates.filter(|fates| (1..=CONNECTIONS_MAX).contains(&fates.len()));
        fates.ok_or(Refused::Malformed("fates"))
    }
}

#[cfg(test)]
mod tests {
    use super::{
        Batch, CONNECTIONS_MAX, Fate, INLINE_MAX, LOAD_MAX, MESSAGE_MAX, NAME_MAX, Passed, Refused,
        chunk_of_connections,
    };

    fn one(kind: &str, state: u64, unread: u64) -> Passed {
        Passed { kind: kind.to_owned(), state, unread }
    }

    #[test]
    fn p13_connections_are_read_as_they_were_written() {
        let bytes = b"\0\n\xffab";
        let batch = Batch::new(7, vec![one("chat", 3, 0), one("a b\n%ü", 0, 2)]);
        assert_eq!((batch.in_memory, batch.fds()), (false, 2));
        let text = batch.format(bytes);
        assert!(text.starts_with(
            b"seamless-takeover 1 connections number=7 count=2 memory=no\nkind=chat state=3 unread=0\n"
        ));
        assert_eq!(Batch::parse(&text), Ok((batch, &bytes[..])));

        let batch = Batch::new(8, vec![one("chat", INLINE_MAX, 1)]);
        assert_eq!((batch.in_memory, batch.fds()), (true, 2));
        assert_eq!(Batch::parse(&batch.format(b"")), Ok((batch, &b""[..])));
    }

    #[test]
    fn p10_p13_what_is_no_message_of_connections_is_refused() {
        let head = "seamless-takeover 1 connections number=1 count=1 memory=no";
        let refused = |text: &str| Batch::parse(text.as_bytes()).expect_err(text);
        for text in [
            "",
            head,
            &format!("{head}\n"),
            &format!("{head}\nkind=a state=0 unread=0"),
            &format!("{head}\nkind=a state=1 unread=0\n"),
            &format!("{head}\nkind=a state=0 unread=0\nmore"),
            &format!("{head}\nkind= state=0 unread=0\n"),
            &format!("{head}\nkind={} state=0 unread=0\n", "a".repeat(NAME_MAX + 1)),
            &format!("{head}\nkind=a state=-1 unread=0\n"),
            &format!("{head}\nkind=a state={LOAD_MAX} unread=1\n"),
            &format!("{head}\nkind=a state={} unread={}\n", u64::MAX, u64::MAX),
            &head.replace("count=1", "count=0"),
            &head.replace("count=1", "count=252"),
            &head.replace("memory=no", "memory=maybe"),
            "seamless-takeover 2 connections number=1 count=1 memory=no\nkind=a state=0 unread=0\n",
            "seamless-takeover 1 status\n",
        ] {
            refused(text);
        }
        assert_eq!(refused("seamless-takeover 1 status\n"), Refused::Unknown("status".to_owned()));
    }

    #[test]
    fn as_many_as_fit_into_a_message() {
        let many = |kind: &str, state| vec![one(kind, state, 0); 1000];
        assert_eq!(chunk_of_connections(&many("chat", 5)), CONNECTIONS_MAX);
        assert_eq!(chunk_of_connections(&many("chat", LOAD_MAX)), 4);
        assert_eq!(chunk_of_connections(&[]), 0);
        for long in ["ü".repeat(NAME_MAX / 2), "a".repeat(NAME_MAX)] {
            let all = many(&long, 1);
            let count = chunk_of_connections(&all);
            assert!(count >= 30, "{count}");
            let batch = Batch::new(u64::MAX, all[..count].to_vec());
            assert!(batch.format(&[0; INLINE_MAX as usize]).len() <= MESSAGE_MAX);
        }
        assert_eq!(chunk_of_connections(&[one(&"\n".repeat(NAME_MAX), LOAD_MAX, 0)]), 1);
        // The ends of many short lines need room as well.
        for longer in (1..120).step_by(10) {
            let mut all = vec![one(&"k".repeat(107), 0, 0); CONNECTIONS_MAX];
            all[0] = one(&"\n".repeat(longer), 0, 0); // three bytes each
            let count = chunk_of_connections(&all);
            assert!(count > CONNECTIONS_MAX - 5, "{count}");
            let batch = Batch::new(u64::MAX, all[..count].to_vec());
            assert!(batch.format(&[0; INLINE_MAX as usize]).len() <= MESSAGE_MAX);
        }
    }

    #[test]
    fn p10_a_message_has_one_connection_at_least_and_no_more_than_descriptors_fit() {
        for (count, is_good) in [(0, false), (1, true), (251, true), (252, false)] {
            let text = Batch::new(1, vec![one("a", 0, 0); count]).format(b"");
            assert_eq!(Batch::parse(&text).is_ok(), is_good, "{count}");
        }
    }

    #[test]
    fn fates_are_read_as_they_were_written() {
        let fates = vec![Fate::Kept, Fate::Unknown, Fate::Refused, Fate::Kept];
        assert_eq!(Fate::format(&fates), "kurk");
        assert_eq!(Fate::parse(Some("kurk")), Ok(fates));
        for text in [None, Some(""), Some("kx"), Some(&"k".repeat(CONNECTIONS_MAX + 1))] {
            assert_eq!(Fate::parse(text), Err(Refused::Malformed("fates")));
        }
    }
}
