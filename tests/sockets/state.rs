//! State that a generation hands to the next.

use std::{fs, time::Duration};

use seamless_testing::{
    boxed::Boxed,
    http::{self},
    process::Watched,
    site::Site,
};

use super::{next, sockets, tcp_of};

#[test]
fn state_is_handed_over() {
    Boxed::new().limit(Duration::from_secs(120)).run(|folder| {
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
    Boxed::new().limit(Duration::from_secs(120)).run(|folder| {
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
