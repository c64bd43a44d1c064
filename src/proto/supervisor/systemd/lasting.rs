//! The settings of a unit that matter if the service has a probation or leaves before it drains. Pure.

use super::{Own, Properties};
use crate::proto::daemon::leaving::Limits;
use crate::proto::generation::rejection::pause_after;
use std::time::Duration;

/// What a program ends with that has failed in its probation and has exited with 0.
const FAILED: &str = "75";

pub(super) fn findings(
    unit: &Properties,
    own: &Own,
    find: &mut impl FnMut(&str, &'static str, &'static str),
) {
    if own.probation.is_some() {
        probation(unit, find);
    }
    if let Some(leave) = own.leave_time {
        let limits = Limits {
            leave,
            drain: own.drain_timeout,
            stop: super::stop_limit(unit),
            extends: own.notifies,
        };
        let plan = limits.plan();
        let cut =
            |wanted: Option<Duration>, got: Option<Duration>| wanted.is_some() && got < wanted;
        if plan.leave < leave || cut(own.drain_timeout, plan.drain) {
            find(
                "TimeoutStopUSec",
                "TimeoutStopSec= longer than leave_time and drain_timeout together",
                "a stop has less time than leave_time and the drain need, so both are cut",
            );
        }
    }
}

fn probation(unit: &Properties, find: &mut impl FnMut(&str, &'static str, &'static str)) {
    let kill_mode = unit.get("KillMode");
    if kill_mode == "control-group" || kill_mode == "mixed" && unit.is_yes("SendSIGKILL") {
        find(
            "KillMode",
            "KillMode=process",
            "a restart ends the generation that is to stand by, so a probation protects from nothing",
        );
    }
    let lists = |name| unit.lists(name, FAILED);
    let restarts = match unit.get("Restart") {
        "always" => true,
        "on-failure" => !lists("SuccessExitStatus"),
        "on-success" => lists("SuccessExitStatus"),
        "no" => return, // has a finding of its own
        _ => false,
    };
    if lists("RestartPreventExitStatus") && !lists("RestartForceExitStatus") {
        find(
            "RestartPreventExitStatus",
            "RestartPreventExitStatus= without 75",
            "a version that exits with 0 in its probation ends with 75, and the service is not started again",
        );
    } else if !restarts && !lists("RestartForceExitStatus") {
        find(
            "Restart",
            "Restart=always or on-failure",
            "a version that exits with 0 in its probation ends with 75, and the service is not started again",
        );
    }
    let burst = unit.number("StartLimitBurst").unwrap_or(5);
    let interval = unit.time("StartLimitIntervalUSec").unwrap_or_default();
    // The starts of a version that fails at once: each one waits longer than the one before it.
    let waits: Duration = (1..burst.min(100) as u32).map(pause_after).sum();
    if burst > 0 && interval > waits {
        find(
            "StartLimitBurst",
            "StartLimitIntervalSec=0",
            "a version that fails in its probation uses the limit up, and the old generation is left without \
             a supervisor that starts another",
        );
    }
}
