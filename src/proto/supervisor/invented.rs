//! A kind of supervisor that does not exist: its row and its parser. Tests show by it that a further kind
//! needs nothing else. No other file but the table and tests may know of it.

use super::{Adopts, Commands, ExitZero, Manner, NamedBy, StartsAgain, StatusFile, Tells};
use crate::proto::Reading;

/// Unlike every other row: it writes its status late, and yet starts nothing again after exit code 0.
pub(crate) const MANNER: Manner = Manner {
    name: "invented",
    processes: &["inventedsv"],
    reaches_past_scripts: false,
    tells: Tells::Late(StatusFile { lengths: &[5], pipe: "listens", parse: parse_status }),
    starts_again: StartsAgain::IfConfigured,
    adopts_orphans: Adopts::No,
    closes_output: true,
    exit_0_is_final: Some(ExitZero {
        warning: "an invented reason",
        note: "an invented note",
        advice: "an invented advice",
    }),
    signal_file: None,
    kill_limit_file: None,
    down_means: "it is down for an invented reason",
    commands: Some(Commands {
        service: NamedBy::Folder,
        restart: "invented -again {}",
        stop: "invented -down {}",
    }),
};

/// `+` (up) or `-` (down), and the PID of the main process, big-endian.
fn parse_status(status: &[u8], main_pid: Option<i32>) -> Option<Reading> {
    let about = i32::from_be_bytes(status.get(1..5)?.try_into().ok()?);
    if main_pid.is_some_and(|pid| pid != about) {
        return None;
    }
    match status[0] {
        b'+' => Some(Reading::Up),
        b'-' => Some(Reading::Down),
        _ => None,
    }
}
