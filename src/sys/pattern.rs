//! Patterns of a shell, for one name of a path.

use super::raw;
use std::ffi::{CString, OsStr};

/// Has the name a character with a special meaning?
pub(crate) fn is_pattern(name: &OsStr) -> bool {
    name.as_encoded_bytes().iter().any(|byte| matches!(byte, b'*' | b'?' | b'[' | b'\\'))
}

/// As `fnmatch(3)` has it. A dot at the beginning of the name is matched only by a dot.
pub(crate) fn matches(pattern: &OsStr, name: &OsStr) -> bool {
    let text = |text: &OsStr| CString::new(text.as_encoded_bytes());
    let (Ok(pattern), Ok(name)) = (text(pattern), text(name)) else { return false };
    raw::fnmatch(&pattern, &name)
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
