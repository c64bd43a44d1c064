//! What a supervisor passes: `LISTEN_FDS`, `LISTEN_FDNAMES`, `LISTEN_PID` (`sd_listen_fds(3)`), or Einhorn's
//! `EINHORN_FD_COUNT`, `EINHORN_FD_0` and so on. Pure: the variables in, numbers and names out.

use crate::proto::text::digits;

/// The first number that a supervisor passes.
const FIRST: i32 = 3;
/// A process can have no more open files than that.
const MOST: i32 = 1 << 20;

/// The number of a descriptor that was passed. What it is has not been checked yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Passed {
    pub(crate) number: i32,
    pub(crate) name: Option<String>,
}

/// The variables, as they are.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Variables<'a> {
    pub(crate) pid: Option<&'a str>,
    pub(crate) fds: Option<&'a str>,
    pub(crate) names: Option<&'a str>,
}

/// What was passed, if it was meant for one of these processes. `Err`: why variables that are set are not
/// used.
pub(crate) fn parse(variables: Variables<'_>, meant_for: &[i32]) -> Result<Vec<Passed>, String> {
    let Variables { pid, fds, names } = variables;
    let Some(fds) = fds else {
        return Ok(Vec::new());
    };
    let Some(pid) = pid.and_then(digits::<i32>) else {
        return Err(format!("LISTEN_FDS={fds} without a LISTEN_PID that is one"));
    };
    if !meant_for.contains(&pid) {
        return Err(format!("LISTEN_FDS={fds} was meant for process {pid}"));
    }
    let Some(count) = count_of(fds) else {
        return Err(format!("LISTEN_FDS={fds} is no number of descriptors"));
    };
    let mut names = names.filter(|names| !names.is_empty()).map(|names| names.split(':'));
    let passed = (FIRST..FIRST + count).map(|number| Passed {
        number,
        name: names.as_mut().and_then(Iterator::next).map(str::to_owned),
    });
    Ok(passed.collect())
}

/// What Einhorn has passed, if it is the parent of the process that it has started. `master`: the PID that it
/// says is its own. `numbers`: the variables, by their places.
pub(crate) fn einhorn(
    master: Option<&str>,
    count: &str,
    numbers: impl Fn(i32) -> Option<String>,
    parent: Option<i32>,
) -> Result<Vec<Passed>, String> {
    let Some(master) = master.and_then(digits::<i32>) else {
        return Err(format!("EINHORN_FD_COUNT={count} without an EINHORN_MASTER_PID that is one"));
    };
    if parent != Some(master) {
        return Err(format!("EINHORN_FD_COUNT={count} was meant for a child of process {master}"));
    }
    let Some(count) = count_of(count) else {
        return Err(format!("EINHORN_FD_COUNT={count} is no number of descriptors"));
    };
    let one = |at| {
        let text = numbers(at).unwrap_or_default();
        let found = digits::<i32>(&text).filter(|found| (FIRST..MOST).contains(found));
        let number = found.ok_or_else(|| format!("EINHORN_FD_{at}={text} is no descriptor"))?;
        Ok(Passed { number, name: None })
    };
    (0..count).map(one).collect()
}

fn count_of(text: &str) -> Option<i32> {
    digits(text).filter(|count: &i32| *count <= MOST)
}

#[cfg(test)]
mod tests {
    use super::{Passed, Variables, einhorn, parse};

    fn variables<'a>(pid: &'a str, fds: &'a str, names: &'a str) -> Variables<'a> {
        Variables { pid: Some(pid), fds: Some(fds), names: Some(names) }
    }

    fn passed(number: i32, name: Option<&str>) -> Passed {
        Passed { number, name: name.map(str::to_owned) }
    }

    #[test]
    fn passed_to_the_launcher_or_to_us() {
        let expected = vec![passed(3, Some("web")), passed(4, Some("admin"))];
        for pid in ["812", "813"] {
            assert_eq!(parse(variables(pid, "2", "web:admin"), &[812, 813]), Ok(expected.clone()));
        }
    }

    #[test]
    fn einhorn_passes_to_its_children() {
        let numbers = |at| ["7", "3"].get(at as usize).map(|text| (*text).to_owned());
        let expected = vec![passed(7, None), passed(3, None)];
        assert_eq!(einhorn(Some("90"), "2", numbers, Some(90)), Ok(expected));
        assert_eq!(einhorn(Some("90"), "0", numbers, Some(90)), Ok(vec![]));
        for (master, count, parent, why) in [
            (None, "2", Some(90), "EINHORN_FD_COUNT=2 without an EINHORN_MASTER_PID that is one"),
            (
                Some("x"),
                "2",
                Some(90),
                "EINHORN_FD_COUNT=2 without an EINHORN_MASTER_PID that is one",
            ),
            (Some("90"), "2", Some(91), "EINHORN_FD_COUNT=2 was meant for a child of process 90"),
            (Some("90"), "2", None, "EINHORN_FD_COUNT=2 was meant for a child of process 90"),
            (Some("90"), "-1", Some(90), "EINHORN_FD_COUNT=-1 is no number of descriptors"),
            (
                Some("90"),
                "9999999",
                Some(90),
                "EINHORN_FD_COUNT=9999999 is no number of descriptors",
            ),
            (Some("90"), "3", Some(90), "EINHORN_FD_2= is no descriptor"),
        ] {
            assert_eq!(einhorn(master, count, numbers, parent), Err(why.to_owned()));
        }
        for odd in ["0", "2", "-3", "+3", "three", "99999999999"] {
            let why = format!("EINHORN_FD_0={odd} is no descriptor");
            let numbers = |_| Some(odd.to_owned());
            assert_eq!(einhorn(Some("90"), "1", numbers, Some(90)), Err(why));
        }
    }

    #[test]
    fn names_may_be_missing() {
        let unnamed = vec![passed(3, None), passed(4, None)];
        assert_eq!(parse(variables("5", "2", ""), &[5]), Ok(unnamed.clone()));
        assert_eq!(parse(Variables { names: None, ..variables("5", "2", "") }, &[5]), Ok(unnamed));
        let first = vec![passed(3, Some("web")), passed(4, None)];
        assert_eq!(parse(variables("5", "2", "web"), &[5]), Ok(first));
        let more = vec![passed(3, Some("a"))];
        assert_eq!(parse(variables("5", "1", "a:b"), &[5]), Ok(more));
    }

    #[test]
    fn nothing_was_passed() {
        assert_eq!(parse(Variables::default(), &[5]), Ok(vec![]));
        assert_eq!(parse(Variables { pid: Some("5"), ..Variables::default() }, &[5]), Ok(vec![]));
        assert_eq!(parse(variables("5", "0", ""), &[5]), Ok(vec![]));
    }

    #[test]
    fn what_was_not_meant_for_us_or_is_no_number_is_left_alone() {
        for (pid, fds, why) in [
            ("7", "2", "LISTEN_FDS=2 was meant for process 7"),
            ("", "2", "LISTEN_FDS=2 without a LISTEN_PID that is one"),
            ("-5", "2", "LISTEN_FDS=2 without a LISTEN_PID that is one"),
            ("5 ", "2", "LISTEN_FDS=2 without a LISTEN_PID that is one"),
            ("99999999999", "2", "LISTEN_FDS=2 without a LISTEN_PID that is one"),
            ("5", "", "LISTEN_FDS= is no number of descriptors"),
            ("5", "-1", "LISTEN_FDS=-1 is no number of descriptors"),
            ("5", "+1", "LISTEN_FDS=+1 is no number of descriptors"),
            ("5", "two", "LISTEN_FDS=two is no number of descriptors"),
            ("5", "2000000000", "LISTEN_FDS=2000000000 is no number of descriptors"),
            ("5", "99999999999", "LISTEN_FDS=99999999999 is no number of descriptors"),
        ] {
            assert_eq!(parse(variables(pid, fds, ""), &[5, 6]), Err(why.to_owned()));
        }
        let without = Variables { pid: None, fds: Some("2"), names: None };
        let why = "LISTEN_FDS=2 without a LISTEN_PID that is one".to_owned();
        assert_eq!(parse(without, &[5]), Err(why));
    }
}
