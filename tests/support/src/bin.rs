//! The programs that tests start, next to the test's own target folder.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

/// Set where everything has been built: by `scripts/test`, and for what runs in a box.
pub const BUILT: &str = "SEAMLESS_TEST_BUILT";

/// The test service, `src/bin/probe.rs`.
pub fn probe() -> PathBuf {
    support("probe")
}

/// A run script for the probe, with `web.pid` and `report` in this folder and further options.
pub fn probe_script(folder: &Path, options: &str) -> String {
    let (probe, folder) = (probe(), folder.display());
    let probe = probe.display();
    format!(
        "exec 2>&1\nexec '{probe}' --pid-file='{folder}/web.pid' --report='{folder}/report' {options}"
    )
}

/// A program of this crate.
pub fn support(name: &str) -> PathBuf {
    program(&folder().join(name))
}

/// An example of the crate.
pub fn example(name: &str) -> PathBuf {
    program(&folder().join("examples").join(name))
}

/// What `scripts/setup` has put beside the builds.
pub fn cache(name: &str) -> PathBuf {
    folder().parent().expect("the target folder").join(name)
}

/// The top of the source tree.
pub fn root() -> &'static Path {
    let support = Path::new(env!("CARGO_MANIFEST_DIR"));
    support.ancestors().nth(2).expect("tests/support")
}

/// Builds all programs, once in a process.
pub fn build() {
    static DONE: OnceLock<()> = OnceLock::new();
    DONE.get_or_init(|| {
        if env::var_os(BUILT).is_some_and(|value| value == "1") {
            return;
        }
        let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut build = Command::new(cargo);
        build.current_dir(root()).args(["build", "--quiet", "--workspace", "--all-features"]);
        build.args(["--bins", "--examples"]);
        match folder().file_name().and_then(|profile| profile.to_str()) {
            None | Some("debug") => {}
            Some(profile) => {
                build.args(["--profile", profile]);
            }
        }
        let status = build.status().expect("cargo starts");
        assert!(status.success(), "cargo build: {status}");
    });
}

fn program(path: &Path) -> PathBuf {
    build();
    assert!(path.is_file(), "{} has not been built", path.display());
    path.to_owned()
}

/// `target/debug` or what else the running program was built into.
fn folder() -> PathBuf {
    let own = env::current_exe().expect("the path of the running program");
    let mut folder = own.parent().expect("a folder");
    if folder.ends_with("deps") || folder.ends_with("examples") {
        folder = folder.parent().expect("a folder above");
    }
    folder.to_owned()
}
