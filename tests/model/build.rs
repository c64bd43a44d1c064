//! Sets the `cfg` under which `src/proto` is walked, and can be broken.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-cfg=model");
}
