//! Each state x event by a literal table, and a test for each rule.

use super::*;
use crate::proto::launcher::{Failure, Refusal};
use Progress::{
    CurrentEnded, Draining, Leaving, ReloadFailed, ReloadRefused, Reloading, Serving, Stopping,
};

const FIRST: Child = 70;
const SECOND: Child = 71;
const WATCHDOG: Duration = Duration::from_secs(4);

const HANDOFF: Duration = Duration::from_secs(10);
const DRAIN: Duration = Duration::from_secs(60);
const LIMITS: Limits = Limits { handoff: HANDOFF, drain: Some(DRAIN) };

const WATCHED: Listener = Listener { watchdog: Some(WATCHDOG) };

fn progress(progress: Progress) -> Input {
    Input::Performing(Output::Progress(progress))
}

fn aborted(child: Child) -> Input {
    Input::Performing(Output::Forward(child, ABRT))
}

fn alive(child: Child) -> Input {
    Input::Aside(child, Aside::Alive)
}

fn failed() -> Input {
    progress(ReloadFailed(Failure::NotStarted))
}

fn refused() -> Input {
    progress(ReloadRefused(Refusal::Draining))
}

fn ended(child: Child) -> Input {
    progress(CurrentEnded(child, End::Code(1)))
}

fn after(listener: Option<Listener>, inputs: impl IntoIterator<Item = Input>) -> Notices {
    let mut notices = Notices::new(listener, FIRST, LIMITS);
    for input in inputs {
        let _ = notices.on(input);
    }
    notices
}

/// As it stands on the wire, as far as that is short.
fn shown(notices: &[Notice]) -> String {
    let word = |word: &Word| match word {
        Word::Ready => "READY".to_owned(),
        Word::MainPid => "MAINPID".to_owned(),
        Word::Reloading => "RELOADING".to_owned(),
        Word::Stopping => "STOPPING".to_owned(),
        Word::Status(text) => format!("'{text}'"),
        Word::Watchdog => "WATCHDOG".to_owned(),
        Word::ExtendTimeout(by) => format!("EXTEND {by:?}"),
    };
    let one = |notice: &Notice| match notice {
        Notice::Say(words) => words.iter().map(word).collect::<Vec<_>>().join(" "),
        Notice::Arm(Timer::Ask, after) => format!("ask in {after:?}"),
        Notice::Arm(Timer::Limit, after) => format!("limit in {after:?}"),
        Notice::Arm(Timer::Kill(child), after) => format!("kill {child} in {after:?}"),
        other => format!("{other:?}"),
    };
    notices.iter().map(one).collect::<Vec<_>>().join("; ")
}

/// The states, by the shortest way there.
fn states() -> [(&'static str, Notices); 6] {
    let serving = || progress(Serving(FIRST));
    let ways = [
        ("starting", vec![]),
        ("serving", vec![serving()]),
        ("reloading", vec![serving(), progress(Reloading)]),
        ("ended meanwhile", vec![serving(), progress(Reloading), ended(FIRST)]),
        ("draining", vec![serving(), progress(Draining(FIRST))]),
        ("stopping", vec![serving(), progress(Stopping(FIRST))]),
    ];
    ways.map(|(name, way)| (name, after(Some(WATCHED), way)))
}

/// What each event leads to, in the order of [`states`]; `=` stands for the same as before it.
fn table() -> Vec<(Input, [&'static str; 6])> {
    vec![
        (
            progress(Reloading),
            ["RELOADING 'reloading: the next generation starts'", "=", "=", "=", "=", "="],
        ),
        (
            progress(Serving(SECOND)),
            ["READY MAINPID 'serving: daemon 71' WATCHDOG; Readiness", "=", "=", "=", "=", "="],
        ),
        (
            failed(),
            [
                "",
                "READY MAINPID 'serving: daemon 70; the last reload failed' WATCHDOG",
                "=",
                "",
                "READY MAINPID 'serving: daemon 70; the last reload failed' WATCHDOG",
                "=",
            ],
        ),
        (
            refused(),
            [
                "",
                "RELOADING 'reloading: the next generation starts'; \
                 READY MAINPID 'serving: daemon 70; the last reload was refused' WATCHDOG",
                "",
                "",
                "RELOADING 'reloading: the next generation starts'; \
                 READY MAINPID 'serving: daemon 70; the last reload was refused' WATCHDOG",
                "=",
            ],
        ),
        (ended(FIRST), ["'starting: daemon 70 has ended meanwhile'", "=", "=", "=", "=", "="]),
        (
            progress(Leaving(FIRST)),
            [
                "STOPPING 'stopping: daemon 70 serves on until balancers have noticed'; limit in 60s; \
                 EXTEND 10s; ask in 0ns; limit in 60s",
                "=",
                "=",
                "=",
                "STOPPING 'stopping: daemon 70 serves on until balancers have noticed'; limit in 60s; \
                 limit in 60s",
                "STOPPING 'stopping: daemon 70 serves on until balancers have noticed'; limit in 60s",
            ],
        ),
        (
            progress(Draining(FIRST)),
            [
                "'draining: daemon 70 answers what is in flight'; limit in 60s; EXTEND 10s; ask in 0ns",
                "=",
                "=",
                "=",
                "'draining: daemon 70 answers what is in flight'",
                "'stopping: daemon 70 answers what is in flight'",
            ],
        ),
        (
            progress(Stopping(FIRST)),
            [
                "STOPPING 'stopping: daemon 70 answers what is in flight'; limit in 60s; EXTEND 10s; \
                 ask in 0ns",
                "=",
                "=",
                "=",
                "STOPPING 'stopping: daemon 70 answers what is in flight'; limit in 60s",
                "STOPPING 'stopping: daemon 70 answers what is in flight'",
            ],
        ),
        (
            Input::Performing(Output::Handoff(FIRST)),
            [
                "'handing off: daemon 70 serves on'; limit in 10s; EXTEND 10s; ask in 0ns",
                "=",
                "=",
                "=",
                "'handing off: daemon 70 serves on'",
                "=",
            ],
        ),
        (
            Input::Performing(Output::Leave { child: FIRST, expired: false }),
            ["'detached: daemon 70 serves on until a successor is ready'", "=", "=", "=", "=", "="],
        ),
        (
            Input::Performing(Output::Mirror(FIRST, End::Signal(9))),
            ["'ended: daemon 70 with signal 9'", "=", "=", "=", "=", "="],
        ),
        (aborted(FIRST), ["kill 70 in 2s", "=", "=", "=", "=", "="]),
        (aborted(SECOND), ["", "=", "=", "=", "=", "="]),
        (Input::Performing(Output::Start), ["", "=", "=", "=", "=", "="]),
        (
            Input::Report(Report::Waiting),
            ["'stopping: older generations answer what is in flight'", "=", "=", "=", "=", "="],
        ),
        (Input::Report(Report::Started), ["", "=", "=", "=", "=", "="]),
        (alive(FIRST), ["WATCHDOG", "=", "=", "=", "WATCHDOG EXTEND 10s", "WATCHDOG EXTEND 10s"]),
        (alive(SECOND), ["WATCHDOG", "", "=", "WATCHDOG", "", "="]),
        (
            Input::Aside(SECOND, Aside::Store("a".to_owned())),
            ["Store(\"a\")", "=", "=", "=", "=", "="],
        ),
        (
            Input::Aside(SECOND, Aside::Remove("a".to_owned())),
            ["Remove(\"a\")", "=", "=", "=", "=", "="],
        ),
        (
            Input::Aside(SECOND, Aside::Waits(Duration::from_millis(3_500))),
            [
                "EXTEND 13.5s 'waiting: this program has failed in its probation, and is tried again in 4 s'",
                "=",
                "=",
                "=",
                "=",
                "=",
            ],
        ),
        (Input::Timer(Timer::Ask), ["ask in 2s; Ask(70)", "=", "=", "=", "=", "="]),
        (Input::Timer(Timer::Limit), ["", "=", "=", "=", "=", "="]),
        (Input::DrainTimeout(None), ["", "=", "=", "=", "=", "="]),
        (Input::LeaveTime(DRAIN), ["", "=", "=", "=", "=", "="]),
        (Input::GoingDown, ["", "=", "=", "=", "=", "="]),
        (Input::Timer(Timer::Kill(FIRST)), ["", "=", "=", "=", "=", "="]),
    ]
}

/// systemd is asked for the time of both, and for none without a limit of the drain.
#[test]
fn p6_a_stop_that_leaves_is_extended_by_what_the_service_allows_itself() {
    for (drain, limit) in [(Some(DRAIN), Some(DRAIN + HANDOFF)), (None, None)] {
        let stopped = progress(Stopping(FIRST));
        let serving = [Input::DrainTimeout(drain), progress(Serving(FIRST)), stopped];
        let mut notices = after(Some(WATCHED), serving);
        let _ = notices.on(Input::LeaveTime(HANDOFF));
        let out = notices.on(progress(Leaving(FIRST)));
        let armed = out.iter().find_map(|one| match one {
            Notice::Arm(Timer::Limit, after) => Some(*after),
            _ => None,
        });
        assert_eq!(armed, limit);
        // The drain that follows does not shorten it.
        let out = shown(&notices.on(progress(Draining(FIRST))));
        assert!(!out.contains("limit"), "{out}");
    }
}

#[test]
fn each_event_in_each_state() {
    for (event, wanted) in table() {
        let mut before = "";
        for ((name, mut notices), wanted) in states().into_iter().zip(wanted) {
            before = if wanted == "=" { before } else { wanted };
            let out = notices.on(event.clone());
            assert_eq!(shown(&out), before, "{name}: {event:?}");
        }
    }
}

#[test]
fn where_nobody_listens_only_readiness_is_told() {
    for (event, _) in table() {
        let mut notices = after(None, [progress(Reloading)]);
        let wanted: &[Notice] = match event {
            Input::Performing(Output::Progress(Serving(_))) => &[Notice::Readiness],
            _ => &[],
        };
        assert_eq!(notices.on(event), wanted);
        assert_eq!(notices.on(Input::Launched), []);
    }
}

#[test]
fn signs_of_life_begin_with_the_launch_if_there_is_a_watchdog() {
    let launched = |listener| shown(&Notices::new(listener, FIRST, LIMITS).on(Input::Launched));
    let said = "'starting: daemon 70' WATCHDOG";
    assert_eq!(launched(Some(WATCHED)), format!("{said}; ask in 0ns"));
    assert_eq!(launched(Some(Listener { watchdog: None })), said);
}

#[test]
fn a_daemon_is_asked_in_time_for_the_watchdog_and_for_the_next_extension() {
    let asks = |seconds: Option<u64>, waits: bool| {
        let listener = Listener { watchdog: seconds.map(Duration::from_secs) };
        let way = waits.then(|| progress(Draining(FIRST)));
        shown(&after(Some(listener), way).on(Input::Timer(Timer::Ask)))
    };
    assert_eq!(asks(Some(4), true), "ask in 2s; Ask(70)");
    assert_eq!(asks(Some(20), false), "ask in 10s; Ask(70)");
    assert_eq!(asks(Some(20), true), "ask in 3s; Ask(70)");
    assert_eq!(asks(None, true), "ask in 3s; Ask(70)");
    assert_eq!(asks(None, false), "Ask(70)");
}

/// What is left of an extension: of the next sign of life, and of the next question.
fn extends(notices: &mut Notices) -> (bool, bool) {
    let said = shown(&notices.on(alive(FIRST)));
    (said.contains("EXTEND"), shown(&notices.on(Input::Timer(Timer::Ask))).contains("3s"))
}

#[test]
fn a_stop_is_extended_up_to_the_limit_that_the_service_has() {
    let unwatched = Listener { watchdog: None };
    for wish in [progress(Stopping(FIRST)), progress(Draining(FIRST))] {
        let mut notices = after(Some(unwatched), [wish.clone()]);
        assert_eq!(extends(&mut notices), (true, true));
        let _ = notices.on(Input::Timer(Timer::Limit));
        assert_eq!(extends(&mut notices), (false, false));
        // What it says itself at its start counts.
        let mut notices = after(Some(unwatched), [Input::DrainTimeout(None)]);
        assert!(!shown(&notices.on(wish)).contains("EXTEND"));
        assert_eq!(extends(&mut notices), (false, false));
    }
}

#[test]
fn a_handoff_has_a_limit_of_its_own_and_a_stop_after_it_another_one() {
    let handoff = || Input::Performing(Output::Handoff(FIRST));
    let mut notices = after(Some(WATCHED), [Input::DrainTimeout(None), handoff()]);
    assert!(extends(&mut notices).0);
    let _ = notices.on(progress(Stopping(FIRST)));
    assert!(!extends(&mut notices).0, "without a limit of the drain there is no extension");
    let mut notices = after(Some(WATCHED), [handoff(), Input::Timer(Timer::Limit)]);
    assert!(!extends(&mut notices).0);
    let _ = notices.on(progress(Stopping(FIRST)));
    assert!(extends(&mut notices).0);
}

#[test]
fn a_system_that_goes_down_is_not_held_up() {
    let mut notices = after(Some(WATCHED), [Input::GoingDown]);
    assert!(!shown(&notices.on(progress(Stopping(FIRST)))).contains("EXTEND"));
    assert!(!extends(&mut notices).0);
    let mut notices = after(Some(WATCHED), [progress(Stopping(FIRST)), Input::GoingDown]);
    assert!(!extends(&mut notices).0);
}

#[test]
fn whoever_serves_is_asked() {
    let mut notices = after(Some(WATCHED), [progress(Serving(SECOND))]);
    assert_eq!(shown(&notices.on(Input::Timer(Timer::Ask))), "ask in 2s; Ask(71)");
    // The older one may still drain, but is not what the watchdog is about.
    assert_eq!(notices.on(alive(FIRST)), []);
    assert_eq!(shown(&notices.on(alive(SECOND))), "WATCHDOG");
}

#[test]
fn a_stop_stays_one_whatever_comes_after_it() {
    let mut notices = after(
        Some(WATCHED),
        [progress(Stopping(FIRST)), Input::Performing(Output::Handoff(FIRST))],
    );
    let draining = notices.on(progress(Draining(SECOND)));
    assert_eq!(shown(&draining), "'stopping: daemon 71 answers what is in flight'");
}

#[test]
fn a_refused_reload_counts_again_when_the_one_before_it_has_ended() {
    for end in [failed(), progress(Serving(SECOND))] {
        let way = [progress(Serving(FIRST)), progress(Reloading), end];
        let mut notices = after(Some(WATCHED), way);
        assert!(shown(&notices.on(refused())).starts_with("RELOADING"));
    }
}

#[test]
fn the_watchdogs_signal_is_followed_by_kill_once_after_2_s() {
    let mut notices = after(Some(WATCHED), [progress(Serving(FIRST))]);
    assert_eq!(shown(&notices.on(aborted(FIRST))), "kill 70 in 2s");
    assert_eq!(notices.on(aborted(FIRST)), [], "it puts off nothing");
    assert_eq!(notices.on(Input::Timer(Timer::Kill(FIRST))), [Notice::Kill(FIRST)]);
    assert_eq!(notices.on(Input::Timer(Timer::Kill(FIRST))), []);
    assert_eq!(shown(&notices.on(aborted(FIRST))), "kill 70 in 2s");
}

#[test]
fn only_abort_and_only_with_a_watchdog() {
    let mut notices = after(Some(WATCHED), [progress(Serving(FIRST))]);
    assert_eq!(notices.on(Input::Performing(Output::Forward(FIRST, 1))), []);
    let mut notices = after(Some(Listener { watchdog: None }), [progress(Serving(FIRST))]);
    assert_eq!(notices.on(aborted(FIRST)), []);
}

/// The successor of a daemon that the watchdog ended must not be KILLed in its place.
#[test]
fn the_kill_is_for_the_daemon_that_had_the_signal() {
    let way = || [progress(Serving(FIRST)), progress(Reloading), aborted(FIRST)];
    let mut notices = after(Some(WATCHED), way());
    let out = notices.on(ended(FIRST));
    assert_eq!(out.last(), Some(&Notice::Disarm(Timer::Kill(FIRST))));
    assert_eq!(notices.on(Input::Timer(Timer::Kill(FIRST))), []);

    let mut notices = after(Some(WATCHED), way());
    let _ = notices.on(progress(Serving(SECOND)));
    assert_eq!(notices.on(Input::Timer(Timer::Kill(FIRST))), [Notice::Kill(FIRST)]);
}

#[test]
fn without_a_launcher() {
    assert_eq!(shown(&[serves_alone()]), "READY 'serving'");
    assert_eq!(shown(&[drains_alone()]), "STOPPING 'stopping: what is in flight is answered'");
    assert_eq!(shown(&[extend()]), "EXTEND 10s");
}
