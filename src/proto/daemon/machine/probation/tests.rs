use super::{CommitCall, Daemon, Probation};
use crate::proto::daemon::Event as E;
use crate::proto::daemon::Input as D;
use crate::proto::daemon::{
    CommitTried, NewFlows, Newer, Output, Phase, RollbackCause, Sender, TakenBack, Timer, Word,
};
use crate::proto::{DrainReason, Intent, Kind, Report, Scope, State};
use std::time::Duration;

const OURS: Output = Output::SteerFlows(NewFlows::Ours);

fn serving(in_place: bool) -> Daemon {
    let mut daemon = Daemon::new(Kind::DAEMONTOOLS, in_place);
    assert_eq!(daemon.started(1), Some(Report::Started));
    daemon
}

fn on_probation() -> Daemon {
    let mut daemon = serving(false);
    daemon.begins_probation();
    let arms = [Output::Arm(Timer::Probation), Output::Arm(Timer::Well)];
    assert_eq!(daemon.on(D::Probation(E::OnProbation)), arms);
    assert_eq!(daemon.state(), State::Serving);
    daemon
}

/// Detached, as a predecessor is that a supervisor's restart replaces.
fn standing_by() -> Daemon {
    let mut daemon = serving(false);
    let _ = daemon.on(D::Told(Intent::Restart));
    let _ = daemon.on(D::RequestHooksDone);
    let _ = daemon.on(D::LauncherGone);
    assert_eq!(daemon.phase(), Phase::Detached);
    let stands = [
        Output::StandBy(true),
        Output::Arm(Timer::Silence),
        Output::Arm(Timer::Dump),
        Output::RunStandbyHooks,
    ];
    assert_eq!(daemon.on(D::Probation(E::AskedToStandBy(2))), stands);
    assert_eq!(daemon.state(), State::Standby);
    daemon
}

/// It was told to end before it heard that the other one stands by. On a stop that one gets TERM as well: did it
/// serve again meanwhile, new flows would go there, while this one serves on for `leave_time`.
#[test]
fn p14_one_that_leaves_does_not_have_the_other_one_serve_again() {
    let told = |input| {
        let mut daemon = serving(false).leaves(true);
        _ = daemon.on(input);
        daemon.on(D::Probation(E::OnProbation))
    };
    assert_eq!(told(D::Told(Intent::Stop(Scope::Service))), [Output::HangUp]);
    let says = [Output::Say(Word::Leaving), Output::HangUp];
    assert_eq!(told(D::Term(Sender::Other)), says);
}

#[test]
fn p4_p11_the_record_comes_first_and_then_the_older_ones_are_told() {
    for input in
        [D::Timer(Timer::Probation), D::Probation(E::Commit), D::Probation(E::PartnerEnded)]
    {
        let mut daemon = on_probation();
        assert_eq!(daemon.on(input), [Output::Disarm(Timer::Probation), Output::TryCommit]);
        let again = |tried, timer| {
            let mut daemon = daemon.clone();
            assert_eq!(daemon.on(D::Probation(E::CommitTried(tried))), [Output::Arm(timer)]);
            assert_eq!(daemon.on(D::Timer(timer)).last(), Some(&Output::TryCommit));
        };
        again(CommitTried::ClaimHeld, Timer::CommitSoon);
        again(CommitTried::Failed, Timer::CommitLater);
        again(CommitTried::Replaced, Timer::CommitLater);
        let mut rolled_back = daemon.clone();
        let _ = rolled_back.on(D::Probation(E::CommitTried(CommitTried::RolledBack)));
        assert_eq!(rolled_back.phase(), Phase::Draining(DrainReason::RolledBack));
        let told = [
            OURS,
            Output::Say(Word::Committed),
            Output::Report(Report::Committed),
            Output::StopOlder,
            Output::HangUp,
        ];
        assert_eq!(daemon.on(D::Probation(E::CommitTried(CommitTried::Written))), told);
        assert!(!daemon.is_on_probation());
        assert_eq!(
            daemon.on(D::Probation(E::RollBack(RollbackCause::Operator))),
            [],
            "there is no way back"
        );
    }
}

/// The disk is full, or another generation starts and holds the claim: meanwhile it may turn out to be no good.
#[test]
fn p11_a_commit_that_is_not_written_yet_can_be_rolled_back() {
    for cause in [RollbackCause::Operator, RollbackCause::Unhealthy] {
        for (tried, timer) in
            [(CommitTried::ClaimHeld, Timer::CommitSoon), (CommitTried::Failed, Timer::CommitLater)]
        {
            let mut daemon = on_probation();
            let _ = daemon.on(D::Timer(Timer::Probation));
            let _ = daemon.on(D::Probation(E::CommitTried(tried)));
            let outputs = daemon.on(D::Probation(E::RollBack(cause)));
            assert!(outputs.contains(&Output::Disarm(timer)), "{outputs:?}");
            assert!(outputs.contains(&Output::RunRequestHooks), "{outputs:?}");
            let says = daemon.on(D::RequestHooksDone);
            assert!(says.contains(&Output::Arm(Timer::Resumed)), "{says:?}");
            let _ = daemon.on(D::Probation(E::Heard(Word::Resumed)));
            assert_eq!(daemon.phase(), Phase::Draining(DrainReason::RolledBack));
        }
    }
}

/// The record has to say so sooner or later: else the death of this generation would count as a failed probation.
#[test]
fn p11_a_proof_that_could_not_be_written_is_written_later() {
    let mut daemon = serving(false);
    daemon.proof_failed();
    assert_eq!(daemon.commit_call(), CommitCall::Waits);
    let tries = [Output::Disarm(Timer::Probation), Output::TryCommit];
    assert_eq!(daemon.on(D::Probation(E::Commit)), tries);
    let failed = D::Probation(E::CommitTried(CommitTried::Failed));
    assert_eq!(daemon.on(failed), [Output::Arm(Timer::CommitLater)]);
    assert_eq!(daemon.on(D::Timer(Timer::CommitLater)).last(), Some(&Output::TryCommit));
    let told = daemon.on(D::Probation(E::CommitTried(CommitTried::Written)));
    assert!(told.contains(&Output::Report(Report::Committed)), "{told:?}");
    assert_eq!(daemon.commit_call(), CommitCall::Returns);
    let mut ends = serving(false);
    let _ = ends.on(D::Told(Intent::Stop(Scope::Service)));
    ends.proof_failed();
    assert_eq!(ends.commit_call(), CommitCall::Returns, "it was told to end meanwhile");
}

#[test]
fn p1_p11_one_that_fails_drains_only_when_the_other_one_serves() {
    let mut daemon = on_probation();
    assert_eq!(
        daemon.on(D::Probation(E::RollBack(RollbackCause::Operator))).last(),
        Some(&Output::RunRequestHooks)
    );
    let resume = [Output::Say(Word::Resume), Output::Arm(Timer::Resumed)];
    assert_eq!(daemon.on(D::RequestHooksDone), resume);
    assert_eq!(daemon.phase(), Phase::Serving);
    for gone in [E::PartnerEnded, E::HungUp] {
        let mut daemon = daemon.clone();
        let out = daemon.on(D::Probation(gone));
        assert_eq!(out.last(), Some(&Output::TryCommit), "nobody else serves");
        assert!(out.contains(&Output::RunResumeHooks));
        assert_eq!(daemon.probation, Probation::Committing);
    }
    for _ in 0..3 {
        let again = [&[Output::LogNotResumed], &resume[..]].concat();
        assert_eq!(daemon.on(D::Timer(Timer::Resumed)), again, "it lives, and is slow");
    }
    let out = daemon.on(D::Probation(E::Heard(Word::Resumed)));
    assert_eq!(daemon.phase(), Phase::Draining(DrainReason::RolledBack));
    let reports = [Report::RolledBack, Report::Draining].map(Output::Report);
    assert!(reports.iter().all(|report| out.contains(report)), "{out:?}");
}

/// The one that stood by drains, or stands by for a third generation: nobody would serve instead.
#[test]
fn p1_p11_one_that_fails_serves_on_if_nobody_listens() {
    for cause in [RollbackCause::Operator, RollbackCause::Unhealthy] {
        for gone in [E::PartnerEnded, E::HungUp] {
            let mut daemon = on_probation();
            let _ = daemon.on(D::Probation(gone));
            let _ = daemon.on(D::Probation(E::RollBack(cause)));
            let out = daemon.on(D::RequestHooksDone);
            assert_eq!(out.last(), Some(&Output::TryCommit));
            assert!(out.contains(&Output::RunResumeHooks), "{out:?}");
        }
    }
    for ends in [D::Term(Sender::Other), D::Told(Intent::Stop(Scope::Service))] {
        let mut standby = standing_by();
        let out = standby.on(ends);
        assert!(out.contains(&Output::HangUp), "{out:?}");
        assert_eq!(standby.on(D::Probation(E::Heard(Word::Resume))), [], "it does not serve");
    }
}

/// Its supervisor is to see that it has failed, and not that all is done.
#[test]
fn p11_one_that_is_ended_as_its_probation_begins_has_failed() {
    for (ends, fails) in [
        (D::Term(Sender::Other), true),
        (D::Term(Sender::Successor), false),
        (D::Told(Intent::Stop(Scope::Service)), false),
        (D::Probation(E::Heard(Word::Resumed)), true),
    ] {
        let mut daemon = serving(false);
        daemon.begins_probation();
        let out = daemon.on(ends);
        assert_eq!(out.contains(&Output::Report(Report::RolledBack)), fails, "{out:?}");
        assert!(!out.contains(&Output::Say(Word::Leaving)), "nobody is known yet: {out:?}");
        let out = daemon.on(D::Probation(E::OnProbation));
        assert_eq!(out, [Output::Say(Word::Leaving), Output::HangUp]);
    }
}

/// What `on_resume` has taken back is released once more before the next successor starts. It comes from the
/// supervisor without a word, or as the next restart in place.
#[test]
fn p11_the_request_hooks_run_once_more_after_a_rollback() {
    let mut detached = standing_by();
    let out = detached.on(D::Probation(E::Newer(Newer::Nobody)));
    let hooks = |out: &[Output]| -> Vec<Output> {
        let is_hook =
            |one: &&Output| matches!(one, Output::RunResumeHooks | Output::RunRequestHooks);
        out.iter().filter(is_hook).cloned().collect()
    };
    assert_eq!(hooks(&out), [Output::RunResumeHooks, Output::RunRequestHooks]);
    let _ = detached.on(D::RequestHooksDone);
    assert_eq!(detached.phase(), Phase::Detached);

    let fails = D::Probation(E::Newer(Newer::Nobody));
    for order in [[fails.clone(), D::ReloadFailed], [D::ReloadFailed, fails]] {
        let mut in_place = serving(true);
        assert_eq!(hooks(&in_place.on(D::Prepare)), [Output::RunRequestHooks]);
        let _ = in_place.on(D::RequestHooksDone);
        let _ = in_place.on(D::Probation(E::AskedToStandBy(2)));
        let out = order.map(|input| in_place.on(input)).concat();
        assert_eq!(hooks(&out), [Output::RunResumeHooks], "once");
        assert_eq!(hooks(&in_place.on(D::Prepare)), [Output::RunRequestHooks]);
    }
}

/// The hook may want the lock that this generation hangs for.
#[test]
fn p11_a_rollback_waits_only_so_long_for_its_hooks() {
    for handing_off in [false, true] {
        let mut daemon = on_probation();
        if handing_off {
            let _ = daemon.on(D::Told(Intent::Restart));
        }
        let failed = daemon.on(D::Probation(E::RollBack(RollbackCause::Unhealthy)));
        assert!(failed.contains(&Output::Arm(Timer::RollBack)), "{failed:?}");
        let resume = [Output::LogHooksHang, Output::Say(Word::Unwell), Output::Arm(Timer::Resumed)];
        assert_eq!(daemon.on(D::Timer(Timer::RollBack)), resume);
        // The hooks return after all: it was said before.
        let mut returns = daemon.clone();
        let late = returns.on(D::RequestHooksDone);
        assert!(!late.iter().any(|one| matches!(one, Output::Say(_))), "{late:?}");
        for mut daemon in [daemon, returns] {
            let _ = daemon.on(D::Probation(E::Heard(Word::Resumed)));
            assert_eq!(daemon.phase(), Phase::Draining(DrainReason::RolledBack));
            let _ = daemon.on(D::RequestHooksDone);
            assert_eq!(daemon.phase(), Phase::Draining(DrainReason::RolledBack));
        }
    }
    // They have returned in time, and nobody else serves.
    let mut daemon = on_probation();
    let _ = daemon.on(D::Probation(E::RollBack(RollbackCause::Unhealthy)));
    let _ = daemon.on(D::RequestHooksDone);
    assert_eq!(daemon.on(D::Timer(Timer::RollBack)), []);
    let _ = daemon.on(D::Probation(E::PartnerEnded));
    assert_eq!(daemon.on(D::Timer(Timer::RollBack)), []);
    assert_eq!(daemon.probation, Probation::Committing);
}

#[test]
fn p11_the_standby_is_told_why() {
    for (cause, word) in
        [(RollbackCause::Unhealthy, Word::Unwell), (RollbackCause::Operator, Word::Resume)]
    {
        let mut daemon = on_probation();
        let _ = daemon.on(D::Probation(E::RollBack(cause)));
        assert_eq!(daemon.on(D::RequestHooksDone).first(), Some(&Output::Say(word)));
    }
}

#[test]
fn what_ends_a_generation_on_probation() {
    let says = |input: D, told: Option<Intent>| {
        let mut daemon = on_probation();
        daemon.intent = told;
        let out = daemon.on(input);
        assert!(matches!(daemon.phase(), Phase::Draining(_)), "{out:?}");
        out.contains(&Output::Say(Word::Leaving))
    };
    assert!(says(D::Term(Sender::Other), None), "by hand: the other one serves");
    assert!(!says(D::Term(Sender::Successor), None), "the other one stands by for a third one");
    let stop = Intent::Stop(Scope::Service);
    assert!(!says(D::Told(stop), None), "all end");
    // A restart: it goes on, detached, and so does the other one.
    let mut daemon = on_probation();
    let _ = daemon.on(D::Told(Intent::Restart));
    let out = daemon.on(D::RequestHooksDone);
    assert!(out.contains(&Output::Release) && daemon.is_on_probation());
}

#[test]
fn p11_the_standby_serves_at_once_and_takes_its_files_back_later() {
    for (input, answers, cause) in [
        (D::Probation(E::Heard(Word::Resume)), true, RollbackCause::Operator),
        (D::Probation(E::Heard(Word::Unwell)), true, RollbackCause::Unhealthy),
        (D::Probation(E::Heard(Word::Leaving)), false, RollbackCause::Told),
        (D::Probation(E::Newer(Newer::Nobody)), false, RollbackCause::Ended),
        (D::Probation(E::Newer(Newer::Unknown)), false, RollbackCause::Ended),
    ] {
        let mut daemon = standing_by();
        let out = daemon.on(input);
        assert_eq!(daemon.state(), State::Detached);
        assert_eq!(out.contains(&Output::Say(Word::Resumed)), answers);
        assert_eq!(out[0], OURS, "before the other one hears that we serve");
        let then = [Output::RunResumeHooks, Output::RunRequestHooks, Output::TakeBack(cause)];
        assert_eq!(out[out.len() - 3..], then);
        for again in [Word::Resume, Word::Unwell] {
            let asked = daemon.on(D::Probation(E::Heard(again)));
            assert_eq!(asked, [Output::Say(Word::Resumed)], "the answer was slow");
        }
        for (tried, again) in
            [(TakenBack::ClaimHeld, Timer::TakeBackSoon), (TakenBack::Failed, Timer::TakeBackLater)]
        {
            assert_eq!(daemon.on(D::Probation(E::TakenBack(tried))), [Output::Arm(again)]);
            assert_eq!(daemon.on(D::Timer(again)), [Output::TakeBack(cause)]);
        }
        assert_eq!(daemon.on(D::Probation(E::TakenBack(TakenBack::Done))), []);
    }
    let mut daemon = standing_by();
    assert_eq!(daemon.on(D::Probation(E::PartnerEnded)), [Output::LookForNewer]);
    assert_eq!(daemon.on(D::Probation(E::Newer(Newer::Watched))), []);
    assert_eq!(daemon.state(), State::Standby);
}

/// The other one hangs, so it cannot ask for it itself. It drains as soon as it hears of it.
#[test]
fn p11_an_operator_tells_the_standby_if_the_new_one_does_not_answer() {
    let told = D::Probation(E::RollBack(RollbackCause::Operator));
    for silent in [false, true] {
        let mut daemon = standing_by();
        if silent {
            let _ = daemon.on(D::Timer(Timer::Silence));
        }
        let out = daemon.on(told.clone());
        assert_eq!(daemon.state(), State::Detached);
        assert!(out.contains(&Output::Say(Word::Resumed)), "{out:?}");
        assert_eq!(out.last(), Some(&Output::TakeBack(RollbackCause::Operator)));
        assert_eq!(out.contains(&Output::RunResumeHooks), !silent);
        assert_eq!(daemon.on(told.clone()), [], "once");
    }
    for begun in [None, Some(D::Timer(Timer::Probation)), Some(told)] {
        let mut daemon = on_probation();
        if let Some(begun) = begun {
            let _ = daemon.on(begun);
        }
        let _ = daemon.on(D::Probation(E::Heard(Word::Resumed)));
        assert_eq!(daemon.phase(), Phase::Draining(DrainReason::RolledBack));
    }
}

/// It was asked in the probation of the one that stands by now.
#[test]
fn p11_a_check_that_fails_after_the_commit_says_nothing_of_the_next_generation() {
    let late = D::Probation(E::RollBack(RollbackCause::Unhealthy));
    let mut daemon = on_probation();
    for input in [E::Check { asked: true }, E::Commit, E::CommitTried(CommitTried::Written)] {
        let _ = daemon.on(D::Probation(input));
    }
    assert_eq!(daemon.on(late.clone()), []);
    let _ = daemon.on(D::Probation(E::AskedToStandBy(3)));
    assert_eq!(daemon.on(late), []);
    assert_eq!(daemon.state(), State::Standby);
}

/// The other one has served beside it, so nothing is proven.
#[test]
fn p11_a_pause_begins_the_probation_anew() {
    let mut daemon = on_probation();
    assert_eq!(daemon.on(D::Probation(E::WasSilent)), [Output::Arm(Timer::Probation)]);
    let _ = daemon.on(D::Timer(Timer::Probation));
    assert_eq!(daemon.on(D::Probation(E::WasSilent)), [], "it was passed before");
}

/// The program may hang just before its probation ends.
#[test]
fn p11_a_check_that_was_asked_decides() {
    let asked = D::Probation(E::Check { asked: true });
    let well = D::Probation(E::Check { asked: false });
    let commits = [Output::Disarm(Timer::Probation), Output::TryCommit];
    let mut daemon = on_probation();
    for input in [asked.clone(), well.clone(), asked.clone()] {
        assert_eq!(daemon.on(input), []);
    }
    assert_eq!(daemon.on(D::Timer(Timer::Probation)), []);
    let mut unhealthy = daemon.clone();
    let _ = unhealthy.on(D::Probation(E::RollBack(RollbackCause::Unhealthy)));
    assert!(unhealthy.wants_to_roll_back());
    for whoever_decides_at_once in [D::Probation(E::Commit), D::Probation(E::PartnerEnded)] {
        assert_eq!(daemon.clone().on(whoever_decides_at_once), commits);
    }
    let mut silent = daemon.clone();
    assert_eq!(silent.on(D::Probation(E::WasSilent)), [Output::Arm(Timer::Probation)]);
    assert_eq!(silent.on(well.clone()), [], "it begins anew");
    assert_eq!(silent.on(D::Timer(Timer::Probation)), commits);
    assert_eq!(daemon.on(well), commits);
}

#[test]
fn p11_one_that_hangs_is_helped_until_it_is_heard_again() {
    let mut daemon = standing_by();
    assert_eq!(daemon.on(D::Timer(Timer::Silence)), [OURS, Output::RunResumeHooks]);
    assert_eq!(daemon.state(), State::Detached);
    let stands = [
        Output::Arm(Timer::Silence),
        Output::Arm(Timer::Dump),
        Output::SteerFlows(NewFlows::Of(2)),
        Output::RunStandbyHooks,
    ];
    assert_eq!(daemon.on(D::Probation(E::Heard(Word::Well))), stands);
    assert_eq!(daemon.state(), State::Standby);
}

/// Of a generation on probation and the one that stands by, at most one writes programs.
#[test]
fn p14_who_has_told_another_one_to_serve_steers_no_flows() {
    let mut new = on_probation();
    let mut old = standing_by();
    assert!(new.steers() && !old.steers());
    assert!(old.may_steer(), "should it serve again");
    let _ = new.on(D::Probation(E::RollBack(RollbackCause::Operator)));
    assert!(new.steers(), "its hooks run");
    let out = new.on(D::RequestHooksDone);
    assert!(out.contains(&Output::Say(Word::Resume)) && !new.steers());
    let _ = old.on(D::Probation(E::Heard(Word::Resume)));
    assert!(old.steers());
    let mut alone = new.clone();
    let _ = alone.on(D::Probation(E::PartnerEnded));
    assert!(alone.steers(), "nobody else serves");
    let _ = new.on(D::Probation(E::Heard(Word::Resumed)));
    assert!(!new.steers() && !new.may_steer(), "it drains");
    let mut silent = standing_by();
    let _ = silent.on(D::Timer(Timer::Silence));
    assert!(silent.steers());
}

/// It could not look: the system is out of descriptors. A newer one that lives is starting, and holds the claim.
#[test]
fn p1_p4_who_cannot_see_whether_a_newer_one_lives_serves_and_may_be_asked_again() {
    let mut daemon = standing_by();
    let _ = daemon.on(D::Probation(E::PartnerEnded));
    let out = daemon.on(D::Probation(E::Newer(Newer::Unknown)));
    assert_eq!(daemon.state(), State::Detached, "or nobody might");
    assert_eq!(out.last(), Some(&Output::TakeBack(RollbackCause::Ended)));
    let held = daemon.on(D::Probation(E::TakenBack(TakenBack::ClaimHeld)));
    assert_eq!(held, [Output::Arm(Timer::TakeBackSoon)]);
    let _ = daemon.on(D::Probation(E::AskedToStandBy(3)));
    assert_eq!(daemon.state(), State::Standby);
    assert_eq!(daemon.on(D::Timer(Timer::TakeBackSoon)), [], "the files are the newer one's");
}

/// Nothing of a probation that is over, or that has failed, begins anew.
#[test]
fn p11_after_two_seconds_of_silence_a_probation_begins_anew() {
    let (short, long) = (Duration::from_millis(1_999), Duration::from_secs(2));
    let mut daemon = on_probation();
    assert!(!daemon.begins_anew(short) && daemon.begins_anew(long));
    assert!(!standing_by().begins_anew(long));
    let mut failed = daemon.clone();
    let _ = failed.on(D::Probation(E::RollBack(RollbackCause::Operator)));
    let _ = daemon.on(D::Timer(Timer::Probation));
    assert!(!failed.begins_anew(long) && !daemon.begins_anew(long));
}

#[test]
fn p12_one_that_stands_by_or_stops_does_not_give_its_sockets_again() {
    let (proven, new, old) = (serving(false), on_probation(), standing_by());
    assert_eq!([&proven, &new, &old].map(Daemon::gives_again), [true, true, false]);
    let mut detached = old;
    let _ = detached.on(D::Probation(E::Heard(Word::Leaving)));
    assert_eq!((detached.state(), detached.gives_again()), (State::Detached, true));
    let mut stopped = proven;
    let _ = stopped.on(D::Told(Intent::Stop(Scope::Service)));
    assert!(!stopped.gives_again());
}

#[test]
fn who_may_end_a_probation() {
    let may = |daemon: Daemon| [false, true].map(|rolls_back| daemon.may_end_probation(rolls_back));
    assert_eq!(may(on_probation()), [true, true]);
    assert_eq!(may(standing_by()), [false, true], "the new one may hang");
    assert_eq!(may(serving(false)), [false, false]);
}

/// The kernel tells of its end only when the dump is written.
#[test]
fn p11_one_that_writes_a_core_dump_is_dead() {
    let mut daemon = standing_by();
    assert_eq!(daemon.on(D::Timer(Timer::Dump)), [Output::LookForDump]);
    let out = daemon.on(D::Probation(E::Dumps));
    assert_eq!(daemon.state(), State::Detached);
    assert_eq!(out.last(), Some(&Output::TakeBack(RollbackCause::Ended)));
    assert_eq!(daemon.on(D::Probation(E::PartnerEnded)), [], "told for the second time");
    assert_eq!(daemon.on(D::Timer(Timer::Dump)), []);
    // One that is helped already is not parked.
    let mut helped = standing_by();
    let _ = helped.on(D::Timer(Timer::Silence));
    assert!(!helped.on(D::Probation(E::Dumps)).contains(&Output::RunResumeHooks));
}

#[test]
fn p4_there_is_one_standby_and_it_is_proven() {
    let mut daemon = on_probation();
    assert_eq!(daemon.on(D::Probation(E::AskedToStandBy(3))), [Output::StandBy(false)]);
    let mut daemon = standing_by();
    let stands = [Output::StandBy(true), Output::Arm(Timer::Silence), Output::Arm(Timer::Dump)];
    assert_eq!(daemon.on(D::Probation(E::AskedToStandBy(3))), stands, "for a third one");
    let _ = daemon.on(D::Term(Sender::Successor));
    assert_eq!(daemon.phase(), Phase::Draining(DrainReason::TakenOver));
    assert_eq!(daemon.on(D::Probation(E::AskedToStandBy(4))), [Output::StandBy(false)]);
    assert_eq!(daemon.on(D::Probation(E::PartnerEnded)), []);
}

#[test]
fn p4_what_was_committed_is_not_replaced_by_an_older_one() {
    let mut daemon = standing_by();
    let _ = daemon.on(D::Probation(E::Heard(Word::Committed)));
    assert_eq!(daemon.phase(), Phase::Draining(DrainReason::TakenOver));
    for late in [E::Heard(Word::Leaving), E::PartnerEnded, E::Newer(Newer::Nobody)] {
        assert_eq!(daemon.on(D::Probation(late)), []);
    }
}

#[test]
fn without_a_probation_nothing_of_it_happens() {
    let mut daemon = serving(false);
    for input in [
        D::Probation(E::Commit),
        D::Probation(E::RollBack(RollbackCause::Operator)),
        D::Probation(E::PartnerEnded),
        D::Timer(Timer::Probation),
        D::Timer(Timer::Well),
        D::Timer(Timer::Silence),
        D::Timer(Timer::RollBack),
        D::Timer(Timer::Resumed),
        D::Timer(Timer::Dump),
        D::Probation(E::Dumps),
        D::Probation(E::Heard(Word::Resumed)),
        D::Probation(E::Heard(Word::Leaving)),
        D::Probation(E::Heard(Word::Well)),
        D::Probation(E::Heard(Word::Committed)),
        D::Probation(E::CommitTried(CommitTried::Written)),
        D::Probation(E::WasSilent),
        D::Probation(E::Candidates { wait: false }),
    ] {
        let before = daemon.clone();
        assert_eq!(daemon.on(input.clone()), [], "{input:?}");
        assert_eq!(daemon, before);
    }
}

/// It has removed the PID file, or written its own one, and no record knows it.
#[test]
fn p4_p11_rs_seamless_takes_over_from_both() {
    const FROM: i32 = 70;
    let sender =
        |named, listed, daemon: &Daemon| Sender::of(FROM, named, daemon, || listed, || false);
    let mut detached = on_probation();
    let _ = detached.on(D::Told(Intent::Restart));
    let _ = detached.on(D::RequestHooksDone);
    let _ = detached.on(D::LauncherGone);
    assert_eq!(detached.phase(), Phase::Detached);
    let (attached, proven) = (on_probation(), serving(false));
    for (named, listed, seen) in [
        (Some(FROM), false, [Sender::Unlisted, Sender::Unlisted, Sender::Successor]),
        (Some(FROM), true, [Sender::Successor; 3]),
        // Beside its launcher a daemon does not put its file back.
        (None, false, [Sender::Unlisted, Sender::Other, Sender::Other]),
        (None, true, [Sender::Other; 3]),
        (Some(71), false, [Sender::Other; 3]),
    ] {
        let seen_by = [&detached, &attached, &proven].map(|daemon| sender(named, listed, daemon));
        assert_eq!(seen_by, seen, "{named:?}, {listed}");
    }
    for mut daemon in [detached, attached] {
        let outputs = daemon.on(D::Term(Sender::Unlisted));
        assert_eq!(daemon.phase(), Phase::Draining(DrainReason::TakenOver));
        assert!(outputs.contains(&Output::StopOlder), "{outputs:?}");
        assert!(!outputs.contains(&Output::Say(Word::Leaving)), "{outputs:?}");
    }
}

/// Its connections would not move, if it took that for the end of the service.
#[test]
fn p13_a_successor_s_term_is_known_when_the_next_one_has_come() {
    for (named, succeeded, sender) in [
        (Some(7), false, Sender::Successor),
        (Some(8), true, Sender::Successor),
        (None, true, Sender::Successor),
        (Some(8), false, Sender::Other),
        (None, false, Sender::Other),
    ] {
        let seen = Sender::of(7, named, &serving(false), || false, || succeeded);
        assert_eq!(seen, sender, "{named:?}, {succeeded}");
    }
    let starting = Daemon::new(Kind::DAEMONTOOLS, false);
    let waits = || panic!("it does not wait for the record");
    assert_eq!(Sender::of(7, Some(8), &starting, || false, waits), Sender::Other);
}

/// The one that stands by takes silence for death.
#[test]
fn p11_one_on_probation_goes_on_saying_that_it_is_well() {
    let well = [Output::Say(Word::Well), Output::Arm(Timer::Well)];
    assert_eq!(on_probation().on(D::Timer(Timer::Well)), well);
}

/// A drain that has begun is not undone, and the files are the successor's.
#[test]
fn p4_one_that_drains_takes_no_files_back() {
    let mut daemon = standing_by();
    let _ = daemon.on(D::Probation(E::PartnerEnded));
    let _ = daemon.on(D::Probation(E::Newer(Newer::Nobody)));
    for again in [Timer::TakeBackSoon, Timer::TakeBackLater] {
        assert_eq!(daemon.on(D::Timer(again)), [Output::TakeBack(RollbackCause::Ended)]);
    }
    let mut asked = daemon.clone();
    let _ = asked.on(D::Probation(E::AskedToStandBy(3)));
    let _ = daemon.on(D::Term(Sender::Successor));
    for mut daemon in [asked, daemon] {
        for (tried, again) in
            [(TakenBack::ClaimHeld, Timer::TakeBackSoon), (TakenBack::Failed, Timer::TakeBackLater)]
        {
            assert_eq!(daemon.on(D::Timer(again)), [], "{:?}", daemon.phase());
            assert_eq!(daemon.on(D::Probation(E::TakenBack(tried))), []);
        }
    }
}

/// It may have connections that last for hours. Whoever tells this one to end does not wait for them.
#[test]
fn p6_one_that_has_committed_awaits_its_predecessor_only_if_the_service_stops() {
    let committed = || {
        let mut daemon = on_probation();
        for input in [
            D::Probation(E::Commit),
            D::Probation(E::CommitTried(CommitTried::Written)),
            D::OlderTold { awaited: true, again: false },
        ] {
            let _ = daemon.on(input);
        }
        daemon
    };
    let stop = || D::Told(Intent::Stop(Scope::Service));
    for (input, reason) in [
        (D::Term(Sender::Successor), DrainReason::TakenOver),
        (D::Term(Sender::Other), DrainReason::Requested),
        (D::Told(Intent::Stop(Scope::Generation)), DrainReason::Stopped),
    ] {
        let mut daemon = committed();
        let _ = daemon.on(input);
        assert_eq!(daemon.clone().on(D::DrainHooksDone), [Output::Finish(reason)]);
        // The service is to be down after all.
        let _ = daemon.on(stop());
        let _ = daemon.on(D::DrainHooksDone);
        assert_eq!(daemon.phase(), Phase::AwaitingOlder(reason));
        assert_eq!(daemon.on(D::OlderGone).last(), Some(&Output::Finish(reason)));
    }
    let mut daemon = committed();
    let _ = daemon.on(stop());
    let waits = [Output::Disarm(Timer::Drain), Output::Report(Report::Waiting)];
    assert_eq!(daemon.on(D::DrainHooksDone), waits);
}

#[test]
fn p11_a_commit_that_never_comes_is_not_a_success() {
    let stop = D::Told(Intent::Stop(Scope::Service));
    let tried = |tried| D::Probation(E::CommitTried(tried));
    let resumed = D::Probation(E::Heard(Word::Resumed));
    for input in [
        tried(CommitTried::RolledBack),
        resumed.clone(),
        D::Term(Sender::Other),
        D::Term(Sender::Successor),
        stop,
    ] {
        for leaves in [false, true] {
            let mut daemon = on_probation().leaves(leaves);
            let _ = daemon.on(D::Probation(E::Commit));
            let _ = daemon.on(tried(CommitTried::ClaimHeld));
            assert_eq!(daemon.commit_call(), CommitCall::Waits);
            let _ = daemon.on(input.clone());
            assert_eq!(daemon.commit_call(), CommitCall::Fails, "{input:?}");
            assert!(!daemon.is_on_probation());
        }
    }
    let mut failed = on_probation();
    let _ = failed.on(D::Probation(E::RollBack(RollbackCause::Unhealthy)));
    assert_eq!(failed.commit_call(), CommitCall::Waits, "nobody may serve in its place");
    let _ = failed.on(D::RequestHooksDone);
    let _ = failed.on(resumed);
    assert_eq!(failed.commit_call(), CommitCall::Fails);
    // What was passed, or never tried, stays so.
    let mut passed = on_probation();
    let _ = passed.on(D::Probation(E::Commit));
    let _ = passed.on(tried(CommitTried::Written));
    for mut daemon in [passed, serving(false)] {
        assert_eq!(daemon.commit_call(), CommitCall::Returns);
        let _ = daemon.on(D::Term(Sender::Successor));
        assert_eq!(daemon.commit_call(), CommitCall::Returns);
    }
}

/// `started` has returned, and the thread that takes signals is behind.
#[test]
fn p11_a_probation_that_begins_can_be_passed_already() {
    let begins = || {
        let mut daemon = serving(false);
        daemon.begins_probation();
        daemon
    };
    let mut daemon = begins();
    assert_eq!(daemon.commit_call(), CommitCall::Waits);
    assert!(daemon.may_end_probation(false), "an operator may as well");
    let _ = daemon.on(D::Probation(E::OnProbation));
    assert_eq!(daemon.on(D::Probation(E::Commit)).last(), Some(&Output::TryCommit));
    // It is told to end in between: the other one hears of it when the lifeline is there.
    let mut told = begins();
    let out = told.on(D::Term(Sender::Other));
    assert!(!out.contains(&Output::Say(Word::Leaving)), "{out:?}");
    assert_eq!(told.commit_call(), CommitCall::Fails);
    let says = [Output::Say(Word::Leaving), Output::HangUp];
    assert_eq!(told.on(D::Probation(E::OnProbation)), says);
    // Or before.
    let mut told = serving(false);
    let _ = told.on(D::Term(Sender::Other));
    told.begins_probation();
    assert_eq!(told.on(D::Probation(E::OnProbation)), says);
    assert_eq!(told.commit_call(), CommitCall::Fails);
}
