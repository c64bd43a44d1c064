//! The guide's walk through a restart, run as it stands there.

use std::{fs, process::Command};

use seamless_testing::{bin, boxed::Boxed};

#[test]
fn p3_the_walk_through_of_the_guide() {
    Boxed::new().private_net().run(|folder| {
        let repository = env!("CARGO_MANIFEST_DIR");
        let page = format!("{repository}/src/guide/deploying.md");
        let page = fs::read_to_string(page).expect("the page");
        let (_, block) =
            page.split_once("```sh\ncargo build --example threads\n").expect("the walk through");
        let (block, _) = block.split_once("```").expect("the block's end");
        let built = bin::example("threads").display().to_string();
        let script = block.replace("$PWD/target/debug/examples/threads", &built);
        assert_ne!(script, block, "it runs what was built");

        let run = Command::new("bash")
            .args(["-euo", "pipefail", "-c", &script])
            .current_dir(repository)
            .env("TMPDIR", folder)
            .output()
            .expect("bash");
        println!("{}", String::from_utf8_lossy(&run.stderr));
        let output = String::from_utf8(run.stdout).expect("text");
        println!("{output}");
        assert!(run.status.success(), "{}", run.status);

        let answers: Vec<&str> =
            output.lines().filter_map(|line| line.strip_prefix("Server pid: ")).collect();
        let [first, new, in_flight] = answers[..] else { panic!("three answers: {answers:?}") };
        assert_ne!(first, new, "the new one answers new requests");
        assert_eq!(first, in_flight, "the old one answers what it had accepted");
    });
}
