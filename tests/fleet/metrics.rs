//! `seamless status` of any number of services, and what monitoring reads of it.

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    process::{Command, Stdio},
};

use seamless_testing::{
    LIMIT, bin,
    boxed::{self, Boxed},
    process::Watched,
    scene,
    signal::{CONT, STOP, TERM},
    site::{SERVES_ON, Site},
    supervisor::Supervisor,
    under_each_supervisor, wait_for,
};
use serde_json::{Value, json};

use super::check_metrics;
use crate::command::{Said, run, seamless};

/// What `status` says with these operands and options.
fn status(arguments: &[&str]) -> Said {
    run(Command::new(bin::support("seamless")).arg("status").args(arguments))
}

/// The samples, as the parser of the Prometheus project reads them: `TYPE NAME LABELS VALUE`, without those
/// that say how old something is.
fn read_by_prometheus(text: &str, folder: &Path) -> Vec<String> {
    let (file, script) = (folder.join("metrics"), folder.join("read.py"));
    fs::write(&file, text).expect("a file");
    let program = "import sys\n\
                   from prometheus_client.openmetrics.parser import text_string_to_metric_families\n\
                   for family in text_string_to_metric_families(open(sys.argv[1]).read()):\n    \
                   for sample in family.samples:\n        \
                   labels = [f'{k}={v!r}' for k, v in sorted(sample.labels.items()) if k != 'pid_file']\n        \
                   value = '' if sample.name.endswith('_seconds') else ' %d' % sample.value\n        \
                   print(family.type, sample.name + '{' + ','.join(labels) + '}' + value)\n";
    fs::write(&script, program).expect("a file");
    let mut python = Command::new("/usr/bin/python3");
    let output = python.arg(script).arg(file).stdin(Stdio::null()).output();
    let output = output.expect("python; run scripts/setup");
    assert!(output.status.success(), "{}\n{text}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text").lines().map(str::to_owned).collect()
}

/// The values by metric and PID file; of the samples without further labels.
fn values(text: &str) -> BTreeMap<(String, String), f64> {
    let sample = |line: &str| {
        let (name, rest) = line.split_once("{pid_file=\"")?;
        let (pid_file, value) = rest.split_once("\"} ")?;
        Some(((name.to_owned(), pid_file.to_owned()), value.parse().expect("a number")))
    };
    text.lines().filter_map(sample).collect()
}

#[test]
fn the_metrics_are_valid_by_the_parsers_of_prometheus() {
    boxed::run(|folder| {
        let direct = Site::alone(folder);
        let odd = "odd \"name\" \\ of\u{e9}";
        let names = ["requests", "jobs_total", "jobs", "latency_sum", "9lives", "seamless_x", odd];
        let count = names.map(|name| format!("--at=after-init=count:{name}"));
        let mut options: Vec<&str> = count.iter().map(String::as_str).collect();
        options.push("--tcp=127.0.0.1:0");
        options.push("--at=after-init=count:requests");
        let (_started, daemon) = direct.start_ready(&options);
        let said = seamless("status", &direct.pid_file(), &["--openmetrics"]);
        said.assert(0, &["# EOF"]);
        let samples = read_by_prometheus(&said.out, folder);
        let program = bin::probe().display().to_string();
        for expected in [
            "gauge seamless_serving{} 1".to_owned(),
            "gauge seamless_answers{} 1".to_owned(),
            "gauge seamless_generation{} 1".to_owned(),
            "gauge seamless_state{state='serving'} 1".to_owned(),
            "gauge seamless_state{state='standby'} 0".to_owned(),
            "gauge seamless_age_seconds{}".to_owned(),
            "gauge seamless_state_age_seconds{}".to_owned(),
            "gauge seamless_draining{} 0".to_owned(),
            "gauge seamless_standby{} 0".to_owned(),
            "gauge seamless_starting{} 0".to_owned(),
            "gauge seamless_probation{} 0".to_owned(),
            "gauge seamless_sockets{} 1".to_owned(),
            "gauge seamless_connections{} 0".to_owned(),
            "counter seamless_starts_total{} 1".to_owned(),
            "counter seamless_restarts_total{} 0".to_owned(),
            "counter seamless_failed_starts_total{} 0".to_owned(),
            "counter seamless_crashes_total{} 0".to_owned(),
            "counter seamless_rollbacks_total{} 0".to_owned(),
            format!(
                "info seamless_service_info{{program='{program}',supervisor='other',version='{}'}} 1",
                env!("CARGO_PKG_VERSION")
            ),
            "counter requests_total{} 2".to_owned(),
            "counter jobs_total{} 1".to_owned(),
            "counter seamless_other_total{name='jobs_total'} 1".to_owned(),
            "counter seamless_other_total{name='latency_sum'} 1".to_owned(),
            "counter seamless_other_total{name='9lives'} 1".to_owned(),
            "counter seamless_other_total{name='seamless_x'} 1".to_owned(),
            "counter seamless_other_total{name='odd \"name\" \\\\ of\u{e9}'} 1".to_owned(),
        ] {
            assert!(samples.contains(&expected), "{expected}: {samples:#?}");
        }
        // Each state once, and two counters that want the same name.
        let states = samples.iter().filter(|line| line.starts_with("gauge seamless_state{"));
        let jobs = samples.iter().filter(|line| line.contains("jobs"));
        assert_eq!((states.count(), jobs.count()), (10, 2), "{samples:#?}");

        let file = folder.join("prometheus");
        let said = seamless("status", &direct.pid_file(), &["--prometheus"]);
        assert!(said.out.contains("\n# TYPE requests_total counter\n"), "{}", said.out);
        assert!(!said.out.contains("# EOF"), "{}", said.out);
        fs::write(&file, said.out).expect("a file");
        check_metrics(&file);

        // Nobody serves: that is a metric, too.
        daemon.kill();
        daemon.wait_end(LIMIT);
        let said = seamless("status", &direct.pid_file(), &["--openmetrics"]);
        assert_eq!(said.code, 3);
        let samples = read_by_prometheus(&said.out, folder);
        for expected in ["gauge seamless_serving{} 0", "counter seamless_crashes_total{} 1"] {
            assert!(samples.contains(&expected.to_owned()), "{samples:?}");
        }
    });
}

#[test]
fn patterns_and_folders_stand_for_many_services() {
    Boxed::new().run(|folder| {
        let place = |name: &str| {
            let folder = folder.join(name);
            fs::create_dir_all(&folder).expect("a folder");
            Site::alone(&folder)
        };
        let sites = ["a", "b", "c", ".hidden"].map(place);
        let [a, b, c, hidden] = &sites;
        let count = "--at=after-init=count:requests";
        let (_a, _) = a.start_ready(&[count, SERVES_ON]);
        let (_b, stopped) = b.start_ready(&[count]);
        let (mut ended, daemon) = c.start_ready(&[count]);
        let (_hidden, _) = hidden.start_ready(&[]);
        daemon.signal(TERM);
        ended.wait_end();
        fs::write(folder.join("a/foreign.pid"), "1\n").expect("a file");
        let path = |site: &Site| site.pid_file().display().to_string();
        let all = format!("{}/*/*.pid", folder.display());

        let said = status(&[&all, "--prometheus"]);
        said.assert(3, &[]);
        let now = values(&said.out);
        let of = |now: &BTreeMap<(String, String), f64>, name: &str| -> Vec<f64> {
            let sites = [a, b, c].into_iter();
            sites.map(|site| now[&(name.to_owned(), path(site))]).collect()
        };
        assert_eq!(of(&now, "seamless_serving"), [1.0, 1.0, 0.0]);
        assert_eq!(of(&now, "seamless_answers"), [1.0, 1.0, 1.0]);
        assert_eq!(of(&now, "seamless_starts_total"), [1.0, 1.0, 1.0]);
        assert_eq!(of(&now, "seamless_crashes_total"), [0.0, 0.0, 0.0]);
        assert!(!said.out.contains("hidden") && !said.out.contains("foreign"), "{}", said.out);
        // One family, however many services have it.
        assert_eq!(said.out.matches("# TYPE requests_total counter").count(), 1);
        assert_eq!(said.out.matches("\nrequests_total{").count(), 2);
        let file = folder.join("prometheus");
        fs::write(&file, &said.out).expect("a file");
        check_metrics(&file);

        // One that hangs does not hold up the others, and its counts are known all the same.
        stopped.signal(STOP);
        let said = status(&[&path(a), &path(b), &path(a), "--openmetrics", "--timeout=500ms"]);
        said.assert(1, &["# EOF"]);
        let now = values(&said.out);
        let of_b = |name: &str| now[&(name.to_owned(), path(b))];
        assert_eq!((of_b("seamless_serving"), of_b("seamless_answers")), (0.0, 0.0));
        assert_eq!(of_b("seamless_starts_total"), 1.0);
        assert_eq!(now[&("seamless_serving".to_owned(), path(a))], 1.0);
        assert!(said.out.contains("state=\"unknown\"} 1"), "{}", said.out);
        stopped.signal(CONT);

        // Text and JSON of many; of one PID file it is one object.
        let root = folder.display().to_string();
        let said = status(&[&root, "--json"]);
        let json = said.json();
        let states: Vec<&Value> =
            json.as_array().expect("a list").iter().map(|one| &one["state"]).collect();
        assert_eq!(
            states,
            [".hidden", "a", "b", "c"].map(|name| if name == "c" { "none" } else { "serving" })
        );
        assert_eq!(status(&[&path(a), "--json"]).json()["state"], "serving");
        let listed = status(&[&format!("{}/[a]/web.pid", folder.display()), "--json"]).json();
        assert_eq!(listed[0]["counters"], json!({"requests": 1}));
        status(&[&path(a), &path(b)])
            .assert(0, &["a/web.pid: generation 1 serves\n", "b/web.pid: generation 1 serves\n"]);
        status(&[&format!("{root}/nothing/*.pid")]).assert(3, &["no service"]);
        // A name with such characters is a name, if it is there.
        let odd = folder.join("[a]");
        fs::create_dir(&odd).expect("a folder");
        let odd = Site::alone(&odd);
        let (_odd, _) = odd.start_ready(&[]);
        status(&[&path(&odd)]).assert(0, &["[a]/web.pid: generation 1 serves"]);
    });
}

/// What the record has counted: starts, restarts, failed starts, crashes, rollbacks.
fn history(site: &Site) -> [u64; 5] {
    let status = seamless("status", &site.pid_file(), &["--json"]).json();
    ["starts", "restarts", "failed_starts", "crashes", "rollbacks"]
        .map(|name| status["history"][name].as_u64().unwrap_or_else(|| panic!("{status}")))
}

#[test]
fn what_has_happened_is_counted_and_survives_every_process() {
    boxed::run(|folder| {
        let direct = Site::alone(folder);
        let (mut one, first) = direct.start_ready(&[]);
        assert_eq!(history(&direct), [1, 0, 0, 0, 0]);
        one.detach();
        let (_two, second) = direct.start_ready(&[]);
        first.wait_end(LIMIT);
        assert_eq!(history(&direct), [2, 1, 0, 0, 0]);
        // A start that fails is seen at once, and counted once.
        let mut bad = direct.start(&["--at=after-init=exit:3"]);
        bad.wait_end();
        for _ in 0..2 {
            assert_eq!(history(&direct), [2, 1, 1, 0, 0]);
        }
        second.kill();
        second.wait_end(LIMIT);
        assert_eq!(history(&direct), [2, 1, 1, 1, 0]);
        let (mut three, third) = direct.start_ready(&[]);
        assert_eq!(history(&direct), [3, 1, 1, 1, 0]);
        // An operator's TERM is no crash, and what follows it no restart.
        third.signal(TERM);
        third.wait_end(LIMIT);
        three.wait_end();
        assert_eq!(history(&direct), [3, 1, 1, 1, 0]);
        let (mut four, fourth) = direct.start_ready(&[SERVES_ON]);
        assert_eq!(history(&direct), [4, 1, 1, 1, 0]);
        let text = seamless("status", &direct.pid_file(), &[]);
        text.assert(0, &["history     4 starts: 1 crash, 1 failed start\n"]);
        // An exit that nobody has asked for is a crash, with whatever code.
        four.detach();
        let mut five = direct.start(&["--at=started=exit:0"]);
        five.wait_end();
        fourth.wait_end(LIMIT);
        wait_for("a crash", LIMIT, || (history(&direct) == [5, 2, 1, 2, 0]).then_some(()));
    });
}

fn a_stop_is_no_crash_and_a_crash_is_counted_once(kind: Supervisor, folder: &Path) {
    let site = Site::at(folder).shared_socket().options(SERVES_ON).under(kind);
    site.service().settle();
    site.service().restart();
    let second = site.started(2);
    scene::wait_let_go(site.started(1));
    assert_eq!(history(&site), [2, 1, 0, 0, 0]);
    site.service().settle();
    site.stop();
    assert_eq!(history(&site), [2, 1, 0, 0, 0], "{second} was told to end");
    site.service().up();
    let third = Watched::new(site.started(3));
    assert_eq!(history(&site), [3, 1, 0, 0, 0]);
    site.service().settle();
    third.kill(); // a keeper holds its socket until the next start
    site.started(4);
    wait_for("the crash", LIMIT, || (history(&site) == [4, 1, 0, 1, 0]).then_some(()));
    let status = seamless("status", &site.pid_file(), &["--json"]).json();
    assert!(status["restart"]["transfer"].as_f64().is_some_and(|time| time > 0.0), "{status}");
}

fn a_rollback_is_counted_and_a_standby_is_shown(kind: Supervisor, folder: &Path) {
    let site =
        Site::at(folder).shared_socket().options(&format!("{SERVES_ON} --standby")).under(kind);
    site.service().settle();
    site.deploy_options(&format!("{SERVES_ON} --standby --probation=10m"));
    site.service().restart();
    let second = site.started(2);
    let pid_file = site.pid_file();
    let metrics = wait_for("a standby", LIMIT, || {
        let said = seamless("status", &pid_file, &["--prometheus"]).out;
        said.contains("seamless_older_age_seconds{")
            .then_some(said)
            .filter(|said| said.contains(",generation=\"1\",state=\"standby\"}"))
    });
    let now = values(&metrics);
    let of = |name: &str| now[&(name.to_owned(), pid_file.display().to_string())];
    let counts = ["probation", "standby", "draining"].map(|name| of(&format!("seamless_{name}")));
    assert_eq!(counts, [1.0, 1.0, 0.0], "{metrics}");
    assert!(metrics.contains("seamless_older_connections{"), "{metrics}");
    site.deploy_options(&format!("{SERVES_ON} --standby"));
    Watched::new(second).kill();
    wait_for("a rollback", LIMIT, || (history(&site)[3..] == [0, 1]).then_some(()));
}

under_each_supervisor![
    Boxed::new().private_net() =>
    a_stop_is_no_crash_and_a_crash_is_counted_once,
    a_rollback_is_counted_and_a_standby_is_shown,
];

#[test]
fn counters_of_the_program_survive_a_crash() {
    Boxed::new().private_net().run(|folder| {
        let site = Site::at(folder)
            .shared_socket()
            .options("--at=after-init=count:requests")
            .under(Supervisor::Runit);
        site.service().settle();
        site.daemon(1).kill();
        site.started(2);
        let metrics = seamless("status", &site.pid_file(), &["--prometheus"]).out;
        let key = ("requests_total".to_owned(), site.pid_file().display().to_string());
        assert_eq!(values(&metrics).get(&key), Some(&2.0), "{metrics}");
    });
}
