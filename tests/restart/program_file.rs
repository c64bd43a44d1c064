//! The program's file is replaced or removed between a start and a restart.

use std::{fs, path::Path};

use seamless_testing::{
    LIMIT, bin,
    boxed::Boxed,
    http::{self, Prober},
    process::Watched,
    site::Site,
    supervisor::Supervisor,
    under_each_supervisor, wait_for,
};

struct Scene {
    site: Site,
    program: std::path::PathBuf,
    prober: Prober,
    pids: Vec<u32>,
}

impl Scene {
    fn new(kind: Supervisor, folder: &Path) -> Self {
        let program = folder.join("program");
        fs::copy(bin::probe(), &program).expect("a copy");
        let site = Site::at(folder).program(&program).under(kind);
        let first = http::wait_pid(&site.target);
        let prober = Prober::start(&site.target);
        prober.wait_pid(first);
        Scene { site, program, prober, pids: vec![first] }
    }

    /// The newest serves, and runs the file that has the path now.
    #[track_caller]
    fn wait_taken_over(&mut self) {
        let new = self.site.report.wait_nth("started", self.pids.len() + 1).pid;
        let old = Watched::new(*self.pids.last().expect("a generation"));
        old.wait_end(LIMIT);
        assert_eq!(self.site.report.wait_of(old.pid(), "wait").text, "TakenOver");
        let named = inode(&self.program);
        let runs = |pid: u32| inode(Path::new(&format!("/proc/{pid}/exe")));
        assert_eq!((runs(self.site.service().main_pid()), runs(new)), (named, named));
        self.prober.wait_pid(new);
        self.pids.push(new);
    }

    #[track_caller]
    fn restart(&self) {
        self.site.service().settle();
        let launcher = Watched::new(self.site.service().main_pid());
        self.site.service().restart();
        launcher.wait_end(LIMIT);
    }

    /// The old one serves, and nobody else has got anywhere.
    #[track_caller]
    fn assert_serves_on(&self) {
        self.prober.wait_more(20);
        assert_eq!(self.prober.seen().pids(), self.pids);
        assert_eq!(self.site.report.named("started").len(), self.pids.len());
        let named = fs::read_to_string(self.site.pid_file()).expect("the PID file");
        assert_eq!(named, format!("{}\n", self.pids.last().expect("a generation")));
    }

    #[track_caller]
    fn finish(self) {
        let probes = self.prober.stop();
        probes.assert_all_answered();
        assert_eq!(probes.pids(), self.pids);
        self.site.service().down();
        self.site.service().wait_down();
    }
}

fn inode(path: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    fs::metadata(path).expect("the program").ino()
}

fn p1_a_program_file_is_replaced(kind: Supervisor, folder: &Path) {
    let mut scene = Scene::new(kind, folder);
    let new = folder.join("program.new");
    // Renamed over the old one.
    fs::copy(bin::probe(), &new).expect("a copy");
    fs::rename(&new, &scene.program).expect("in place");
    scene.restart();
    scene.wait_taken_over();
    // The old one removed, and a new one made under its name.
    fs::remove_file(&scene.program).expect("the old file");
    fs::copy(bin::probe(), &scene.program).expect("a copy");
    scene.restart();
    scene.wait_taken_over();
    // Once more by another path to the same file: a link that is switched.
    fs::rename(&scene.program, folder.join("release-1")).expect("a rename");
    fs::copy(bin::probe(), folder.join("release-2")).expect("a copy");
    std::os::unix::fs::symlink("release-2", &scene.program).expect("a link");
    scene.restart();
    scene.wait_taken_over();
    scene.finish();
}

/// The supervisor finds nothing to start; when the file is back, the next attempt takes over.
fn p1_a_program_file_is_removed(kind: Supervisor, folder: &Path) {
    let mut scene = Scene::new(kind, folder);
    let run = scene.site.script("", "");
    scene.site.deploy(&format!("echo start >>'{}/starts'\n{run}", folder.display()));
    fs::remove_file(&scene.program).expect("the file");
    scene.restart();
    wait_for("three attempts", LIMIT, || {
        let starts = fs::read_to_string(folder.join("starts")).ok()?;
        (starts.lines().count() >= 3).then_some(())
    });
    scene.assert_serves_on();
    assert_eq!(scene.site.report.named("launch").len(), 1);
    let new = folder.join("program.new");
    fs::copy(bin::probe(), &new).expect("a copy");
    fs::rename(&new, &scene.program).expect("in place");
    scene.wait_taken_over();
    scene.finish();
}

/// It is there when the supervisor starts it, and gone when `init` starts it again.
fn p1_p10_a_program_file_is_removed_before_init(kind: Supervisor, folder: &Path) {
    let mut scene = Scene::new(kind, folder);
    let go = folder.join("go");
    let wait = format!("--at=before-init=file:{}", go.display());
    scene.site.deploy_options(&wait);
    let old = scene.site.service().main_pid();
    scene.restart();
    let launcher = scene.site.service().main_pid_after(old);
    let exe = format!("/proc/{launcher}/exe");
    let is_program = || (fs::read_link(&exe).ok()? == scene.program).then_some(());
    wait_for("the program is executed", LIMIT, is_program);
    fs::remove_file(&scene.program).expect("the file");
    fs::write(&go, "").expect("a file");
    let error = scene.site.report.wait("error");
    assert_eq!(error.pid, launcher);
    let text = format!("init: cannot start {:?} again (launch): No such file", scene.program);
    assert!(error.text.starts_with(&text), "{}", error.text);
    scene.assert_serves_on();
    let new = folder.join("program.new");
    fs::copy(bin::probe(), &new).expect("a copy");
    fs::rename(&new, &scene.program).expect("in place");
    scene.wait_taken_over();
    scene.finish();
}

under_each_supervisor![
    Boxed::new().private_net() =>
        p1_a_program_file_is_replaced,
        p1_a_program_file_is_removed,
        p1_p10_a_program_file_is_removed_before_init
];
