//! What launchers and daemons have logged.

use std::{
    fmt, fs,
    path::{Path, PathBuf},
};

use crate::{LIMIT, wait_for};

/// The file `log` of one folder, to which every generation appends.
#[derive(Clone, Debug)]
pub struct Log(PathBuf);

impl Log {
    pub fn of(folder: &Path) -> Self {
        Log(folder.join("log"))
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    /// All of it, the beginning of an incomplete line included.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.0).unwrap_or_default()).into_owned()
    }

    /// The complete lines so far.
    pub fn lines(&self) -> Vec<Line> {
        let text = self.text();
        let complete = text.rfind('\n').map_or("", |end| &text[..end]);
        complete.lines().map(|line| Line(line.to_owned())).collect()
    }

    /// The lines of one stage.
    pub fn stage(&self, stage: &str) -> Vec<Line> {
        let mut lines = self.lines();
        lines.retain(|line| line.is(&[("stage", stage)]));
        lines
    }

    /// The lines that hold all of these words.
    pub fn with(&self, words: &[&str]) -> Vec<Line> {
        let mut lines = self.lines();
        lines.retain(|line| line.holds(words));
        lines
    }

    /// Waits for a line with these fields.
    #[track_caller]
    pub fn wait(&self, fields: &[(&str, &str)]) -> Line {
        let what = Missing(self, format!("{fields:?}"));
        wait_for(what, LIMIT, || self.lines().into_iter().find(|line| line.is(fields)))
    }

    /// Waits for so many lines that hold all of these words; gives the last of them.
    #[track_caller]
    pub fn wait_words(&self, words: &[&str], count: usize) -> String {
        let what = Missing(self, format!("{count} lines with {words:?}"));
        wait_for(what, LIMIT, || self.with(words).into_iter().nth(count - 1)).0
    }
}

impl fmt::Display for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.lines().iter().try_for_each(|line| writeln!(f, "{}", line.0))
    }
}

/// The message if a line does not come: with all those that came.
struct Missing<'a>(&'a Log, String);

impl fmt::Display for Missing<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} in the log:\n{}", self.1, self.0)
    }
}

/// One line: fields `name=value` after a prefix of the logger's.
#[derive(Clone, Debug)]
pub struct Line(String);

impl Line {
    pub fn field(&self, name: &str) -> Option<&str> {
        let (_, rest) = self.0.split_once(&format!(" {name}="))?;
        match rest.strip_prefix('"') {
            Some(quoted) => quoted.split('"').next(),
            None => rest.split(' ').next(),
        }
    }

    /// A field that is a number.
    #[track_caller]
    pub fn number(&self, name: &str) -> u32 {
        let value = self.field(name).and_then(|value| value.parse().ok());
        value.unwrap_or_else(|| panic!("no number {name} in: {}", self.0))
    }

    /// Does it hold all of these words?
    pub fn holds(&self, words: &[&str]) -> bool {
        words.iter().all(|word| self.0.contains(word))
    }

    pub fn is(&self, fields: &[(&str, &str)]) -> bool {
        fields.iter().all(|(name, value)| self.field(name) == Some(value))
    }
}
