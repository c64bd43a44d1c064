//! A service in a Debian package, with the maintainer scripts of `examples/fleet/debian`: upgraded by dpkg under
//! load, to a good version, to a bad one, and removed.

use std::{
    env, fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    process::{Command, Output},
};

use seamless_testing::{
    bin,
    boxed::{Boxed, Isolation},
    http::{self, Prober},
    scene,
    site::{SERVES_ON, Site},
    supervisor::Supervisor,
};

/// Where the package puts its program.
const PROGRAM: &str = "usr/lib/web/web";

/// A root folder of dpkg's own, on the machine's programs.
struct Place {
    folder: PathBuf,
    root: PathBuf,
}

impl Place {
    fn new(folder: &Path) -> Place {
        let root = folder.join("root");
        for place in ["var/lib/dpkg/info", "var/lib/dpkg/updates", "run/web"] {
            fs::create_dir_all(root.join(place)).expect("a folder");
        }
        fs::write(root.join("var/lib/dpkg/status"), "").expect("an empty list of packages");
        Place { folder: folder.to_owned(), root }
    }

    /// Builds a version of the package around this program.
    fn package(&self, version: &str, program: &[u8]) -> PathBuf {
        let tree = self.folder.join(format!("web-{version}"));
        let file = tree.join(PROGRAM);
        fs::create_dir_all(file.parent().expect("a folder")).expect("a folder");
        fs::write(&file, program).expect("a program");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).expect("its mode");
        let control = tree.join("DEBIAN");
        fs::create_dir(&control).expect("a folder");
        let about = format!(
            "Package: web\nVersion: {version}\nArchitecture: all\nMaintainer: A Maintainer <maintainer@debian.org>\n\
             Description: a service that restarts seamlessly\n"
        );
        fs::write(control.join("control"), about).expect("a file");
        for script in ["postinst", "prerm"] {
            let sample = bin::root().join("examples/fleet/debian").join(script);
            fs::copy(sample, control.join(script)).expect("a script");
        }
        let package = self.folder.join(format!("web_{version}_all.deb"));
        let mut build = Command::new("dpkg-deb");
        // Without compression, which takes seconds for a program with symbols.
        build.args(["-Znone", "--root-owner-group", "--build"]).arg(&tree).arg(&package);
        let built = build.output().expect("dpkg-deb; run scripts/setup");
        assert!(built.status.success(), "{built:?}");
        package
    }

    fn dpkg(&self, args: &[&str], package: Option<&Path>) -> Output {
        let mut dpkg = Command::new("dpkg");
        dpkg.arg(format!("--root={}", self.root.display())).arg("--force-script-chrootless");
        dpkg.args(["--log=/dev/null"]).args(args).args(package);
        // `seamless` is that of this build.
        let seamless = bin::support("seamless");
        let folder = seamless.parent().expect("a folder").display().to_string();
        let path = env::var("PATH").unwrap_or_default();
        dpkg.env("PATH", format!("{folder}:{path}")).output().expect("dpkg")
    }

    #[track_caller]
    fn install(&self, package: &Path) {
        let done = self.dpkg(&["--install"], Some(package));
        assert!(done.status.success(), "{done:?}");
    }

    /// What dpkg knows of the package.
    fn state(&self) -> String {
        let admin = self.root.join("var/lib/dpkg");
        let mut query = Command::new("dpkg-query");
        query.arg(format!("--admindir={}", admin.display())).args([
            "-W",
            "-f=${Status} ${Version}",
            "web",
        ]);
        String::from_utf8(query.output().expect("dpkg-query").stdout).expect("text")
    }
}

/// Does the process run the file that the package has installed?
fn runs(pid: u32, file: &Path) -> bool {
    let id = |path: &Path| fs::metadata(path).map(|about| (about.dev(), about.ino())).ok();
    id(&PathBuf::from(format!("/proc/{pid}/exe"))) == id(file)
}

#[test]
fn p1_p2_a_package_is_upgraded_under_load_and_a_bad_version_stops_the_upgrade() {
    let boxed = Boxed::new().private_net();
    boxed.needs(Isolation::Namespaces).run(|folder| {
        let place = Place::new(folder);
        let probe = fs::read(bin::probe()).expect("the probe");
        let version =
            |number: &str| place.package(number, &[&probe[..], number.as_bytes()].concat());
        let program = place.root.join(PROGRAM);
        let ill = folder.join("ill"); // while it exists, the check of a probation fails

        // A first installation: nothing runs yet.
        let first = place.dpkg(&["--install"], Some(&version("1")));
        assert!(first.status.success(), "{first:?}");
        assert!(
            String::from_utf8_lossy(&first.stdout).contains("web: it does not run"),
            "{first:?}"
        );
        let site = Site::at(folder)
            .run_folder(&place.root.join("run/web"))
            .shared_socket()
            .program(&program)
            .options(&format!("{SERVES_ON} --standby --probation=2s --unhealthy={}", ill.display()))
            .under(Supervisor::Daemontools);
        let one = site.started(1);
        let prober = Prober::start(&site.target);
        prober.wait_pid(one);

        site.service().settle();
        place.install(&version("2"));
        let two = site.started(2);
        assert!(runs(two, &program));
        prober.wait_pid(two);
        assert_eq!(place.state(), "install ok installed 2");

        // A bad version: dpkg fails, the old one serves on, and so does what dpkg runs again.
        site.service().settle();
        let bad = place.package("3", b"#!/bin/sh\nexit 1\n");
        let short = fs::read_to_string(folder.join("web-3/DEBIAN/postinst")).expect("the script");
        assert!(short.contains(" --wait committed "), "{short}");
        let bad_tree = folder.join("web-3");
        fs::write(
            bad_tree.join("DEBIAN/postinst"),
            short.replace("--wait committed", "--wait committed --timeout 2s"),
        )
        .expect("a script");
        let rebuilt =
            Command::new("dpkg-deb").args(["-Znone", "--build"]).arg(&bad_tree).arg(&bad).output();
        assert!(rebuilt.expect("dpkg-deb").status.success());
        let failed = place.dpkg(&["--install"], Some(&bad));
        assert!(!failed.status.success(), "{failed:?}");
        let said = String::from_utf8_lossy(&failed.stderr).into_owned();
        assert!(said.contains("web: the new version does not serve"), "{said}");
        assert_eq!(place.state(), "install ok half-configured 3");
        prober.wait_more(3);
        assert_eq!(prober.seen().pids(), [one, two]);

        // One that fails in its probation: the same.
        let next = version("4");
        fs::write(&ill, "").expect("a file");
        let failed = place.dpkg(&["--install"], Some(&version("3.1")));
        assert!(!failed.status.success(), "{failed:?}");
        assert_eq!(place.state(), "install ok half-configured 3.1");
        assert_eq!(site.named(), Some(two), "it serves again");

        // The next one starts, although the one before still waits for another try.
        fs::remove_file(&ill).expect("the file");
        place.install(&next);
        let four = site.named().expect("a PID");
        assert!(runs(four, &program));
        prober.wait_pid(four);
        assert_eq!(place.state(), "install ok installed 4");
        let probes = prober.stop();
        probes.assert_all_answered();
        let mut pids = probes.pids();
        pids.retain(|pid| [one, two, four].contains(pid)); // the one between them may have answered
        assert_eq!(pids, [one, two, four]);

        // It is not removed below a service that its supervisor would start again.
        scene::wait_let_go(two);
        let refused = place.dpkg(&["--remove", "web"], None);
        assert!(!refused.status.success(), "{refused:?}");
        assert!(String::from_utf8_lossy(&refused.stderr).contains("svc -d"), "{refused:?}");
        assert_eq!(http::pid(&site.target), four);
        site.stop();
        let removed = place.dpkg(&["--remove", "web"], None);
        assert!(removed.status.success(), "{removed:?}");
        assert!(!program.exists());
    });
}
