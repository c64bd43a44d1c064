use super::*;

/// As `supervise` wrote it: 18 bytes.
const DAEMONTOOLS: [u8; 18] = *b"\x40\0\0\0\x69\x20\x1f\x0a\x0c\x1d\xe4\x30\x39\x30\0\0\0u";
/// As `runsv` wrote it: two more.
const RUNIT: [u8; 20] = *b"\x40\0\0\0\x69\x20\x1f\x0a\x0c\x1d\xe4\x30\x39\x30\0\0\0u\0\x01";
const MAIN: i32 = 0x3039;

#[test]
fn a_status_tells_what_the_supervisor_wants() {
    let with = |status: &[u8], index: usize, byte: u8| {
        let mut status = status.to_vec();
        status[index] = byte;
        status
    };
    for status in [&DAEMONTOOLS[..], &RUNIT[..]] {
        let read = |want| parse_status(&with(status, 17, want), Some(MAIN));
        assert_eq!(read(b'u'), Some(Reading::Up));
        assert_eq!(read(b'd'), Some(Reading::Down));
        assert_eq!(read(0), Some(Reading::Down), "once, then down");
        for other in [b'U', b'D', b'0', b' ', 1, 255] {
            assert_eq!(read(other), None, "{other}");
        }
        let paused = with(status, 16, 1);
        assert_eq!(parse_status(&paused, Some(MAIN)), Some(Reading::Up));
    }
}

#[test]
fn a_stop_may_have_a_limit() {
    assert_eq!(kill_limit("4000\n"), Some(Duration::from_secs(4)));
    for never in ["0", "", "-1", "soon"] {
        assert_eq!(kill_limit(never), None, "{never}");
    }
}

/// What runs once is a successor to a detached daemon; to itself it says that none will come.
#[test]
fn p1_what_is_wanted_once_is_wanted_while_it_runs() {
    let mut daemontools = DAEMONTOOLS;
    daemontools[17] = 0;
    let mut runit = RUNIT;
    runit[17] = b'd';
    for status in [&daemontools[..], &runit[..]] {
        assert_eq!(parse_status(status, None), Some(Reading::Up));
        assert_eq!(parse_status(status, Some(MAIN)), Some(Reading::Down));
        let mut ended = status.to_vec();
        ended[12..16].fill(0);
        assert_eq!(parse_status(&ended, None), Some(Reading::Down));
    }
    // Told to go down; and a `finish` script.
    for (index, byte) in [(18, 1), (19, 0), (19, 2)] {
        let mut down = runit;
        down[index] = byte;
        assert_eq!(parse_status(&down, None), Some(Reading::Down), "{index}: {byte}");
    }
    daemontools[17] = b'd';
    assert_eq!(parse_status(&daemontools, None), Some(Reading::Down));
}

#[test]
fn a_status_about_another_process_says_nothing() {
    for status in [&DAEMONTOOLS[..], &RUNIT[..]] {
        for other in [1, MAIN - 1, MAIN + 1, MAIN.swap_bytes(), -1] {
            assert_eq!(parse_status(status, Some(other)), None, "{other}");
        }
        assert_eq!(parse_status(status, None), Some(Reading::Up), "a detached daemon has no say");
    }
    let mut down = DAEMONTOOLS;
    down[12..16].fill(0);
    down[17] = b'd';
    assert_eq!(parse_status(&down, None), Some(Reading::Down));
    assert_eq!(parse_status(&down, Some(MAIN)), None);
}

#[test]
fn a_short_status_says_nothing() {
    for length in 0..DAEMONTOOLS.len() {
        assert_eq!(parse_status(&RUNIT[..length], Some(MAIN)), None, "{length} bytes");
        assert_eq!(parse_status(&RUNIT[..length], None), None, "{length} bytes");
    }
    assert_eq!(parse_status(&RUNIT[..18], Some(MAIN)), Some(Reading::Up));
}

/// As `s6-supervise` 2.11 wrote it: 35 bytes.
const S6: [u8; 35] = *b"\x40\0\0\0\x6b\x01\xbd\x6f\x18\x29\xb0\xdd\x40\0\0\0\x6b\x01\xbd\x6f\x19\x46\xaa\x07\0\0\0\0\0\0\x30\x39\0\0\x0c";

/// With these flags, about this PID, in each length: 2.13 puts a process group before the last three.
fn s6(flags: u8, pid: u64) -> [Vec<u8>; 2] {
    let mut short = S6.to_vec();
    short[24..32].copy_from_slice(&pid.to_be_bytes());
    short[34] = flags;
    let mut long = short.clone();
    long.splice(32..32, pid.to_be_bytes());
    [short, long]
}

#[test]
fn p1_p6_a_status_of_s6_tells_what_it_wants() {
    const PAUSED: u8 = 1;
    const FINISHING: u8 = 2;
    const WANTED: u8 = 4;
    const READY: u8 = 8;
    let main = MAIN as u64;
    for (flags, pid, own, detached) in [
        (WANTED | READY, main, Some(Reading::Up), Reading::Up),
        (WANTED, main, Some(Reading::Up), Reading::Up),
        (WANTED | PAUSED, main, Some(Reading::Up), Reading::Up),
        // Told to stop, or up only once.
        (READY, main, Some(Reading::Down), Reading::Up),
        (0, main, Some(Reading::Down), Reading::Up),
        // `./finish`, and then nothing, runs.
        (WANTED | FINISHING, main + 1, None, Reading::Up),
        (FINISHING, main + 1, None, Reading::Down),
        (READY, 0, None, Reading::Down),
        (0, 0, None, Reading::Down),
        (WANTED, 0, None, Reading::Up),
    ] {
        for status in s6(flags, pid) {
            assert_eq!(parse_s6_status(&status, Some(MAIN)), own, "{flags} {pid}");
            assert_eq!(parse_s6_status(&status, None), Some(detached), "{flags} {pid}");
        }
    }
    // What it left behind when it exited.
    for status in s6(READY, 0) {
        assert_eq!(parse_s6_status(&status, Some(0)), Some(Reading::Down));
    }
}

#[test]
fn a_status_of_another_length_is_none_of_s6() {
    let [_, long] = s6(12, MAIN as u64);
    for length in (0..64).filter(|length| ![35, 43].contains(length)) {
        let mut status = long.clone();
        status.resize(length, 0);
        assert_eq!(parse_s6_status(&status, None), None, "{length} bytes");
    }
    for main in [-1, 0, 1, MAIN + 1, MAIN.swap_bytes()] {
        assert_eq!(parse_s6_status(&S6, Some(main)), None, "{main}");
    }
    assert_eq!(parse_s6_status(&S6, Some(MAIN)), Some(Reading::Up));
}

#[test]
fn a_down_signal_is_a_name_or_a_number() {
    for known in ["15", "15\n", "TERM", "SIGTERM\n", "sigterm", " term ", "3", "SIGQUIT", "pwr\n"] {
        assert!(is_understood(known), "{known:?}");
    }
    for other in ["", "\n", "1", "HUP", "SIGINT\n", "150", "TERMINATE", "12", "SIG"] {
        assert!(!is_understood(other), "{other:?}");
    }
}
