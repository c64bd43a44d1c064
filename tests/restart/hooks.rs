//! Hooks around the stages, and for signals.

use seamless_testing::{
    LIMIT,
    boxed::{self, Boxed},
    http::{Connection, Target, answer_of},
    log::Log,
    process::Watched,
    signal::{TERM, USR1, USR2},
};

use crate::http::Web;

const HUP: i32 = 1;

/// The hooks that have run in this daemon, and what it has logged of its stages beside them.
fn order(log: &Log, daemon: u32, stages: &[&str]) -> Vec<String> {
    let daemon = daemon.to_string();
    let lines = log.lines().into_iter().filter(|line| line.is(&[("daemon", &daemon)]));
    let named = lines.filter_map(|line| match line.field("stage")? {
        "hook" => line.field("name").map(str::to_owned),
        stage => stages.contains(&stage).then(|| stage.to_owned()),
    });
    named.collect()
}

#[test]
fn p7_hooks_run_around_every_stage_and_at_every_signal() {
    Boxed::new().private_net().run(|folder| {
        let hooks = format!("--hooks={HUP},{USR1},{TERM}");
        let target = Target::from(boxed::address());
        let mut web = Web::start(folder, format!("--listen={target} {hooks}"));
        let first = web.daemon.to_string();
        let log = web.log();
        let said = |name: &str| log.wait(&[("name", name), ("daemon", &first)]);
        let launcher = Watched::new(web.launcher.id());
        for count in 1..=2 {
            launcher.signal(HUP);
            said(&format!("signal-{HUP}-{count}"));
        }
        launcher.signal(USR1);
        said(&format!("signal-{USR1}-1"));
        // While it is in flight, the process stays: nobody waits for the hook of its TERM.
        let request = Connection::unfinished(&target);
        request.wait_accepted(web.daemon);
        let old = web.restart();
        said(&format!("signal-{TERM}-1"));
        assert!(request.finish().ends_with(&answer_of(old.pid())));
        old.wait_end(LIMIT);
        let ran = order(&web.log(), old.pid(), &["prepare", "detached", "drain"]);
        let (around, ran): (Vec<_>, Vec<_>) =
            ran.iter().map(String::as_str).partition(|name| name.contains("-signal-"));
        let wanted = ["before-signal-12", "after-signal-12", "before-signal-15", "after-signal-15"];
        assert_eq!(around, wanted, "{}", web.log());
        for (signal, stage) in [(USR2, "prepare"), (TERM, "drain")] {
            let names =
                [format!("before-signal-{signal}"), stage.into(), format!("after-signal-{signal}")];
            let all = order(&web.log(), old.pid(), &[stage]);
            let at = names.map(|name| all.iter().position(|one| *one == name).expect("it ran"));
            assert!(at.is_sorted(), "{at:?} {all:?}");
        }
        let (signals, stages): (Vec<_>, Vec<_>) = ran
            .into_iter()
            .filter(|name| *name != "prepare")
            .partition(|name| name.starts_with("signal-"));
        assert_eq!(
            signals,
            ["signal-1-1", "signal-1-2", "signal-10-1", "signal-15-1"],
            "{}",
            web.log()
        );
        assert_eq!(
            stages,
            [
                "before-Takeover",
                "after-Takeover",
                "before-Handoff",
                "after-Handoff",
                "detached",
                "drain",
                "before-Drain",
                "after-Drain",
            ],
            "{}",
            web.log()
        );
        // Whoever starts later is in the middle of it.
        let newest = web.daemon.to_string();
        web.log().wait(&[("name", "after-Takeover"), ("daemon", &newest)]);
        let new = order(&web.log(), web.daemon, &["claim", "started"]);
        assert_eq!(new, ["claim", "before-Takeover", "started", "after-Takeover"]);
        assert!(web.log().to_string().contains("hook=before panic=\"on purpose\""));
    });
}

/// A stop and the hammer wait for no hook for long.
#[test]
fn p7_a_hook_that_hangs_holds_its_signal_up_for_a_second() {
    Boxed::new().private_net().run(|folder| {
        let target = Target::from(boxed::address());
        let hang = format!("--hang-before={TERM} --hang-before={USR2}");
        let mut web = Web::start(folder, format!("--listen={target} {hang}"));
        let request = Connection::unfinished(&target);
        request.wait_accepted(web.daemon);
        let daemon = Watched::new(web.daemon);
        let number = daemon.pid().to_string();
        let went_on = |signal: i32| {
            let signal = signal.to_string();
            let fields = [("hook", "before_signal"), ("signal", &*signal), ("daemon", &*number)];
            web.log().wait(&fields);
        };
        daemon.signal(TERM);
        went_on(TERM);
        web.log().wait(&[("stage", "drain"), ("daemon", &number), ("cause", "TERM")]);
        assert!(!daemon.has_ended(), "a request is in flight");
        daemon.signal(USR2);
        went_on(USR2);
        web.log().wait(&[("stage", "hammer"), ("daemon", &number), ("reason", "USR2")]);
        assert_eq!(web.launcher.wait().expect("its end").code(), Some(124));
        drop(request);
    });
}
