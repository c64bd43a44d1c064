//! The Go original as predecessor and as successor, and a PID file like its.

use std::{
    fs,
    process::{Child, ChildStdin, Command, Stdio},
    thread,
};

use seamless_testing::{
    LIMIT,
    boxed::{self},
    innocent::Innocent,
    process::{Watched, stop_without_claim},
    signal::CONT,
    site::Site,
};

/// Plays a daemon of rs/seamless: its PID file has no newline and no lock. It notes the signals that
/// it gets, and ends by its own timer, which is the end of its standard input.
struct Original {
    child: Child,
    timer: Option<ChildStdin>,
}

impl Original {
    /// `start` is what it does when it is ready.
    fn start(direct: &Site, start: &str) -> Self {
        let script = format!(
            r#"pid_file=$1 report=$2
            for signal in TERM INT USR2 HUP CONT; do
                trap "echo $$ signal $signal >>'$report'" "$signal"
            done
            {start}
            echo "$$ original" >>"$report"
            until read -r; [ $? -le 128 ]; do :; done"#
        );
        let mut child = Command::new("bash")
            .args(["-c", &script, "original"])
            .args([direct.pid_file().as_path(), direct.report.path()])
            .stdin(Stdio::piped())
            .spawn()
            .expect("bash");
        let timer = child.stdin.take();
        let original = Original { child, timer };
        direct.report.wait_of(original.pid(), "original");
        original
    }

    /// Reads the PID file, removes it, sends TERM to the PID, and writes its own PID.
    fn take_over(direct: &Site, before_term: &str) -> Self {
        let start = format!(
            r#"old=$(<"$pid_file"); rm "$pid_file"
            {before_term}
            kill -TERM "$old"; printf %s $$ >"$pid_file""#
        );
        Self::start(direct, &start)
    }

    fn pid(&self) -> u32 {
        self.child.id()
    }

    fn fire_timer(mut self) {
        self.timer = None;
        assert!(self.child.wait().expect("its end").code().is_some());
    }
}

/// It knows of no probation, so nobody could stand by.
#[test]
fn p11_after_the_go_original_a_new_generation_is_proven_at_once() {
    boxed::run(|folder| {
        let direct = Site::alone(folder);
        let original = Original::start(&direct, r#"printf %s $$ >"$pid_file""#);
        let (_started, daemon) = direct.start_ready(&["--probation=10m"]);
        let record = fs::read_to_string(direct.lock_file()).expect("the record");
        assert!(record.contains(" state=serving"), "{record}");
        assert!(!record.contains(" state=probation"), "{record}");
        original.fire_timer();
        assert_eq!(direct.named(), Some(daemon.pid()));
    });
}

/// Nobody has asked the proven one to stand by for it, so both drain.
#[test]
fn p4_p11_the_go_original_takes_over_from_a_generation_on_probation() {
    let write = r#"printf %s $$ >"$pid_file""#;
    let later = format!(r#"until [ -e "$pid_file.go" ]; do sleep 0.05; done; {write}"#);
    boxed::run(|folder| {
        // The shell empties a file before it writes: a check at that moment would put the file back.
        for (name, before, after) in [("removed", "", &*later), ("named", write, "")] {
            println!("{name}");
            let direct = Site::alone(&folder.join(name));
            fs::create_dir_all(direct.folder()).expect("a folder");
            let (mut started, first) = direct.start_ready(&["--successor-timeout=none"]);
            started.detach();
            let window = ["--probation=10m", "--successor-timeout=none"];
            let (mut started, second) = direct.start_ready(&window);
            direct.log.wait(&[("stage", "standby"), ("daemon", &first.pid().to_string())]);
            started.detach();
            direct.wait_checks(second.pid(), 1);
            // So that the file is as it is when the TERM is read.
            stop_without_claim(&first);
            stop_without_claim(&second);
            let start = format!(
                r#"old=$(<"$pid_file"); rm "$pid_file"; {before}
                kill -TERM "$old"; echo "$$ sent" >>"$report"; {after}"#
            );
            let original = thread::scope(|scope| {
                let original = scope.spawn(|| Original::start(&direct, &start));
                direct.report.wait("sent");
                second.signal(CONT);
                direct
                    .log
                    .wait(&[("stage", "takeover"), ("predecessor", &first.pid().to_string())]);
                first.signal(CONT);
                assert_eq!(direct.report.wait_of(second.pid(), "wait").text, "TakenOver");
                first.wait_end(LIMIT);
                second.wait_end(LIMIT);
                fs::write(direct.pid_file().with_extension("pid.go"), "").expect("a file");
                original.join().expect("no panic")
            });
            assert_eq!(direct.named(), Some(original.pid()));
            let pid = original.pid();
            original.fire_timer();
            assert_eq!(direct.report.names_of(pid), ["sent", "original"], "no signal");
        }
    });
}

#[test]
fn p5_the_go_original_as_predecessor_is_not_signalled() {
    boxed::run(|folder| {
        let direct = Site::alone(folder);
        let original = Original::start(&direct, r#"printf %s $$ >"$pid_file""#);
        assert_eq!(direct.named(), Some(original.pid()));
        let (_started, daemon) = direct.start_ready(&[]);
        assert_eq!(direct.named(), Some(daemon.pid()));
        assert!(!Watched::new(original.pid()).has_ended());
        let pid = original.pid();
        original.fire_timer();
        assert_eq!(direct.report.names_of(pid), ["original"], "no signal");
        assert!(!daemon.has_ended());
    });
}

#[test]
fn the_go_original_takes_over_and_is_taken_over() {
    boxed::run(|folder| {
        let direct = Site::alone(folder);
        let (mut first, old) = direct.start_ready(&["--successor-timeout=none"]);
        first.detach();
        direct.wait_checks(old.pid(), 1);
        let original = Original::take_over(&direct, "");
        let reason = direct.report.wait_of(old.pid(), "wait").text;
        // Whether the file names the sender yet when its TERM is read, is a race of its own.
        assert!(["TakenOver", "Requested"].contains(&reason.as_str()), "{reason}");
        old.wait_end(LIMIT);
        assert_eq!(direct.named(), Some(original.pid()));

        let (_second, new) = direct.start_ready(&[]);
        assert_eq!(direct.named(), Some(new.pid()));
        let pid = original.pid();
        original.fire_timer();
        assert_eq!(direct.report.names_of(pid), ["original"], "no signal");
        assert!(!new.has_ended());
    });
}

/// Slow between the removal of the PID file and its TERM: the detached daemon puts its own file back
/// meanwhile, and gives way all the same.
#[test]
fn the_go_original_takes_over_slowly() {
    boxed::run(|folder| {
        let direct = Site::alone(folder);
        let (mut first, old) = direct.start_ready(&["--successor-timeout=none"]);
        first.detach();
        direct.wait_checks(old.pid(), 1);
        let wait = r#"until [ -s "$pid_file" ]; do sleep 0.05; done"#;
        let original = Original::take_over(&direct, wait);
        direct.report.wait_of(old.pid(), "wait");
        old.wait_end(LIMIT);
        assert_eq!(direct.named(), Some(original.pid()));
        direct.log.wait_words(&["ours is back"], 1);
        original.fire_timer();
    });
}

/// It writes its PID and is slow to send its TERM: a stranger that lives is believed for one look.
#[test]
fn a_living_stranger_in_the_pid_file_is_believed_for_one_look() {
    boxed::run(|folder| {
        let direct = Site::alone(folder);
        let (mut first, old) = direct.start_ready(&["--successor-timeout=none"]);
        first.detach();
        direct.wait_checks(old.pid(), 1);
        let innocent = Innocent::start();
        let looks = |log: &str| log.lines().filter(|line| line.contains("finding=")).count();
        let before = looks(&direct.log.text());
        // At once: of an empty file it would make something else.
        let new = folder.join("new");
        fs::write(&new, innocent.pid().to_string()).expect("a file");
        fs::rename(new, direct.pid_file()).expect("the PID file");
        let line = direct.log.wait_words(&["ours is back"], 1);
        assert!(line.contains(&format!("daemon={} ", old.pid())), "{line}");
        assert_eq!(direct.named(), Some(old.pid()));
        innocent.assert_unharmed();
        // The look before that one saw the stranger, and left the file alone.
        let log = direct.log.text();
        let back = log.find("ours is back").expect("just seen");
        assert!(looks(&log[..back]) > before, "{log}");
        assert!(!old.has_ended());
    });
}
