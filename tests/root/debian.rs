//! The Debian package that `scripts/deb` builds, installed into a folder.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use seamless_testing::bin;

use super::by_root;

fn output(command: &mut Command) -> Output {
    command.output().unwrap_or_else(|error| panic!("{command:?}: {error}; run scripts/setup"))
}

/// What it printed; it must succeed.
#[track_caller]
fn run(command: &mut Command) -> String {
    let output = output(command);
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}\n{complaint}", output.status);
    String::from_utf8(output.stdout).expect("text")
}

fn build(folder: &Path) -> PathBuf {
    let mut script = Command::new(bin::root().join("scripts/deb"));
    script.arg("--program").arg(bin::support("seamless")).arg("--output").arg(folder);
    script.envs([("DEBFULLNAME", "A Maintainer"), ("DEBEMAIL", "maintainer@debian.org")]);
    PathBuf::from(run(&mut script).trim_end())
}

#[test]
fn the_package_installs_the_command_its_page_and_the_samples() {
    by_root(|folder| {
        let package = build(folder);
        let root = folder.join("root");
        for place in ["var/lib/dpkg/info", "var/lib/dpkg/updates"] {
            fs::create_dir_all(root.join(place)).expect("a folder");
        }
        fs::write(root.join("var/lib/dpkg/status"), "").expect("an empty list of packages");
        let dpkg = |args: &[&str]| {
            let mut dpkg = Command::new("dpkg");
            // The libc of the new root would be another package.
            dpkg.arg(format!("--root={}", root.display())).arg("--force-depends");
            dpkg.args(["--log=/dev/null"]).args(args);
            dpkg
        };
        run(&mut dpkg(&["--install", package.to_str().expect("a path")]));
        let listed = run(&mut dpkg(&["--listfiles", "seamless-restart"]));

        let seamless = root.join("usr/bin/seamless");
        let help = run(Command::new(&seamless).arg("--help"));
        assert!(help.starts_with("seamless: "), "{help}");
        let pid_file = folder.join("web.pid");
        let status = output(Command::new(&seamless).arg("status").arg(&pid_file));
        assert_eq!(status.status.code(), Some(3), "nobody serves: {status:?}");

        let share = root.join("usr/share");
        let page = run(Command::new("gzip").arg("-dc").arg(share.join("man/man1/seamless.1.gz")));
        assert_eq!(page, run(Command::new(&seamless).arg("--man")));
        for (shell, file) in [
            ("bash", "bash-completion/completions/seamless"),
            ("zsh", "zsh/vendor-completions/_seamless"),
            ("fish", "fish/vendor_completions.d/seamless.fish"),
        ] {
            let installed = fs::read_to_string(share.join(file)).expect(file);
            let printed = run(Command::new(&seamless).args(["--completions", shell]));
            assert_eq!(installed, printed, "{file}");
        }
        let samples = bin::root().join("examples/service");
        let installed = share.join("doc/seamless-restart/examples/service");
        for kind in fs::read_dir(&samples).expect("the samples") {
            let kind = kind.expect("an entry").file_name();
            assert!(installed.join(&kind).is_dir(), "{kind:?}");
        }
        let run_script = installed.join("runit/web/run");
        assert_eq!(fs::metadata(&run_script).expect("run").permissions().mode() & 0o777, 0o755);

        run(&mut dpkg(&["--purge", "seamless-restart"]));
        for file in listed.lines().filter(|file| file.len() > 2) {
            let file = root.join(file.trim_start_matches('/'));
            assert!(!file.is_file(), "{}", file.display());
        }
    });
}

#[test]
fn lintian_finds_nothing_in_the_package() {
    by_root(|folder| {
        let package = build(folder);
        let mut lintian = Command::new("lintian");
        lintian.args(["--allow-root", "--fail-on", "error,warning"]).arg(&package);
        let output = output(lintian.env("TMPDIR", folder));
        let found = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{found}{}", String::from_utf8_lossy(&output.stderr));
        assert!(!found.lines().any(|line| line.starts_with(['E', 'W'])), "{found}");
    });
}
