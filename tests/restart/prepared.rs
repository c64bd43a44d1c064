//! The hooks before a restart in place, and those of a restart that does not come off.

use seamless_testing::{LIMIT, process::Watched, scene, supervisor::write_script};

use super::in_place::{Scene, in_a_box};

/// They run before each attempt: what the successor needs has been released when it starts.
#[test]
fn p1_hooks_release_what_a_restart_in_place_needs_and_take_it_back() {
    in_a_box(|folder| {
        let mut scene = Scene::new(folder, &["--resume"]);
        let first = scene.current();
        let hooks = |scene: &Scene| scene::hooks(&scene.direct.report, first);
        assert!(hooks(&scene).is_empty());
        for nth in 1..=3 {
            write_script(&scene.program, "exit 1");
            scene.reload();
            scene.wait_failed(nth, "exit_code 1");
            scene.direct.report.wait_nth("hook", 2 * nth);
            assert_eq!(hooks(&scene), ["request", "resume"].repeat(nth));
        }
        scene.deploy_good();
        scene.reload();
        scene.wait_taken_over();
        scene.wait_drained();
        let all = [["request", "resume"].repeat(3), vec!["request", "shutdown"]].concat();
        assert_eq!(hooks(&scene), all);
        let events = scene.direct.report.events();
        let at = |name: &str, text: &str, pid| {
            let found = events.iter().rposition(|event| {
                event.name == name && event.pid == pid && (text.is_empty() || event.text == text)
            });
            found.unwrap_or_else(|| panic!("no {name} {text}: {}", scene.direct.report))
        };
        assert!(at("hook", "request", first) < at("init", "", scene.current()));
        scene.finish();
    });
}

/// The one that hangs delays a restart by `handoff_timeout`, and no longer.
#[test]
fn p1_a_hook_that_hangs_holds_up_no_restart_in_place() {
    in_a_box(|folder| {
        let mut scene = Scene::new(folder, &["--handoff-timeout=300ms"]);
        scene.deploy("--at=request=hang");
        scene.reload();
        scene.wait_taken_over();
        scene.wait_drained();
        scene.deploy_good();
        scene.reload();
        scene.wait_taken_over();
        scene.wait_drained();
        assert_eq!(scene::hooks(&scene.direct.report, scene.served[1]), ["request", "shutdown"]);
        scene.finish();
    });
}

/// One that ends while its hooks run is no reason to wait.
#[test]
fn p1_a_daemon_that_dies_while_it_prepares_is_replaced() {
    in_a_box(|folder| {
        let scene = Scene::new(folder, &["--at=request=hang"]);
        scene.reload();
        scene.direct.report.wait_of(scene.current(), "hook");
        Watched::new(scene.current()).kill();
        let second = scene.direct.report.wait_nth("started", 2).pid;
        assert_ne!(second, scene.current());
        drop(scene.prober.stop());
        seamless_testing::process::signal(second, seamless_testing::signal::TERM);
        let mut started = scene.started;
        started.launcher.wait_end(LIMIT);
        assert_eq!(started.wait_end().code(), Some(0));
    });
}
