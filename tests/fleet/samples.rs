//! The samples of `examples/fleet` for Prometheus and Grafana.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::PermissionsExt,
    process::{Command, Stdio},
};

use seamless_testing::{
    bin,
    boxed::Boxed,
    site::{SERVES_ON, Site},
    supervisor::Supervisor,
};
use serde_json::Value;

use super::{check_metrics, output, said, sample};
use crate::command::seamless;

/// All metrics that the command has, in the order of the guide: its page lists them.
fn told() -> BTreeSet<String> {
    let page = fs::read_to_string(bin::root().join("src/guide/fleet.md")).expect("the page");
    let names = page.lines().filter_map(|line| {
        let (name, _) = line.strip_prefix("| `seamless_")?.split_once(['`', '{'])?;
        Some(format!("seamless_{name}"))
    });
    names.collect()
}

/// The names of our own that stand in a text.
fn names_in(text: &str) -> BTreeSet<String> {
    let is_part = |char: char| char.is_ascii_alphanumeric() || char == '_';
    let words = text.split(|char| !is_part(char));
    words.filter(|word| word.starts_with("seamless_")).map(str::to_owned).collect()
}

/// The expressions of the dashboard.
fn expressions(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                match value {
                    Value::String(text) if name == "expr" => found.push(text.clone()),
                    Value::String(text) if name == "query" && text.contains("label_values") => {
                        let (metric, _) =
                            text["label_values(".len()..].split_once(',').expect("a metric");
                        found.push(metric.to_owned());
                    }
                    other => expressions(other, found),
                }
            }
        }
        Value::Array(all) => all.iter().for_each(|one| expressions(one, found)),
        _ => {}
    }
}

#[test]
fn each_metric_is_in_the_guide_and_alerts_and_dashboard_use_no_others() {
    Boxed::new().private_net().run(|folder| {
        // A service that has as much as can be: a standby, a transfer, counters, a rejected file.
        let options = format!("{SERVES_ON} --standby --at=after-init=count:9lives");
        let site = Site::at(folder).shared_socket().options(&options).under(Supervisor::Runit);
        site.service().settle();
        let flag = site.flag("unhealthy");
        fs::write(&flag, "").expect("a file");
        site.deploy_options(&format!("{options} --probation=10m --unhealthy={}", flag.display()));
        site.service().restart();
        site.started(2);
        let mut printed = BTreeSet::new();
        // First on probation, then rolled back, and then tried again.
        seamless_testing::wait_for("all metrics", seamless_testing::LIMIT, || {
            let text = seamless("status", &site.pid_file(), &["--prometheus"]).out;
            let samples = text.lines().filter(|line| line.starts_with("seamless_"));
            printed.extend(samples.filter_map(|line| Some(line.split_once('{')?.0.to_owned())));
            (printed == told()).then_some(())
        });
        let alerts = fs::read_to_string(sample("prometheus/alerts.yml")).expect("alerts");
        let dashboard = fs::read_to_string(sample("grafana/seamless.json")).expect("a dashboard");
        let dashboard: Value = serde_json::from_str(&dashboard).expect("JSON");
        let mut shown = Vec::new();
        expressions(&dashboard, &mut shown);
        assert!(shown.len() > 20, "{shown:?}");
        let in_alerts = alerts.lines().filter(|line| line.trim().starts_with("expr:"));
        let used: BTreeSet<_> = in_alerts
            .flat_map(names_in)
            .chain(shown.iter().flat_map(|one| names_in(one)))
            .collect();
        let unknown: Vec<_> = used.difference(&printed).collect();
        assert!(unknown.is_empty(), "{unknown:?}");

        // Prometheus understands each expression of the dashboard, as Grafana fills it in.
        let mut rules = "groups: [{name: shown, rules: [".to_owned();
        for (number, one) in shown.iter().enumerate() {
            let filled = one.replace("$__rate_interval", "1m").replace("$instance", ".*");
            let filled = filled.replace("$pid_file", ".*").replace('\'', "''");
            rules += &format!("{{record: \"shown:{number}\", expr: '{filled}'}},\n");
        }
        let file = folder.join("shown.yml");
        fs::write(&file, rules + "]}]").expect("a file");
        said(Command::new("promtool").args(["check", "rules"]).arg(&file));
        said(
            Command::new("promtool").args(["check", "rules"]).arg(sample("prometheus/alerts.yml")),
        );
    });
}

/// As Grafana would refuse or hide it.
#[test]
fn the_dashboard_has_panels_that_do_not_overlap() {
    let text = fs::read_to_string(sample("grafana/seamless.json")).expect("a dashboard");
    let dashboard: Value = serde_json::from_str(&text).expect("JSON");
    let mut taken = BTreeSet::new();
    let mut ids = BTreeSet::new();
    for panel in dashboard["panels"].as_array().expect("panels") {
        let at = |name: &str| panel["gridPos"][name].as_u64().expect("a place");
        assert!(at("x") + at("w") <= 24, "{panel}");
        for x in at("x")..at("x") + at("w") {
            for y in at("y")..at("y") + at("h") {
                assert!(taken.insert((x, y)), "{panel}");
            }
        }
        assert!(ids.insert(panel["id"].as_u64()) && panel["title"].is_string(), "{panel}");
        let mut letters = BTreeSet::new();
        for target in panel["targets"].as_array().expect("expressions") {
            assert!(letters.insert(target["refId"].as_str().expect("a letter")), "{panel}");
        }
        assert!(!letters.is_empty() && panel["datasource"]["uid"] == "${source}", "{panel}");
    }
    let variables = dashboard["templating"]["list"].as_array().expect("variables");
    let names: BTreeSet<_> = variables.iter().filter_map(|one| one["name"].as_str()).collect();
    assert_eq!(names, BTreeSet::from(["source", "instance", "pid_file"]));
}

#[test]
fn the_alerts_fire_when_they_should() {
    let mut promtool = Command::new("promtool");
    let folder = sample("prometheus");
    said(promtool.args(["test", "rules", "alerts_test.yml"]).current_dir(folder));
}

#[test]
fn the_file_for_the_textfile_collector_is_whole_and_of_all_services() {
    Boxed::new().run(|folder| {
        let direct = Site::alone(folder);
        let (_started, daemon) = direct.start_ready(&["--at=after-init=count:requests"]);
        let to = folder.join("collector");
        fs::create_dir(&to).expect("a folder");
        let seamless = bin::support("seamless");
        let path = format!("{}:/usr/bin:/bin", seamless.parent().expect("a folder").display());
        let collect = |of: &str| {
            let mut script = Command::new(sample("prometheus/seamless-metrics"));
            script.arg(&to).arg(of).env("PATH", &path).stdin(Stdio::null());
            output(&mut script)
        };
        let pattern = format!("{}/*.pid", folder.display());
        let done = collect(&pattern);
        assert!(done.status.success(), "{done:?}");
        let file = to.join("seamless.prom");
        let text = fs::read_to_string(&file).expect("metrics");
        assert!(text.contains("seamless_serving{") && text.contains("requests_total{"), "{text}");
        check_metrics(&file);
        let mode = fs::metadata(&file).expect("the file").permissions().mode() & 0o777;
        assert_eq!(mode, 0o644, "another user reads it");
        // Nobody serves: the file says so. A wrong command line leaves what is there.
        daemon.kill();
        daemon.wait_end(seamless_testing::LIMIT);
        assert!(collect(&pattern).status.success());
        let text = fs::read_to_string(&file).expect("metrics");
        assert!(text.contains("seamless_serving{") && text.contains("} 0\n"), "{text}");
        assert_eq!(collect("--no-such-option").status.code(), Some(2));
        assert_eq!(fs::read_to_string(&file).expect("metrics"), text);
        assert_eq!(fs::read_dir(&to).expect("the folder").count(), 1, "no half file is left");
    });
}
