//! Where the output of `seamless` goes: to a full disk, or to a reader that has gone away.

use std::{
    fs::{self, File},
    io::{BufRead, BufReader},
    process::{Command, Stdio},
};

use seamless_testing::{
    LIMIT, bin,
    boxed::{self, Boxed},
    site::{SERVES_ON, Site},
    wait_for,
};

use super::{Said, run, seamless};

/// A script that installs what was printed must not take a part for the whole.
#[test]
fn output_that_is_lost_is_an_error() {
    boxed::run(|folder| {
        let direct = Site::alone(folder);
        let (_started, _daemon) = direct.start_ready(&[SERVES_ON]);
        let pid_file = direct.pid_file();
        let pid_file = pid_file.to_str().expect("a path");
        let onto_full = |arguments: &[&str]| -> Said {
            let full = File::options().write(true).open("/dev/full").expect("/dev/full");
            let seamless = bin::support("seamless");
            let output = Command::new(seamless).args(arguments).stdout(full).output();
            let output = output.expect("seamless");
            let err = String::from_utf8(output.stderr).expect("UTF-8");
            Said { code: output.status.code().expect("a code"), out: String::new(), err }
        };
        for arguments in [
            &["--help"][..],
            &["--man"],
            &["status", pid_file, "--prometheus"],
            &["status", pid_file, "--json"],
            &["list", folder.to_str().expect("a path")],
            &["watch", pid_file],
        ] {
            onto_full(arguments).assert(1, &["cannot write the output: No space left"]);
        }
    });
}

/// As in `seamless watch web.pid | head -1`.
#[test]
fn watch_ends_with_its_reader() {
    Boxed::new().run(|folder| {
        let direct = Site::alone(folder);
        let (_started, _daemon) = direct.start_ready(&[SERVES_ON]);
        let mut watch = Command::new(bin::support("seamless"));
        watch.arg("watch").arg(direct.pid_file()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut watch = watch.spawn().expect("seamless");
        let mut line = String::new();
        let mut out = BufReader::new(watch.stdout.take().expect("its output"));
        out.read_line(&mut line).expect("a line");
        assert!(line.ends_with("serving\n"), "{line}");
        drop(out);
        wait_for("its end", LIMIT, || watch.try_wait().expect("a child"));
        let output = watch.wait_with_output().expect("its end");
        assert_eq!((output.status.code(), output.stderr), (Some(5), Vec::new()));
        // A command that is through says how it went, whoever reads.
        let mut status = Command::new("sh");
        status.args(["-c", "{ \"$0\" --man; echo $? >&2; } | true"]).arg(bin::support("seamless"));
        assert_eq!(run(&mut status).err.trim(), "0");
    });
}

/// Whoever may write to a folder chooses names in it, and somebody else looks at these at a terminal.
#[test]
fn names_of_files_move_no_cursor() {
    boxed::run(|folder| {
        let folder = folder.join("a\x1b[2Jb\u{9b}2J");
        fs::create_dir(&folder).expect("a folder");
        let direct = Site::alone(&folder);
        let (_started, daemon) = direct.start_ready(&[]);
        for running in [true, false] {
            if !running {
                daemon.kill();
                daemon.wait_end(LIMIT);
            }
            let verbs = ["status", "list", "check", "commit", "restart", "stop"];
            for verb in if running { &verbs[..4] } else { &verbs[..] } {
                let of = if *verb == "list" { folder.clone() } else { direct.pid_file() };
                let said = seamless(verb, &of, &[]);
                let text = said.out + &said.err;
                assert!(!text.contains(['\x1b', '\u{9b}']), "{verb}: {text:?}");
                assert!(text.contains("a [2Jb") || running, "{verb}: {text:?}");
            }
        }
    });
}
