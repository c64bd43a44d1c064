//! A program file that has failed in its probation, and how long its next try waits.

use std::time::Duration;

/// What identifies the content of a program file. A file that was replaced or repaired has another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct ProgramFile {
    pub(crate) device: u64,
    pub(crate) inode: u64,
    /// When its content was changed, in nanoseconds since 1970.
    pub(crate) mtime: i128,
    pub(crate) size: u64,
}

impl ProgramFile {
    pub(crate) fn parse(text: &str) -> Option<ProgramFile> {
        let mut parts = text.split(':');
        let file = ProgramFile {
            device: parts.next()?.parse().ok()?,
            inode: parts.next()?.parse().ok()?,
            mtime: parts.next()?.parse().ok()?,
            size: parts.next()?.parse().ok()?,
        };
        parts.next().is_none().then_some(file)
    }
}

impl std::fmt::Display for ProgramFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}:{}:{}", self.device, self.inode, self.mtime, self.size)
    }
}

/// `tries`: how often it has failed in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Rejected {
    pub(crate) file: ProgramFile,
    pub(crate) tries: u32,
}

impl Rejected {
    pub(crate) fn parse(text: &str) -> Option<Rejected> {
        let (file, tries) = text.rsplit_once(':')?;
        Some(Rejected { file: ProgramFile::parse(file)?, tries: tries.parse().ok()? })
    }

    /// This file has failed. `before`: what was rejected so far.
    pub(crate) fn again(before: Option<Rejected>, file: ProgramFile) -> Rejected {
        let tries = before.filter(|before| before.file == file).map_or(0, |before| before.tries);
        Rejected { file, tries: tries.saturating_add(1) }
    }

    /// How long the next try waits: 2, 4, 8 … 64 s. The first pause is longer than supervisord's
    /// `startsecs`, and than what trips systemd's start limit.
    pub(crate) fn pause(self) -> Duration {
        Duration::from_secs(1 << self.tries.clamp(1, 6))
    }
}

impl std::fmt::Display for Rejected {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.file, self.tries)
    }
}

/// What a daemon sees before it claims.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Sight {
    pub(crate) rejected: Option<Rejected>,
    /// The file that this process runs.
    pub(crate) own: Option<ProgramFile>,
    /// A generation lives whose line says that it serves and is proven.
    pub(crate) is_served: bool,
}

impl Sight {
    /// For how long it may have to wait, from the moment when it first looked. It goes on at once if it sees
    /// `None`: nobody serves meanwhile, the operator wants another try, or another file has been rejected since.
    pub(crate) fn pause(self) -> Option<Duration> {
        let rejected = self.rejected.filter(|rejected| Some(rejected.file) == self.own)?;
        self.is_served.then(|| rejected.pause())
    }
}

#[cfg(test)]
mod tests {
    use super::{ProgramFile, Rejected, Sight};
    use std::time::Duration;

    const FILE: ProgramFile = ProgramFile { device: 1, inode: 2, mtime: -3, size: 4 };

    #[test]
    fn what_is_written_is_read() {
        let rejected = Rejected { file: FILE, tries: 5 };
        assert_eq!(rejected.to_string(), "1:2:-3:4:5");
        assert_eq!(Rejected::parse("1:2:-3:4:5"), Some(rejected));
        assert_eq!(ProgramFile::parse("1:2:-3:4"), Some(FILE));
        for bad in ["", "1:2:3", "1:2:3:4:5:6", "1:2:3:x:5", "-1:2:3:4:5"] {
            assert_eq!(Rejected::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn p11_the_same_file_waits_longer_each_time_and_another_one_not_at_all() {
        let mut rejected = None;
        let mut pauses = Vec::new();
        for _ in 0..8 {
            rejected = Some(Rejected::again(rejected, FILE));
            let sight = Sight { rejected, own: Some(FILE), is_served: true };
            pauses.extend(sight.pause().map(|pause| pause.as_secs()));
        }
        assert_eq!(pauses, [2, 4, 8, 16, 32, 64, 64, 64]);
        let other = ProgramFile { mtime: 9, ..FILE };
        let sight = Sight { rejected, own: Some(other), is_served: true };
        assert_eq!(sight.pause(), None);
        assert_eq!(Rejected::again(rejected, other).pause(), Duration::from_secs(2));
    }

    #[test]
    fn p1_nobody_waits_while_nobody_serves() {
        let rejected = Some(Rejected { file: FILE, tries: 3 });
        assert_eq!(Sight { rejected, own: Some(FILE), is_served: false }.pause(), None);
        assert_eq!(Sight { rejected: None, own: Some(FILE), is_served: true }.pause(), None);
        assert_eq!(Sight { rejected, own: None, is_served: true }.pause(), None);
    }
}
