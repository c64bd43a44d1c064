//! Where the heads of HTTP/1 requests end in what is read. It tells what the server library does
//! not: whether the next request is on its way.

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

    /// How many heads end in these bytes.
    pub(super) fn feed(&mut self, mut bytes: &[u8]) -> u32 {
        let has_text = |line: &[u8]| line.iter().any(|byte| *byte != b'\r');
        let mut ended = 0;
        while let Some(end) = line_end(bytes) {
            if self.text || has_text(&bytes[..end]) {
                self.begun = true;
            } else if self.begun {
                self.begun = false;
                ended += 1;
            }
            self.text = false;
            bytes = &bytes[end + 1..];
        }
        self.text |= has_text(bytes);
        ended
    }

    /// A head has begun and has not ended.
    pub(super) fn is_open(&self) -> bool {
        self.begun || self.text
    }
}

/// Where the first LF is: eight bytes at a time, as every head is read to its end.
fn line_end(bytes: &[u8]) -> Option<usize> {
    const ONES: u64 = u64::from_le_bytes([0x01; 8]);
    const HIGHS: u64 = u64::from_le_bytes([0x80; 8]);
    const LINE_FEEDS: u64 = u64::from_le_bytes([b'\n'; 8]);
    let words = bytes.chunks_exact(8);
    let rest = words.remainder();
    for (index, word) in words.enumerate() {
        let other = u64::from_le_bytes(word.try_into().expect("eight")) ^ LINE_FEEDS;
        // The lowest bit that is set is that of the first byte that is zero.
        let zeros = other.wrapping_sub(ONES) & !other & HIGHS;
        if zeros != 0 {
            return Some(index * 8 + zeros.trailing_zeros() as usize / 8);
        }
    }
    let at = rest.iter().position(|byte| *byte == b'\n')?;
    Some(bytes.len() - rest.len() + at)
}

#[cfg(test)]
mod tests {
    use super::{Heads, line_end};

    const ONE: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

    #[test]
    fn each_head_ends_once_however_the_bytes_come() {
        let three = format!("\r\n{ONE}{ONE}{}", ONE.replace("\r\n", "\n"));
        for size in 1..three.len() {
            let mut heads = Heads::default();
            let ended: u32 = three.as_bytes().chunks(size).map(|part| heads.feed(part)).sum();
            assert_eq!((ended, heads.is_open()), (3, false), "pieces of {size}");
        }
    }

    #[test]
    fn a_part_of_a_head_is_open() {
        for end in 1..ONE.len() {
            let mut heads = Heads::default();
            assert_eq!(heads.feed(&ONE.as_bytes()[..end]), 0);
            assert!(heads.is_open(), "{end}");
            assert_eq!(heads.feed(&ONE.as_bytes()[end..]), 1);
            assert!(!heads.is_open());
        }
        assert!(Heads::begun().is_open());
        assert_eq!(Heads::begun().feed(b"T / HTTP/1.1\r\n\r\n"), 1);
    }

    #[test]
    fn the_first_line_feed_is_found_among_bytes_that_are_like_it() {
        for other in [0, 9, 11, 0x0a ^ 0x80, 0x8a, 0xff] {
            for size in 0..40 {
                let mut bytes = vec![other; size];
                assert_eq!(line_end(&bytes), None, "{other} {size}");
                for at in (0..size).rev() {
                    bytes[at] = b'\n';
                    assert_eq!(line_end(&bytes), Some(at), "{other} {size}");
                }
            }
        }
    }

    #[test]
    fn empty_lines_are_no_head() {
        let mut heads = Heads::default();
        assert_eq!(heads.feed(b"\r\n\n\r\n"), 0);
        assert!(!heads.is_open());
    }
}
