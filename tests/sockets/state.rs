//! State that a generation hands to the next.

use std::fs;

use seamless_testing::{
    boxed::{self, Boxed},
    handover::End,
    http,
    process::Watched,
    site::Site,
    wait_for,
};

use super::{LIMIT, next, sockets, tcp_of};

#[test]
fn state_is_handed_over() {
    Boxed::new().run(|folder| {
        let direct = Site::alone(folder);
        let inherited = |daemon: &Watched| direct.report.wait_of(daemon.pid(), "inherited").text;
        let mut old = direct.start_ready(&["--state=text:first words", "--inherit"]);
        assert_eq!(inherited(&old.1), "None none");
        for (number, (state, expected)) in [
            ("text:", "11 first words"),
            ("size:1", "0 as made"),
            ("size:67108864", "1 as made"),
            ("text:last", "67108864 as made"),
        ]
        .into_iter()
        .enumerate()
        {
            let state = format!("--state={state}");
            let options = [&state, "--inherit", "--takeover-timeout=60s"];
            old = next(&direct, old, &options);
            assert_eq!(inherited(&old.1), format!("Some({}) {expected}", number + 1));
        }
        // It is handed out once; and one that gives none hands over none.
        let old = next(&direct, old, &["--inherit", "--at=after-init=call:inherited"]);
        let twice = direct.report.named("inherited").into_iter();
        let twice = twice.filter(|event| event.pid == old.1.pid()).map(|event| event.text);
        assert_eq!(twice.collect::<Vec<_>>(), ["Some(5) 4 last", "Some(5) none"]);
        let old = next(&direct, old, &["--inherit"]);
        assert_eq!(inherited(&old.1), "Some(6) none");
    });
}

#[test]
fn state_that_cannot_be_handed_over_is_an_error_and_harms_nobody() {
    Boxed::new().run(|folder| {
        for (at, (state, why)) in [
            ("size:67108865", "hand_over gave 67108865 bytes, and 67108864 are the limit"),
            ("panic", "hand_over panicked"),
            ("hang", "hand_over takes longer than 300ms (takeover_timeout)"),
        ]
        .into_iter()
        .enumerate()
        {
            let place = folder.join(at.to_string());
            fs::create_dir(&place).expect("a folder");
            let direct = Site::alone(&place);
            let timeout = if state == "hang" { "300ms" } else { "60s" };
            let options = [
                "--tcp=127.0.0.1:0".to_owned(),
                format!("--state={state}"),
                format!("--takeover-timeout={timeout}"),
                "--successor-timeout=none".to_owned(),
            ];
            let mut options: Vec<&str> = options.iter().map(String::as_str).collect();
            let (mut started, old) = direct.start_ready(&options);
            started.detach();
            options[2] = "--takeover-timeout=60s";
            let error = direct.start(&options).wait_error().text;
            let path = direct.socket();
            let text = format!(
                "socket: cannot take over at {path:?} (takeover): process {}: it refuses: {why}",
                old.pid()
            );
            assert_eq!(error, text);
            direct.log.wait_words(&["stage=transfer", &format!("error=\"{why}\"")], 1);
            assert_eq!(http::pid(&tcp_of(&sockets(&direct, &old)[0])), old.pid());
            if state == "hang" {
                let error = direct.start(&options).wait_error().text;
                assert!(error.ends_with("it refuses: hand_over still runs"), "{error}");
            }
            assert!(!old.has_ended());
        }
    });
}

/// What the probe of this PID has got of named states.
fn named(direct: &Site, daemon: &Watched) -> Vec<String> {
    let events = direct.report.named("named").into_iter();
    events.filter(|event| event.pid == daemon.pid()).map(|event| event.text).collect()
}

#[test]
fn several_states_have_names_and_versions() {
    boxed::run(|folder| {
        let direct = Site::alone(folder);
        let old = direct.start_ready(&[
            "--at=after-init=inherited:cache",
            "--state=text:unnamed",
            "--hand-over=cache=3:first",
            "--hand-over=sessions=0:many",
            "--hand-over=cache=4:the last call counts",
            "--hand-over=empty=9:",
            "--hand-over=nobody asks=1:x",
        ]);
        assert_eq!(named(&direct, &old.1), ["cache none"]);
        let new = next(
            &direct,
            old,
            &[
                "--inherit",
                "--at=after-init=inherited:cache",
                "--at=after-init=inherited:cache",
                "--at=after-init=inherited:sessions",
                "--at=after-init=inherited:empty",
                "--at=after-init=inherited:other",
                "--at=started=inherited:nobody asks",
                "--hand-over=cache=5:of the second",
            ],
        );
        assert_eq!(direct.report.wait_of(new.1.pid(), "inherited").text, "Some(1) 7 unnamed");
        wait_for("all calls", LIMIT, || (named(&direct, &new.1).len() == 6).then_some(()));
        assert_eq!(
            named(&direct, &new.1),
            [
                "cache 4 the last call counts",
                "cache none",
                "sessions 0 many",
                "empty 9 ",
                "other none",
                "nobody asks none"
            ]
        );
        direct.log.wait_words(&["stage=transfer", "state=7", "states=4", "descriptors=0"], 2);
        direct.log.wait_words(&["stage=transfer", "name=\"nobody asks\"", "version=1"], 1);
        let third = next(&direct, new, &["--inherit", "--at=after-init=inherited:cache"]);
        assert_eq!(direct.report.wait_of(third.1.pid(), "inherited").text, "Some(2) none");
        assert_eq!(named(&direct, &third.1), ["cache 5 of the second"]);
    });
}

#[test]
fn a_name_of_a_state_that_cannot_be_used_is_an_error() {
    boxed::run(|folder| {
        let direct = Site::alone(folder);
        let long = "x".repeat(256);
        for (name, why) in [
            (&*long, "a name has at most 255 bytes"),
            ("seamless/tickets", "names that begin with \"seamless/\" belong to the crate"),
        ] {
            let error = direct.start(&[&format!("--hand-over={name}=0:x")]).wait_error().text;
            assert_eq!(error, format!("init: cannot hand over {name:?} (hand_over): {why}"));
        }
    });
}

/// A successor of an earlier version of the crate does not say what it understands: it gets what that version
/// knew, and nothing that it would refuse.
#[test]
fn an_earlier_version_gets_what_it_understands() {
    boxed::run(|folder| {
        let direct = Site::alone(folder);
        let path = folder.join("messages");
        let (mut started, old) = direct.start_ready(&[
            "--tcp=127.0.0.1:0",
            &format!("--unix-seqpacket={}", path.display()),
            &format!("--at=after-init=keep:{}", folder.join("file").display()),
            "--state=text:state",
            "--hand-over=cache=1:x",
            "--successor-timeout=none",
        ]);
        started.detach();
        direct.wait_checks(old.pid(), 1);
        let say = |end: &End, text: &str| end.send(&format!("seamless-takeover 1 {text}"));
        let end = End::connect(&direct.socket());
        say(&end, "take generation=2");
        assert_eq!(end.text(), "seamless-takeover 1 offer generation=1 sockets=1 state=5");
        let end = End::connect(&direct.socket());
        say(&end, "take generation=2 kinds=tcp,unix-seqpacket,descriptor,state,pigeon");
        assert_eq!(end.text(), "seamless-takeover 1 offer generation=1 sockets=3 state=5 states=1");
    });
}

/// While a state is made, sealed and sent, the daemon answers as it always does.
#[test]
fn a_large_state_holds_up_nobody() {
    Boxed::new().run(|folder| {
        let direct = Site::alone(folder);
        let go = folder.join("go");
        let state = format!("--state=file:{}", go.display());
        let patient = "--takeover-timeout=60s"; // each side has its own
        let (mut started, daemon) = direct.start_ready(&["--tcp=127.0.0.1:0", patient, &state]);
        let address = tcp_of(&sockets(&direct, &daemon)[0]);
        started.detach();
        let next = direct.start(&["--tcp=127.0.0.1:0", "--inherit", patient]);
        let begun = go.with_file_name("begun");
        wait_for("the state is being made", LIMIT, || begun.exists().then_some(()));
        for _ in 0..50 {
            assert_eq!(http::pid(&address), daemon.pid());
        }
        assert!(direct.report.named("inherited").is_empty());
        fs::write(&go, "").expect("a file");
        let mut answers = 0;
        while direct.report.named("inherited").is_empty() {
            if http::pid(&address) != daemon.pid() {
                direct.report.wait("inherited"); // since the last look
                break;
            }
            answers += 1;
        }
        println!("{answers} answers while it was sealed and sent");
        next.wait_started();
        daemon.wait_end(LIMIT);
    });
}
