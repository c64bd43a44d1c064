//! Words in the commands that are advised.

use crate::proto::control::frame::clean;

/// A word that a shell takes as it is.
pub(crate) fn quote(word: &str) -> String {
    /// That of a path.
    const LENGTH_MAX: usize = 4096;
    let word = clean(word, LENGTH_MAX);
    let is_plain = |char: char| char.is_ascii_alphanumeric() || "/._-+:@%".contains(char);
    if !word.is_empty() && word.chars().all(is_plain) {
        return word;
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::quote;

    #[test]
    fn words_of_others_are_harmless_in_a_shell() {
        for (word, expected) in [
            ("/service/web-1.2", "/service/web-1.2"),
            ("a web", "'a web'"),
            ("$(reboot)", "'$(reboot)'"),
            ("it's", r"'it'\''s'"),
            ("a\nb", "'a b'"),
            ("", "''"),
        ] {
            assert_eq!(quote(word), expected);
        }
    }
}
