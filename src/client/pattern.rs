//! Patterns of a shell, for one name of a path: `*`, `?`, `[a-z]`, `[!a-z]`, and a backslash before a character
//! that means itself.

use std::ffi::OsStr;

/// Has the name a character with a special meaning?
pub(super) fn is_pattern(name: &OsStr) -> bool {
    name.as_encoded_bytes().iter().any(|byte| matches!(byte, b'*' | b'?' | b'[' | b'\\'))
}

/// As `sh` has it, a dot at the beginning is matched only by a dot.
pub(super) fn matches(pattern: &OsStr, name: &OsStr) -> bool {
    let (pattern, name) = (pattern.as_encoded_bytes(), name.as_encoded_bytes());
    let is_hidden = name.first() == Some(&b'.');
    let shows_hidden = pattern.strip_prefix(b"\\").unwrap_or(pattern).first() == Some(&b'.');
    (!is_hidden || shows_hidden) && fits(pattern, name)
}

/// The time is at most the product of both lengths: only the last star is tried again.
fn fits(pattern: &[u8], name: &[u8]) -> bool {
    let (mut at, mut read) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while read < name.len() {
        if pattern.get(at) == Some(&b'*') {
            star = Some((at, read));
            at += 1;
            continue;
        }
        if let Some(length) = one(&pattern[at..], name[read]) {
            at += length;
            read += 1;
            continue;
        }
        let Some((before, from)) = star else { return false };
        star = Some((before, from + 1));
        (at, read) = (before + 1, from + 1);
    }
    pattern[at..].iter().all(|byte| *byte == b'*')
}

/// If the beginning of the pattern, which is no star, stands for this byte: how long it is.
fn one(pattern: &[u8], byte: u8) -> Option<usize> {
    match pattern {
        [b'?', ..] => Some(1),
        [b'\\', literal, ..] => (*literal == byte).then_some(2),
        [b'[', rest @ ..] => match set(rest, byte) {
            Some((length, is_in)) => is_in.then_some(1 + length),
            None => (byte == b'[').then_some(1), // it does not end, so it is no set
        },
        [literal, ..] => (*literal == byte).then_some(1),
        [] => None,
    }
}

/// `a-z]…`: its length with the bracket, and whether the byte is in it.
fn set(text: &[u8], byte: u8) -> Option<(usize, bool)> {
    let negated = matches!(text.first(), Some(b'!' | b'^'));
    let first = usize::from(negated);
    let (mut at, mut is_in) = (first, false);
    loop {
        match (text.get(at)?, text.get(at + 1..at + 3)) {
            (b']', _) if at > first => return Some((at + 1, is_in != negated)),
            (from, Some([b'-', to])) if *to != b']' => {
                is_in |= (*from..=*to).contains(&byte);
                at += 3;
            }
            (one, _) => {
                is_in |= *one == byte;
                at += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{is_pattern, matches};
    use std::ffi::OsStr;

    #[test]
    fn patterns_match_as_those_of_a_shell() {
        for (pattern, name, expected) in [
            ("*.pid", "web.pid", true),
            ("*.pid", "web.pid.lock", false),
            ("*", "", true),
            ("*", ".hidden", false),
            (".*", ".hidden", true),
            ("\\.h*", ".hidden", true),
            ("?eb", "web", true),
            ("?eb", "eb", false),
            ("w*b*", "wxbxb", true),
            ("*a*a*b", "aaaaaaaaaaaaaaaaaaaaaaaaaaaa", false),
            ("[a-w]eb", "web", true),
            ("[!a-v]eb", "web", true),
            ("[^w]eb", "web", false),
            ("[]w]eb", "web", true),
            ("[]w]eb", "]eb", true),
            ("[a-]eb", "-eb", true),
            ("[web", "[web", true),
            ("\\*", "*", true),
            ("\\*", "x", false),
            ("web", "web", true),
            ("web\\", "web", false),
        ] {
            assert_eq!(
                matches(OsStr::new(pattern), OsStr::new(name)),
                expected,
                "{pattern} {name}"
            );
        }
        assert!(is_pattern(OsStr::new("a[b")) && !is_pattern(OsStr::new("web.pid")));
    }
}
