//! systemd's descriptor store: sockets that outlive every process of the service.

use std::{fs, os::unix::fs::MetadataExt, path::Path};

use seamless_testing::{
    bin,
    clients::Program,
    http::{self, FailureKind, Prober, Target},
    process::{self, Watched},
    signal::USR1,
    supervisor::write_script,
    wait_for,
};

use super::{LIMIT, Web, run};

/// Where the sockets of these generations were found, in order.
fn origins(web: &Web<'_>, daemon: u32) -> Vec<String> {
    let daemon = format!("daemon={daemon} ");
    let log = web.log.text();
    let lines = log.lines().filter(|line| line.contains("stage=socket") && line.contains(&daemon));
    lines.filter_map(|line| Some(line.split_once(" from=")?.1.to_owned())).collect()
}

#[test]
fn sockets_outlive_a_crash_of_everything() {
    run(|systemd, folder| {
        let web = Web::new(systemd, folder, "web");
        let path = web.folder.join("web.sock");
        let unix = Target::from(path.as_path());
        let more = format!(
            "--group=127.0.0.1:9000,count=3 --udp=127.0.0.1:9001 --unix={}",
            path.display()
        );
        web.deploy("FileDescriptorStoreMax=6", &more);
        web.control(&["start"]);
        let first = web.started(1);
        wait_for("six sockets in the store", LIMIT, || {
            (web.show("NFileDescriptorStore") == "6").then_some(())
        });
        web.wait_looked(first);
        let sockets = |pid| {
            let mut open = process::descriptors(pid);
            open.retain(|(_, what)| what.to_string_lossy().starts_with("socket:"));
            open.into_iter().map(|(_, what)| what).collect::<Vec<_>>()
        };
        let held = sockets(first);

        // A restart: the predecessor hands over the same sockets, and the store stays as it is.
        let second = web.restart_unseen(first);
        web.wait_looked(second);
        assert_eq!(origins(&web, second), ["predecessor"; 6]);
        assert_eq!(web.show("NFileDescriptorStore"), "6");
        Watched::new(first).wait_end(LIMIT);

        // Nobody is left, and nobody is refused.
        let prober = Prober::start(&web.target);
        prober.wait_pid(second);
        web.control(&["kill", "--signal=KILL"]);
        let third = web.started(3);
        prober.wait_pid(third);
        web.wait_looked(third);
        assert_eq!(origins(&web, third), ["store"; 6]);
        let shared = sockets(third).into_iter().filter(|one| held.contains(one)).count();
        assert!(shared >= 6, "{shared} of {held:?}");
        let probes = prober.stop();
        let refused = |kind| kind != FailureKind::Reset && kind != FailureKind::Closed;
        assert!(!probes.failures.iter().any(|probe| refused(probe.failure.kind)), "{probes:?}");
        assert!(probes.failures.len() <= 1, "but for the one in flight: {probes:?}");
        assert_eq!(http::pid(&unix), third);
        for _ in 0..20 {
            let group = Target::from(std::net::SocketAddr::from(([127, 0, 0, 1], 9000)));
            assert_eq!(http::pid(&group), third, "a member that nobody accepts from");
        }
        assert_eq!(web.show("NFileDescriptorStore"), "6");

        // What is not asked for any more leaves the store, and so do members of a group.
        web.deploy("FileDescriptorStoreMax=6", "--group=127.0.0.1:9000,count=2");
        web.control(&["restart"]);
        let fourth = web.started(4);
        web.wait_looked(fourth);
        wait_for("three sockets in the store", LIMIT, || {
            (web.show("NFileDescriptorStore") == "3").then_some(())
        });
        Watched::new(third).wait_end(LIMIT);
        web.control(&["kill", "--signal=KILL"]);
        let fifth = web.started(5);
        web.wait_looked(fifth);
        assert_eq!(origins(&web, fifth), ["store"; 3]);
        for _ in 0..20 {
            let group = Target::from(std::net::SocketAddr::from(([127, 0, 0, 1], 9000)));
            assert_eq!(http::pid(&group), fifth);
        }
        web.control(&["stop"]);
        assert_eq!(web.show("NFileDescriptorStore"), "0");
        web.wait_nothing_left();
    });
}

/// If the generation on probation fails, the sockets that its predecessor serves are there, and no others.
#[test]
fn p11_p12_the_store_is_the_predecessors_until_the_commit() {
    run(|systemd, folder| {
        let web = Web::new(systemd, folder, "web");
        let path = web.folder.join("web.sock");
        let store = "FileDescriptorStoreMax=6";
        web.deploy(store, &format!("--unix={}", path.display()));
        web.control(&["start"]);
        web.started(1);
        let count = || web.show("NFileDescriptorStore");
        wait_for("both in the store", LIMIT, || (count() == "2").then_some(()));

        web.deploy(store, &format!("--probation=1h --on={USR1}=call:commit"));
        web.control(&["restart"]);
        let second = web.started(2);
        wait_for("it has looked at its unit", LIMIT, || {
            let tasks = fs::read_dir(format!("/proc/{second}/task")).expect("it lives");
            let name = |task: &fs::DirEntry| fs::read_to_string(task.path().join("comm"));
            let mut names = tasks.flatten().filter_map(|task| name(&task).ok());
            (!names.any(|name| name.starts_with("seamless-system"))).then_some(())
        });
        assert_eq!(count(), "2");
        process::signal(second, USR1);
        assert_eq!(web.report.wait_of(second, "called").text, "commit ok");
        wait_for("what it serves in the store", LIMIT, || (count() == "1").then_some(()));
        web.control(&["stop"]);
        web.wait_nothing_left();
    });
}

/// What the probe of this PID reports under this name.
fn told(folder: &Path, daemon: u32, name: &str) -> Vec<String> {
    let report = fs::read_to_string(folder.join("report")).unwrap_or_default();
    let begin = format!("{daemon} {name} ");
    report.lines().filter_map(|line| Some(line.strip_prefix(&begin)?.to_owned())).collect()
}

#[test]
fn counters_and_kept_files_outlive_a_crash_of_everything() {
    run(|systemd, folder| {
        let web = Web::new(systemd, folder, "web");
        let file = web.folder.join("kept");
        let options = format!(
            "--at=after-init=take:{file} --at=after-init=keep-crash:{file} \
             --at=after-init=count:requests --at=started=keep-crash:{late} \
             --at=after-init=keep:{not}",
            file = file.display(),
            late = web.folder.join("late").display(),
            not = web.folder.join("not").display(),
        );
        web.deploy("FileDescriptorStoreMax=8", &options);
        web.control(&["start"]);
        let first = web.started(1);
        web.wait_looked(first);
        // The socket, the memory of the counters, and two files; not the third one.
        web.wait_show("NFileDescriptorStore", "4");
        assert_eq!(told(&web.folder, first, "took"), [format!("{} none", file.display())]);
        let inode = fs::metadata(&file).expect("the file").ino();
        let second = web.restart_unseen(first);
        web.wait_looked(second);
        Watched::new(first).wait_end(LIMIT);
        web.wait_show("NFileDescriptorStore", "4");
        web.control(&["kill", "--signal=KILL"]);
        let third = web.started(3);
        web.wait_looked(third);
        assert_eq!(told(&web.folder, third, "took"), [format!("{} {inode}", file.display())]);
        assert_eq!(told(&web.folder, third, "counted"), ["requests 3"]);
        web.wait_show("NFileDescriptorStore", "4");
        web.control(&["stop"]);
        assert_eq!(web.show("NFileDescriptorStore"), "0");
    });
}

/// A generation that was started in place knows nothing of the store; what its predecessor has put there
/// and it does not ask for goes all the same.
#[test]
fn the_store_follows_a_restart_in_place() {
    run(|systemd, folder| {
        let web = Web::new(systemd, folder, "web");
        let program = Program::new(web.folder.join("program"), &bin::probe());
        let common = format!(
            "--pid-file={folder}/web.pid --report={folder}/report --tcp={} --reload-signal=1",
            web.target,
            folder = web.folder.display()
        );
        let start = format!("{} {common} --udp=127.0.0.1:9001", program.path().display());
        web.write(&format!("FileDescriptorStoreMax=3\nExecStart=\nExecStart={start}"), "");
        web.control(&["start"]);
        let first = web.started(1);
        web.wait_show("NFileDescriptorStore", "2");
        web.wait_looked(first);
        let later = format!(
            "exec '{}' {common} --tcp=127.0.0.1:9002 --tcp=127.0.0.1:9003",
            bin::probe().display()
        );
        write_script(program.path(), &later);
        process::signal(web.launcher(), 1);
        let second = web.started(2);
        web.wait_looked(second);
        assert_eq!(
            origins(&web, second),
            ["predecessor", "bound", "bound", "predecessor closed=\"not asked for\""]
        );
        // There would be no room for the last one if the first had stayed.
        web.wait_show("NFileDescriptorStore", "3");
        let last = [web.launcher(), second].map(Watched::new);
        web.control(&["kill", "--signal=KILL"]);
        last.iter().for_each(|one| one.wait_end(LIMIT));
        let third = web.started(3);
        web.wait_looked(third);
        assert_eq!(origins(&web, third), ["store"; 3]);
        assert_eq!(http::pid(&web.target), third);
        web.wait_show("NFileDescriptorStore", "3");
    });
}

/// Only the daemon is killed. systemd has its sockets, or the launcher starts a keeper.
#[test]
fn p12_a_crash_of_the_daemon_with_and_without_room_in_the_store() {
    run(|systemd, folder| {
        for (name, settings, from) in
            [("kept", "", "predecessor"), ("stored", "FileDescriptorStoreMax=1", "store")]
        {
            println!("{name}");
            let web = Web::new(systemd, folder, name);
            web.deploy(settings, "");
            web.control(&["start"]);
            let first = web.started(1);
            web.wait_looked(first);
            Watched::new(first).kill();
            let second = web.started(2);
            web.wait_looked(second);
            assert_eq!(origins(&web, second), [from]);
            assert_eq!(http::pid(&web.target), second);
            web.control(&["stop"]);
            web.wait_nothing_left();
        }
    });
}

/// What the program keeps while it serves is stored as well, up to the last place. Beyond that the log warns.
#[test]
fn the_store_is_filled_up_to_its_limit() {
    run(|systemd, folder| {
        let web = Web::new(systemd, folder, "web");
        let keep = |name| format!("keep-crash:{}", web.folder.join(name).display());
        web.deploy(
            "FileDescriptorStoreMax=2",
            &format!("--on=10={} --on=14={}", keep("one"), keep("another")),
        );
        web.control(&["start"]);
        let first = web.started(1);
        web.wait_looked(first);
        web.wait_show("NFileDescriptorStore", "1");
        process::signal(first, 10);
        web.wait_show("NFileDescriptorStore", "2");
        web.log.wait_words(&["stage=systemd", "stored=1", "kept=1"], 1);
        let too_small = ["WARN", "stage=systemd", "FileDescriptorStoreMax=2"];
        assert!(web.log.with(&too_small).is_empty(), "there is room for two");
        process::signal(first, 14);
        web.log.wait_words(&[&too_small[..], &["sockets=3"]].concat(), 1);
        assert_eq!(web.show("NFileDescriptorStore"), "2");
        web.control(&["stop"]);
    });
}
