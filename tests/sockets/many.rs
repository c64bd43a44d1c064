//! Thousands of sockets, and what each process holds after many restarts.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
};

use seamless_testing::{boxed::Boxed, handover::targets, site::Site, wait_for};

use super::{LIMIT, TERM, next, origins, sockets};

// ---- many ----

#[test]
fn from_one_to_4000_sockets_in_one_takeover() {
    Boxed::new().private_net_without_migration().run(|folder| {
        for count in [1, 10, 100, 1000, 4000] {
            let place = folder.join(count.to_string());
            fs::create_dir(&place).expect("a folder");
            let direct = Site::alone(&place);
            let options = [&format!("--many={count}"), "--takeover-timeout=60s"];
            // The soft limit of open files is raised where it must be.
            let mut command = Command::new("sh");
            let probe = direct.command(&options);
            command
                .args(["-c", "ulimit -Sn 256; exec \"$0\" \"$@\""])
                .arg(probe.get_program())
                .args(probe.get_args())
                .envs(probe.get_envs().filter_map(|(key, value)| Some((key, value?))))
                .stdin(Stdio::null())
                .stderr(direct.log_end());
            let mut first = direct.spawn(&mut command);
            let old = first.wait_started();
            first.detach();
            command.stderr(direct.log_end());
            let second = direct.spawn(&mut command);
            let new = second.wait_started();
            old.wait_end(LIMIT);
            let line = direct.log.wait_words(&["stage=transfer", &format!(" sockets={count} ")], 1);
            println!("{line}");
            let origins = origins(&place, &new);
            assert_eq!(origins.len(), count);
            assert!(origins.iter().all(|one| one == "predecessor"));
            let number = |line: &str| {
                let address = line.split_once("address=127.0.0.1:").expect("an address").1;
                address.split(' ').next().expect("a port").parse::<u16>().expect("a port")
            };
            let ports = |pid: u32| -> Vec<u16> {
                let words = [format!("daemon={pid} "), "stage=socket".to_owned()];
                let log = direct.log.text();
                let lines = log.lines().filter(|line| words.iter().all(|word| line.contains(word)));
                lines.map(number).collect()
            };
            assert_eq!(ports(old.pid()), ports(new.pid()), "each the one of its name");
            new.signal(TERM);
            new.wait_end(LIMIT);
        }
    });
}

// ---- descriptors ----

/// Each kind of descriptor by itself, sockets without their numbers.
fn kinds(pid: u32) -> Vec<String> {
    let mut kinds: Vec<String> = targets(pid)
        .into_iter()
        .map(|target| match target.split_once(":[") {
            Some((kind, _)) => kind.to_owned(),
            None => Path::new(&target).file_name().expect("a name").to_string_lossy().into_owned(),
        })
        .collect();
    kinds.sort();
    kinds
}

fn sorted<'a>(kinds: impl Iterator<Item = &'a &'a str>) -> Vec<String> {
    let mut kinds: Vec<String> = kinds.map(|kind| (*kind).to_owned()).collect();
    kinds.sort();
    kinds
}

#[test]
fn each_process_holds_what_it_should_after_50_restarts() {
    Boxed::new().run(|folder| {
        let direct = Site::alone(folder);
        let options = [
            "--tcp=127.0.0.1:0".to_owned(),
            format!("--unix={}/unix", folder.display()),
            "--group=127.0.0.1:0,count=4,name=group".to_owned(),
            "--state=size:100".to_owned(),
            "--inherit".to_owned(),
        ];
        let options: Vec<&str> = options.iter().map(String::as_str).collect();
        let mut generation = direct.start_ready(&options);
        let bound = sockets(&direct, &generation.1);
        for _ in 0..50 {
            generation = next(&direct, generation, &options);
        }
        let (started, daemon) = generation;
        assert_eq!(sockets(&direct, &daemon), bound);
        assert_eq!(direct.report.named("started").len(), 51);
        // Its pidfds of the supervisor and the daemon, the channel, and two pairs that wake it at a
        // signal; and copies of the six sockets for a keeper.
        let standard = ["null", "output", "log"];
        let launcher = ["anon_inode"; 2].iter().chain(&["socket"; 5 + 6]).chain(&standard);
        let launcher = sorted(launcher);
        wait_for(format!("its launcher holds {launcher:?}"), LIMIT, || {
            (kinds(started.launcher.pid()) == launcher).then_some(())
        });
        // The supervisor's pidfd; the PID file and its lock; a socket each for the channel and the
        // takeover; a pair each to be woken by signals (the crate's and the probe's), by other
        // threads and for the takeover; the six sockets twice, in the program's hands and in the
        // crate's; a pair for each of the probe's six servers.
        let own = ["anon_inode", "web.pid", "web.pid.lock"];
        let sockets = ["socket"; 2 + 2 * 4 + 2 * 6 + 2 * 6];
        assert_eq!(kinds(daemon.pid()), sorted(own.iter().chain(&sockets).chain(&standard)));
    });
}
