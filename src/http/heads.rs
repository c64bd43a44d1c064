//! Where the heads of HTTP/1 requests end in what is read. It tells what the server library does
//! not: whether the next request is on its way.

use memchr::memchr;

/// Looks for the empty lines that end a head, in bytes that come in pieces. Lines end as the
/// library's parser lets them: by LF, with or without a CR; empty ones before a head do not count.
#[derive(Debug, Default)]
pub(super) struct Heads {
    /// The head has a line.
    begun: bool,
    /// The line that has not ended has something in it.
    text: bool,
}

impl Heads {
    /// The start of a head has been seen already.
    pub(super) fn begun() -> Self {
        Heads { begun: false, text: true }
    }

    /// How many heads end in these bytes, and how many bytes there are behind the first one.
    pub(super) fn feed(&mut self, mut bytes: &[u8]) -> (u32, usize) {
        let has_text = |line: &[u8]| line.iter().any(|byte| *byte != b'\r');
        let (mut ended, mut behind) = (0, 0);
        while let Some(end) = memchr(b'\n', bytes) {
            if self.text || has_text(&bytes[..end]) {
                self.begun = true;
            } else if self.begun {
                self.begun = false;
                if ended == 0 {
                    behind = bytes.len() - end - 1;
                }
                ended += 1;
            }
            self.text = false;
            bytes = &bytes[end + 1..];
        }
        self.text |= has_text(bytes);
        (ended, behind)
    }

    /// A head has begun and has not ended.
    pub(super) fn is_open(&self) -> bool {
        self.begun || self.text
    }
}

#[cfg(test)]
mod tests {
    use super::Heads;

    const ONE: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

    #[test]
    fn each_head_ends_once_however_the_bytes_come() {
        let three = format!("\r\n{ONE}{ONE}{}", ONE.replace("\r\n", "\n"));
        for size in 1..three.len() {
            let mut heads = Heads::default();
            let ended: u32 = three.as_bytes().chunks(size).map(|part| heads.feed(part).0).sum();
            assert_eq!((ended, heads.is_open()), (3, false), "pieces of {size}");
        }
    }

    #[test]
    fn a_part_of_a_head_is_open() {
        for end in 1..ONE.len() {
            let mut heads = Heads::default();
            assert_eq!(heads.feed(&ONE.as_bytes()[..end]).0, 0);
            assert!(heads.is_open(), "{end}");
            assert_eq!(heads.feed(&ONE.as_bytes()[end..]), (1, 0));
            assert!(!heads.is_open());
        }
        assert!(Heads::begun().is_open());
        assert_eq!(Heads::begun().feed(b"T / HTTP/1.1\r\n\r\n"), (1, 0));
    }

    #[test]
    fn what_follows_the_first_head_may_look_like_another_one() {
        let mut heads = Heads::default();
        assert_eq!(heads.feed(format!("{ONE}a\n\nb").as_bytes()), (2, 4));
        assert!(heads.is_open());
    }

    #[test]
    fn empty_lines_are_no_head() {
        let mut heads = Heads::default();
        assert_eq!(heads.feed(b"\r\n\n\r\n"), (0, 0));
        assert!(!heads.is_open());
    }
}
