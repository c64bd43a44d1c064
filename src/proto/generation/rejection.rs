//! A program file that has failed in its probation, and how long its next try waits.

use super::clock::SinceBoot;
use crate::proto::names::names;
use std::fmt::Write as _;
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

/// Why a generation has failed in its probation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum RollbackCause {
    /// Its process has ended: by a signal, or with any exit code.
    Ended,
    /// The check of the program has failed.
    Unhealthy,
    /// An operator has rolled it back.
    Operator,
    /// It got TERM or INT by hand.
    Told,
}

// In the record.
names!(RollbackCause:
    Ended = "ended",
    Unhealthy = "unhealthy",
    Operator = "operator",
    Told = "told",
);

impl RollbackCause {
    /// For people.
    pub(crate) fn text(self) -> &'static str {
        match self {
            RollbackCause::Ended => "its process has ended",
            RollbackCause::Unhealthy => "its probation_check has failed",
            RollbackCause::Operator => "an operator has rolled it back",
            RollbackCause::Told => "it got TERM or INT by hand",
        }
    }
}

/// `tries`: how often it has failed in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Rejected {
    pub(crate) file: ProgramFile,
    pub(crate) tries: u32,
    /// The generation that has failed last, and why. 0: unknown.
    pub(crate) generation: u64,
    pub(crate) cause: RollbackCause,
    /// When the process that waits in `init` goes on: in milliseconds since the boot.
    pub(crate) next_try: Option<SinceBoot>,
}

const FAILED: &str = "failed=";
const NEXT_TRY: &str = "next_try=";

impl Rejected {
    pub(crate) fn parse(text: &str) -> Option<Rejected> {
        let (file, tries) = text.rsplit_once(':')?;
        Some(Rejected {
            file: ProgramFile::parse(file)?,
            tries: tries.parse().ok()?,
            generation: 0,
            cause: RollbackCause::Ended,
            next_try: None,
        })
    }

    /// This file has failed, as this generation. `before`: what was rejected so far.
    pub(crate) fn again(
        before: Option<Rejected>,
        file: ProgramFile,
        generation: u64,
        cause: RollbackCause,
    ) -> Rejected {
        let tries = before.filter(|before| before.file == file).map_or(0, |before| before.tries);
        Rejected { file, tries: tries.saturating_add(1), generation, cause, next_try: None }
    }

    /// The fields that stand behind it in the record.
    pub(crate) fn details(self) -> String {
        let mut text = format!("{FAILED}{}:{}", self.generation, self.cause.name());
        if let Some(next) = self.next_try {
            _ = write!(text, " {NEXT_TRY}{}", next.as_millis());
        }
        text
    }

    /// Takes over what such a field says; `false`: it is another field.
    pub(crate) fn read_detail(&mut self, field: &str) -> bool {
        if let Some((generation, cause)) =
            field.strip_prefix(FAILED).and_then(|value| value.split_once(':'))
        {
            let Ok(generation) = generation.parse() else { return false };
            self.generation = generation;
            // A later version may know further causes.
            self.cause = RollbackCause::from_name(cause).unwrap_or(RollbackCause::Ended);
        } else if let Some(next) = field.strip_prefix(NEXT_TRY) {
            let Ok(next) = next.parse() else { return false };
            self.next_try = Some(Duration::from_millis(next));
        } else {
            return false;
        }
        true
    }

    /// How long the next try waits: 2, 4, 8 … 64 s. The first pause is longer than supervisord's
    /// `startsecs`, and than what trips systemd's start limit.
    pub(crate) fn pause(self) -> Duration {
        pause_after(self.tries)
    }
}

/// How long a file waits that has failed so often.
pub(crate) fn pause_after(tries: u32) -> Duration {
    Duration::from_secs(1 << tries.clamp(1, 6))
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
    /// That generation says that it need not wait: an operator wants another try.
    pub(crate) goes: bool,
}

/// May a process whose file has failed wait? Without a probation there is nothing to fail in, and in place each start
/// is an operator's wish.
pub(crate) fn may_wait(has_probation: bool, in_place: bool) -> bool {
    has_probation && !in_place
}

impl Sight {
    /// For how long it may have to wait, from the moment when it first looked. It goes on at once if it sees
    /// `None`: nobody serves meanwhile, the operator wants another try, or another file has been rejected since.
    fn pause(self) -> Option<Duration> {
        let rejected = self.rejected.filter(|rejected| Some(rejected.file) == self.own)?;
        (self.is_served && !self.goes).then(|| rejected.pause())
    }
}

/// EX_TEMPFAIL of `sysexits.h`: the supervisor is to start the file that the path names now.
const ANOTHER_FILE: i32 = 75;

/// What a process does next that may have to wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// It waits, for so long at most, and looks again.
    Wait(Duration),
    /// It claims.
    Start,
    /// It ends with this exit code.
    End(i32),
}

/// Asked at each look. `sight`: what it sees; `None` if nothing can be known. `waited`: since its first look.
/// `is_replaced`: the path of its program names another file than the one that it runs.
pub(crate) fn next(sight: Option<Sight>, waited: Option<Duration>, is_replaced: bool) -> Next {
    // First: an operator who has replaced the file and asks for a restart means the new one.
    if waited.is_some() && is_replaced {
        return Next::End(ANOTHER_FILE);
    }
    // If nothing can be known, a pause protects nobody.
    let pause = sight.and_then(Sight::pause).unwrap_or_default();
    match pause.saturating_sub(waited.unwrap_or_default()) {
        Duration::ZERO => Next::Start,
        left => Next::Wait(left),
    }
}

#[cfg(test)]
mod tests {
    use super::{Next, ProgramFile, Rejected, RollbackCause, Sight, may_wait, next};
    use crate::proto::are_told_apart;
    use std::time::Duration;

    const FILE: ProgramFile = ProgramFile { device: 1, inode: 2, mtime: -3, size: 4 };

    fn rejected(tries: u32) -> Rejected {
        Rejected::parse(&format!("{FILE}:{tries}")).expect("a rejection")
    }

    #[test]
    fn in_place_and_without_a_probation_nobody_waits() {
        assert!(may_wait(true, false));
        assert!(
            ![(true, true), (false, false), (false, true)].iter().any(|(a, b)| may_wait(*a, *b))
        );
    }

    #[test]
    fn what_is_written_is_read() {
        let mut rejected = rejected(5);
        assert_eq!(rejected.to_string(), "1:2:-3:4:5");
        assert_eq!(Rejected::parse("1:2:-3:4:5"), Some(rejected));
        for (cause, next_try, details) in [
            (RollbackCause::Ended, None, "failed=7:ended"),
            (RollbackCause::Unhealthy, Some(9), "failed=7:unhealthy next_try=9"),
            (RollbackCause::Operator, Some(0), "failed=7:operator next_try=0"),
            (RollbackCause::Told, None, "failed=7:told"),
        ] {
            let next_try = next_try.map(Duration::from_millis);
            let said = Rejected { generation: 7, cause, next_try, ..rejected };
            assert_eq!(said.details(), details);
            let mut read = rejected;
            assert!(details.split(' ').all(|field| read.read_detail(field)));
            assert_eq!(read, said);
        }
        for other in ["failed=x:ended", "failed=7", "next_try=soon", "last=7"] {
            assert!(!rejected.read_detail(other), "{other}");
        }
        assert!(rejected.read_detail("failed=8:of-a-later-version"));
        assert_eq!((rejected.generation, rejected.cause), (8, RollbackCause::Ended));
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
            rejected = Some(Rejected::again(rejected, FILE, 2, RollbackCause::Ended));
            let sight = Sight { rejected, own: Some(FILE), is_served: true, goes: false };
            pauses.extend(sight.pause().map(|pause| pause.as_secs()));
        }
        assert_eq!(pauses, [2, 4, 8, 16, 32, 64, 64, 64]);
        let other = ProgramFile { mtime: 9, ..FILE };
        let sight = Sight { rejected, own: Some(other), is_served: true, goes: false };
        assert_eq!(sight.pause(), None);
        let failed = Rejected::again(rejected, other, 3, RollbackCause::Told);
        assert_eq!((failed.pause(), failed.generation), (Duration::from_secs(2), 3));
    }

    #[test]
    fn p1_nobody_waits_while_nobody_serves() {
        let rejected = Some(rejected(3));
        assert_eq!(
            Sight { rejected, own: Some(FILE), is_served: false, goes: false }.pause(),
            None
        );
        assert_eq!(
            Sight { rejected: None, own: Some(FILE), is_served: true, goes: false }.pause(),
            None
        );
        assert_eq!(Sight { rejected, own: None, is_served: true, goes: false }.pause(), None);
    }

    #[test]
    fn p11_a_file_that_was_replaced_meanwhile_is_not_tried() {
        let sight =
            Sight { rejected: Some(rejected(3)), own: Some(FILE), is_served: true, goes: false };
        let (second, all) = (Duration::from_secs(1), Duration::from_secs(8));
        assert_eq!(next(Some(sight), None, false), Next::Wait(all));
        assert_eq!(next(Some(sight), Some(second), false), Next::Wait(all - second));
        assert_eq!(next(Some(sight), Some(all), false), Next::Start);
        assert_eq!(next(Some(sight), Some(second * 9), false), Next::Start);
        assert_eq!(next(None, None, false), Next::Start);
        assert_eq!(next(None, Some(second), false), Next::Start);
        // A program that was replaced while it started is none that has waited.
        assert_eq!(next(Some(sight), None, true), Next::Wait(all));
        let goes = Sight { goes: true, ..sight };
        for sight in [Some(sight), Some(goes), None] {
            assert_eq!(next(sight, Some(second), true), Next::End(75));
        }
        assert_eq!(next(Some(goes), Some(second), false), Next::Start);
    }

    #[test]
    fn each_cause_is_told() {
        assert!(are_told_apart(RollbackCause::ALL.map(RollbackCause::text)));
    }

    #[test]
    fn an_operator_need_not_wait() {
        let mut sight =
            Sight { rejected: Some(rejected(3)), own: Some(FILE), is_served: true, goes: false };
        assert_eq!(sight.pause(), Some(Duration::from_secs(8)));
        sight.goes = true;
        assert_eq!(sight.pause(), None);
    }
}
