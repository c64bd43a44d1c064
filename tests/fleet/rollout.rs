//! `examples/fleet/ansible` by the real Ansible: rolling deploys of 20 services under daemontools, runit and s6 on
//! one machine, with load on all.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use seamless_testing::{
    LIMIT, bin,
    boxed::Boxed,
    http::Prober,
    process::{self, Watched},
    signal::{CONT, STOP},
    site::{SERVES_ON, Site},
    supervisor::{Supervisor, write_script},
    wait_for,
};
use serde_json::{Value, json};

use super::{output, sample};
use crate::command::seamless;

const SERVICES: usize = 20;
const KINDS: [Supervisor; 3] = [Supervisor::Daemontools, Supervisor::Runit, Supervisor::S6];
/// Between two requests to one service.
const EVERY: Duration = Duration::from_millis(200);
/// Each good version has to pass it.
const PROBATION: &str = "--standby --probation=300ms";

/// A machine with services, versions of their program, and an inventory in which each is a host.
struct Fleet {
    folder: PathBuf,
    sites: Vec<Site>,
    probers: Vec<Prober>,
}

/// How it went with a host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Recap {
    ok: u32,
    changed: u32,
    failed: u32,
}

/// A playbook that was run.
#[derive(Debug)]
struct Played {
    success: bool,
    out: String,
    recaps: BTreeMap<usize, Recap>,
}

impl Fleet {
    fn new(folder: &Path, count: usize) -> Self {
        let fleet = Fleet { folder: folder.to_owned(), sites: Vec::new(), probers: Vec::new() };
        fs::create_dir_all(fleet.version(1).parent().expect("a folder")).expect("a folder");
        fs::copy(bin::probe(), fleet.version(1)).expect("the probe");
        for good in [2, 9] {
            fs::create_dir_all(fleet.version(good).parent().expect("a folder")).expect("a folder");
            fs::hard_link(fleet.version(1), fleet.version(good)).expect("the same as a version");
        }
        let mut sites = Vec::new();
        for number in 0..count {
            let folder = fleet.place(number);
            fs::create_dir_all(&folder).expect("a folder");
            symlink(fleet.version(1), fleet.link(number)).expect("a link");
            let plan = Site::at(&folder).shared_socket().program(&fleet.link(number));
            let plan = plan.options(&format!("{SERVES_ON} {PROBATION}"));
            sites.push(plan.begin_under(KINDS[number % KINDS.len()]));
        }
        sites.iter().for_each(|site| _ = site.started(1));
        let probers = sites.iter().map(|site| Prober::start_every(EVERY, &site.target)).collect();
        sites.iter().for_each(|site| site.service().settle());
        Fleet { sites, probers, ..fleet }
    }

    fn place(&self, number: usize) -> PathBuf {
        self.folder.join(format!("s{number:02}"))
    }

    fn link(&self, number: usize) -> PathBuf {
        self.place(number).join("web")
    }

    fn version(&self, number: usize) -> PathBuf {
        self.folder.join(format!("versions/{number}/web"))
    }

    /// A version that does this when the run script executes it.
    fn bad(&self, version: usize, script: &str) {
        let path = self.version(version);
        fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        write_script(&path, script);
    }

    /// Runs the sample's playbook. `hosts`: what is particular to one of them.
    fn command(&self, version: usize, hosts: &BTreeMap<usize, Value>, options: &[&str]) -> Command {
        let mut all = serde_json::Map::new();
        for number in 0..self.sites.len() {
            let mut host = json!({
                "seamless_link": self.link(number),
                "seamless_pid_file": self.sites[number].pid_file(),
                "seamless_root": self.place(number),
            });
            if let Some(Value::Object(more)) = hosts.get(&number) {
                host.as_object_mut().expect("an object").extend(more.clone());
            }
            all.insert(format!("s{number:02}"), host);
        }
        let vars = json!({
            "ansible_connection": "local",
            "ansible_python_interpreter": "/usr/bin/python3",
            "seamless_command": bin::support("seamless"),
            "seamless_program": self.version(version),
            "seamless_program_is_there": true,
            "seamless_version": version.to_string(),
            "seamless_timeout": "30s",
        });
        let inventory = self.folder.join("inventory.json");
        let text = json!({"all": {"hosts": all, "vars": vars}}).to_string();
        fs::write(&inventory, text).expect("an inventory");
        let mut play = Command::new("ansible-playbook");
        play.arg("-i").arg(inventory).args(options).arg(sample("ansible/deploy.yml"));
        play.env("ANSIBLE_CONFIG", sample("ansible/ansible.cfg"))
            .env("HOME", &self.folder)
            .env("ANSIBLE_LOCAL_TEMP", self.folder.join("tmp"))
            .env("ANSIBLE_REMOTE_TEMP", self.folder.join("tmp"))
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .env("ANSIBLE_NOCOLOR", "1")
            .env("LC_ALL", "C.UTF-8")
            .stdin(Stdio::null());
        play
    }

    fn play(&self, version: usize, hosts: &BTreeMap<usize, Value>, options: &[&str]) -> Played {
        let output = output(&mut self.command(version, hosts, options));
        let out = String::from_utf8_lossy(&output.stdout).into_owned()
            + &String::from_utf8_lossy(&output.stderr);
        let recap = |line: &str| {
            let (host, counts) = line.split_once(" : ")?;
            let number = host.trim().strip_prefix('s')?.parse().ok()?;
            let count = |name: &str| {
                let words = counts.split_ascii_whitespace();
                words.filter_map(|word| word.strip_prefix(name)?.parse().ok()).next()
            };
            let [ok, changed, failed] = ["ok=", "changed=", "failed="].map(count);
            Some((number, Recap { ok: ok?, changed: changed?, failed: failed? }))
        };
        let recaps = out.lines().filter_map(recap).collect();
        Played { success: output.status.success(), out, recaps }
    }

    /// The file that the daemon runs that the PID file names.
    fn runs(&self, number: usize) -> Option<PathBuf> {
        fs::read_link(format!("/proc/{}/exe", self.sites[number].named()?)).ok()
    }

    /// This version serves, the only one and with a launcher, and the link points to it.
    #[track_caller]
    fn assert_serves(&self, number: usize, version: usize) {
        let site = &self.sites[number];
        assert_eq!(fs::read_link(self.link(number)).ok(), Some(self.version(version)), "{number}");
        wait_for(format_args!("version {version} serves in {number}\n{site}"), LIMIT, || {
            (self.runs(number) == Some(self.version(version))).then_some(())
        });
        let status = seamless("status", &site.pid_file(), &["--json"]).json();
        assert_eq!(status["state"], "serving", "{status}");
    }

    fn generation(&self, number: usize) -> u64 {
        let status = seamless("status", &self.sites[number].pid_file(), &["--json"]).json();
        status["generation"].as_u64().unwrap_or_else(|| panic!("{status}"))
    }

    /// No request has failed.
    #[track_caller]
    fn end(mut self) {
        for (number, prober) in std::mem::take(&mut self.probers).into_iter().enumerate() {
            let probes = prober.stop();
            assert!(
                probes.failures.is_empty(),
                "{number}: {:?}\n{}",
                probes.failures,
                self.sites[number]
            );
            assert!(!probes.answers.is_empty(), "{number}");
        }
    }
}

impl Played {
    #[track_caller]
    fn assert(&self, success: bool, expected: impl IntoIterator<Item = (usize, Recap)>) {
        assert_eq!(self.success, success, "{}", self.out);
        assert_eq!(self.recaps, expected.into_iter().collect(), "{}", self.out);
    }
}

/// One host, by its number, all went well, and something was changed or not.
fn went_well(changed: bool) -> impl Fn(usize) -> (usize, Recap) {
    move |number| (number, Recap { ok: 2, changed: changed.into(), failed: 0 })
}

fn failed(number: usize) -> (usize, Recap) {
    (number, Recap { ok: 1, changed: 0, failed: 1 })
}

/// Each batch of its own size.
fn batches(sizes: &str) -> String {
    format!("{{\"batches\": {sizes}}}")
}

#[test]
fn p1_p2_p11_a_fleet_of_20_is_deployed_batch_by_batch() {
    Boxed::new().private_net().run(|folder| {
        let fleet = Fleet::new(folder, SERVICES);
        let all = || 0..SERVICES;
        let none = BTreeMap::new();

        // The controller is killed half-way. The services go on, each with a version that serves.
        let batch = batches("[1, \"100%\"]");
        let mut play = fleet.command(2, &none, &["-e", &batch]);
        play.env("ANSIBLE_FORKS", "3"); // so many hosts at a time
        let mut controller = play.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it");
        let done = || all().filter(|at| fleet.runs(*at) == Some(fleet.version(2))).count();
        wait_for("some hosts", LIMIT, || (done() >= 3).then_some(()));
        controller.kill().expect("KILL");
        controller.wait().expect("its end");
        // What it has begun on its hosts, they bring to an end.
        wait_for("what it has begun is done", LIMIT, || {
            let is_module = |word: &String| word.contains("AnsiballZ_");
            let mut modules = process::all().into_iter().filter(|one| {
                one.state != 'Z' && process::command_line(one.pid).iter().any(is_module)
            });
            modules.next().is_none().then_some(())
        });
        let before: Vec<bool> = all().map(|at| fleet.runs(at) == Some(fleet.version(2))).collect();
        let played = fleet.play(2, &none, &["-e", &batch]);
        assert!(played.success && played.recaps.len() == SERVICES, "{}", played.out);
        for at in all() {
            let changed = played.recaps[&at].changed == 1;
            assert!(changed || before[at], "{at} was not done before\n{}", played.out);
            fleet.assert_serves(at, 2);
        }
        assert!(before.contains(&true) && !before.iter().all(|done| *done), "{before:?}");

        // It looks, and does nothing.
        let generations: Vec<u64> = all().map(|at| fleet.generation(at)).collect();
        let some = "s00,s01,s02";
        let looked = fleet.play(9, &none, &["--check", "--diff", "-e", &batch, "--limit", some]);
        looked.assert(true, (0..3).map(went_well(true)));
        let shown = format!("-link: {}\n", fleet.version(2).display());
        assert!(looked.out.contains(&shown), "{}", looked.out);
        let again = fleet.play(2, &none, &["-e", &batch, "--limit", some]);
        again.assert(true, (0..3).map(went_well(false)));

        // A version that does not start: the rollout stops at its first batch.
        fleet.bad(3, "exit 1");
        let hosts = all().map(|at| (at, json!({"seamless_timeout": "2s"}))).collect();
        let stopped = fleet.play(3, &hosts, &["-e", &batches("[2, \"100%\"]")]);
        stopped.assert(false, (0..2).map(failed));
        assert!(
            stopped.out.contains("the link is put back, and the old version serves"),
            "{}",
            stopped.out
        );
        all().for_each(|at| fleet.assert_serves(at, 2));
        for (at, generation) in generations.into_iter().enumerate().skip(2) {
            assert_eq!(fleet.generation(at), generation, "{at} was left alone");
        }
        fleet.end();
    });
}

/// In one run: a service that is down, one that does not answer, a version whose start hangs, one that fails in its
/// probation, and a good one.
#[test]
fn p1_p11_each_failure_leaves_the_old_version_serving() {
    Boxed::new().private_net().run(|folder| {
        let fleet = Fleet::new(folder, 6);
        let unhealthy = folder.join("unhealthy");
        fs::write(&unhealthy, "").expect("a file");
        let probe = fleet.version(1).display().to_string();
        fleet.bad(4, &format!("exec '{probe}' \"$@\" --at=after-init=hang"));
        let check = unhealthy.display();
        fleet.bad(5, &format!("exec '{probe}' \"$@\" --probation=10m --unhealthy='{check}'"));
        let of = |version: usize| json!({"seamless_program": fleet.version(version)});
        let mut hang = of(4);
        hang["seamless_timeout"] = json!("3s");
        let hosts = BTreeMap::from([(2, hang.clone()), (3, of(5)), (4, hang), (5, of(2))]);

        fleet.probers[0].wait_more(1);
        let down = &fleet.sites[0];
        down.service().down();
        down.service().wait_down();
        down.wait_all_ended();
        let silent = Watched::new(fleet.sites[1].named().expect("a PID"));
        silent.signal(STOP);
        let played = fleet.play(2, &hosts, &["-e", &batches("[\"100%\"]")]);
        silent.signal(CONT);
        played.assert(false, (0..5).map(failed).chain([went_well(true)(5)]));
        for words in [
            "no generation runs; nothing was changed",
            "it is unknown what runs",
            "the new version does not serve (exit code 5)",
            "the new version does not serve (exit code 4)",
        ] {
            assert!(played.out.contains(words), "{words}: {}", played.out);
        }
        assert_eq!(played.out.matches("and the old version serves").count(), 3, "{}", played.out);
        (1..5).for_each(|at| fleet.assert_serves(at, 1));
        fleet.assert_serves(5, 2);

        // A service that is down may be ignored: its supervisor starts the new version some day. This one brings
        // its program from the controller.
        let given = json!({
            "seamless_if_down": "ignore",
            "seamless_program_is_there": false,
            "seamless_version": "given",
        });
        let config = folder.join("config");
        let template = folder.join("config.j2");
        fs::write(&template, "{{ colour }}\n").expect("a template");
        let with_config =
            json!({"seamless_config": [&config], "settings": [{"src": template, "dest": config}]});
        let hosts = BTreeMap::from([(0, given), (5, with_config)]);
        let play = |colour: &str| {
            let more = format!("{{\"batches\": [\"100%\"], \"colour\": \"{colour}\"}}");
            fleet.play(2, &hosts, &["-e", &more, "--limit", "s00,s05"])
        };
        let generation = fleet.generation(5);
        let played = play("red");
        assert!(played.success, "{}", played.out);
        let given = fleet.place(0).join("versions/given/web");
        assert_eq!(fs::read_link(fleet.link(0)).ok(), Some(given.clone()));
        assert_eq!(fs::metadata(&given).expect("the program").permissions().mode() & 0o777, 0o755);
        assert_eq!(
            fleet.generation(5),
            generation + 1,
            "one restart for new settings\n{}",
            played.out
        );
        let played = play("red");
        assert!(played.recaps.values().all(|recap| recap.changed == 0), "{}", played.out);
        assert_eq!(fleet.generation(5), generation + 1);
        // Broken off between the change and its handler: the next run restarts the service.
        fs::write(&config, "blue\n").expect("the settings");
        assert!(play("blue").success);
        assert_eq!(fleet.generation(5), generation + 2);
        down.service().up();
        wait_for("the new version", LIMIT, || (fleet.runs(0) == Some(given.clone())).then_some(()));

        let mut fleet = fleet;
        // Those that were down or stopped have kept their clients waiting.
        for (number, prober) in std::mem::take(&mut fleet.probers).into_iter().enumerate().skip(2) {
            let probes = prober.stop();
            assert!(
                probes.failures.is_empty(),
                "{number}: {:?}\n{}",
                probes.failures,
                fleet.sites[number]
            );
        }
    });
}
