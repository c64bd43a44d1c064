//! P12: after a crash of an attached daemon, connections wait for the next start: a keeper holds the
//! sockets. Whoever the service's processes are is told by the record and by `/proc`.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use seamless_testing::{
    LIMIT, as_each_user,
    boxed::Boxed,
    handover::{End, status},
    hold::Hold,
    http::{Connection, FailureKind, Prober, Target, answer_of, get},
    log::Log,
    process::{self, Watched, private_dirty},
    signal::{CONT, KILL, TERM, USR1},
    site::{SERVES_ON, Site, User},
    supervisor::Supervisor,
    under_each_supervisor, wait_for,
};

use crate::launcher::start::targets;

under_each_supervisor![
    Boxed::new().private_net() =>
    p12_a_crash_refuses_nobody,
    p12_a_crash_while_a_predecessor_drains,
    p12_a_crash_during_the_takeover_leaves_the_keeper,
    p12_the_keeper_is_small_and_ends_with_the_service,
    p12_when_the_time_is_over_connections_are_refused,
    p12_a_keeper_that_is_killed_is_in_nobodys_way,
    p12_a_keeper_is_found_after_a_start_that_was_killed_half_way,
    p12_a_slow_keeper_is_waited_for,
    p12_more_sockets_than_one_message_takes_wait_in_the_keeper,
    p12_a_keeper_writes_its_log_nowhere_else,
    p12_the_time_of_a_row_of_crashes_goes_on_through_a_restart,
    the_launcher_closes_its_copies_when_its_daemon_drains,
    p12_a_keeper_ends_when_it_is_told_and_puts_its_socket_back_until_then,
    p12_a_transfer_is_not_cut_when_the_time_is_over,
    p10_p12_peers_of_a_keeper_that_hang_or_err,
    counters_and_kept_files_wait_in_the_keeper,
];

#[test]
fn p12_under_s6() {
    Boxed::new().private_net().run(|folder| p12_a_crash_refuses_nobody(Supervisor::S6, folder));
}

#[test]
fn p12_down_under_s6() {
    Boxed::new().private_net().run(|folder| {
        p12_the_keeper_is_small_and_ends_with_the_service(Supervisor::S6, folder);
    });
}

/// A daemon that exits with 1 on USR1.
const EXITS: &str = "--on=10=exit:1";
const ABRT: i32 = 6;

/// The keeper, as the record names it.
fn keeper(site: &Site) -> Option<u32> {
    let record = fs::read_to_string(site.lock_file()).ok()?;
    let line = record.lines().find(|line| line.contains(" state=keeping"))?;
    let (_, identity) = line.split_once(" daemon=")?;
    let pid = identity.split(':').next()?.parse().ok()?;
    process::stat(pid).filter(|stat| stat.state != 'Z').map(|_| pid)
}

#[track_caller]
fn wait_keeper(site: &Site) -> Watched {
    Watched::new(wait_for(format_args!("a keeper\n{site}"), LIMIT, || keeper(site)))
}

/// From now on, what the supervisor starts runs and is not the service.
fn deploy_nothing(site: &Site) {
    site.deploy("exec sleep 1000");
}

/// Once that runs, and not the script that was there before or comes now.
#[track_caller]
fn end_nothing(site: &Site, options: &str) {
    let nothing = wait_for("nothing runs", LIMIT, || {
        let main = site.service().status().pid?;
        (process::command_line(main).first()? == "sleep").then(|| Watched::new(main))
    });
    site.deploy_options(options);
    nothing.kill();
}

/// KILL, ABRT and an exit, under a launcher with one thread and with several, one after the other.
fn p12_a_crash_refuses_nobody(kind: Supervisor, folder: &Path) {
    let options = format!("{SERVES_ON} {EXITS}");
    let threads = format!("{options} --threads-before-init=2");
    let site = Site::at(folder).shared_socket().options(&options).under(kind);
    let prober = Prober::start(&site.target);
    let mut served = vec![site.started(1)];
    prober.wait_pid(served[0]);
    for (signal, options) in
        [(KILL, &options), (ABRT, &threads), (USR1, &threads), (KILL, &options)]
    {
        let crashes = Watched::new(*served.last().expect("the first"));
        site.deploy_options(options);
        crashes.signal(signal);
        crashes.wait_end(LIMIT);
        let next = site.started(served.len() + 1);
        prober.wait_pid(next);
        served.push(next);
    }
    let probes = prober.stop();
    assert_eq!(probes.pids(), served);
    let failed = probes.failures_by_kind();
    let refused = failed.get(&FailureKind::Refused);
    assert_eq!(refused, None, "{failed:?}\n{site}");
    // No more is cut than each crash can cut: the prober asks one after the other.
    assert!(failed.values().sum::<usize>() <= 4, "{failed:?}\n{site}");
    site.assert_one_generation(*served.last().expect("the last"));
    site.stop();
}

/// A keeper that the machine leaves no time needs more than a second until it is in place. The launcher holds the
/// sockets until then.
fn p12_a_slow_keeper_is_waited_for(kind: Supervisor, folder: &Path) {
    let site = Site::at(folder).shared_socket().options(SERVES_ON).under(kind);
    let first = site.daemon(1);
    let its_own_socket = Hold::at(site.service().main_pid(), &["bind"], 1, None, folder);
    first.kill();
    its_own_socket.wait();
    let waits = Connection::unfinished(&site.target);
    thread::sleep(Duration::from_millis(1500));
    drop(its_own_socket);
    let second = site.started(2);
    assert!(waits.finish().ends_with(&answer_of(second)), "{site}");
    let sockets = site.log.stage("socket");
    let from: Vec<_> = sockets.iter().filter_map(|line| line.field("from")).collect();
    assert_eq!(from, ["bound", "predecessor"], "{site}");
    site.assert_one_generation(second);
    site.stop();
}

/// What the probes report under this name, by all generations.
fn told(site: &Site, name: &str) -> Vec<String> {
    site.report.named(name).into_iter().map(|event| event.text).collect()
}

fn counters_and_kept_files_wait_in_the_keeper(kind: Supervisor, folder: &Path) {
    use std::os::unix::fs::MetadataExt;
    let (kept, late) = (folder.join("kept"), folder.join("late"));
    let (kept, late) = (kept.display(), late.display());
    let first = format!(
        "{SERVES_ON} --at=after-init=keep-crash:{kept} --at=after-init=count:requests \
         --at=started=keep-crash:{late} --at=started=keep:{folder}/not",
        folder = folder.display()
    );
    let site = Site::at(folder).shared_socket().options(&first).under(kind);
    let crashes = Watched::new(site.started(1));
    site.report.wait_nth("kept", 3);
    // The launcher has copies, and nothing of what is not to outlive a crash.
    let launcher = site.service().main_pid();
    wait_for("copies", LIMIT, || {
        let held: Vec<String> = process::descriptors(launcher)
            .iter()
            .map(|(_, target)| target.display().to_string())
            .collect();
        let count = |name: &str| held.iter().filter(|target| target.contains(name)).count();
        let counts = ["/kept", "/late", "/memfd:seamless-counters", "/not"].map(count);
        (counts == [1, 1, 1, 0]).then_some(())
    });
    deploy_nothing(&site);
    crashes.kill();
    let keeper = wait_keeper(&site);
    let counters = crate::command::counters_of(&site.pid_file());
    assert_eq!(counters, serde_json::json!({"requests": 1}));
    let seen = status(&site.socket());
    assert!(seen.contains(" sockets=1 "), "what else it keeps is no socket: {seen}");
    let inodes = [&kept, &late].map(|path| fs::metadata(path.to_string()).expect("a file").ino());
    let options = format!(
        "{SERVES_ON} --at=after-init=take:{kept} --at=after-init=take:{late} \
         --at=after-init=take:{folder}/not --at=after-init=count:requests",
        folder = folder.display()
    );
    end_nothing(&site, &options);
    site.started(2);
    keeper.wait_end(LIMIT);
    assert_eq!(
        told(&site, "took"),
        [
            format!("{kept} {}", inodes[0]),
            format!("{late} {}", inodes[1]),
            format!("{}/not none", folder.display())
        ]
    );
    assert_eq!(told(&site, "counted"), ["requests 1", "requests 2"]);
    site.stop();
}

/// A message takes 252.
fn p12_more_sockets_than_one_message_takes_wait_in_the_keeper(kind: Supervisor, folder: &Path) {
    // A keeper has no output.
    let own = folder.join("own");
    fs::create_dir(&own).expect("a folder");
    let options = format!("{SERVES_ON} --many=300 --log-file={}/log --keep-log", own.display());
    let site = Site::at(folder).no_socket().options(&options).under(kind);
    let first = site.daemon(1);
    let listeners = || {
        let mut all = process::listeners(None);
        all.sort();
        all
    };
    let before = listeners();
    assert_eq!(before.len(), 300);
    first.kill();
    let second = site.started(2);
    let given = [("stage", "keep"), ("successor_generation", "2"), ("sockets", "300")];
    Log::of(&own).wait(&given);
    wait_for(format_args!("it holds them all\n{site}"), LIMIT, || {
        let held = process::descriptors(second);
        let holds = |one: &std::path::PathBuf| held.iter().any(|(_, target)| target == one);
        before.iter().all(holds).then_some(())
    });
    assert_eq!(listeners(), before, "none was bound anew");
    site.stop();
}

/// The logger has a file of its own, opened before `init`, which the keeper closes. The numbers of its descriptors are
/// used again: for the record, among others.
fn p12_a_keeper_writes_its_log_nowhere_else(kind: Supervisor, folder: &Path) {
    let own = folder.join("own");
    fs::create_dir(&own).expect("a folder");
    let options = format!("{SERVES_ON} --log-file={}/log", own.display());
    let site = Site::at(folder).shared_socket().options(&options).under(kind);
    let first = site.daemon(1);
    deploy_nothing(&site);
    first.kill();
    let keeper = wait_keeper(&site);
    let waits = Connection::unfinished(&site.target);
    let record = fs::read_to_string(site.lock_file()).expect("the record");
    assert!(record.starts_with("seamless-record ") && record.ends_with("\nend\n"), "{record}");
    end_nothing(&site, &options);
    let second = site.started(2);
    assert!(waits.finish().ends_with(&answer_of(second)));
    keeper.wait_end(LIMIT);
    site.stop();
}

/// When the generation of this number has crashed, or serves after a crash: the first crash of its row, as the record
/// says. A generation that serves has its own time behind it.
fn first_crash(site: &Site, generation: u64) -> Option<String> {
    let record = fs::read_to_string(site.lock_file()).ok()?;
    let its = format!("generation={generation} ");
    let line = record.lines().find(|line| line.starts_with(&its))?;
    let (_, row) = line.split_once(" crashes=")?;
    row.split([' ', ':']).next().map(str::to_owned)
}

/// Another generation drains all the time: its line comes first in the record.
fn p12_the_time_of_a_row_of_crashes_goes_on_through_a_restart(kind: Supervisor, folder: &Path) {
    let site = Site::at(folder).shared_socket().options(SERVES_ON).under(kind);
    let first = site.started(1);
    let slow = Connection::unfinished(&site.target);
    slow.wait_accepted(first);
    site.service().settle();
    site.service().restart();
    let second = site.daemon(2);
    site.wait_drain(first);
    site.service().settle();
    deploy_nothing(&site);
    second.kill();
    let keeper = wait_keeper(&site);
    let row = first_crash(&site, 2).expect("the time of the first crash");
    let began = Instant::now();
    end_nothing(&site, SERVES_ON);
    let third = site.started(3);
    keeper.wait_end(LIMIT);
    assert_eq!(first_crash(&site, 3).as_ref(), Some(&row), "{site}");
    let fourth = Watched::new(site.restart(third, SERVES_ON));
    let carried = first_crash(&site, 4);
    site.service().settle();
    deploy_nothing(&site);
    fourth.kill();
    wait_keeper(&site);
    let again = first_crash(&site, 4);
    // A generation that has served for so long ends the row.
    if began.elapsed() < Duration::from_secs(10) {
        assert_eq!((carried.as_ref(), again.as_ref()), (Some(&row), Some(&row)), "{site}");
    }
    assert!(slow.finish().ends_with(&answer_of(first)));
    end_nothing(&site, SERVES_ON);
    site.started(5);
    site.stop();
}

/// As long as the launcher holds one, the address is taken, and who connects waits for an answer that never comes.
fn the_launcher_closes_its_copies_when_its_daemon_drains(kind: Supervisor, folder: &Path) {
    let site = Site::at(folder).shared_socket().options(SERVES_ON).under(kind);
    let daemon = site.started(1);
    let launcher = site.service().main_pid();
    let slow = Connection::unfinished(&site.target);
    slow.wait_accepted(daemon);
    let Target::Tcp(address) = site.target else { panic!("a TCP socket") };
    let listeners = || process::listeners(Some(address.port()));
    let [socket] = &listeners()[..] else { panic!("{:?}", listeners()) };
    wait_for("a copy in the launcher", LIMIT, || {
        process::descriptors(launcher).iter().any(|(_, target)| target == socket).then_some(())
    });
    site.service().down();
    site.wait_drain(daemon);
    wait_for(format_args!("nobody listens\n{site}"), LIMIT, || {
        listeners().is_empty().then_some(())
    });
    let failure = get(&site.target, "/").expect_err("nobody listens");
    assert_eq!(failure.kind, FailureKind::Refused);
    assert!(process::stat(launcher).is_some(), "it waits for its daemon");
    assert!(slow.finish().ends_with(&answer_of(daemon)));
    site.assert_ends();
}

/// A service that has crashed, and its keeper, which keeps for this time.
fn crashed(kind: Supervisor, folder: &Path, time: &str) -> (Site, Watched) {
    let options = format!("{SERVES_ON} --keep-sockets={time}");
    let site = Site::at(folder).shared_socket().options(&options).under(kind);
    let first = site.daemon(1);
    deploy_nothing(&site);
    first.kill();
    let keeper = wait_keeper(&site);
    (site, keeper)
}

fn p12_a_keeper_ends_when_it_is_told_and_puts_its_socket_back_until_then(
    kind: Supervisor,
    folder: &Path,
) {
    let (site, keeper) = crashed(kind, folder, "10m");
    fs::remove_file(site.socket()).expect("its socket");
    wait_for(format_args!("its socket again\n{site}"), LIMIT, || {
        site.socket().exists().then_some(())
    });
    let status = status(&site.socket());
    assert!(status.contains(&format!("daemon={}", keeper.pid())), "{status}");
    keeper.signal(TERM);
    keeper.wait_end(LIMIT);
    let failure = get(&site.target, "/").expect_err("nobody is left");
    assert_eq!(failure.kind, FailureKind::Refused);
    site.service().down();
}

/// Half a transfer would be an error in the next start.
fn p12_a_transfer_is_not_cut_when_the_time_is_over(kind: Supervisor, folder: &Path) {
    const TIME: Duration = Duration::from_secs(3);
    let (site, keeper) = crashed(kind, folder, "3s");
    let end = End::connect(&site.socket());
    end.send(&format!("{HEAD}take generation=2"));
    assert_eq!(end.text(), format!("{HEAD}offer generation=1 sockets=1 state=-"));
    let (text, fds) = end.receive().expect("the socket");
    assert!(text.starts_with(&format!("{HEAD}sockets count=1\n")), "{text}");
    thread::sleep(TIME + Duration::from_millis(500));
    end.send(&format!("{HEAD}got 1"));
    assert_eq!(end.text(), format!("{HEAD}end"));
    end.send(&format!("{HEAD}done"));
    assert!(end.receive().is_none());
    keeper.wait_end(LIMIT);
    drop(fds);
    site.service().down();
}

const HEAD: &str = "seamless-takeover 1 ";

/// Eight at a time, and none of them for ever.
fn p10_p12_peers_of_a_keeper_that_hang_or_err(kind: Supervisor, folder: &Path) {
    let (site, keeper) = crashed(kind, folder, "10m");
    let ask = |request: &str| {
        let end = End::connect(&site.socket());
        end.send(&format!("{HEAD}{request}"));
        end
    };
    let nobody = "nobody serves: the daemon has crashed";
    for (request, why) in [
        ("restart", nobody),
        ("commit", nobody),
        ("roll-back", nobody),
        ("stand-by generation=2", nobody),
        ("wait left_ms=1", nobody),
        ("copy", nobody),
        ("pass generation=2 open=1", nobody),
        ("take generation=1", "generation 1 is not newer than 1"),
        ("got 1", "it began in the middle"),
        ("done", "it began in the middle"),
    ] {
        let end = ask(request);
        assert_eq!(end.text(), format!("{HEAD}refused {why}"), "{request}");
        assert!(end.receive().is_none(), "{request}");
    }
    let began = Instant::now();
    let first = ask("take generation=2");
    assert!(first.text().starts_with(&format!("{HEAD}offer ")));
    let silent: Vec<End> = (1..8).map(|_| End::connect(&site.socket())).collect();
    let ninth = ask("status");
    assert!(first.text().starts_with(&format!("{HEAD}sockets ")));
    first.send(&format!("{HEAD}got 1"));
    assert_eq!(first.text(), format!("{HEAD}end"));
    // What has come before its turn would have been answered by now. On a machine that is too slow for that, the
    // silent ones are gone.
    let is_answered = ninth.has_message();
    assert!(!is_answered || began.elapsed() > Duration::from_secs(5), "it is the ninth");
    first.send(&format!("{HEAD}done"));
    assert!(first.receive().is_none());
    assert!(ninth.text().starts_with(&format!("{HEAD}status ")));
    for one in &silent {
        assert!(one.receive().is_none(), "it said something");
    }
    assert!(!keeper.has_ended());
    site.service().down();
    keeper.wait_end(LIMIT);
}

fn p12_a_crash_while_a_predecessor_drains(kind: Supervisor, folder: &Path) {
    let site = Site::at(folder).shared_socket().options(SERVES_ON).under(kind);
    let first = site.started(1);
    let slow = Connection::unfinished(&site.target);
    slow.wait_accepted(first);
    site.service().settle();
    site.service().restart();
    let second = site.daemon(2);
    site.wait_drain(first);
    deploy_nothing(&site);
    second.kill();
    wait_keeper(&site);
    let waits = Connection::unfinished(&site.target);
    end_nothing(&site, SERVES_ON);
    let third = site.started(3);
    assert!(slow.finish().ends_with(&answer_of(first)));
    assert!(waits.finish().ends_with(&answer_of(third)));
    site.stop();
}

/// The next start dies with all sockets in its hands.
fn p12_a_crash_during_the_takeover_leaves_the_keeper(kind: Supervisor, folder: &Path) {
    let site = Site::at(folder).shared_socket().options(SERVES_ON).under(kind);
    let first = site.daemon(1);
    site.deploy_options(&format!("{SERVES_ON} --at=ready=exit:1"));
    first.kill();
    let kept = wait_keeper(&site);
    let waits = Connection::unfinished(&site.target);
    site.report.wait_nth("init", 2);
    site.deploy_options(SERVES_ON);
    let last = site.started(2);
    assert!(waits.finish().ends_with(&answer_of(last)));
    kept.wait_end(LIMIT);
    site.assert_one_generation(last);
    site.stop();
}

/// The lock file, the control socket, the supervisor, and two pairs for signals; and what it keeps.
const HELD: [&str; 8] = [
    "anon_inode:[pidfd]",
    "socket",
    "socket",
    "socket",
    "socket",
    "socket",
    "socket",
    "web.pid.lock",
];

fn p12_the_keeper_is_small_and_ends_with_the_service(kind: Supervisor, folder: &Path) {
    // So long that it ends for no other reason.
    let options = format!("{SERVES_ON} --keep-sockets=10m");
    let site = Site::at(folder).shared_socket().options(&options).under(kind);
    let first = site.daemon(1);
    site.service().settle();
    deploy_nothing(&site);
    let launcher = site.launcher();
    let of_launcher = private_dirty(launcher.pid()).expect("it lives");
    first.kill();
    launcher.wait_end(LIMIT);
    let keeper = wait_keeper(&site);
    site.service().main_pid_after(launcher.pid());
    let held = || targets(keeper.pid(), &site.run);
    wait_for(format!("{:?}", held()), LIMIT, || (held() == HELD).then_some(()));
    for fd in 0..3 {
        let target = fs::read_link(format!("/proc/{}/fd/{fd}", keeper.pid())).expect("it is open");
        assert_eq!(target, Path::new("/dev/null"));
    }
    let stat = process::stat(keeper.pid()).expect("it lives");
    assert_eq!(stat.threads, 1);
    let private = private_dirty(keeper.pid()).expect("it lives");
    // The data that a debug build relocates are half of it, for launcher and keeper.
    let most = if cfg!(debug_assertions) { of_launcher } else { 400 << 10 };
    assert!(private <= most, "{private} bytes, and the launcher had {of_launcher}");
    // Connections wait, and nobody answers.
    let waits = Connection::unfinished(&site.target);
    assert!(!waits.has_answer());
    site.service().down();
    site.service().wait_down();
    keeper.wait_end(LIMIT);
    site.wait_all_ended();
    let failure = get(&site.target, "/").expect_err("nobody is left");
    assert_eq!(failure.kind, FailureKind::Refused);
}

fn p12_when_the_time_is_over_connections_are_refused(kind: Supervisor, folder: &Path) {
    for time in ["300ms", "none"] {
        let folder = folder.join(time);
        fs::create_dir_all(&folder).expect("a folder");
        let options = format!("{SERVES_ON} --keep-sockets={time}");
        let site = Site::at(&folder).shared_socket().options(&options).under(kind);
        let first = site.daemon(1);
        deploy_nothing(&site);
        let launcher = site.launcher();
        first.kill();
        launcher.wait_end(LIMIT);
        wait_for(format_args!("refused\n{site}"), LIMIT, || {
            let failure = get(&site.target, "/").err()?;
            (failure.kind == FailureKind::Refused).then_some(())
        });
        // It closes its sockets before it ends.
        wait_for("no keeper is left", LIMIT, || keeper(&site).is_none().then_some(()));
        assert_eq!(site.log.stage("keep").is_empty(), time == "none", "{site}");
        site.service().down();
    }
}

as_each_user![p5_p12_the_keeper_is_of_the_daemons_user_and_serves_no_other];

fn p5_p12_the_keeper_is_of_the_daemons_user_and_serves_no_other(
    kind: Supervisor,
    folder: &Path,
    user: User,
) {
    let site = Site::at(folder).user(user).shared_socket().options(SERVES_ON).under(kind);
    let first = site.daemon(1);
    let users = |pid: u32| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it lives");
        let ids =
            |line: &&str| ["Uid:", "Gid:", "Groups:"].iter().any(|name| line.starts_with(name));
        status.lines().filter(ids).map(str::to_owned).collect::<Vec<_>>()
    };
    let expected = users(first.pid());
    deploy_nothing(&site);
    first.kill();
    let keeper = wait_keeper(&site);
    assert_eq!(users(keeper.pid()), expected);
    // The mode of its control socket keeps others out; but somebody may have opened it to them.
    let socket = site.run.join("web.pid.sock");
    fs::set_permissions(&socket, fs::Permissions::from_mode(0o666)).expect("a mode");
    for message in ["take generation=2", "status"] {
        let end = End::connect_as(12345, &socket);
        // It need not wait for what we say.
        end.try_send(format!("seamless-takeover 1 {message}").as_bytes(), &[]);
        let why = "this process may not use the control socket";
        assert_eq!(end.text(), format!("seamless-takeover 1 refused {why}"));
        assert!(end.receive().is_none());
    }
    let waits = Connection::unfinished(&site.target);
    end_nothing(&site, SERVES_ON);
    let second = site.started(2);
    assert!(waits.finish().ends_with(&answer_of(second)));
    keeper.wait_end(LIMIT);
}

/// The next start finds nobody, and binds anew.
fn p12_a_keeper_that_is_killed_is_in_nobodys_way(kind: Supervisor, folder: &Path) {
    let site = Site::at(folder).shared_socket().options(SERVES_ON).under(kind);
    let first = site.daemon(1);
    deploy_nothing(&site);
    first.kill();
    let keeper = wait_keeper(&site);
    keeper.kill();
    keeper.wait_end(LIMIT);
    end_nothing(&site, SERVES_ON);
    let second = site.started(2);
    assert!(get(&site.target, "/").expect("an answer").pid == Some(second));
    site.assert_one_generation(second);
    site.stop();
}

/// A start that takes over from a keeper stands still with its own control socket in place, and is killed
/// before it has told the keeper to end. The next start finds nobody at the path of the control socket, and
/// the keeper cannot put its own back meanwhile: it is stopped.
fn p12_a_keeper_is_found_after_a_start_that_was_killed_half_way(kind: Supervisor, folder: &Path) {
    let site = Site::at(folder).shared_socket().options(SERVES_ON).under(kind);
    let first = site.daemon(1);
    let trace = site.flag("trace");
    // The first one is that of the claim; with the second, the record lists it.
    let stops = format!(
        "strace -DDD -f -qq -o '{}' -e trace=ftruncate -e inject=ftruncate:signal=STOP:when=2",
        trace.display(),
    );
    site.deploy(&site.script(&stops, SERVES_ON));
    first.kill();
    let keeper = wait_keeper(&site);
    let waits = Connection::unfinished(&site.target);
    let half_way = wait_for(format_args!("a start that stands still\n{site}"), LIMIT, || {
        let named = site.named().filter(|named| *named != first.pid())?;
        let trace = fs::read_to_string(&trace).ok()?;
        let stopped =
            |line: &str| line.starts_with(&format!("{named} ")) && line.ends_with("by SIGSTOP ---");
        trace.lines().any(stopped).then_some(Watched::new(named))
    });
    keeper.stop();
    site.deploy_options(SERVES_ON);
    let launcher = Watched::new(process::stat(half_way.pid()).expect("it is stopped").ppid);
    half_way.kill();
    launcher.kill();
    launcher.wait_end(LIMIT);
    wait_for(format_args!("the next claim\n{site}"), LIMIT, || {
        let claims = site.log.stage("claim");
        claims.iter().any(|line| line.field("generation") == Some("3")).then_some(())
    });
    keeper.signal(CONT);
    let second = site.started(2);
    assert_eq!(site.report.named("init").len(), 3, "no start failed\n{site}");
    assert!(waits.finish().ends_with(&answer_of(second)));
    keeper.wait_end(LIMIT);
    assert!(!site.run.join("web.pid.sock.standby").exists());
    site.assert_one_generation(second);
    site.stop();
}
